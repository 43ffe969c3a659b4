import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";

import type { EdbJobsError } from "./errors.js";
import type { ClusterJob, Partition, SchedulerStatus } from "./gen/edbjobs/v1/cluster_pb.js";
import type { Position, PositionSchema } from "./gen/edbjobs/v1/event_pb.js";
import type { Job, JobView } from "./gen/edbjobs/v1/job_pb.js";
import type { JobRef } from "./gen/edbjobs/v1/job_ref_pb.js";
import type { JobFilterSchema, JobOrder, LogStream, SubmitJobRequestSchema } from "./gen/edbjobs/v1/jobs_messages_pb.js";

/** A job, by uid or by id: the newest job that has it. A `Job` or a `JobRef` does as well. */
export type JobName = { readonly uid: string } | { readonly id: string };
/** Which jobs; every set field must agree, an empty filter finds all. */
export type Filter = MessageInitShape<typeof JobFilterSchema>;
/** A submit. The client fills in a `requestId` for as long as the call lasts; to repeat the call itself, set one. */
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

/** Of a list of jobs. */
export interface ListOptions extends Options {
  /** Default: oldest first. */
  order?: JobOrder;
  /** How much of each job is sent; default: BASIC. */
  view?: JobView;
}

/** What became of one item of `submitMany`. */
export interface SubmitResult {
  job?: Job;
  error?: EdbJobsError;
  /** The job was there already. */
  existed: boolean;
}

/** What became of one job of a call on many. */
export interface ManyResult {
  /** As the filter named it, or by uid. */
  name: JobRef | undefined;
  /** The job after the call. */
  job?: Job;
  /** Why nothing was done. */
  error?: EdbJobsError;
}

/** Jobs and where a watch begins that misses nothing; a change that is not newer than its job is in it already. */
export interface Snapshot {
  jobs: Job[];
  position: Position;
}

/** What a watch is asked for. */
export interface WatchOptions {
  /** Begin after this position: of a snapshot, or of a message of another watch. Default: only what is new. */
  after?: MessageInitShape<typeof PositionSchema>;
  /** Begin with the oldest change on record. */
  fromOldest?: boolean;
  /** Which jobs; absent: all. */
  filter?: Filter;
  /** Also progress and waiting reasons: `updates` of the messages. */
  includeUpdates?: boolean;
  /** Also changes of limits and queue. */
  includeServiceChanges?: boolean;
  /** Longest time without a message; default 15 s. */
  heartbeatMs?: number;
  /** Ends the watch when it is aborted. */
  signal?: AbortSignal;
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
  /** Default: the solver's own log. */
  stream?: LogStream;
  /** Default: the last. */
  attempt?: number;
  /** First byte; negative: counted back from the present end. */
  offset?: bigint;
  /** Stay until the attempt has ended. */
  follow?: boolean;
}

/** Limits that `updateLimits` removes. */
export interface RemovedLimits {
  /** Fields of Limits, in the contract's names: `max_cores`, `default_user.max_cores`, `users` with all entries. */
  fields?: string[];
  /** Features of `Limits.licenses`. */
  licenses?: string[];
  /** Users of `Limits.users`. */
  users?: string[];
}

/** What clusters have; that of a scheduler that does not respond is missing. */
interface Clusters {
  /** The schedulers that were asked. */
  schedulers: SchedulerStatus[];
  /** When they were asked; the oldest time. */
  updateTime: Timestamp | undefined;
}

/** Partitions or queues. */
export interface Partitions extends Clusters {
  partitions: Partition[];
}

/** Jobs of clusters, this service's and others'. */
export interface ClusterJobs extends Clusters {
  jobs: ClusterJob[];
}
