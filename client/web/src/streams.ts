import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";

import { EdbJobsError, mayPass } from "./errors.js";
import { WatchJobsRequestSchema } from "./gen/edbjobs/v1/jobs_messages_pb.js";
import type { JobFilterSchema, WatchJobsRequest, WatchJobsResponse } from "./gen/edbjobs/v1/jobs_messages_pb.js";
import type { Event } from "./gen/edbjobs/v1/event_pb.js";

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

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new EdbJobsError("the caller ended it", Code.Canceled, "ABORTED", {}, {}, { cause: signal.reason });
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
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

/** What a watch is asked for. */
export interface WatchOptions {
  /** Begin after this revision; 0n: with the oldest on record; absent: with what is new. */
  afterRevision?: bigint;
  /** Store the revision belongs to; absent: not checked. */
  storeId?: string;
  /** Which jobs; absent: all. */
  filter?: MessageInitShape<typeof JobFilterSchema>;
  /** Also changes of limits and queue, and gates. */
  serviceEvents?: boolean;
}

/** Position in the log of revisions: every event once, in order, across any number of connections. */
export class WatchCursor {
  #revision: bigint | undefined;
  #storeId: string;

  constructor(private readonly options: WatchOptions) {
    this.#revision = options.afterRevision;
    this.#storeId = options.storeId ?? "";
  }

  /** Asks for what comes after the last revision that is known to be sent. */
  request(): WatchJobsRequest {
    const { filter, serviceEvents } = this.options;
    return create(WatchJobsRequestSchema, {
      storeId: this.#storeId,
      includeServiceEvents: serviceEvents ?? false,
      ...(this.#revision !== undefined && { afterRevision: this.#revision }),
      ...(filter !== undefined && { filter }),
    });
  }

  /** Takes one message and gives the events that are new. */
  *accept(message: WatchJobsResponse): Generator<Event> {
    this.#storeId = message.storeId || this.#storeId;
    for (const event of message.events) {
      if (this.#revision !== undefined && event.revision <= this.#revision) continue;
      this.#revision = event.revision;
      yield event;
    }
    if (this.#revision === undefined || message.revision > this.#revision) this.#revision = message.revision;
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
