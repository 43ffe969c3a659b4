"""The real service on a fake batch system, PBS or LSF, with the demo solver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edbjobs.v1 import cluster_pb2, cluster_service_pb2, job_pb2, jobs_messages_pb2

from support.fake_batch import FakeBatch
from support.fake_lsf import FakeLsf
from support.fake_pbs import FakePbs
from support.slurm_service import SlurmService, eventually, program

# What the service is started with and neither a command nor a job may have: secrets, its Python, and the habits of
# the account that change what commands mean.
WITHHELD = {
    "EDBJOBS_TOKEN": "t0ken",
    "MY_API_TOKEN": "t0ken",
    "DB_PASSWORD": "t0ken",
    "NOTIFY_SOCKET": "/t0ken",
    "VIRTUAL_ENV": sys.prefix,
    "PYTHONWARNINGS": "default",
    "PBS_DEFAULT": "elsewhere",
    "PBS_DPREFIX": "#X",
    "LSB_DEFAULTQUEUE": "small",
    "LSB_JOBGROUP": "/t0ken",
}
OURS = "BATCH_SERVICE"  # a variable by which commands of the service are known
# A test's time is short: commands are as cheap as a fake's, and nobody minds being asked often.
QUICK = {"interval": 0.5, "floor": 0.25, "tick": 0.1}


@dataclass(frozen=True)
class Kind:
    """A batch system that is imitated.

    Attributes
    ----------
    name : str
        As the service calls it.
    make : callable
        Makes a fake.
    cancel, force, poll, submit : tuple of str
        Commands by which a person ends jobs, what makes that one do it by force, and by which the service sees all
        of them and submits.
    troubles : dict
        What it is always like.
    """

    name: str
    make: Callable[..., FakeBatch]
    cancel: tuple[str, ...]
    force: tuple[str, ...]
    poll: tuple[str, ...]
    submit: tuple[str, ...]
    troubles: Mapping[str, str]

    def start(self, folder: Path, nodes: Mapping[str, int] | None = None) -> FakeBatch:
        """Start a fake."""
        fake = self.make(folder, nodes)
        for name, value in self.troubles.items():
            fake.trouble(name, value)
        return fake


PBS = Kind("pbs", FakePbs, ("qdel",), ("-W", "force"), ("qstat", "-f"), ("qsub",), {})
LSF = Kind("lsf", FakeLsf, ("bkill",), ("-r",), ("bjobs", "-a"), ("bsub",), {"minute": "1"})
OLD_LSF = Kind("lsf", FakeLsf, ("bkill",), ("-r",), ("bjobs", "-w", "-a"), ("bsub",), {"minute": "1", "old": "all"})


class BatchService(SlurmService):
    """A service that hands jobs to a fake.

    Parameters
    ----------
    folder : Path
        As of `SlurmService`.
    kind : Kind
        Which batch system.
    fake : FakeBatch
        The one that jobs go to.
    deadline : float, default: 30
        Seconds each of its commands may take.
    timing : mapping, optional
        Of `Timing`, in place of `QUICK`.
    settings : object
        As of `ServiceProcess`.
    """

    def __init__(
        self,
        folder: Path,
        kind: Kind,
        fake: FakeBatch,
        *,
        deadline: float = 30.0,
        timing: Mapping[str, float] = QUICK,
        **settings: Any,
    ) -> None:
        super().__init__(folder, cast("Any", fake), **{"scheduler": kind.name, **settings})
        self.kind = kind
        self.fake = fake
        self.environment.update(WITHHELD, **{OURS: "1"})
        self.prelude = quick(kind.name, deadline, timing)

    def __enter__(self) -> BatchService:
        """Start, and wait until the service knows that the batch system answers."""
        super().__enter__()
        return self

    def _status(self) -> cluster_pb2.SchedulerStatus:
        status = self.cluster.GetSystemStatus(cluster_service_pb2.GetSystemStatusRequest(), timeout=10)
        return next(scheduler for scheduler in status.schedulers if scheduler.name == self.kind.name)

    def request(self, demo: str = "seconds=0.2", **values: Any) -> jobs_messages_pb2.SubmitJobRequest:
        """Make a request; see `SlurmService.request`."""
        return super().request(demo, **{"scheduler": self.kind.name, **values})

    def number(self, job: job_pb2.Job) -> str:
        """Number by which the fake knows a job."""
        return self.job(job).scheduler_job_id.partition(".")[0]

    def its_jobs(self, job: job_pb2.Job) -> list[Mapping[str, Any]]:
        """What the fake knows of the runs of a job, ended ones included."""
        mark = f"edb-{job.id}-{job.uid[-16:]}-"
        return [found for found in self.fake.jobs().values() if found["name"].startswith(mark)]

    def left(self, job: job_pb2.Job) -> list[str]:
        """Numbers of the runs of a job that have not ended for the fake."""
        return [its["number"] for its in self.its_jobs(job) if its["state"] != "ended"]

    def commands(self) -> list[dict[str, Any]]:
        """What the service itself has run of the fake's commands."""
        return [call for call in self.fake.calls() if OURS in call["env"]]

    def by_somebody(self, job: job_pb2.Job) -> None:
        """Have somebody end a job."""
        self.fake.command(*self.kind.cancel, self.job(job).scheduler_job_id)

    def asked(self, times: int) -> None:
        """Wait until the command by which jobs are looked at was run so many times more."""
        name = self.kind.poll[0]
        before = len(self.fake.calls(name))
        eventually("it is asked", lambda: len(self.fake.calls(name)), lambda now: now >= before + times)

    def polled(self, times: int = 2) -> None:
        """Wait until all jobs have been looked at so many times more."""
        before = len(self.fake.calls(*self.kind.poll))
        eventually("it is asked", lambda: len(self.fake.calls(*self.kind.poll)), lambda now: now >= before + times)


@contextmanager
def batch_service(folder: Path, kind: Kind) -> Iterator[BatchService]:
    """Run a service on two hosts of a batch system; beside the demo solver it has a solver that ends with 0 on TERM."""
    polite = program(folder / "polite", "trap 'exit 0' TERM", "sleep 600 &", "wait")
    fake = kind.start(folder / "fake", {"n1": 16, "n2": 16})
    try:
        with BatchService(folder / "service", kind, fake, solvers=[str(polite)]) as running:
            yield running
    finally:
        fake.stop()


def quick(name: str, deadline: float, timing: Mapping[str, float] = QUICK) -> str:
    """Make Python that has a service ask a scheduler as `timing` says, and wait for its commands up to a deadline."""
    return f"""
from functools import partial
from edbjobs_server.service import cluster_factory

def of_tests(make, *given):
    found = make(*given)
    found._deadline = {deadline!r}
    return found

cluster_factory.make_scheduler = partial(of_tests, cluster_factory.make_scheduler)
timing = cluster_factory.PollTiming
cluster_factory.PollTiming = lambda **given: timing(**{{**given, **{dict(timing)!r}}})
cluster_factory.Scripts = partial(cluster_factory.Scripts, beat=1)
"""
