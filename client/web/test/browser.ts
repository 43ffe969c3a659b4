// The suite and the driver for a page: whoever drives the browser calls these.
import type { ClientOptions } from "edbjobs";

import { lines } from "./driver.js";
import { CASES } from "./suite.js";
import type { Service } from "./suite.js";

export { EdbJobsClient } from "edbjobs";

export const names = Object.keys(CASES);

/** Runs one case; gives what went wrong. */
export async function run(name: string, service: Service): Promise<string> {
  try {
    await CASES[name]!(service);
    return "";
  } catch (error) {
    return String((error as Error).stack);
  }
}

let answers: AsyncGenerator<string>;

/** Begins a call of the table; `next` gives its lines. */
export function call(options: ClientOptions, text: string): void {
  answers = lines(options, text);
}

export async function next(): Promise<string | undefined> {
  const { value } = await answers.next();
  return value as string | undefined;
}
