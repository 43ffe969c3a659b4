// Submits a project to the service of this account, shows its changes and its progress to the end, prints the solver's log:
//     node sample/submit.mjs PROJECT [CORES]
import { resolve } from "node:path";

import { EdbJobsError, JobChangeType, JobState, SolvePhase } from "edbjobs";
import { connectLocal } from "edbjobs/node";

const [project, cores = "1"] = process.argv.slice(2);
if (!project) {
  console.error("usage: node sample/submit.mjs PROJECT [CORES]");
  process.exit(2);
}

/** Numbers that the solver has not reported are undefined. */
function textOf({ progress, waiting }) {
  if (waiting) return `waiting: ${waiting.message}`;
  if (!progress) return "";
  const { phase, setup, currentPass, maxPasses, lastPass, frequenciesSolved, fraction } = progress;
  const parts = [`${SolvePhase[phase]} ${setup}`];
  if (currentPass !== undefined) parts.push(`pass ${currentPass} of ${maxPasses ?? "?"}`);
  if (lastPass?.delta !== undefined) parts.push(`delta ${lastPass.delta}`);
  if (frequenciesSolved !== undefined) parts.push(`frequencies ${frequenciesSolved}`);
  if (fraction !== undefined) parts.push(`${Math.round(100 * fraction)} %`);
  return parts.join(", ");
}

try {
  const client = connectLocal();
  const job = await client.submit({ config: { projectPath: resolve(project), cores: Number(cores) } });
  console.log(`submitted ${job.id}`);
  // After the revision of the answer nothing is missed, also when the service is restarted meanwhile.
  let last = job;
  let shown = "";
  const watched = { after: { revision: job.revision }, filter: { jobs: [{ uid: job.uid }] }, includeUpdates: true };
  for await (const { events, updates } of client.watch(watched)) {
    for (const { revision, change } of events) {
      if (change.case !== "jobChange") continue; // of a newer service
      last = change.value.job;
      console.log(`${revision} ${JobChangeType[change.value.type]} ${last.outcome?.message ?? ""}`);
    }
    for (const text of updates.map(textOf)) {
      if (text && text !== shown) console.log(`  ${text}`);
      shown = text;
    }
    if (last.endTime) break;
  }
  for await (const text of client.logText(job, { follow: true })) process.stdout.write(text);
  process.exitCode = last.state === JobState.COMPLETED ? 0 : 1;
} catch (error) {
  if (!(error instanceof EdbJobsError)) throw error;
  console.error(`${error.reason}: ${error.message}`);
  for (const [field, text] of Object.entries(error.fields)) console.error(`  ${field}: ${text}`);
  process.exitCode = 1;
}
