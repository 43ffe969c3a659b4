"""One state folder, its service and its clients: what the faults of a round are thrown at."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from edbjobs._calls import job_ref
from edbjobs.v1 import cluster_service_pb2, job_pb2, job_state_pb2, jobs_messages_pb2
from edbjobs_server.executors.local import record
from edbjobs_server.executors.local.linux import processes
from faults.campaign.checker import check
from faults.campaign.clients import OPTIONS, Feeder, Watcher
from faults.campaign.evidence import ClusterJobStatus, Evidence, read_notes
from faults.campaign.proxy import CuttingProxy
from support.service import ServiceProcess

MAX_JOBS = 4
DEPTH = 10
GONE_SECONDS = 10.0  # so long after the end of its job a process may live
DEADLINE = 60.0
RUNNING = jobs_messages_pb2.JobFilter(states=[job_state_pb2.JOB_STATE_RUNNING])
_CLOCK = """
import time
true_time = time.time
def stepped_time():
    with open({path!r}) as file:
        return true_time() + float(file.read())
time.time = stepped_time
# gRPC's deadlines have the true time: its core does not read the stepped clock.
from types import SimpleNamespace
from grpc._cython import cygrpc
cygrpc.time = SimpleNamespace(time=true_time)
"""


@dataclass
class Report:
    """What a round or a whole campaign came to."""

    faults: Counter[str] = field(default_factory=Counter)
    cuts: int = 0  # F10: connections of the watcher
    submitted: int = 0
    acknowledged: int = 0
    restarts: list[float] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        """Take another round in."""
        self.faults += other.faults
        self.cuts += other.cuts
        self.submitted += other.submitted
        self.acknowledged += other.acknowledged
        self.restarts += other.restarts
        for name, breaches in other.findings.items():
            self.findings.setdefault(name, []).extend(breaches)

    @property
    def breaches(self) -> dict[str, list[str]]:
        """Invariants that do not hold."""
        return {name: found for name, found in self.findings.items() if found}


def comes(what: Callable[[], object], seconds: float = DEADLINE) -> bool:
    """Wait for something outside this process that sends no notification; return False if it did not happen."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Round:
    """A service under load.

    Parameters
    ----------
    folder : Path
        Empty; gets everything.
    seed : int
        Of all dice of this round.
    cutting : bool
        Whether the watcher's connection is cut again and again.
    clock : bool
        Whether the service reads a clock of its own, which `set_clock` sets.
    """

    def __init__(self, folder: Path, seed: int, *, cutting: bool = False, clock: bool = False) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        (folder / "witness").mkdir()
        self.service = ServiceProcess(folder, max_local_jobs=MAX_JOBS, max_cores=MAX_JOBS, grpc="")
        self._clock = folder / "clock"
        self._clock.write_text("0")
        if clock:
            self.service.prelude = _CLOCK.format(path=str(self._clock))
        self.evidence = Evidence(MAX_JOBS)
        self.report = Report()
        self.timeout = DEADLINE  # for all jobs to end
        uds = str(self.service.settings["uds"])
        self.proxy = CuttingProxy(uds, seed, cutting)
        self.watcher = Watcher(self.proxy.target, self.evidence)
        self.feeder = Feeder(f"unix:{uds}", folder, self.evidence, self.watcher, DEPTH, seed)

    def run(self, kinds: Iterator[tuple[str, Callable[[Round], None]]], seconds: float = float("inf")) -> Report:
        """Throw faults, no more after so many seconds, let all jobs end, and check."""
        until = time.monotonic() + seconds
        self.up()
        self.watcher.start()
        self.feeder.start()
        try:
            for name, fault in kinds:
                if time.monotonic() > until:
                    break
                self.let_work()
                fault(self)
                self.report.faults[name] += 1
            self.proxy.cutting = False  # what the watcher has missed by now comes in one message
            self.report.cuts = self.proxy.cuts
            self.settle()
        finally:
            self.close()
        self.report.findings = check(self.evidence)
        return self.report

    # The service -----------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start the service; it answers when this returns."""
        started_at = time.monotonic()
        self.service.start()
        self.report.restarts.append(time.monotonic() - started_at)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Do something during which the service is not there; it is back afterwards."""
        down = time.time()
        yield
        self.evidence.downs.append((down, time.time()))

    def let_work(self) -> None:
        """Let runs get going, for a random while."""
        assert comes(self.running), "no run is going on: " + self.service.output()
        time.sleep(self.dice.uniform(0.0, 0.4))  # the moment of the fault, not a wait for something

    def running(self) -> list[job_pb2.Job]:
        """Jobs whose solver runs, as far as the watcher has heard."""
        assert not self.evidence.watch_errors, self.evidence.watch_errors
        assert not self.feeder.failure, self.feeder.failure
        return [job for job in self.watcher.live() if job.state == job_state_pb2.JOB_STATE_RUNNING]

    def sight(self) -> None:
        """Remember the runs that are going on."""
        request = jobs_messages_pb2.ListJobsRequest(page_size=100, filter=RUNNING, view=job_pb2.JOB_VIEW_FULL)
        for job in self.service.jobs.ListJobs(request, timeout=DEADLINE).jobs:
            attempt = job.attempts[-1]
            if attempt.pid and attempt.HasField("start_time"):
                self.evidence.sightings.append(ClusterJobStatus(job.uid, attempt.number, attempt.pid))

    def set_clock(self, seconds: float) -> None:
        """Set the service's clock forwards or back from the true time."""
        self.evidence.stepped = True
        draft = self._clock.with_suffix(".draft")
        draft.write_text(str(seconds))
        draft.replace(self._clock)

    def processes_of(self, job: job_pb2.Job) -> tuple[processes.Process | None, list[processes.Process]]:
        """Find the supervisor and the solver's processes of a job's newest run."""
        request = jobs_messages_pb2.GetJobRequest(job=job_ref(job.uid))
        found = record.read(self.service.jobs.GetJob(request, timeout=DEADLINE).job.attempts[-1].run_directory)
        supervisor = processes.look(found.claim["pid"]) if found.claim and not found.end else None
        if supervisor is not None and found.claim is not None and supervisor.ticks != found.claim["ticks"]:
            supervisor = None
        solver = (found.start["pid"], found.start["ticks"]) if found.start else None
        return supervisor, processes.of_run(f"{job.uid}.{job.attempt_count}", solver, processes.table())

    def runs_of(self, supervisor: processes.Process) -> set[str]:
        """Find the jobs whose run a supervisor had when it was killed: it may just have gone on to another."""
        found = (record.read(str(path.parent)) for path in self.folder.glob(f"state/runs/*/*/{record.NAME}"))
        claims = [each.claim for each in found if each.claim is not None and each.end is None]
        return {
            claim["uid"] for claim in claims if (claim["pid"], claim["ticks"]) == (supervisor.pid, supervisor.ticks)
        }

    # The end ---------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until all jobs have ended, and write down how they stand."""
        self.feeder.enough()
        self.feeder.join(DEADLINE)
        assert not self.feeder.failure, self.feeder.failure
        submitted = {submit.uid for submit in self.evidence.submits}
        # If they do not, the checker names them.
        comes(lambda: not self.watcher.live() and submitted <= self.watcher.latest.keys(), self.timeout)
        with grpc.insecure_channel(self.service.target, options=OPTIONS) as channel:
            self._take_jobs(channel)
        comes(lambda: self.watcher.revision >= self.evidence.revision, 20)
        self.watcher.stop()
        self.watcher.join(30)
        comes(lambda: not self._left(), GONE_SECONDS)
        self.evidence.left = self._left()
        self.evidence.notes = list(read_notes(self.folder / "witness"))
        self.report.submitted = len({submit.request_id for submit in self.evidence.submits})
        self.report.acknowledged = len(submitted)
        assert self.service.stop() == 0, self.service.output()
        with sqlite3.connect(self.service.state_dir / "store.db") as connection:
            (self.evidence.integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()

    def _take_jobs(self, channel: grpc.Channel) -> None:
        token = ""
        while True:
            request = jobs_messages_pb2.ListJobsRequest(page_size=100, page_token=token, view=job_pb2.JOB_VIEW_FULL)
            page = self.service.jobs.ListJobs(request, timeout=30)
            self.evidence.jobs.update({job.uid: job for job in page.jobs})
            token = page.next_page_token
            if not token:
                break
        status = self.service.cluster.GetSystemStatus(cluster_service_pb2.GetSystemStatusRequest(), timeout=30)
        self.evidence.revision = status.position.revision

    def _left(self) -> list[tuple[str, int]]:
        """Live processes of this round's runs; their supervisors too, unless they wait for other runs."""
        marks: dict[bytes, str] = {}
        found = []
        for path in self.folder.glob(f"state/runs/*/*/{record.NAME}"):
            content = record.read(str(path.parent))
            claim = content.claim
            if claim is None:
                continue
            marks[f"{processes.MARK}={claim['uid']}.{claim['attempt']}".encode()] = claim["uid"]
            process = processes.look(claim["pid"])
            busy = claim["kind"] == "run" and content.end is None
            if busy and process and process.ticks == claim["ticks"] and process.state not in "ZX":
                found.append((claim["uid"], process.pid))
        for pid in processes.table():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            found += [(marks[item], pid) for item in environment if item in marks]
        return found

    def close(self) -> None:
        """End the service and whatever is left of its runs."""
        self.feeder.enough()
        self.watcher.stop()
        self.proxy.close()
        if self.service.process is not None:
            self.service.process.kill()
            self.service.process.wait()
        for _, pid in self._left():
            process = processes.look(pid)
            if process is not None:
                processes.kill([process])
