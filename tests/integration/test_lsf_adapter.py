"""The adapter of LSF against a fake: OpenLava 2.2 as it was recorded, and LSF 10.1 as public examples show it."""

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
from edbjobs_server.executors.schedulers.lsf import Lsf
from support.fake_lsf import FakeLsf

E = Ending


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeLsf]:
    found = FakeLsf(tmp_path / "lsf")
    yield found
    found.stop()


@pytest.fixture(params=["10.1", "old"])
def lsf(fake: FakeLsf, request: pytest.FixtureRequest) -> Lsf:
    if request.param == "old":
        fake.trouble("old")
    return Lsf(fake.env, deadline=20.0)


NAME = "edb-board-0123456789abcdef-1"


async def prepare(
    lsf: Lsf, fake: FakeLsf, body: str, name: str = NAME, options: SchedulerOptions | None = None, **fields: object
) -> Submission:
    await lsf.probe()  # tells which LSF it is
    allocation = Allocation(name, "edbjobs:u:me", options=options or SchedulerOptions(), **fields)  # type: ignore[arg-type]
    folder = fake.root / "runs of me, %J ü" / name
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "script"
    head = "".join(f"#BSUB {line}\n" for line in lsf.directives(allocation))
    script.write_text(f"#!/bin/bash\n{head}\n{body}\n")
    env = {**fake.env, "OURS": "yes"}
    return Submission(allocation, script, folder / "scheduler.out", folder, env)


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not await what():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.05)


async def reach(lsf: Lsf, ident: str, *phases: Phase) -> ClusterJobStatus:
    seen: list[ClusterJobStatus] = []

    async def there() -> bool:
        status = (await lsf.look([ident]))[ident]
        assert status is not None
        seen.append(status)
        return status.phase in phases

    await until(there)
    return seen[-1]


def fake_is_old(fake: FakeLsf) -> bool:
    return (fake.root / "state" / "troubles" / "old").exists()


async def test_what_a_script_gets(lsf: Lsf, fake: FakeLsf) -> None:
    body = 'echo "$LSB_JOBNAME on $LSB_MCPU_HOSTS $OURS"'
    submission = await prepare(lsf, fake, body, cores_per_node=2)
    version = await lsf.probe()
    assert version.startswith("openlava project 2.2" if fake_is_old(fake) else "IBM Spectrum LSF")
    ident = await lsf.submit(submission)
    seen = await reach(lsf, ident, Phase.ENDED)
    assert (seen.name, seen.ending, seen.exit_code) == (NAME, E.EXITED, 0)
    assert len(seen.nodes) == 1
    assert seen.submit_time is not None
    assert abs(seen.submit_time - time.time()) < 120
    assert f"{NAME} on {seen.nodes[0]} 2 yes" in submission.output.read_text()
    assert (await lsf.poll())[ident].ending is E.EXITED
    assert [item.id for item in await lsf.find(NAME)] == [ident]
    assert await lsf.find("edb-other-1") == []


async def test_output_that_cannot_be_written_changes_nothing(lsf: Lsf, fake: FakeLsf) -> None:
    submission = await prepare(lsf, fake, "true")
    submission.output.mkdir()
    assert (await reach(lsf, await lsf.submit(submission), Phase.ENDED)).exit_code == 0


async def test_time_limit(lsf: Lsf, fake: FakeLsf) -> None:
    fake.trouble("minute", "0.5")
    submission = await prepare(lsf, fake, "sleep 60", time_limit=60.0)
    seen = await reach(lsf, await lsf.submit(submission), Phase.ENDED)
    assert seen.ending is E.TIMEOUT
    end_in_output = lsf.end_in_output(submission.output.read_text())
    assert end_in_output == (None if fake_is_old(fake) else (E.TIMEOUT, end_in_output[1] if end_in_output else ""))


async def test_memory_kill(fake: FakeLsf) -> None:
    lsf = Lsf(fake.env)
    submission = await prepare(lsf, fake, "sleep 60")
    ident = await lsf.submit(submission)
    await reach(lsf, ident, Phase.RUNNING)
    fake.trouble("memory")
    assert (await reach(lsf, ident, Phase.ENDED)).ending is E.OUT_OF_MEMORY
    assert (lsf.end_in_output(submission.output.read_text()) or [None])[0] is E.OUT_OF_MEMORY


async def test_a_host_that_is_lost(fake: FakeLsf) -> None:
    lsf = Lsf(fake.env)
    ident = await lsf.submit(await prepare(lsf, fake, "sleep 60"))
    await reach(lsf, ident, Phase.RUNNING)
    fake.trouble("unknown")
    seen = (await lsf.poll())[ident]
    assert (seen.state, seen.phase) == ("UNKWN", Phase.RUNNING)
    fake.trouble("lost")
    assert (await reach(lsf, ident, Phase.ENDED)).ending is E.NODE_FAIL


