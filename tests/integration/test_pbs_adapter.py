"""The adapter of PBS against a fake that answers as OpenPBS 23.06 did when it was recorded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import ClusterJobStatus, Phase, Submission, SubmitRefused, Unreachable
from edbjobs_server.executors.schedulers.command import run
from edbjobs_server.executors.schedulers.pbs import Pbs
from edbjobs_server.executors.schedulers.pbs.scheduler import MAX_LOOKS
from support.fake_pbs import FakePbs

E = Ending


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakePbs]:
    found = FakePbs(tmp_path / "pbs")
    yield found
    found.stop()


@pytest.fixture
def pbs(fake: FakePbs) -> Pbs:
    return Pbs(fake.env, deadline=20.0)


NAME = "edb-board-0123456789abcdef-1"


def prepare(
    pbs: Pbs, fake: FakePbs, body: str, name: str = NAME, options: SchedulerOptions | None = None, **fields: object
) -> Submission:
    allocation = Allocation(name, "edbjobs:u:me", options=options or SchedulerOptions(), **fields)  # type: ignore[arg-type]
    folder = fake.root / "runs of me, ü" / name
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "script"
    head = "".join(f"#PBS {line}\n" for line in pbs.directives(allocation))
    script.write_text(f"#!/bin/bash\n{head}\n{body}\n")
    return Submission(allocation, script, folder / "scheduler.out", folder, fake.env)


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not await what():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.05)


async def reach(pbs: Pbs, ident: str, *phases: Phase) -> ClusterJobStatus:
    seen: list[ClusterJobStatus] = []

    async def there() -> bool:
        status = (await pbs.look([ident]))[ident]
        assert status is not None
        seen.append(status)
        return status.phase in phases

    await until(there)
    return seen[-1]


async def test_what_a_script_gets(pbs: Pbs, fake: FakePbs) -> None:
    body = 'echo "$PBS_JOBNAME on $(cat "$PBS_NODEFILE") of $PBS_O_WORKDIR"; pwd'
    submission = prepare(pbs, fake, body, tasks_per_node=2, cores_per_node=2)
    assert await pbs.probe() == "23.06.06"
    ident = await pbs.submit(submission)
    seen = await reach(pbs, ident, Phase.ENDED)
    assert (seen.name, seen.ending, seen.exit_code) == (NAME, E.EXITED, 0)
    assert len(seen.nodes) == 1
    assert seen.start_time is not None
    assert abs(seen.start_time - time.time()) < 60
    node = seen.nodes[0]
    assert submission.output.read_text() == f"{NAME} on {node}\n{node} of {submission.cwd}\n{fake.root / 'home'}\n"
    assert await pbs.poll() == {}
    assert [item.id for item in await pbs.find(NAME)] == [ident]
    assert await pbs.find("edb-other-1") == []


async def test_a_hold_that_is_released(pbs: Pbs, fake: FakePbs) -> None:
    fake.trouble("hold")
    ident = await pbs.submit(prepare(pbs, fake, "true"))
    await reach(pbs, ident, Phase.PENDING)
    fake.trouble("hold", None)
    assert (await reach(pbs, ident, Phase.ENDED)).exit_code == 0


async def test_time_limit(pbs: Pbs, fake: FakePbs) -> None:
    submission = prepare(pbs, fake, "sleep 60", time_limit=1.0)
    seen = await reach(pbs, await pbs.submit(submission), Phase.ENDED)
    assert seen.ending is E.TIMEOUT
    end_in_output = pbs.end_in_output(submission.output.read_text())
    assert end_in_output is not None
    assert end_in_output[0] is E.TIMEOUT


@pytest.mark.parametrize(("trouble", "ending"), [("memory", E.OUT_OF_MEMORY), ("lost", E.NODE_FAIL)])
async def test_ended_by_others(pbs: Pbs, fake: FakePbs, trouble: str, ending: Ending) -> None:
    ident = await pbs.submit(prepare(pbs, fake, "sleep 60"))
    await reach(pbs, ident, Phase.RUNNING)
    fake.trouble(trouble)
    assert (await reach(pbs, ident, Phase.ENDED)).ending is ending


async def test_a_job_that_can_never_run(pbs: Pbs, fake: FakePbs) -> None:
    ident = await pbs.submit(prepare(pbs, fake, "true", cores_per_node=512))

    async def told() -> bool:
        return (await pbs.poll())[ident].never

    await until(told)
    assert "Can Never Run" in (await pbs.poll())[ident].reason


async def test_a_stopped_queue(pbs: Pbs, fake: FakePbs) -> None:
    ident = await pbs.submit(prepare(pbs, fake, "true", partition="stopped"))

    async def told() -> bool:
        return (await pbs.poll())[ident].never

    await until(told)
    assert "administrator" in (await pbs.poll())[ident].message


async def test_a_script_that_has_ended_and_a_job_that_has_not(pbs: Pbs, fake: FakePbs) -> None:
    fake.trouble("ending", "60")
    ident = await pbs.submit(prepare(pbs, fake, "true"))
    seen = await reach(pbs, ident, Phase.ENDING)
    assert seen.ending is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"partition": "nosuch"}, "Unknown queue"),
        ({"partition": "disabled"}, "not enabled"),
        ({"partition": "small", "cores_per_node": 3}, "resource limits"),
        ({"partition": "small", "time_limit": 3600.0}, "resource limits"),
        ({"options": SchedulerOptions(licenses={"nosuch": 1})}, "Unknown resource: nosuch"),
    ],
)
async def test_refused(pbs: Pbs, fake: FakePbs, fields: dict[str, object], words: str) -> None:
    with pytest.raises(SubmitRefused, match=words):
        await pbs.submit(prepare(pbs, fake, "true", **fields))  # type: ignore[arg-type]
    assert fake.jobs() == {}


async def test_a_server_that_hangs(fake: FakePbs) -> None:
    pbs = Pbs(fake.env, deadline=0.5)
    fake.trouble("hang")
    started = time.monotonic()
    with pytest.raises(Unreachable, match="did not answer"):
        await pbs.poll()
    assert time.monotonic() - started < 5


async def test_documents_that_are_no_json(pbs: Pbs, fake: FakePbs) -> None:
    fake.trouble("invalid_json")
    ident = await pbs.submit(prepare(pbs, fake, "sleep 60"))
    seen = await reach(pbs, ident, Phase.RUNNING)
    assert (await pbs.poll())[ident] == seen
    assert [job.id for job in await pbs.jobs()] == [ident]
    await pbs.cancel([ident])
    assert (await reach(pbs, ident, Phase.ENDED)).ending is E.CANCELLED_EXTERNALLY


async def test_answers_that_stop_in_the_middle(pbs: Pbs, fake: FakePbs) -> None:
    ident = await pbs.submit(prepare(pbs, fake, "true"))
    await reach(pbs, ident, Phase.ENDED)
    fake.trouble("half")
    with pytest.raises(Unreachable):
        await pbs.look([ident])
    assert await pbs.poll() == {}  # it may lack jobs; `look` decides


async def test_no_history(pbs: Pbs, fake: FakePbs) -> None:
    fake.trouble("history_off")
    ident = await pbs.submit(prepare(pbs, fake, "sleep 60"))
    await reach(pbs, ident, Phase.RUNNING)
    assert [item.id for item in await pbs.find(NAME)] == [ident]
    await pbs.cancel([ident])

    async def gone() -> bool:
        return (await pbs.look([ident]))[ident] is None

    await until(gone)
    await pbs.cancel([ident])
    assert await pbs.find(NAME) == []


async def test_few_are_looked_at_at_once(pbs: Pbs) -> None:
    seen = await pbs.look([f"{number}.pbshost" for number in range(1000, 1000 + MAX_LOOKS + 5)])
    assert len(seen) == MAX_LOOKS


async def test_queues_and_everybodys_jobs(pbs: Pbs, fake: FakePbs) -> None:
    ident = await pbs.submit(prepare(pbs, fake, "sleep 60", cores_per_node=3))
    await reach(pbs, ident, Phase.RUNNING)
    found = {item.name: item for item in await pbs.partitions()}
    assert (found["workq"].is_default, found["workq"].cores_total, found["workq"].cores_free) == (True, 4, 1)
    assert (found["stopped"].state, found["disabled"].state, found["small"].time_limit) == (
        "down",
        "drain",
        600,
    )
    (job,) = await pbs.jobs()
    assert (job.id, job.name, job.state, job.core_count, job.node_count) == (ident, NAME, "R", 3, 1)


CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures" / "openpbs-23.06.jsonl"


@pytest.mark.parametrize(
    ("name", "argv", "trouble"),
    [
        ("err-queue-unknown", ["qsub", "-q", "nosuch", "SCRIPT"], ""),
        ("err-queue-disabled", ["qsub", "-q", "disabled", "SCRIPT"], ""),
        ("err-queue-limit-ncpus", ["qsub", "-q", "small", "-l", "select=1:ncpus=3", "SCRIPT"], ""),
        ("err-queue-limit-walltime", ["qsub", "-q", "small", "-l", "walltime=01:00:00", "SCRIPT"], ""),
        ("err-resource-unknown", ["qsub", "-l", "select=1:ncpus=1:foo=2", "SCRIPT"], ""),
        ("err-select-syntax", ["qsub", "-l", "select=1:ncpus", "SCRIPT"], ""),
        ("err-walltime-syntax", ["qsub", "-l", "walltime=abc", "SCRIPT"], ""),
        ("err-script-missing", ["qsub", "nosuch.sh"], ""),
        ("qstat-unknown", ["qstat", "-f", "-F", "json", "999999.pbshost"], ""),
        ("qstat-x-unknown", ["qstat", "-x", "-f", "-F", "json", "999999.pbshost"], ""),
        ("qdel-unknown", ["qdel", "999999.pbshost"], ""),
        ("server-down-qstat-all", ["qstat", "-f", "-F", "json"], "down"),
        ("server-down-queues", ["qstat", "-Q", "-f", "-F", "json"], "down"),
        ("server-down-pbsnodes", ["pbsnodes", "-a", "-F", "json"], "down"),
        ("server-down-qdel", ["qdel", "1159.pbshost"], "down"),
        ("server-down-qsub", ["qsub", "SCRIPT"], "down"),
    ],
)
async def test_the_fake_answers_as_recorded(fake: FakePbs, name: str, argv: list[str], trouble: str) -> None:
    if not CAPTURES.exists():
        pytest.skip("openpbs-23.06.jsonl is not beside the checkout")
    was = next(entry for entry in map(json.loads, CAPTURES.read_text().splitlines()) if entry["name"] == name)
    script = fake.root / "script"
    script.write_text("true\n")
    if trouble:
        fake.trouble(trouble)
    answer = await run([str(script) if word == "SCRIPT" else word for word in argv], fake.env, 20.0)
    assert (answer.code, answer.stderr) == (was["rc"], was["stderr"])
    assert bool(answer.stdout) == bool(was["stdout"])
    if was["stdout"]:
        assert json.loads(answer.stdout).keys() == json.loads(was["stdout"]).keys()
