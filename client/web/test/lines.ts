// The driver as a program: a call per line of standard input, answers as lines of standard output.
import { createInterface } from "node:readline";

import type { ClientOptions } from "edbjobs";
import { makeTransport, resolveTarget } from "edbjobs/node";

import { lines } from "./driver.js";

const url = process.env["EDBJOBS_TEST_URL"];
const options: ClientOptions = url ? { baseUrl: url } : { transport: makeTransport(resolveTarget().address) };
for await (const line of createInterface({ input: process.stdin })) {
  for await (const answer of lines(options, line)) process.stdout.write(`${answer}\n`);
}
process.exit(); // Connect keeps the timer of a stream that was left before its deadline
