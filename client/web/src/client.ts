import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import type { CallOptions, Client, Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { EdbJobsError } from "./errors.js";
import type { Solver } from "./gen/edbjobs/v1/cluster_pb.js";
import { ClusterService } from "./gen/edbjobs/v1/cluster_service_pb.js";
import type { GetSystemStatusResponse } from "./gen/edbjobs/v1/cluster_service_pb.js";
import { JobView } from "./gen/edbjobs/v1/job_pb.js";
import type { Job } from "./gen/edbjobs/v1/job_pb.js";
import { JobOrder, LogStream, WatchJobsRequestSchema } from "./gen/edbjobs/v1/jobs_messages_pb.js";
import type { ListJobsResponse, PreviewJobResponse, WatchJobsResponse } from "./gen/edbjobs/v1/jobs_messages_pb.js";
import { JobsService } from "./gen/edbjobs/v1/jobs_service_pb.js";
import type { HostResources, Limits, LimitsSchema, QueueStatus } from "./gen/edbjobs/v1/resource_pb.js";
import { ResourcesService } from "./gen/edbjobs/v1/resources_service_pb.js";
import type { WatchResourcesResponse } from "./gen/edbjobs/v1/resources_service_pb.js";
import type {
  ClientOptions,
  ClusterJobs,
  Filter,
  JobName,
  ListOptions,
  LogOptions,
  LogPiece,
  ManyResult,
  Options,
  Partitions,
  RemovedLimits,
  Snapshot,
  Submit,
  SubmitResult,
  WatchOptions,
} from "./options.js";
import { repeating } from "./repeat.js";
import { collect, grace, pages, ref } from "./requests.js";
import { Patience, reading } from "./streams.js";

const TIMEOUT_MS = 30_000;
const PATIENCE_MS = 300_000;
const WAIT_STEP_MS = 30_000;

/**
 * A client of one service. Every method throws `EdbJobsError`. Unary calls are sent again while the service is unreachable
 * for a moment, submits and retries with the same request_id.
 */
export class EdbJobsClient {
  /** What carries the calls; for `createClient` of Connect with the generated services. */
  readonly transport: Transport;
  readonly #jobs: Client<typeof JobsService>;
  readonly #resources: Client<typeof ResourcesService>;
  readonly #cluster: Client<typeof ClusterService>;
  readonly #headers: Record<string, string>;
  readonly #timeoutMs: number;
  readonly #patienceMs: number;

  constructor(options: ClientOptions = {}) {
    const baseUrl = options.baseUrl ?? globalThis.location?.origin;
    if (!options.transport && !baseUrl) {
      throw new EdbJobsError("outside of a page, give the service's address as baseUrl", Code.InvalidArgument, "NO_ADDRESS");
    }
    this.transport = repeating(options.transport ?? createGrpcWebTransport({ baseUrl: baseUrl ?? "" }));
    this.#jobs = createClient(JobsService, this.transport);
    this.#resources = createClient(ResourcesService, this.transport);
    this.#cluster = createClient(ClusterService, this.transport);
    this.#headers = options.token ? { authorization: `Bearer ${options.token}` } : {};
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#patienceMs = options.patienceMs ?? PATIENCE_MS;
  }

  // Jobs ------------------------------------------------------------------------------------------------------

  /** Submits a job; when this resolves, the job is on the service's disk. */
  async submit(request: Submit, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.submitJob(request, call))).job!;
  }

  /** Submits up to 1,000 jobs in one transaction; each gets its job or its own error, in the order given. */
  async submitMany(requests: Submit[], options?: Options): Promise<SubmitResult[]> {
    const answer = await this.#call(options, (call) => this.#jobs.submitJobs({ requests }, call));
    return answer.results.map(({ result }) =>
      result.case === "error"
        ? { error: EdbJobsError.ofStatus(result.value), existed: false }
        : { job: result.value!.job!, existed: result.value!.existed },
    );
  }

  /** Gives the exact command line or batch script of a submit; nothing is run or recorded. */
  preview(request: Submit, options?: Options): Promise<PreviewJobResponse> {
    return this.#call(options, (call) => this.#jobs.previewJob({ request }, call));
  }

  /** Gives one job. */
  async get(name: JobName, options: Options & { view?: JobView } = {}): Promise<Job> {
    const request = { job: ref(name), view: options.view ?? JobView.UNSPECIFIED };
    return (await this.#call(options, (call) => this.#jobs.getJob(request, call))).job!;
  }

  /** Gives the jobs that a filter selects; pages are fetched as they are needed. */
  async *list(filter: Filter = {}, options: ListOptions = {}): AsyncGenerator<Job> {
    for await (const page of this.#pages(filter, options)) yield* page.jobs;
  }

  /** Gives the jobs that a filter selects, and where a watch begins that misses nothing. */
  async snapshot(filter: Filter = {}, options: ListOptions = {}): Promise<Snapshot> {
    const found = await collect(this.#pages(filter, options));
    return { jobs: found.flatMap((page) => page.jobs), position: found[0]!.position! };
  }

  /**
   * Cancels a job: resolves at once; it is CANCELLED when none of its processes is left. `graceMs` is the time
   * between the request to stop and the forced end, else the job's own; `abandon` ends the record of a job that waits
   * UNKILLABLE.
   */
  async cancel(name: JobName, options: Options & { graceMs?: number; abandon?: boolean } = {}): Promise<Job> {
    const request = { job: ref(name), abandon: options.abandon ?? false, ...grace(options.graceMs) };
    return (await this.#call(options, (call) => this.#jobs.cancelJob(request, call))).job!;
  }

  /**
   * Cancels the jobs that a filter selects, the oldest 1,000, an empty filter only with `all`. `more` in the answer:
   * call again.
   */
  async cancelMany(
    filter: Filter,
    options: Options & { all?: boolean; graceMs?: number } = {},
  ): Promise<{ results: ManyResult[]; more: boolean }> {
    const request = { filter, all: options.all ?? false, ...grace(options.graceMs) };
    const { results, more } = await this.#call(options, (call) => this.#jobs.cancelJobs(request, call));
    return {
      results: results.map(({ job, result }) =>
        result.case === "error"
          ? { name: job, error: EdbJobsError.ofStatus(result.value) }
          : { name: job, job: result.value! },
      ),
      more,
    };
  }

  /** Keeps a queued job from starting. */
  async hold(name: JobName, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.holdJob({ job: ref(name) }, call))).job!;
  }

  /** Lets a held job start. */
  async release(name: JobName, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.releaseJob({ job: ref(name) }, call))).job!;
  }

  /** Changes the priority of a queued job. */
  async setPriority(name: JobName, priority: number, options?: Options): Promise<Job> {
    const request = { job: ref(name), priority };
    return (await this.#call(options, (call) => this.#jobs.setJobPriority(request, call))).job!;
  }

  /** Makes a new job with the same id from an ended one, which it supersedes. */
  async retry(name: JobName, options?: Options): Promise<Job> {
    return (await this.#call(options, (call) => this.#jobs.retryJob({ job: ref(name) }, call))).job!;
  }

  /** Deletes the record of an ended job, those that it superseded, and their run folders; never projects or results. */
  async delete(name: { readonly uid: string }, options?: Options): Promise<void> {
    await this.#call(options, (call) => this.#jobs.deleteJob({ job: { uid: name.uid } }, call));
  }

  /**
   * Waits until a job has ended, however it ended. The service may be restarted meanwhile. After `timeoutMs`
   * throws WAIT_TIMEOUT; by default it takes as long as it takes.
   */
  async wait(name: JobName, options: Options = {}): Promise<Job> {
    const end = performance.now() + (options.timeoutMs ?? Infinity);
    const patience = new Patience(this.#patienceMs, options.signal);
    for (let wanted = ref(name); ; ) {
      const step = Math.max(0, Math.min(WAIT_STEP_MS, end - performance.now()));
      const request = { job: wanted, timeout: durationFromMs(Math.round(step)) };
      try {
        const call = { ...options, timeoutMs: step + this.#timeoutMs };
        const { job } = await this.#call(call, (more) => this.#jobs.waitJob(request, more));
        patience.success();
        if (job!.endTime) return job!;
        // The id may be used again once the job has ended; the uid is this job for ever.
        wanted = ref(job!);
      } catch (error) {
        await patience.next(error);
      }
      if (performance.now() >= end) {
        const text = "uid" in wanted ? wanted.uid : wanted.id;
        throw new EdbJobsError(`job ${text} has not ended in the given time`, Code.DeadlineExceeded, "WAIT_TIMEOUT");
      }
    }
  }

  /**
   * Gives the changes of jobs as the service's messages: each event once and in order, across breaks of the connection,
   * heartbeats without changes included. The position of a message is where another watch resumes after it; to keep
   * one, `toJson(PositionSchema, position)`. After a break `caughtUp` and the updates come again. An OUT_OF_RANGE error
   * (REVISION_TOO_OLD, REVISION_IN_FUTURE, OTHER_STORE) means: take a `snapshot` and begin again.
   */
  async *watch(options: WatchOptions = {}): AsyncGenerator<WatchJobsResponse> {
    const request = create(WatchJobsRequestSchema, {
      fromOldest: options.fromOldest ?? false,
      includeUpdates: options.includeUpdates ?? false,
      includeServiceChanges: options.includeServiceChanges ?? false,
      ...(options.after && { after: options.after }),
      ...(options.filter && { filter: options.filter }),
      ...(options.heartbeatMs !== undefined && { heartbeatInterval: durationFromMs(options.heartbeatMs) }),
    });
    const patience = new Patience(this.#patienceMs, options.signal);
    for (;;) {
      try {
        const open = (signal: AbortSignal) => this.#jobs.watchJobs(request, this.#streaming(signal));
        for await (const message of reading(open, options.signal)) {
          patience.success();
          if (message.position) {
            request.after = message.position;
            request.fromOldest = false;
          }
          yield message;
        }
      } catch (error) {
        await patience.next(error);
      }
    }
  }

  /** Gives the output of a run in pieces of at most 64 KiB, across breaks of the connection. */
  async *logs(name: JobName, options: LogOptions = {}): AsyncGenerator<LogPiece> {
    const patience = new Patience(this.#patienceMs, options.signal);
    const { stream = LogStream.UNSPECIFIED, follow = false } = options;
    let { attempt, offset = 0n } = options;
    for (let wanted = ref(name); ; ) {
      try {
        const request = { job: wanted, stream, offset, follow, ...(attempt !== undefined && { attempt }) };
        const open = (signal: AbortSignal) => this.#jobs.readLog(request, this.#streaming(signal));
        for await (const message of reading(open, options.signal)) {
          patience.success();
          // After a break the id, or "the last attempt", may be another one.
          wanted = { uid: message.uid };
          attempt = message.attempt;
          offset = message.offset + BigInt(message.data.length);
          // Without data it says that the service is there, or that this was all.
          if (message.data.length) yield { data: message.data, offset: message.offset, attempt };
          if (message.eof) return;
        }
        return;
      } catch (error) {
        await patience.next(error);
      }
    }
  }

  /** The same as text; what is not UTF-8 becomes U+FFFD. */
  async *logText(name: JobName, options: LogOptions = {}): AsyncGenerator<string> {
    const decoder = new TextDecoder();
    for await (const piece of this.logs(name, options)) {
      const text = decoder.decode(piece.data, { stream: true });
      if (text) yield text;
    }
    const rest = decoder.decode();
    if (rest) yield rest;
  }

  // Host, queue and limits ------------------------------------------------------------------------------------

  /** Gives the state of the service's host. */
  async resources(options?: Options): Promise<HostResources> {
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

  /** Gives the state of the queue. */
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

  /** Gives the limits in force. */
  async limits(options?: Options): Promise<Limits> {
    return (await this.#call(options, (call) => this.#resources.getLimits({}, call))).limits!;
  }

  /**
   * Changes the limits that are set and removes those that `remove` names, all or none; gives the limits now in force.
   * With the `etag` of limits that were read before: only if these are still in force, else ETAG_MISMATCH.
   */
  async updateLimits(
    limits: MessageInitShape<typeof LimitsSchema>,
    remove: RemovedLimits = {},
    options?: Options,
  ): Promise<Limits> {
    const request = {
      limits,
      removeMask: { paths: remove.fields ?? [] },
      removeLicenses: remove.licenses ?? [],
      removeUsers: remove.users ?? [],
    };
    return (await this.#call(options, (call) => this.#resources.updateLimits(request, call))).limits!;
  }

  // The service itself ----------------------------------------------------------------------------------------

  /** Gives what the service is and whether its parts work. */
  status(options?: Options): Promise<GetSystemStatusResponse> {
    return this.#call(options, (call) => this.#cluster.getSystemStatus({}, call));
  }

  /** Gives the installed solvers, newest first. */
  async solvers(options?: Options): Promise<Solver[]> {
    const read = (pageToken: string) =>
      this.#call(options, (call) => this.#cluster.listSolvers({ pageToken }, call));
    const found = await collect(pages(read));
    return found.flatMap((page) => page.solvers);
  }

  /** Gives the partitions or queues of one scheduler, or of all. */
  async partitions(scheduler = "", options?: Options): Promise<Partitions> {
    const read = (pageToken: string) =>
      this.#call(options, (call) => this.#cluster.listPartitions({ scheduler, pageToken }, call));
    const found = await collect(pages(read));
    const { schedulers, updateTime } = found[0]!;
    return { partitions: found.flatMap((page) => page.partitions), schedulers, updateTime };
  }

  /** Gives the jobs of clusters, this service's and others'. */
  async clusterJobs(
    filter: { scheduler?: string; partition?: string; user?: string } = {},
    options?: Options,
  ): Promise<ClusterJobs> {
    const read = (pageToken: string) =>
      this.#call(options, (call) => this.#cluster.listClusterJobs({ ...filter, pageToken }, call));
    const found = await collect(pages(read));
    const { schedulers, updateTime } = found[0]!;
    return { jobs: found.flatMap((page) => page.jobs), schedulers, updateTime };
  }

  #pages(filter: Filter, options: ListOptions): AsyncGenerator<ListJobsResponse> {
    const { order = JobOrder.UNSPECIFIED, view = JobView.UNSPECIFIED } = options;
    return pages((pageToken) =>
      this.#call(options, (call) => this.#jobs.listJobs({ filter, order, view, pageToken }, call)),
    );
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
