import { EdbJobsError, mayPass } from "./errors.js";
import { sleep, throwIfAborted } from "./sleep.js";

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 2000;

/** How long to try again while the service is away, for example while it is restarted. */
export class Patience {
  #since: number | undefined;
  #delay = FIRST_DELAY_MS;

  constructor(
    private readonly limitMs: number,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** Notes that the service answered. */
  success(): void {
    this.#since = undefined;
    this.#delay = FIRST_DELAY_MS;
  }

  /** Waits for the next try, or throws the error. */
  async next(thrown: unknown): Promise<void> {
    const error = EdbJobsError.from(thrown);
    throwIfAborted(this.signal);
    const now = performance.now();
    this.#since ??= now;
    if (!mayPass(error) || now - this.#since >= this.limitMs) throw error;
    await sleep(this.#delay, this.signal);
    this.#delay = Math.min(2 * this.#delay, LONGEST_DELAY_MS);
  }
}

/** Runs a stream whose call ends when nobody reads it any more. */
export async function* reading<T>(
  open: (signal: AbortSignal) => AsyncIterable<T>,
  signal: AbortSignal | undefined,
): AsyncGenerator<T> {
  const ended = new AbortController();
  const both = signal ? AbortSignal.any([signal, ended.signal]) : ended.signal;
  try {
    yield* open(both);
  } finally {
    ended.abort();
  }
}
