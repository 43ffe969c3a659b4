import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import type { CallOptions, Client, Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { EdbJobsError } from "./errors.js";
import type { ClusterJob, Partition, Solver } from "./gen/edbjobs/v1/cluster_pb.js";
import { Cluster } from "./gen/edbjobs/v1/cluster_service_pb.js";
import type { GetSystemStatusResponse } from "./gen/edbjobs/v1/cluster_service_pb.js";
import type { Event } from "./gen/edbjobs/v1/event_pb.js";
import type { Job } from "./gen/edbjobs/v1/job_pb.js";
import { LogStream, SubmitJobRequestSchema } from "./gen/edbjobs/v1/jobs_messages_pb.js";
import type { JobFilterSchema, PreviewJobResponse, SubmitJobRequest } from "./gen/edbjobs/v1/jobs_messages_pb.js";
import { Jobs } from "./gen/edbjobs/v1/jobs_service_pb.js";
import { LimitsSchema } from "./gen/edbjobs/v1/resource_pb.js";
import type { Limits, QueueStatus, ResourceSnapshot } from "./gen/edbjobs/v1/resource_pb.js";
import { Resources } from "./gen/edbjobs/v1/resources_service_pb.js";
import type { WatchResourcesResponse } from "./gen/edbjobs/v1/resources_service_pb.js";
import { Patience, reading, WatchCursor } from "./streams.js";
import type { WatchOptions } from "./streams.js";

/** Which jobs; every set field must agree, an empty filter finds all. */
export type Filter = MessageInitShape<typeof JobFilterSchema>;
/** A submit; `requestId` is made if absent, so that sending it again never makes a second job. */
export type Submit = MessageInitShape<typeof SubmitJobRequestSchema>;

/** Where the service is and how long to wait for it. */
export interface ClientOptions {
  /** Base URL of the service's HTTP endpoint; default: the origin of the page. */
  baseUrl?: string;
  /** Sent with every call. A page of the service itself needs none: its session's cookie goes along. */
  token?: string;
  /** Longest time of one call; default 30 s. */
  timeoutMs?: number;
  /** How long `watch`, `logs` and `wait` try again while the service is away; default 5 minutes. */
  patienceMs?: number;
  /** Used instead of gRPC-Web to `baseUrl`. */
  transport?: Transport;
}

/** Of one call. */
export interface Options {
  /** Ends the call when it is aborted. */
  signal?: AbortSignal;
  /** Instead of the client's. */
  timeoutMs?: number;
}

/** What became of one item of `submitMany`. */
export interface SubmitResult {
  job?: Job;
  error?: EdbJobsError;
  /** The job was there already. */
  existed: boolean;
}

/** Jobs and the revision they stand for: `watch` goes on from there. */
export interface Snapshot {
  jobs: Job[];
  revision: bigint;
  storeId: string;
}

/** Bytes of an output. */
export interface LogPiece {
  data: Uint8Array;
  /** Offset of the first of them. */
  offset: bigint;
  attempt: number;
}

/** Which output of a run. */
export interface LogOptions extends Options {
  /** Default: standard output. */
  stream?: LogStream;
  /** 0, the default: the last. */
  attempt?: number;
  /** First byte; negative: counted back from the present end. */
  offset?: bigint;
  /** Stay until the attempt has ended. */
  follow?: boolean;
}

const TIMEOUT_MS = 30_000;
const PATIENCE_MS = 300_000;
const WAIT_STEP_MS = 30_000;

/**
 * A client of one service. `name` in a method is a uid, or an id, which addresses the newest job that bears it.
 * Every method throws `EdbJobsError`.
 */
export class EdbJobsClient {
  /** What carries the calls; for `createClient` of Connect with the generated services. */
  readonly transport: Transport;
  readonly #jobs: Client<typeof Jobs>;
  readonly #resources: Client<typeof Resources>;
  readonly #cluster: Client<typeof Cluster>;
  readonly #headers: Record<string, string>;
  readonly #timeoutMs: number;
  readonly #patienceMs: number;

  constructor(options: ClientOptions = {}) {
    const baseUrl = options.baseUrl ?? globalThis.location?.origin;
    if (!options.transport && !baseUrl) {
      throw new EdbJobsError("outside of a page, give the service's address as baseUrl", Code.InvalidArgument, "NO_ADDRESS");
    }
    this.transport = options.transport ?? createGrpcWebTransport({ baseUrl: baseUrl ?? "" });
    this.#jobs = createClient(Jobs, this.transport);
    this.#resources = createClient(Resources, this.transport);
    this.#cluster = createClient(Cluster, this.transport);
    this.#headers = options.token ? { authorization: `Bearer ${options.token}` } : {};
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#patienceMs = options.patienceMs ?? PATIENCE_MS;
  }

  // Jobs ------------------------------------------------------------------------------------------------------

  /** Submits a job; when this resolves, the job is on the service's disk. */
  async submit(request: Submit, options?: Options): Promise<Job> {
    const answer = await this.#call(options, (call) => this.#jobs.submitJob(repeatable(request), call));
    return answer.job!;
  }

  /** Submits up to 1,000 jobs in one transaction; each gets its job or its own error, in the order given. */
  async submitMany(requests: Submit[], options?: Options): Promise<SubmitResult[]> {
    const all = { requests: requests.map(repeatable) };
    const answer = await this.#call(options, (call) => this.#jobs.submitJobs(all, call));
    return answer.results.map(({ result, existed }) =>
      result.case === "error"
        ? { error: EdbJobsError.ofStatus(result.value), existed }
        : { job: result.value!, existed },
    );
  }

  /** Tells the exact command line or batch script of a submit; nothing is run or recorded. */
  preview(request: Submit, options?: Options): Promise<PreviewJobResponse> {
    return this.#call(options, (call) => this.#jobs.previewJob({ request: repeatable(request) }, call));
  }

  /** Tells how a job is. */
  async get(name: string, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.getJob({ name }, call))).job!;
  }

  /** Gives the jobs a filter finds, oldest first unless asked otherwise; pages are fetched as they are needed. */
  async *list(
    filter: Filter = {},
    options: Options & { newestFirst?: boolean; omitConfig?: boolean } = {},
  ): AsyncGenerator<Job> {
    const { newestFirst = false, omitConfig = false } = options;
    let pageToken = "";
    do {
      const request = { filter, pageToken, newestFirst, omitConfig };
      const page = await this.#call(options, (call) => this.#jobs.listJobs(request, call));
      yield* page.jobs;
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /** Gives the jobs a filter finds and the revision they stand for. */
  async snapshot(filter: Filter = {}, options?: Options): Promise<Snapshot> {
    const first = await this.#call(options, (call) => this.#jobs.listJobs({ filter }, call));
    const jobs = [...first.jobs];
    for (let pageToken = first.nextPageToken; pageToken; ) {
      const page = await this.#call(options, (call) => this.#jobs.listJobs({ filter, pageToken }, call));
      jobs.push(...page.jobs);
      pageToken = page.nextPageToken;
    }
    return { jobs, revision: first.revision, storeId: first.storeId };
  }

  /**
   * Cancels a job: resolves at once; it is CANCELLED when none of its processes is left. `graceMs` is the time
   * between TERM and KILL, else the job's own; `abandon` ends the record of a job that waits UNKILLABLE.
   */
  async cancel(name: string, options: Options & { graceMs?: number; abandon?: boolean } = {}): Promise<Job> {
    const request = { name, abandon: options.abandon ?? false, ...grace(options.graceMs) };
    return (await this.#call(options, (call) => this.#jobs.cancelJob(request, call))).job!;
  }

  /** Cancels all live jobs a filter finds, an empty filter only with `all`; gives their uids. */
  async cancelMany(filter: Filter, options: Options & { all?: boolean; graceMs?: number } = {}): Promise<string[]> {
    const request = { filter, all: options.all ?? false, ...grace(options.graceMs) };
    return (await this.#call(options, (call) => this.#jobs.cancelJobs(request, call))).uids;
  }

  /** Keeps a waiting job from starting. */
  async hold(name: string, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.holdJob({ name }, call))).job!;
  }

  /** Lets a held job start. */
  async release(name: string, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.releaseJob({ name }, call))).job!;
  }

  /** Changes the priority of a waiting job. */
  async setPriority(name: string, priority: number, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.setJobPriority({ name, priority }, call))).job!;
  }

  /** Makes a new job of the same id from an ended one. */
  async retry(name: string, options?: Options): Promise<Job> {
    const request = { name, requestId: requestId() };
    return (await this.#call(options, (call) => this.#jobs.retryJob(request, call))).job!;
  }

  /** Removes the record of an ended job and its run folders; never projects or results. */
  async delete(name: string, options?: Options): Promise<void> {
    await this.#call(options, (call) => this.#jobs.deleteJob({ name }, call));
  }

  /**
   * Waits until a job has ended, however it ended. The service may be restarted meanwhile. After `timeoutMs`
   * throws WAIT_TIMEOUT; by default it takes as long as it takes.
   */
  async wait(name: string, options: Options = {}): Promise<Job> {
    const end = performance.now() + (options.timeoutMs ?? Infinity);
    const patience = new Patience(this.#patienceMs, options.signal);
    for (;;) {
      const step = Math.max(0, Math.min(WAIT_STEP_MS, end - performance.now()));
      const request = { name, timeout: durationFromMs(Math.round(step)) };
      try {
        const call = { ...options, timeoutMs: step + this.#timeoutMs };
        const { job, ended } = await this.#call(call, (more) => this.#jobs.waitJob(request, more));
        patience.success();
        if (ended) return job!;
        // The id may be used again once the job has ended; the uid is this job for ever.
        name = job!.uid;
      } catch (error) {
        await patience.next(error);
      }
      if (performance.now() >= end) {
        throw new EdbJobsError(`job ${name} has not ended in the given time`, Code.DeadlineExceeded, "WAIT_TIMEOUT");
      }
    }
  }

  /**
   * Gives every change as it happens, each once and in order, across breaks of the connection. An OUT_OF_RANGE
   * error (REVISION_TOO_OLD, REVISION_IN_FUTURE, OTHER_STORE) means: take a `snapshot` and begin again.
   */
  async *watch(options: WatchOptions & { signal?: AbortSignal } = {}): AsyncGenerator<Event> {
    const cursor = new WatchCursor(options);
    const patience = new Patience(this.#patienceMs, options.signal);
    for (;;) {
      try {
        const open = (signal: AbortSignal) => this.#jobs.watchJobs(cursor.request(), this.#streaming(signal));
        for await (const message of reading(open, options.signal)) {
          patience.success();
          yield* cursor.accept(message);
        }
      } catch (error) {
        await patience.next(error);
      }
    }
  }

  /** Gives the output of a run in pieces of at most 64 KiB, across breaks of the connection. */
  async *logs(name: string, options: LogOptions = {}): AsyncGenerator<LogPiece> {
    const patience = new Patience(this.#patienceMs, options.signal);
    let { attempt = 0, offset = 0n } = options;
    const { stream = LogStream.STDOUT, follow = false } = options;
    for (;;) {
      try {
        const request = { name, stream, attempt, offset, follow };
        const open = (signal: AbortSignal) => this.#jobs.tailLog(request, this.#streaming(signal));
        for await (const message of reading(open, options.signal)) {
          patience.success();
          // Kept from the first message on: after a break "the last attempt" may be another one.
          attempt = message.attempt || attempt;
          offset = message.offset + BigInt(message.data.length);
          yield { data: message.data, offset: message.offset, attempt: message.attempt };
          if (message.eof) return;
        }
        return;
      } catch (error) {
        await patience.next(error);
      }
    }
  }

  /** The same as text; what is not UTF-8 becomes U+FFFD. */
  async *logText(name: string, options: LogOptions = {}): AsyncGenerator<string> {
    const decoder = new TextDecoder();
    for await (const piece of this.logs(name, options)) {
      const text = decoder.decode(piece.data, { stream: true });
      if (text) yield text;
    }
    const rest = decoder.decode();
    if (rest) yield rest;
  }

  // Host, queue and limits ------------------------------------------------------------------------------------

  /** Tells how the service's host is. */
  async resources(options?: Options): Promise<ResourceSnapshot> {
    return (await this.#call(options, (call) => this.#resources.getResources({}, call))).resources!;
  }

  /** Gives host and queue now and then every `intervalMs`, at least and by default 1 s. */
  async *watchResources(intervalMs = 1000, options: Options = {}): AsyncGenerator<WatchResourcesResponse> {
    const request = { interval: durationFromMs(intervalMs) };
    const open = (signal: AbortSignal) => this.#resources.watchResources(request, this.#streaming(signal));
    try {
      yield* reading(open, options.signal);
    } catch (error) {
      throw EdbJobsError.from(error);
    }
  }

  /** Tells how the queue is. */
  async queue(options?: Options): Promise<QueueStatus> {
    return (await this.#call(options, (call) => this.#resources.getQueue({}, call))).queue!;
  }

  /** Starts no more jobs. */
  async pauseQueue(options?: Options): Promise<QueueStatus> {
    return (await this.#call(options, (call) => this.#resources.pauseQueue({}, call))).queue!;
  }

  /** Starts jobs again. */
  async resumeQueue(options?: Options): Promise<QueueStatus> {
    return (await this.#call(options, (call) => this.#resources.resumeQueue({}, call))).queue!;
  }

  /** Tells the limits. */
  async limits(options?: Options): Promise<Limits> {
    return (await this.#call(options, (call) => this.#resources.getLimits({}, call))).limits!;
  }

  /** Changes the named limits, all or none; gives the limits now in force. */
  async updateLimits(limits: MessageInitShape<typeof LimitsSchema>, options?: Options): Promise<Limits> {
    const named = LimitsSchema.fields.filter((field) => field.localName in limits);
    const request = { limits, updateMask: { paths: named.map((field) => field.name) } };
    return (await this.#call(options, (call) => this.#resources.updateLimits(request, call))).limits!;
  }

  // The service itself ----------------------------------------------------------------------------------------

  /** Tells what the service is and whether its parts answer. */
  status(options?: Options): Promise<GetSystemStatusResponse> {
    return this.#call(options, (call) => this.#cluster.getSystemStatus({}, call));
  }

  /** Gives the installed solvers, newest first. */
  async solvers(options?: Options): Promise<Solver[]> {
    return (await this.#call(options, (call) => this.#cluster.listSolvers({}, call))).solvers;
  }

  /** Gives the partitions or queues of a scheduler; empty: the detected one. */
  async partitions(scheduler = "", options?: Options): Promise<Partition[]> {
    return (await this.#call(options, (call) => this.#cluster.listPartitions({ scheduler }, call))).partitions;
  }

  /** Gives the jobs of a cluster, this service's and others'. */
  async clusterJobs(
    filter: { scheduler?: string; partition?: string; user?: string } = {},
    options?: Options,
  ): Promise<ClusterJob[]> {
    return (await this.#call(options, (call) => this.#cluster.listClusterJobs(filter, call))).jobs;
  }

  async #call<T>(options: Options | undefined, make: (call: CallOptions) => Promise<T>): Promise<T> {
    const timeoutMs = Math.max(1, Math.ceil(options?.timeoutMs ?? this.#timeoutMs)); // gRPC has whole ones only
    const signal = options?.signal && { signal: options.signal };
    try {
      return await make({ headers: this.#headers, timeoutMs, ...signal });
    } catch (error) {
      throw EdbJobsError.from(error);
    }
  }

  #streaming(signal: AbortSignal): CallOptions {
    return { headers: this.#headers, signal };
  }
}

function grace(ms: number | undefined) {
  return ms === undefined ? {} : { grace: durationFromMs(ms) };
}

function repeatable(given: Submit): SubmitJobRequest {
  const request = create(SubmitJobRequestSchema, given);
  request.requestId ||= requestId();
  return request;
}

function requestId(): string {
  // Not randomUUID: pages that did not come over TLS have none.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
