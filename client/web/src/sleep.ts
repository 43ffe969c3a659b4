import { Code } from "@connectrpc/connect";

import { EdbJobsError } from "./errors.js";

/** Throws ABORTED if the caller ended the call. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new EdbJobsError("the caller ended it", Code.Canceled, "ABORTED", {}, {}, { cause: signal.reason });
}

/** Waits, or throws ABORTED as soon as the caller ends the call. */
export function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      try {
        throwIfAborted(signal);
        resolve();
      } catch (error) {
        reject(error);
      }
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}
