// Makes calls that are told in JSON: the client's part in the table of calls that all clients make.
import { createRegistry, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import type { DescMessage, Message } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ClusterService,
  EdbJobsClient,
  EdbJobsError,
  ErrorInfoSchema,
  JobsService,
  ResourcesService,
  RetryInfoSchema,
  WatchEventSchema,
  WatchJobsRequestSchema,
} from "edbjobs";
import type { ClientOptions } from "edbjobs";

interface Call {
  rpc: string;
  request: string;
  deadline: number;
  token: string;
  until: string;
}

const SERVICES = { JobsService, ResourcesService, ClusterService };
const registry = createRegistry(ErrorInfoSchema, BadRequestSchema, RetryInfoSchema);

/** Makes a call; gives its answer, and of a watch before that each event, as lines. */
export async function* lines(options: ClientOptions, text: string): AsyncGenerator<string> {
  const call = JSON.parse(text) as Call;
  const messages: string[] = [];
  let failed: EdbJobsError | undefined;
  try {
    if (call.rpc === "watch") {
      for await (const event of events(options, call)) yield JSON.stringify({ event });
    } else {
      for await (const message of answers(options, call)) messages.push(message);
    }
  } catch (error) {
    failed = EdbJobsError.from(error);
  }
  yield JSON.stringify({
    code: failed?.code ?? 0,
    message: failed?.message ?? "",
    reason: failed?.reason ?? "",
    errorReason: failed?.errorReason ?? 0,
    metadata: failed?.metadata ?? {},
    fields: failed?.fields ?? {},
    messages,
  });
}

async function* events(options: ClientOptions, call: Call): AsyncGenerator<string> {
  const { fromOldest } = fromJsonString(WatchJobsRequestSchema, call.request);
  for await (const message of new EdbJobsClient(options).watch({ fromOldest })) {
    const texts = message.events.map((event) => toJsonString(WatchEventSchema, event));
    yield* texts;
    if (texts.some((text) => text.includes(call.until))) return;
  }
}

async function* answers(options: ClientOptions, call: Call): AsyncGenerator<string> {
  const [service, name] = call.rpc.split(".") as [keyof typeof SERVICES, string];
  const method = SERVICES[service].methods.find((found) => found.name === name)!;
  const stubs = createClient(SERVICES[service], new EdbJobsClient(options).transport) as unknown as Stubs;
  const ended = new AbortController();
  const found = stubs[method.localName]!(fromJsonString(method.input, call.request), {
    signal: ended.signal,
    headers: call.token ? { authorization: `Bearer ${call.token}` } : {},
    ...(call.deadline && { timeoutMs: call.deadline * 1000 }),
  });
  for await (const message of Symbol.asyncIterator in found ? found : [await found]) {
    const text = toJsonString<DescMessage>(method.output, message, { registry });
    yield text;
    if (call.until && text.includes(call.until)) return ended.abort();
  }
}

type Stubs = Record<string, (request: Message, options: object) => Promise<Message> | AsyncIterable<Message>>;
