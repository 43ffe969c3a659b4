"""The real service on a real SLURM cluster of a test's own, with the demo solver."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edbjobs._calls import job_ref
from edbjobs.v1 import (
    cluster_pb2,
    cluster_service_pb2,
    event_pb2,
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
)
from edbjobs_server.solver.demo import example_project
from google.protobuf.duration_pb2 import Duration

from support.service import ServiceProcess
from support.slurm_cluster import SlurmCluster

LONG = "seconds=600"  # ends only because somebody ends it
# The first events of a job that runs, and state, reason and evidence of ends.
TO_STARTED = ["QUEUED", "STARTING", "SCHEDULED", "STARTED"]
DONE = ("COMPLETED", "NORMAL", "SOLVER_LOG")
CANCELLED = ("CANCELLED", "CANCELLED", "SCHEDULER")
UNSTARTED = ("CANCELLED", "CANCELLED", "SERVICE")
BY_SOMEBODY = ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")
TIMEOUT = 60.0  # until something is taken not to come

_REQUEST = frozenset({"job_id", "request_id", "priority", "hold", "user"})
_OPTIONS = frozenset(job_config_pb2.SchedulerOptions.DESCRIPTOR.fields_by_name)
_count = itertools.count(1)
# The site lets jobs ask SLURM for a later start, so that they wait there and not in the service.
BEGIN_ALLOWED = """from edbjobs_server.config.site_policy import SitePolicy
from edbjobs_server.service import app
app.load_site_policy = lambda: SitePolicy(extra_options=("begin",))"""


class SlurmService(ServiceProcess):
    """A service that hands jobs to a cluster of the tests.

    Parameters
    ----------
    folder : Path
        Made if it is not there; gets state, run folders, projects and the solvers' witness.
    cluster : SlurmCluster
        Where jobs go to.
    confirm : float, optional
        How long the cluster must have denied a run before its own record decides; default: as in real life, a minute.
    stale : float, optional
        How long such a record must have shown no life; with it the scripts beat every second.
    settings : object
        As of `ServiceProcess`; jobs are looked at every second if not told otherwise.
    """

    def __init__(
        self,
        folder: Path,
        cluster: SlurmCluster,
        confirm: float | None = None,
        stale: float | None = None,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shared = str(folder / "shared")
        super().__init__(folder, **{"shared_dir": shared, "cluster_poll_seconds": 1, **settings})
        self.slurm = cluster
        self.witness = folder / "witness"
        self.witness.mkdir(exist_ok=True)
        self.environment.update(cluster.env)
        self._demo = ""
        self.prelude = "\n".join([BEGIN_ALLOWED, _shorter(confirm, stale)])

    def __enter__(self) -> SlurmService:
        """Start, and wait until the service knows that SLURM answers."""
        self.start()
        self.answering(True)
        return self

    def answering(self, expected: bool) -> cluster_pb2.SchedulerStatus:
        """Wait until the service says that SLURM answers, or does not."""
        found: cluster_pb2.SchedulerStatus = eventually(
            f"SLURM answers: {expected}", self._status, lambda status: status.responding is expected
        )
        return found

    def _status(self) -> cluster_pb2.SchedulerStatus:
        status = self.cluster.GetSystemStatus(cluster_service_pb2.GetSystemStatusRequest(), timeout=10)
        return next(scheduler for scheduler in status.schedulers if scheduler.name == "slurm")

    # Jobs ------------------------------------------------------------------------------------------------

    def request(self, demo: str = "seconds=0.2", **values: Any) -> jobs_messages_pb2.SubmitJobRequest:
        """Make a request; `values` are those of the request, the scheduler's options, or else the configuration."""
        outer = {name: values.pop(name) for name in _REQUEST & values.keys()}
        asked = {name: values.pop(name) for name in _OPTIONS & values.keys()}
        if "begin" in values:
            asked["extra"] = {"begin": values.pop("begin")}
        inner = values
        inner.setdefault("scheduler", "slurm")
        inner.setdefault("project_path", str(self.project()))
        inner.setdefault("aedt_path", self._stand_in())
        environment = {"ANS_EDBJOBS_DEMO": demo, "ANS_EDBJOBS_DEMO_WITNESS": str(self.witness)}
        options = job_config_pb2.SchedulerOptions(**asked)
        config = job_config_pb2.JobConfig(environment=environment, scheduler_options=options, **inner)
        return jobs_messages_pb2.SubmitJobRequest(config=config, **outer)

    def _stand_in(self) -> str:
        if not self._demo:
            solvers = self.cluster.ListSolvers(cluster_service_pb2.ListSolversRequest(), timeout=10).solvers
            self._demo = next(solver.path for solver in solvers if solver.demo)
        return self._demo

    def project(self) -> Path:
        """Make a project."""
        return example_project(self.folder / "projects" / str(next(_count)))

    def submit(self, demo: str = "seconds=0.2", **values: Any) -> job_pb2.Job:
        """Submit a job; see `request`."""
        return self.jobs.SubmitJob(self.request(demo, **values), timeout=10).job

    def job(self, job: job_pb2.Job) -> job_pb2.Job:
        """Return a job as it is now."""
        return self.jobs.GetJob(jobs_messages_pb2.GetJobRequest(job=job_ref(job.uid)), timeout=10).job

    def until(
        self, job: job_pb2.Job, what: str, expected: Callable[[job_pb2.Job], bool], timeout: float = TIMEOUT
    ) -> job_pb2.Job:
        """Wait until something holds of a job, its waiting reason for example."""
        found: job_pb2.Job = eventually(what, lambda: self.job(job), expected, timeout)
        return found

    def scheduled(self, job: job_pb2.Job) -> job_pb2.Job:
        """Wait until SLURM has a job."""
        return self.until(job, "SLURM has it", lambda now: bool(now.scheduler_job_id))

    def running(self, job: job_pb2.Job) -> job_pb2.Job:
        """Wait until a job's solver works."""
        found = self.until(job, "it runs", lambda now: state(now) == "RUNNING" or now.HasField("end_time"))
        assert state(found) == "RUNNING", f"it was over before it was seen to run: {found}"
        eventually("its solver works", lambda: self.seen("start", job), bool)
        return self.job(job)

    def waits(self, job: job_pb2.Job, reason: str, *words: str) -> None:
        """Wait until a job waits for a reason, in words that hold these."""
        expected = job_state_pb2.WaitingReason.Value(f"WAITING_REASON_{reason}")

        def does(now: job_pb2.Job) -> bool:
            return now.waiting.reason == expected and all(word in now.waiting.message for word in words)

        self.until(job, f"{reason} {words}", does)

    def ended(self, job: job_pb2.Job, timeout: float = TIMEOUT) -> job_pb2.Job:
        """Wait for the end of a job."""
        request = jobs_messages_pb2.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=int(timeout)))
        answer = self.jobs.WaitJob(request, timeout=timeout + 5)
        assert answer.job.HasField("end_time"), f"not ended within {timeout:g} s: {answer.job}\n{self.output()[-3000:]}"
        return answer.job

    def cancel(self, job: job_pb2.Job, grace: float | None = None) -> None:
        """Cancel a job."""
        request = jobs_messages_pb2.CancelJobRequest(job=job_ref(job.uid))
        if grace is not None:
            request.grace_period.FromMilliseconds(int(grace * 1000))
        self.jobs.CancelJob(request, timeout=10)

    def killed_at(self, point: str) -> job_pb2.Job:
        """Submit a job to a service that dies at a point of its way, and let the next one bring it to its end."""
        request = self.request("seconds=1", request_id="once")
        job = self.ended(self.dies_at(point, request, lambda: self.answering(True)))
        assert end(job) == DONE
        assert self.seen("start", job) == 1
        started = [*(["STARTING", "RETRYING"] if job.attempt_count == 2 else []), "STARTING", "SCHEDULED", "STARTED"]
        assert self.story(job) == ["QUEUED", *started, "COMPLETED"]
        return job

    def history(self, job: job_pb2.Job) -> list[event_pb2.WatchEvent]:
        """Read all events of a job that has ended."""
        request = jobs_messages_pb2.WatchJobsRequest(
            from_oldest=True, filter=jobs_messages_pb2.JobFilter(jobs=[job_ref(job.uid)])
        )
        found: list[event_pb2.WatchEvent] = []
        for message in self.jobs.WatchJobs(request, timeout=30):
            found.extend(message.events)
            if message.caught_up:
                break
        return found

    def story(self, job: job_pb2.Job) -> list[str]:
        """Return the changes of a job."""
        names = [event_pb2.JobChangeType.Name(event.job_change.type) for event in self.history(job)]
        return [name.removeprefix("JOB_CHANGE_TYPE_") for name in names]

    # What really happened --------------------------------------------------------------------------------

    def seen(self, what: str, job: job_pb2.Job) -> int:
        """Count what the solvers of a job tell of themselves: ``start``, ``end`` or ``sigterm``."""
        return sum(
            line.split()[0] == what
            for file in self.witness.glob(f"{job.id}-*")
            for line in file.read_text().splitlines()
        )

    def run_folder(self, job: job_pb2.Job) -> Path:
        """Folder of the last run of a job."""
        return Path(self.job(job).attempts[-1].run_directory)

    def script_pid(self, job: job_pb2.Job) -> int:
        """Process of the batch script of a job that runs."""
        return self._pid(job, "claim")

    def solver_pid(self, job: job_pb2.Job) -> int:
        """Process of the solver of a job that runs."""
        return self._pid(job, "start")

    def _pid(self, job: job_pb2.Job, record: str) -> int:
        line = (self.run_folder(job) / record).read_text()
        return int(dict(word.split("=", 1) for word in line.split())["pid"])

    def slurm_jobs(self, job: job_pb2.Job) -> list[str]:
        """Return id and state of all SLURM jobs that are runs of a job, ended ones included."""
        mark = f"edb-{job.id}-{job.uid[-16:]}-"
        lines = self.slurm.run("squeue", "-h", "-t", "all", "-o", "%i %T %j").splitlines()
        return [line.rpartition(" ")[0] for line in lines if line.split()[-1].startswith(mark)]


