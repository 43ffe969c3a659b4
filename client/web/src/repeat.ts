import { clone, create } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodUnary, Message, MessageInitShape } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Idempotency } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";

import { broke, EdbJobsError } from "./errors.js";
import { sleep } from "./sleep.js";

const ATTEMPTS = 4;
const FIRST_DELAY_MS = 100;
// Safe to repeat, but if the first try was obeyed, the second would answer NOT_FOUND.
const NOT_REPEATED = ["DeleteJob", "DeleteJobs"];

/**
 * Makes a transport that sends a unary call again while the service is unreachable for a moment, if that is safe by the
 * contract: its idempotency_level is NO_SIDE_EFFECTS or IDEMPOTENT, or the request, or each item of it, has a request_id,
 * which is filled in before the first time. Deletes are not sent again: the second answer would be another one.
 */
export function repeating(transport: Transport): Transport {
  return {
    stream: (...call) => transport.stream(...call),
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const [request, safe] = prepared(method, input);
      const end = performance.now() + (timeoutMs ?? Infinity);
      for (let attempt = 1, delay = FIRST_DELAY_MS; ; attempt++, delay *= 2) {
        const left = timeoutMs === undefined ? undefined : Math.max(1, Math.ceil(end - performance.now()));
        try {
          return await transport.unary(method, signal, left, header, request, contextValues);
        } catch (error) {
          const again = safe && attempt < ATTEMPTS && performance.now() + delay < end;
          if (!again || signal?.aborted || !broke(EdbJobsError.from(error))) throw error;
          await sleep(delay, signal);
        }
      }
    },
  };
}

/** A UUID without hyphens. */
export function requestId(): string {
  // Not randomUUID: pages that did not come over TLS have none.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Gives the request, a copy where request_ids are filled in, and whether it may be sent again. */
function prepared<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  input: MessageInitShape<I>,
): [MessageInitShape<I>, boolean] {
  if (method.idempotency !== Idempotency.IDEMPOTENCY_UNKNOWN) return [input, !NOT_REPEATED.includes(method.name)];
  const request = clone(method.input, create(method.input, input));
  const carriers = withRequestIds(method.input, request);
  for (const carrier of carriers ?? []) carrier.requestId ||= requestId();
  return [request as MessageInitShape<I>, carriers !== undefined];
}

interface Carrier {
  requestId: string;
}

/** Finds what has a request_id: the request itself or its items; undefined: nothing. */
function withRequestIds(schema: DescMessage, request: Message): Carrier[] | undefined {
  if ("requestId" in schema.field) return [request as unknown as Carrier];
  const items = schema.fields.find(
    (field) => field.fieldKind === "list" && field.listKind === "message" && "requestId" in field.message.field,
  );
  return items && (request as unknown as Record<string, Carrier[]>)[items.localName];
}
