import { durationFromMs } from "@bufbuild/protobuf/wkt";

import type { JobName } from "./options.js";

/** Makes the JobRef of a job; a Job has a uid and an id, a JobRef one of them. */
export function ref(name: JobName): { uid: string } | { id: string } {
  return "uid" in name && name.uid ? { uid: name.uid } : { id: (name as { id: string }).id };
}

/** Makes the field of a grace period; absent: the job's own. */
export function grace(ms: number | undefined) {
  return ms === undefined ? {} : { gracePeriod: durationFromMs(ms) };
}

/** Reads page by page. */
export async function* pages<Page extends { nextPageToken: string }>(
  read: (pageToken: string) => Promise<Page>,
): AsyncGenerator<Page> {
  let token = "";
  do {
    const page = await read(token);
    yield page;
    token = page.nextPageToken;
  } while (token);
}

/** Waits for all items. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}
