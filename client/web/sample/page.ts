// A page that shows all jobs and follows them. Its address tells where the service is, after the #, which no server
// gets to see: #service=http://127.0.0.1:8080&token=TOKEN
import { EdbJobsClient, EdbJobsError, EventType, JobState } from "edbjobs";
import type { ClientOptions, Job } from "edbjobs";

const given = new URLSearchParams(location.hash.slice(1));
const options: ClientOptions = { baseUrl: given.get("service") ?? location.origin, token: given.get("token") ?? "" };

const state = document.querySelector<HTMLElement>("#state")!;
const table = document.querySelector<HTMLElement>("#jobs")!;
const rows = new Map<string, HTMLTableRowElement>();

function show(job: Job): void {
  const row = rows.get(job.uid) ?? document.createElement("tr");
  const told = job.message || job.waitingDetail;
  // A state of a newer service has no name here.
  const cells = [job.id, JobState[job.state] ?? "other", told].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  row.replaceChildren(...cells);
  if (!rows.has(job.uid)) table.prepend(row);
  rows.set(job.uid, row);
}

function remove(job: Job): void {
  rows.get(job.uid)?.remove();
  rows.delete(job.uid);
}

async function follow(client: EdbJobsClient): Promise<never> {
  for (;;) {
    const { jobs, revision, storeId } = await client.snapshot();
    for (const job of rows.values()) job.remove();
    rows.clear();
    jobs.forEach(show);
    state.textContent = "live";
    try {
      for await (const { type, job } of client.watch({ afterRevision: revision, storeId })) {
        if (job) (type === EventType.JOB_DELETED ? remove : show)(job);
      }
    } catch (error) {
      // The revision is not there any more, or the service has another store: begin again.
      if (!["REVISION_TOO_OLD", "REVISION_IN_FUTURE", "OTHER_STORE"].includes(EdbJobsError.from(error).reason)) throw error;
    }
  }
}

follow(new EdbJobsClient(options)).catch((error: unknown) => {
  state.textContent = EdbJobsError.from(error).message;
});
