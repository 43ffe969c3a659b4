// Submits a project to the service of this account, follows the job to its end and prints the solver's log:
//     node sample/submit.mjs PROJECT [CORES]
import { resolve } from "node:path";

import { EdbJobsError, EventType, JobState, LogStream } from "edbjobs";
import { connectLocal } from "edbjobs/node";

const [project, cores = "1"] = process.argv.slice(2);
if (!project) {
  console.error("usage: node sample/submit.mjs PROJECT [CORES]");
  process.exit(2);
}

try {
  const client = connectLocal();
  const job = await client.submit({ config: { projectPath: resolve(project), cores: Number(cores) } });
  console.log(`submitted ${job.id}`);
  // After the revision of the answer nothing is missed, also when the service is restarted meanwhile.
  let last = job;
  for await (const event of client.watch({ afterRevision: job.revision, filter: { names: [job.uid] } })) {
    last = event.job;
    console.log(`${event.revision} ${EventType[event.type]} ${last.message}`);
    if (last.endTime) break;
  }
  for await (const text of client.logText(job.uid, { stream: LogStream.SOLVER, follow: true })) process.stdout.write(text);
  process.exitCode = last.state === JobState.COMPLETED ? 0 : 1;
} catch (error) {
  if (!(error instanceof EdbJobsError)) throw error;
  console.error(`${error.reason}: ${error.message}`);
  for (const [field, text] of Object.entries(error.fields)) console.error(`  ${field}: ${text}`);
  process.exitCode = 1;
}
