// A page that shows all jobs and follows them. Its address tells where the service is, after the #, which no server
// gets to see: #service=http://127.0.0.1:8080&token=TOKEN
import { EdbJobsClient, EdbJobsError, ErrorReason, JobChangeType, JobState } from "edbjobs";
import type { ClientOptions, Job, JobChange, JobProgress, JobUpdate } from "edbjobs";

const given = new URLSearchParams(location.hash.slice(1));
const options: ClientOptions = { baseUrl: given.get("service") ?? location.origin, token: given.get("token") ?? "" };

const state = document.querySelector<HTMLElement>("#state")!;
const table = document.querySelector<HTMLElement>("#jobs")!;
const jobs = new Map<string, Job>();
const rows = new Map<string, HTMLTableRowElement>();

/** Numbers that the solver has not reported are undefined. */
function progressText({ setup, currentPass, maxPasses, fraction }: JobProgress): string {
  const pass = currentPass === undefined ? "" : `pass ${currentPass} of ${maxPasses ?? "?"}`;
  const percent = fraction === undefined ? "" : `${Math.round(100 * fraction)} %`;
  return [setup, pass, percent].filter(Boolean).join(", ");
}

function show(job: Job): void {
  const row = rows.get(job.uid) ?? document.createElement("tr");
  const told = job.outcome?.message ?? job.waiting?.message ?? (job.progress && progressText(job.progress));
  // A state of a newer service has no name here.
  const cells = [job.id, JobState[job.state] ?? "other", told ?? ""].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  row.replaceChildren(...cells);
  if (!rows.has(job.uid)) table.prepend(row);
  rows.set(job.uid, row);
  jobs.set(job.uid, job);
}

function remove(job: Job): void {
  rows.get(job.uid)?.remove();
  rows.delete(job.uid);
  jobs.delete(job.uid);
}

function change({ type, job }: JobChange): void {
  // The list may be newer than the position that came with it.
  if (!job || job.revision <= (jobs.get(job.uid)?.revision ?? 0n)) return;
  // The list leaves superseded jobs out, too.
  const gone = type === JobChangeType.DELETED || type === JobChangeType.SUPERSEDED;
  (gone ? remove : show)(job);
}

function update({ uid, progress, waiting }: JobUpdate): void {
  const job = jobs.get(uid);
  if (job) show({ ...job, progress, waiting });
}

async function follow(client: EdbJobsClient): Promise<never> {
  for (;;) {
    const { jobs: listed, position } = await client.snapshot();
    for (const job of [...jobs.values()]) remove(job);
    listed.forEach(show);
    state.textContent = "live";
    try {
      for await (const { events, updates } of client.watch({ after: position, includeUpdates: true })) {
        for (const event of events) if (event.change.case === "jobChange") change(event.change.value);
        updates.forEach(update);
      }
    } catch (thrown) {
      // The position is not there any more, or the service has another store: begin again.
      const error = EdbJobsError.from(thrown);
      const { REVISION_TOO_OLD, REVISION_IN_FUTURE, OTHER_STORE } = ErrorReason;
      if (![REVISION_TOO_OLD, REVISION_IN_FUTURE, OTHER_STORE].includes(error.errorReason)) throw error;
    }
  }
}

follow(new EdbJobsClient(options)).catch((error: unknown) => {
  state.textContent = EdbJobsError.from(error).message;
});
