// What the client promises, against a real service with the demo solver; run in Node and in a browser.
import { fromJson, toJson } from "@bufbuild/protobuf";
import { Code, EdbJobsClient, EdbJobsError, ErrorReason, JobOrder, JobState, JobView, PositionSchema } from "edbjobs";
import type { ClientOptions, Job, JobUpdate, Submit, WatchEvent, WatchJobsResponse, WatchOptions } from "edbjobs";

/** The service under test. */
export interface Service {
  /** How clients are made for it. */
  options: ClientOptions;
  /** A project that its host has. */
  project: string;
  /** Makes names unlike those of other runs. */
  run: string;
}

type Case = (service: Service) => Promise<void>;

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(`not so: ${JSON.stringify(what, (_, value) => (typeof value === "bigint" ? `${value}` : value))}`);
}

function equal<T>(found: T, wanted: T): void {
  check(found === wanted, { found, wanted });
}

async function failing(promise: Promise<unknown>): Promise<EdbJobsError> {
  try {
    await promise;
  } catch (error) {
    check(error instanceof EdbJobsError, String(error));
    return error;
  }
  throw new Error("it should have failed");
}

function solve(service: Service, name: string, more: Partial<Submit> = {}, seconds = 0.1): Submit {
  const config = { projectPath: service.project, environment: { ANS_EDBJOBS_DEMO: `seconds=${seconds}` } };
  return { jobId: `${name}-${service.run}`, config, ...more } as Submit;
}

async function first<T>(items: AsyncIterable<T>): Promise<T> {
  for await (const item of items) return item;
  throw new Error("there was none");
}

function jobOf(event: WatchEvent | undefined): Job | undefined {
  return event?.change.case === "jobChange" ? event.change.value.job : undefined;
}

/** Gives the first event of a watch. */
async function firstEvent(client: EdbJobsClient, options: WatchOptions): Promise<WatchEvent> {
  for await (const { events } of client.watch(options)) if (events[0]) return events[0];
  throw new Error("there was none");
}

/** Reads a watch for as long as it goes on. */
async function endless(client: EdbJobsClient, options: WatchOptions): Promise<void> {
  for await (const message of client.watch(options)) check(message.position !== undefined, "each message has a position");
}

/** Gives the messages of a watch up to the end of a job. */
async function untilEnd(client: EdbJobsClient, options: WatchOptions): Promise<WatchJobsResponse[]> {
  const messages: WatchJobsResponse[] = [];
  for await (const message of client.watch(options)) {
    messages.push(message);
    if (message.events.some((event) => jobOf(event)?.endTime)) break;
  }
  return messages;
}