def _shorter(confirm: float | None, stale: float | None) -> str:
    lines = ["from functools import partial", "from edbjobs_server.service import cluster_factory"]
    times = {name: value for name, value in (("confirm", confirm), ("stale", stale)) if value is not None}
    if times:
        lines.append(f"cluster_factory.PollTiming = partial(cluster_factory.PollTiming, **{times})")
    if stale is not None:
        lines.append("cluster_factory.Scripts = partial(cluster_factory.Scripts, beat=1)")
    return "\n".join(lines) if times else ""


def eventually(what: str, ask: Callable[[], Any], expected: Callable[[Any], bool], timeout: float = TIMEOUT) -> Any:
    """Poll until the answer is the expected one, and return it."""
    deadline = time.monotonic() + timeout
    while True:
        found = ask()
        if expected(found):
            return found
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}; last: {found}"
        time.sleep(0.02)


def state(job: job_pb2.Job) -> str:
    """Name of a job's state."""
    return job_state_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")


def end(job: job_pb2.Job) -> tuple[str, str, str]:
    """State, reason and evidence of an ended job."""
    reason = job_state_pb2.EndReason.Name(job.outcome.reason).removeprefix("END_REASON_")
    return state(job), reason, job_state_pb2.Evidence.Name(job.outcome.evidence).removeprefix("EVIDENCE_")


def program(folder: Path, *lines: str) -> Path:
    """Make a solver that is a script of the shell."""
    path = folder / "ansysedt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/bash", *lines, "")))
    path.chmod(0o755)
    return path


def alive(pids: Iterable[int]) -> list[int]:
    """Return the processes that are alive."""
    return [pid for pid in pids if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int, number: int) -> None:
    """Send a signal to a process."""
    assert pid > 1, "not to a group, nor to all"
    os.kill(pid, number)
