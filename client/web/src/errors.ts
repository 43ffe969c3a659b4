import { Code, ConnectError } from "@connectrpc/connect";
import { anyUnpack } from "@bufbuild/protobuf/wkt";

import { ErrorReason } from "./gen/edbjobs/v1/errors_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { BadRequest, ErrorInfo } from "./gen/google/rpc/error_details_pb.js";
import type { Status } from "./gen/google/rpc/status_pb.js";

/** Texts by name: of a field, what is wrong with it; of a further value, the value. */
export type Texts = Readonly<Record<string, string>>;

/** What the client throws. */
export class EdbJobsError extends Error {
  override readonly name = "EdbJobsError";

  constructor(
    message: string,
    /** gRPC's code, for example `Code.NotFound`. */
    readonly code: Code,
    /**
     * Word for programs, for example `JOB_NOT_FOUND`; the service's reasons stand with each call of the contract.
     * Of the client itself: `UNREACHABLE`, `DEADLINE_EXCEEDED`, `ABORTED`, `WAIT_TIMEOUT`, and those of `edbjobs/node`.
     * Empty: an error that neither has a word for.
     */
    readonly reason = "",
    /** Path of a field of the request to what is wrong with it. */
    readonly fields: Texts = {},
    /** Further values, for example the uid of the job that exists. */
    readonly metadata: Texts = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** The reason as a value of the contract; UNSPECIFIED: it has none, or a newer one has it. */
  get errorReason(): ErrorReason {
    return ErrorReason[this.reason as keyof typeof ErrorReason] ?? ErrorReason.UNSPECIFIED;
  }

  /** Makes one of whatever a call threw. */
  static from(thrown: unknown): EdbJobsError {
    if (thrown instanceof EdbJobsError) return thrown;
    const error = ConnectError.from(thrown);
    const [info] = error.findDetails(ErrorInfoSchema);
    const [bad] = error.findDetails(BadRequestSchema);
    const [code, reason] = info ? [error.code, info.reason] : ofTransport(error);
    return make(error.rawMessage, code, reason, info, bad, { cause: thrown });
  }

  /** Makes one of an error within an answer, as results of calls on many have them. */
  static ofStatus(status: Status): EdbJobsError {
    let info: ErrorInfo | undefined;
    let bad: BadRequest | undefined;
    for (const detail of status.details) {
      info ??= anyUnpack(detail, ErrorInfoSchema);
      bad ??= anyUnpack(detail, BadRequestSchema);
    }
    return make(status.message, status.code, info?.reason ?? "", info, bad);
  }
}

function make(
  message: string,
  code: Code,
  reason: string,
  info: ErrorInfo | undefined,
  bad: BadRequest | undefined,
  options?: ErrorOptions,
): EdbJobsError {
  const fields = Object.fromEntries(bad?.fieldViolations.map((item) => [item.field, item.description]) ?? []);
  return new EdbJobsError(message, code, reason, fields, { ...info?.metadata }, options);
}

function ofTransport(error: ConnectError): [Code, string] {
  // A browser tells a page no more than "Failed to fetch", whether nothing answers or CORS forbids it.
  if (error.cause instanceof TypeError || error.code === Code.Unavailable) return [Code.Unavailable, "UNREACHABLE"];
  if (error.code === Code.DeadlineExceeded) return [error.code, "DEADLINE_EXCEEDED"];
  return [error.code, ""];
}

/** Tells whether the service is away, or the connection broke. */
export function broke(error: EdbJobsError): boolean {
  switch (error.code) {
    case Code.Unavailable:
      return true;
    case Code.Aborted: // of Node's transport: the connection was reset
    case Code.Canceled:
    case Code.Unknown:
    case Code.Internal:
      return error.reason === "";
    default:
      return false;
  }
}

/** Tells whether trying again may help: the service is away, stopping or busy, or the connection broke. */
export function mayPass(error: EdbJobsError): boolean {
  return broke(error) || error.code === Code.ResourceExhausted || error.code === Code.DeadlineExceeded;
}