export const CASES: Record<string, Case> = {
  "a job from submit to its log": async (service) => {
    const client = new EdbJobsClient(service.options);
    const job = await client.submit(solve(service, "whole", { user: "Jürgen 李" }));
    equal(job.state, JobState.QUEUED);
    const ended = await client.wait(job);
    equal(ended.state, JobState.COMPLETED);
    equal(ended.user, "Jürgen 李");
    check(ended.revision > job.revision, [job.revision, ended.revision]);
    let text = "";
    for await (const piece of client.logText({ id: job.id }, { follow: true })) text += piece;
    check(text.includes("Normal completion"), text);
  },

  "the same request is the same job": async (service) => {
    const client = new EdbJobsClient(service.options);
    const request = solve(service, "same", { requestId: `same-${service.run}`, hold: true });
    const [one, two] = [await client.submit(request), await client.submit(request)];
    equal(one.uid, two.uid);
    equal((await client.release(await client.hold(one))).held, false);
    await client.cancel(one);
  },

  "a request is not changed, and each call of it is another job": async (service) => {
    const client = new EdbJobsClient(service.options);
    const request: Submit = { config: { projectPath: service.project }, hold: true };
    const [one, two] = [await client.submit(request), await client.submit(request)];
    check(one.uid !== two.uid && request.requestId === undefined, request.requestId);
    await client.cancel(one);
    await client.cancel(two);
  },

  "zero is not the same as absent": async (service) => {
    const client = new EdbJobsClient(service.options);
    const timeLimit = { seconds: 0n, nanos: 0 };
    const job = await client.submit({ config: { projectPath: service.project, timeLimit }, hold: true });
    equal(job.config?.timeLimit?.seconds, 0n);
    equal(job.config?.cancelGracePeriod, undefined);
    equal(job.reservation?.memoryBytes, 0n);
    await client.cancel(job);
  },

  "errors have code, reason and fields": async (service) => {
    const client = new EdbJobsClient(service.options);
    const unknown = await failing(client.get({ id: "nobody-ü" }));
    equal(unknown.code, Code.NotFound);
    equal(unknown.reason, "JOB_NOT_FOUND");
    equal(unknown.errorReason, ErrorReason.JOB_NOT_FOUND);
    check(unknown.message.includes("nobody-ü"), unknown.message);
    const invalid = await failing(client.submit({ config: { projectPath: service.project, cores: -1 } }));
    equal(invalid.code, Code.InvalidArgument);
    check(Object.keys(invalid.fields).some((field) => field.includes("cores")), invalid.fields);
    const exists = await client.submit(solve(service, "exists", { hold: true }));
    const other = await failing(client.submit(solve(service, "exists", { hold: true }, 5)));
    equal(other.reason, "JOB_EXISTS");
    equal(other.metadata["uid"], exists.uid);
    await client.cancel(exists);
  },

  "of many, each gets its job or its error": async (service) => {
    const client = new EdbJobsClient(service.options);
    const requests = [solve(service, "many", { hold: true }), solve(service, "many-bad", { priority: 10_000_000 })];
    const [good, bad] = await client.submitMany(requests);
    equal(good?.error, undefined);
    equal(bad?.error?.reason, "INVALID_PRIORITY");
    const { results, more } = await client.cancelMany({ jobs: [{ uid: good!.job!.uid }, { id: "nobody" }] });
    equal(more, false);
    const [cancelled, unknown] = results.sort((one) => (one.job ? -1 : 1));
    equal(cancelled?.job?.uid, good!.job!.uid);
    equal(unknown?.name?.id, "nobody");
    equal(unknown?.error?.errorReason, ErrorReason.JOB_NOT_FOUND);
  },

  "a list goes over pages, and a watch on from a snapshot": async (service) => {
    const client = new EdbJobsClient(service.options);
    const batch = `pages-${service.run}`;
    const filter = { batches: [batch] };
    const config = { projectPath: service.project, batch };
    const requests = Array.from({ length: 60 }, (_, n) => ({ jobId: `p${n}-${service.run}`, config, hold: true }));
    const made = await client.submitMany(requests);
    const uids: string[] = [];
    for await (const job of client.list(filter)) uids.push(job.uid);
    equal(uids.join(), made.map((result) => result.job!.uid).join());
    const { jobs, position } = await client.snapshot(filter, { order: JobOrder.CREATE_TIME_DESCENDING });
    equal(jobs.map((job) => job.uid).reverse().join(), uids.join());
    equal(jobs[0]!.view, JobView.BASIC);
    equal((await first(client.list(filter, { view: JobView.FULL }))).view, JobView.FULL);
    await client.cancel({ uid: uids[7]! });
    const kept = JSON.stringify(toJson(PositionSchema, position));
    const event = await firstEvent(client, { after: fromJson(PositionSchema, JSON.parse(kept)), filter });
    equal(jobOf(event)?.uid, uids[7]);
    check(event.revision > position.revision, [event.revision, position.revision]);
    const wrong = await failing(client.watch({ after: { ...position, storeId: "another" } }).next());
    equal(wrong.reason, "OTHER_STORE");
    await client.cancelMany(filter);
  },

  "a watch gives each change once, in order, and ends when it is told to": async (service) => {
    const client = new EdbJobsClient(service.options);
    const job = await client.submit(solve(service, "watched"));
    const watched = { fromOldest: true, filter: { jobs: [{ uid: job.uid }] } };
    const messages = await untilEnd(client, watched);
    const events = messages.flatMap((message) => message.events);
    check(events.every((event, n) => n === 0 || event.revision > events[n - 1]!.revision), events.length);
    equal(jobOf(events[0])?.state, JobState.QUEUED);
    equal(jobOf(events.at(-1))?.outcome?.message !== "", true);
    // From the position of a message on, exactly the later ones come.
    const { position } = messages.find((message) => message.events.length)!;
    const after = position!.revision;
    const later = (await untilEnd(client, { ...watched, fromOldest: false, after: position! })).flatMap(({ events }) => events);
    equal(later.map((event) => event.revision).join(), events.map((event) => event.revision).filter((n) => n > after).join());
    const ended = new AbortController();
    const waiting = failing(endless(client, { filter: { jobs: [{ uid: job.uid }] }, signal: ended.signal }));
    setTimeout(() => ended.abort(), 100);
    equal((await waiting).reason, "ABORTED");
  },

  "a watch shows progress": async (service) => {
    const client = new EdbJobsClient(service.options);
    const job = await client.submit(solve(service, "progress", {}, 3));
    const watched = { after: { revision: job.revision }, filter: { jobs: [{ uid: job.uid }] }, includeUpdates: true };
    const messages = await untilEnd(client, watched);
    const updates: JobUpdate[] = messages.flatMap((message) => message.updates);
    check(updates.every((update) => update.uid === job.uid), updates);
    const fractions = updates.flatMap(({ progress }) => progress?.fraction ?? []);
    check(fractions.length > 0 && fractions.every((fraction) => fraction >= 0 && fraction <= 1), updates);
  },

  "a wait may end before the job": async (service) => {
    const client = new EdbJobsClient(service.options);
    const job = await client.submit(solve(service, "waits", { hold: true }));
    equal((await failing(client.wait(job, { timeoutMs: 200 }))).reason, "WAIT_TIMEOUT");
    await client.cancel(job);
    equal((await client.wait({ id: job.id })).state, JobState.CANCELLED);
    const again = await client.retry(job);
    equal(again.retryOf, job.uid);
    equal((await client.get(job)).supersededBy, again.uid);
    equal((await failing(client.retry(job))).errorReason, ErrorReason.JOB_SUPERSEDED);
    await client.wait(again);
    await client.delete(again);
    equal((await failing(client.get(again))).reason, "JOB_NOT_FOUND");
  },

  "a call has a deadline": async (service) => {
    const client = new EdbJobsClient(service.options);
    const requests = Array.from({ length: 1000 }, (_, n) => solve(service, `late-${n}`, { hold: true }));
    const late = await failing(client.submitMany(requests, { timeoutMs: 1.5 }));
    equal(late.code, Code.DeadlineExceeded);
    equal(late.reason, "DEADLINE_EXCEEDED");
    const aborted = failing(first(client.watchResources(1000, { signal: AbortSignal.abort() })));
    equal((await aborted).code, Code.Canceled);
  },

  "host, queue and limits": async (service) => {
    const client = new EdbJobsClient(service.options);
    const { resources, queue } = await first(client.watchResources());
    check(resources!.cpuCount > 0 && queue !== undefined, queue);
    const before = await client.limits();
    const after = await client.updateLimits({ maxMemoryBytes: 9007199254740993n, licenses: { hfss_solve: 0 } });
    equal(after.maxMemoryBytes, 9007199254740993n);
    equal(after.licenses["hfss_solve"], 0);
    equal(after.maxLocalJobs, before.maxLocalJobs);
    const undef = { maxMemoryBytes: undefined } as object;
    equal((await client.updateLimits(undef)).maxMemoryBytes, 9007199254740993n);
    const removed = await client.updateLimits({}, { fields: ["max_memory_bytes"], licenses: ["hfss_solve"] });
    equal(removed.maxMemoryBytes, undefined);
    equal(removed.licenses["hfss_solve"], undefined);
    const late = await failing(client.updateLimits({ maxCores: 1, etag: after.etag }));
    equal(late.errorReason, ErrorReason.ETAG_MISMATCH);
    if (before.maxMemoryBytes !== undefined) await client.updateLimits({ maxMemoryBytes: before.maxMemoryBytes });
    equal((await failing(client.updateLimits({ maxCpuPercent: -1 }))).reason, "INVALID_LIMITS");
    equal((await client.pauseQueue()).paused, true);
    equal((await client.resumeQueue()).paused, false);
  },

  "the service tells what it is": async (service) => {
    const client = new EdbJobsClient(service.options);
    const status = await client.status();
    check(status.apiLevel > 0 && status.position !== undefined && status.caller !== undefined, status.version);
    check((await client.solvers())[0]!.demo, "demo");
    equal((await client.partitions()).partitions.length, 0);
    equal((await client.clusterJobs()).schedulers.length, 0);
    equal((await failing(client.partitions("slurm"))).errorReason, ErrorReason.NO_SCHEDULER);
  },

  "a wrong token is refused": async (service) => {
    const client = new EdbJobsClient({ ...service.options, token: "wrong" });
    const refused = await failing(client.queue());
    equal(refused.code, Code.Unauthenticated);
    equal(refused.reason, "UNAUTHENTICATED");
  },

  "nothing answers": async () => {
    const client = new EdbJobsClient({ baseUrl: "http://127.0.0.1:9", patienceMs: 300 });
    equal((await failing(client.queue())).reason, "UNREACHABLE");
    equal((await failing(client.watch().next())).reason, "UNREACHABLE");
  },
};
