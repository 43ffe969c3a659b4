"""Jobs, and a core with a store in memory, for tests of the core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edbjobs_server.core import transitions
from edbjobs_server.core.job import Job, Outcome, Spec
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.planner import Explanation, Planner
from edbjobs_server.core.states import Evidence, Reason
from edbjobs_server.core.transitions import Change, RunResult

MIB = 1024**2
HOST = Host(cores=8, memory_bytes=1000 * MIB)


def make_job(seq: int, **values: Any) -> Job:
    """A waiting job; `project`, `cores`, `memory_mib`, ... of its spec may be given directly."""
    if "memory_mib" in values:
        values["memory_bytes"] = values.pop("memory_mib") * 1024**2
    spec_fields = {name: values.pop(name) for name in list(values) if name in Spec.__dataclass_fields__}
    project = values.pop("project", f"/p/{seq}")
    spec = Spec(project_path=f"{project}.aedb", project_key=project, **spec_fields)
    return Job(uid=f"u{seq:04d}", seq=seq, id=f"job{seq}", spec=spec, create_time=float(seq), **values)


def reserved(job: Job, now: float = 10.0) -> Job:
    """The job with its next attempt open."""
    return changed(transitions.reserve(job, now, "boot", f"/runs/{job.attempt_count + 1}"))


def running(job: Job, now: float = 11.0) -> Job:
    """The job with the solver of its next attempt started."""
    job = reserved(job)
    return changed(transitions.started(job, job.attempt_count, now, 42, ("host",)))


def result(reason: Reason, end_time: float = 20.0, evidence: Evidence = Evidence.EXIT_CODE, **values: Any) -> RunResult:
    """An end as an executor reports it; values of the outcome may be given directly."""
    of_outcome = {name: values.pop(name) for name in list(values) if name in Outcome.__dataclass_fields__}
    return RunResult(Outcome(reason, evidence, **of_outcome), end_time, **values)


def completed(job: Job) -> Job:
    """The job after a good end of its open attempt."""
    return changed(transitions.ended(job, job.attempt_count, result(Reason.NORMAL), 20.0))


def changed(change: Change | None) -> Job:
    """The job after a change, which there must be."""
    assert change is not None
    return change.job


class Lab:
    """A core, and what is committed. Jobs are named by their id."""

    def __init__(self, jobs: Iterable[Job] = (), limits: Limits | None = None, host: Host = HOST) -> None:
        self.core = Planner(host, limits or Limits(max_local_jobs=100))
        self.now = 100.0
        self.jobs: dict[str, Job] = {}
        self.put(*jobs)

    def put(self, *jobs: Job) -> None:
        """Commit jobs as they are."""
        for job in jobs:
            self.jobs[job.id] = job
            self.core.apply(job)

    def plan(self) -> list[str]:
        """Plan; tells the ids of the chosen jobs in order."""
        return [job.id for job in self.core.plan(self.now)]

    def start(self) -> list[str]:
        """Plan, commit every start, and let the solvers begin."""
        ids = self.plan()
        for job_id in ids:
            self.put(reserved(self.jobs[job_id], self.now))
        return ids

    def end(self, job_id: str) -> None:
        """Let a run complete."""
        self.put(completed(self.jobs[job_id]))

    def why(self, job_id: str) -> Explanation:
        """Return why a job waits."""
        return self.core.explain(self.jobs[job_id].uid, self.now)