@pytest.mark.parametrize("trouble", ["never", "stopped"])
async def test_a_job_that_can_never_run(lsf: Lsf, fake: FakeLsf, trouble: str) -> None:
    fake.trouble(trouble)
    ident = await lsf.submit(await prepare(lsf, fake, "true"))

    async def told() -> bool:
        seen = (await lsf.look([ident]))[ident]
        return seen is not None and seen.never

    await until(told)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"partition": "nosuch"}, "nosuch: No such queue"),
        ({"cores_per_node": 512}, "Too many processors requested"),
        ({"partition": "small", "time_limit": 3600.0}, "RUNLIMIT"),
    ],
)
async def test_refused(lsf: Lsf, fake: FakeLsf, fields: dict[str, object], words: str) -> None:
    with pytest.raises(SubmitRefused, match=words):
        await lsf.submit(await prepare(lsf, fake, "true", **fields))  # type: ignore[arg-type]
    assert fake.jobs() == {}


async def test_a_submit_before_the_first_question(lsf: Lsf, fake: FakeLsf) -> None:
    submission = await prepare(lsf, fake, "true")
    ident = await Lsf(fake.env).submit(submission)  # which does not know yet which LSF it is
    assert (await reach(lsf, ident, Phase.ENDED)).exit_code == 0
    assert fake.jobs()[ident]["chosen"].get("Jd") == (None if fake_is_old(fake) else "edbjobs:u:me")


async def test_options_that_an_old_lsf_lacks_are_refused(fake: FakeLsf) -> None:
    lsf = Lsf(fake.env)
    submission = await prepare(lsf, fake, "true", options=SchedulerOptions(gpus_per_node=1))
    fake.trouble("old")
    with pytest.raises(SubmitRefused, match=r"illegal option -- gpu$"):
        await Lsf(fake.env).submit(submission)


@pytest.mark.parametrize("words", ["LIM is down; try later", "Batch daemon not responding"])
async def test_words_that_are_no_refusal(lsf: Lsf, fake: FakeLsf, words: str) -> None:
    fake.trouble("refuse", words)
    with pytest.raises(Unreachable, match=words):
        await lsf.submit(await prepare(lsf, fake, "true"))


async def test_clients_that_complain_before_they_answer(lsf: Lsf, fake: FakeLsf) -> None:
    fake.trouble("banner")
    ident = await lsf.submit(await prepare(lsf, fake, "sleep 60"))
    await reach(lsf, ident, Phase.RUNNING)
    assert (await lsf.poll()).keys() == {ident}


async def test_answers_that_stop_in_the_middle(lsf: Lsf, fake: FakeLsf) -> None:
    ident = await lsf.submit(await prepare(lsf, fake, "sleep 60"))
    await reach(lsf, ident, Phase.RUNNING)
    fake.trouble("half")
    for ask in (lsf.poll, lsf.probe, lsf.jobs):
        with pytest.raises(Unreachable):
            await ask()
    with pytest.raises(Unreachable):
        await lsf.look([ident])


async def test_ended_jobs_are_found_in_the_history(lsf: Lsf, fake: FakeLsf) -> None:
    fake.trouble("clean")
    ident = await lsf.submit(await prepare(lsf, fake, "exit 3"))
    kept: list[ClusterJobStatus] = []

    async def over() -> bool:
        seen = (await lsf.look([ident])).get(ident)
        kept.extend([seen] if seen is not None and seen.phase is Phase.ENDED else [])
        return bool(kept)

    await until(over)
    assert (kept[0].name, kept[0].ending, kept[0].exit_code) == (NAME, E.EXITED, 3)
    assert await lsf.poll() == {}
    assert [(item.id, item.exit_code) for item in await lsf.find(NAME)] == [(ident, 3)]


async def test_queues_and_everybodys_jobs(lsf: Lsf, fake: FakeLsf) -> None:
    ident = await lsf.submit(await prepare(lsf, fake, "sleep 60", cores_per_node=3))
    await reach(lsf, ident, Phase.RUNNING)
    found = {item.name: item for item in await lsf.partitions()}
    normal = found["normal"]
    assert (normal.is_default, normal.cores_total, normal.cores_used, normal.cores_free) == (True, 4, 3, 1)
    assert (normal.memory_total_bytes, found["small"].time_limit) == (24105 << 20, 600)
    (job,) = await lsf.jobs()
    assert (job.id, job.name, job.state, job.core_count, job.node_count) == (ident, NAME, "RUN", 3, 1)
    fake.trouble("stopped")
    assert {item.state for item in await lsf.partitions()} == {"down"}


CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures" / "openlava-2.2.jsonl"


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("err-queue", ["bsub", "-q", "nosuch"]),
        ("err-proclimit", ["bsub", "-q", "small", "-n", "3"]),
        ("err-toomany", ["bsub", "-n", "512"]),
        ("err-runlimit", ["bsub", "-q", "small", "-W", "60"]),
        ("bjobs-unknown", ["bjobs", "-w", "999999"]),
        ("bkill-unknown", ["bkill", "999999"]),
    ],
)
async def test_the_fake_answers_as_recorded(fake: FakeLsf, name: str, argv: list[str]) -> None:
    if not CAPTURES.exists():
        pytest.skip("openlava-2.2.jsonl is not beside the checkout")
    was = next(entry for entry in map(json.loads, CAPTURES.read_text().splitlines()) if entry["name"] == name)
    fake.trouble("old")
    answer = await run(argv, fake.env, 20.0, stdin=b"true\n")
    assert (answer.code, answer.stdout, answer.stderr) == (was["rc"], was["stdout"], was["stderr"])
