"""What every scheduler's adapter must do: one suite over all that have a fake which runs scripts.

SLURM runs it on a real cluster as far as its troubles can be made there; what is special to one scheduler is tested in
`test_slurm_adapter`, `test_pbs_adapter`, `test_lsf_adapter` and `test_windows_hpc_adapter`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import (
    ClusterJobStatus,
    Phase,
    Scheduler,
    Submission,
    SubmitRefused,
    Unreachable,
)
from edbjobs_server.executors.schedulers.lsf import Lsf
from edbjobs_server.executors.schedulers.pbs import Pbs
from edbjobs_server.executors.schedulers.slurm import Slurm
from support.fake_lsf import FakeLsf
from support.fake_pbs import FakePbs
from support.slurm_cluster import PATH, SlurmCluster

E = Ending
FAKES = ["pbs", "lsf", "lsf, old"]
ALL = [*FAKES, pytest.param("slurm", marks=pytest.mark.system)]
PREFIX = {"pbs": "PBS ", "lsf": "BSUB ", "slurm": "SBATCH --"}
UNKNOWN = {"pbs": "77.pbshost", "lsf": "999", "slurm": "99999"}
HELD = {"pbs": "H", "lsf": "PSUSP"}
NO_QUEUE = {"pbs": "Unknown queue", "lsf": "nosuch: No such queue", "slurm": "invalid partition"}
MAKERS: dict[str, Callable[..., Scheduler]] = {"pbs": Pbs, "lsf": Lsf, "slurm": Slurm}
_numbers = itertools.count(1)


@dataclass
class Scene:
    """A scheduler, the cluster that it speaks to, and a folder for scripts."""

    kind: str
    env: dict[str, str]
    folder: Path
    fake: Any = None  # FakePbs or FakeLsf; None: a real cluster
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = self.made(60.0 if self.fake is None else 20.0)

    def made(self, deadline: float) -> Scheduler:
        """Make the adapter."""
        return MAKERS[self.kind](self.env, deadline=deadline)

    async def prepare(self, body: str, options: SchedulerOptions | None = None, **fields: Any) -> Submission:
        """Write a batch script with a name of its own."""
        await self.scheduler.probe()  # shows which release it is
        name = f"edb-t{next(_numbers)}-0123456789abcdef-1"
        allocation = Allocation(name, "edbjobs:u:me", options=options or SchedulerOptions(), **fields)
        folder = self.folder / "runs of me, ü" / name
        folder.mkdir(parents=True)
        script = folder / "script"
        prefix = PREFIX[self.kind]
        head = "".join(f"#{prefix}{line}\n" for line in self.scheduler.directives(allocation))
        script.write_text(f"#!/bin/bash\n{head}\n{body}\n")
        return Submission(allocation, script, folder / "scheduler.out", folder, self.env)

    async def submit(self, body: str, **fields: Any) -> str:
        """Submit a script; returns the id."""
        return await self.scheduler.submit(await self.prepare(body, **fields))

    async def reach(self, ident: str, phase: Phase) -> ClusterJobStatus:
        """Wait for a phase of a job."""
        found: list[ClusterJobStatus] = []

        async def there() -> bool:
            status = (await self.scheduler.look([ident]))[ident]
            assert status is not None
            found.append(status)
            return status.phase is phase

        await until(there)
        return found[-1]


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), nodes=2) as running:
        yield running


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    kind: str = request.param
    if kind == "slurm":
        running: SlurmCluster = request.getfixturevalue("cluster")
        yield Scene("slurm", {**running.env, "PATH": PATH}, tmp_path)
        return
    fake = FakePbs(tmp_path / "pbs") if kind == "pbs" else FakeLsf(tmp_path / "lsf")
    if kind == "lsf, old":
        fake.trouble("old")
    yield Scene(kind.split(",")[0], fake.env, fake.root, fake)
    fake.stop()


on_all = pytest.mark.parametrize("scene", ALL, indirect=True)
on_fakes = pytest.mark.parametrize("scene", FAKES, indirect=True)


@on_all
async def test_success(scene: Scene) -> None:
    submission = await scene.prepare("echo it ran", cores_per_node=2)
    ident = await scene.scheduler.submit(submission)
    ended = await scene.reach(ident, Phase.ENDED)
    name = submission.allocation.name
    assert (ended.name, ended.ending, ended.exit_code, len(ended.nodes)) == (name, E.EXITED, 0, 1)
    assert "it ran" in submission.output.read_text()
    assert [item.id for item in await scene.scheduler.find(name)] == [ident]
    assert await scene.scheduler.find("edb-other-1") == []


@on_all
@pytest.mark.parametrize(("body", "code"), [("exit 3", 3), ("exit 140", 140), ("nosuch", 127)])
async def test_failure(scene: Scene, body: str, code: int) -> None:
    ended = await scene.reach(await scene.submit(body), Phase.ENDED)
    assert (ended.ending, ended.exit_code) == (E.EXITED, code)


@on_all
async def test_cancel_of_a_job_that_runs(scene: Scene) -> None:
    ident = await scene.submit("trap 'exit 7' TERM; sleep 60 & wait")
    await scene.reach(ident, Phase.RUNNING)
    assert (await scene.scheduler.poll())[ident].phase is Phase.RUNNING
    await scene.scheduler.cancel([ident, UNKNOWN[scene.kind]])
    assert (await scene.reach(ident, Phase.ENDED)).ending is E.CANCELLED_EXTERNALLY
    await scene.scheduler.cancel([ident])  # it has ended


@on_all
async def test_kill_of_a_job_that_resists(scene: Scene) -> None:
    ident = await scene.submit("trap '' TERM; while :; do sleep 1; done")
    await scene.reach(ident, Phase.RUNNING)
    await scene.scheduler.cancel([ident])
    await scene.scheduler.cancel([ident], kill=True)
    assert (await scene.reach(ident, Phase.ENDED)).ending is E.CANCELLED_EXTERNALLY


@on_fakes
async def test_cancel_of_a_job_that_waits(scene: Scene) -> None:
    scene.fake.trouble("hold")
    ident = await scene.submit("true")
    waiting = await scene.reach(ident, Phase.PENDING)
    assert (waiting.state, waiting.never) == (HELD[scene.kind], True)
    await scene.scheduler.cancel([ident])
    ended = await scene.reach(ident, Phase.ENDED)
    assert (ended.ending, ended.start_time) == (E.CANCELLED_EXTERNALLY, None)


@on_fakes
async def test_time_limit(scene: Scene) -> None:
    if scene.kind == "lsf":
        scene.fake.trouble("minute", "0.5")
    ident = await scene.submit("sleep 60", time_limit=1.0 if scene.kind == "pbs" else 60.0)
    assert (await scene.reach(ident, Phase.ENDED)).ending is E.TIMEOUT


@on_all
async def test_a_queue_that_does_not_exist(scene: Scene) -> None:
    with pytest.raises(SubmitRefused, match=NO_QUEUE[scene.kind]):
        await scene.submit("true", partition="nosuch")


@on_fakes
async def test_refused_by_the_site(scene: Scene) -> None:
    submission = await scene.prepare("true")
    text = "every job needs a project" if scene.kind == "pbs" else "Request aborted by esub"
    scene.fake.trouble("refuse", text)
    with pytest.raises(SubmitRefused, match=text):
        await scene.scheduler.submit(submission)
    assert scene.fake.jobs() == {}


@on_fakes
async def test_no_answer_is_no_evidence(scene: Scene) -> None:
    """Nothing follows from a server that is down: no method returns an empty list or a refusal."""
    ident = await scene.submit("sleep 60")
    submission = await scene.prepare("true")
    scene.fake.trouble("down")
    hasty = scene.made(0.5 if scene.kind == "lsf" else 20.0)
    calls: list[Callable[[], Awaitable[object]]] = [
        *(hasty.probe, hasty.poll, hasty.partitions, hasty.jobs, lambda: hasty.look([ident])),
        *(lambda: hasty.find("edb-x-1"), lambda: hasty.cancel([ident]), lambda: hasty.submit(submission)),
    ]
    answers = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unreachable] * len(calls)
    scene.fake.trouble("down", None)
    assert (await scene.scheduler.poll()).keys() == {ident}


@on_fakes
async def test_a_submission_that_is_not_answered_is_found(scene: Scene) -> None:
    submission = await scene.prepare("true")
    scene.fake.trouble("submit_hangs")
    with pytest.raises(Unreachable, match="did not answer"):
        await scene.made(2.0).submit(submission)
    (found,) = await scene.scheduler.find(submission.allocation.name)
    assert found.name == submission.allocation.name


@on_fakes
async def test_answers_that_are_cut_off(scene: Scene) -> None:
    ident = await scene.submit("sleep 60")
    await scene.reach(ident, Phase.RUNNING)
    scene.fake.trouble("half")
    with pytest.raises(Unreachable):
        await scene.scheduler.look([ident])


@on_fakes
async def test_jobs_that_are_listed_twice(scene: Scene) -> None:
    ident = await scene.submit("sleep 60")
    await scene.reach(ident, Phase.RUNNING)
    scene.fake.trouble("duplicate", "same")
    assert (await scene.scheduler.poll())[ident].phase is Phase.RUNNING
    scene.fake.trouble("duplicate", "different")
    assert await scene.scheduler.poll() == {}


@on_fakes
async def test_forgotten_jobs(scene: Scene) -> None:
    ident = await scene.submit("true")
    await scene.reach(ident, Phase.ENDED)
    scene.fake.trouble("purge")
    nobody = {ident: None, UNKNOWN[scene.kind]: None}

    async def gone() -> bool:
        return await scene.scheduler.look(list(nobody)) == nobody

    await until(gone)


@pytest.mark.parametrize("kind", MAKERS)
async def test_commands_that_are_not_installed(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"cannot be run|not installed"):
        await MAKERS[kind]({"PATH": str(tmp_path)}).probe()
