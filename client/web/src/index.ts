/** Client of edbjobs for browsers and Node: `EdbJobsClient`, its errors, and the messages of the contract. */
export { Code } from "@connectrpc/connect";

export * from "./client.js";
export { EdbJobsError } from "./errors.js";
export type { Texts } from "./errors.js";
export type * from "./options.js";

export * from "./gen/edbjobs/v1/batch_pb.js";
export * from "./gen/edbjobs/v1/cluster_pb.js";
export * from "./gen/edbjobs/v1/cluster_service_pb.js";
export * from "./gen/edbjobs/v1/convergence_pb.js";
export * from "./gen/edbjobs/v1/errors_pb.js";
export * from "./gen/edbjobs/v1/event_pb.js";
export * from "./gen/edbjobs/v1/job_config_pb.js";
export * from "./gen/edbjobs/v1/job_pb.js";
export * from "./gen/edbjobs/v1/job_ref_pb.js";
export * from "./gen/edbjobs/v1/job_state_pb.js";
export * from "./gen/edbjobs/v1/jobs_messages_pb.js";
export * from "./gen/edbjobs/v1/jobs_service_pb.js";
export * from "./gen/edbjobs/v1/principal_pb.js";
export * from "./gen/edbjobs/v1/project_pb.js";
export * from "./gen/edbjobs/v1/resource_pb.js";
export * from "./gen/edbjobs/v1/resources_service_pb.js";
// Details of the errors within answers: their JSON needs a registry of these.
export { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
