// What the client promises, against a real service with the stand-in solver; run in Node and in a browser.
import { Code, EdbJobsClient, EdbJobsError, JobState, LogStream } from "edbjobs";
import type { ClientOptions, Event, Submit } from "edbjobs";

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

export const CASES: Record<string, Case> = {
  "a job from submit to its log": async (service) => {
    const client = new EdbJobsClient(service.options);
    const job = await client.submit(solve(service, "whole", { user: "Jürgen 李" }));
    equal(job.state, JobState.QUEUED);
    const ended = await client.wait(job.uid);
    equal(ended.state, JobState.COMPLETED);
    equal(ended.user, "Jürgen 李");
    check(ended.revision > job.revision, [job.revision, ended.revision]);
    let text = "";
    for await (const piece of client.logText(job.uid, { stream: LogStream.SOLVER, follow: true })) text += piece;
    check(text.includes("Normal completion"), text);
  },

  "the same request is the same job": async (service) => {
    const client = new EdbJobsClient(service.options);
    const request = solve(service, "same", { requestId: `same-${service.run}`, hold: true });
    const [one, two] = [await client.submit(request), await client.submit(request)];
    equal(one.uid, two.uid);
    equal((await client.release((await client.hold(one.uid)).uid)).held, false);
    await client.cancel(one.uid);
  },

  "errors have code, reason and fields": async (service) => {
    const client = new EdbJobsClient(service.options);
    const unknown = await failing(client.get("nobody-ü"));
    equal(unknown.code, Code.NotFound);
    equal(unknown.reason, "JOB_NOT_FOUND");
    check(unknown.message.includes("nobody-ü"), unknown.message);
    const invalid = await failing(client.submit({ config: { projectPath: service.project, cores: -1 } }));
    equal(invalid.code, Code.InvalidArgument);
    check(Object.keys(invalid.fields).some((field) => field.includes("cores")), invalid.fields);
    const exists = await client.submit(solve(service, "exists", { hold: true }));
    const other = await failing(client.submit(solve(service, "exists", { hold: true }, 5)));
    equal(other.reason, "JOB_EXISTS");
    equal(other.metadata["uid"], exists.uid);
    await client.cancel(exists.uid);
  },

  "of many, each gets its job or its error": async (service) => {
    const client = new EdbJobsClient(service.options);
    const requests = [solve(service, "many", { hold: true }), solve(service, "many-bad", { priority: 10_000_000 })];
    const [good, bad] = await client.submitMany(requests);
    equal(good?.error, undefined);
    equal(bad?.error?.reason, "INVALID_PRIORITY");
    await client.cancelMany({ names: [good!.job!.uid] });
  },

  "a list goes over pages, and a watch on from a snapshot": async (service) => {
    const client = new EdbJobsClient(service.options);
    const filter = { batch: `pages-${service.run}` };
    const config = { projectPath: service.project, batch: filter.batch };
    const requests = Array.from({ length: 60 }, (_, n) => ({ jobId: `p${n}-${service.run}`, config, hold: true }));
    const made = await client.submitMany(requests);
    const uids: string[] = [];
    for await (const job of client.list(filter)) uids.push(job.uid);
    equal(uids.join(), made.map((result) => result.job!.uid).join());
    const { jobs, revision, storeId } = await client.snapshot(filter);
    equal(jobs.length, 60);
    await client.cancel(uids[7]!);
    const event = await first(client.watch({ afterRevision: revision, storeId, filter }));
    equal(event.job?.uid, uids[7]);
    check(event.revision > revision, [event.revision, revision]);
    const wrong = await failing(client.watch({ afterRevision: revision, storeId: "another" }).next());
    equal(wrong.reason, "OTHER_STORE");
    await client.cancelMany(filter);
  },

  "a watch gives each change once, in order, and ends when it is told to": async (service) => {
    const client = new EdbJobsClient(service.options);
    const job = await client.submit(solve(service, "watched"));
    const events: Event[] = [];
    for await (const event of client.watch({ afterRevision: 0n, filter: { names: [job.uid] } })) {
      events.push(event);
      if (event.job?.state === JobState.COMPLETED) break;
    }
    check(events.every((event, n) => n === 0 || event.revision > events[n - 1]!.revision), events.length);
    const ended = new AbortController();
    const waiting = failing(client.watch({ filter: { names: [job.uid] }, signal: ended.signal }).next());
    setTimeout(() => ended.abort(), 100);
    equal((await waiting).reason, "ABORTED");
  },

  "a wait may end before the job": async (service) => {
    const client = new EdbJobsClient(service.options);
    const job = await client.submit(solve(service, "waits", { hold: true }));
    equal((await failing(client.wait(job.uid, { timeoutMs: 200 }))).reason, "WAIT_TIMEOUT");
    await client.cancel(job.uid);
    equal((await client.wait(job.uid)).state, JobState.CANCELLED);
    const again = await client.retry(job.uid);
    equal(again.retryOf, job.uid);
    await client.wait(again.uid);
    await client.delete(again.uid);
    equal((await failing(client.get(again.uid))).reason, "JOB_NOT_FOUND");
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
    const after = await client.updateLimits({ maxMemoryMib: 9007199254740991n });
    equal(after.maxMemoryMib, 9007199254740991n);
    equal(after.maxConcurrentJobs, before.maxConcurrentJobs);
    equal((await client.updateLimits({ maxMemoryMib: before.maxMemoryMib })).maxMemoryMib, before.maxMemoryMib);
    equal((await failing(client.updateLimits({ maxCpuPercent: -1 }))).reason, "INVALID_LIMITS");
    equal((await client.pauseQueue()).paused, true);
    equal((await client.resumeQueue()).paused, false);
  },

  "the service tells what it is": async (service) => {
    const client = new EdbJobsClient(service.options);
    equal((await client.status()).service, "edbjobs");
    check((await client.solvers())[0]!.demo, "demo");
    equal((await failing(client.partitions())).code, Code.FailedPrecondition);
    equal((await failing(client.clusterJobs())).reason, "NO_SCHEDULER");
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
