"""The adapter of Windows HPC Pack over TLS, on a server made from Microsoft's documents; no real one was at hand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.schedulers.base import Phase, Submission, SubmitRefused, Unreachable
from edbjobs_server.executors.schedulers.windows_hpc import WindowsHpc
from support.fake_hpcpack import PASSWORD, SPECIFICATION, USER, FakeHpcPack, node

NAME = "edb-board-0123456789abcdef-1"


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeHpcPack]:
    async with FakeHpcPack(tmp_path) as server:
        yield server
    assert server.violations == []


@pytest.fixture
async def hpc(fake: FakeHpcPack) -> AsyncIterator[WindowsHpc]:
    adapter = adapter_of(fake)
    yield adapter
    await adapter.close()


def adapter_of(fake: FakeHpcPack, **more: Any) -> WindowsHpc:
    settings: dict[str, Any] = {"ca_file": fake.ca_file, "path_map": {"/shared": "\\\\fs\\runs"}, "deadline": 5.0}
    return WindowsHpc(fake.url, lambda: (USER, PASSWORD), **{**settings, **more})


def submission(name: str = NAME, folder: str = "/shared/000000/1.1", **more: Any) -> Submission:
    allocation = Allocation(name, "edbjobs:u1:ann", cores_per_node=4, **more)
    run = Path(folder)
    return Submission(allocation, run / "script.ps1", run / "output", run, {"HOME": "/root"})


def answering(status: int, body: Any = None) -> Callable[[], web.Response]:
    return lambda: web.json_response(body, status=status)


async def test_the_specification_is_checked() -> None:
    if not SPECIFICATION.exists():
        pytest.skip(f"{SPECIFICATION.name} is not beside the checkout")
    from support.fake_hpcpack import Specification

    spec = Specification(SPECIFICATION)
    assert spec.wrong("GET", "/jobs", {"owner": "x"}, None) == []
    assert spec.wrong("GET", "/jobs", {"nonsense": "x"}, None)
    assert spec.wrong("POST", "/jobs", {}, {"Name": "x"})
    assert spec.wrong("POST", "/nowhere", {}, None)


# Handing over ------------------------------------------------------------------------------------------------


async def test_a_job_is_made_given_its_task_and_submitted(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    job_id = await hpc.submit(submission(memory_bytes_per_node=2048 << 20))
    job = fake.jobs[int(job_id)]
    assert [(method, path) for method, path, _ in fake.requests] == [
        ("POST", "/jobs"),
        ("POST", f"/jobs/{job_id}/tasks"),
        ("POST", f"/jobs/{job_id}/submit"),
    ]
    assert job.job["Name"] == NAME
    assert (job.job["UnitType"], job.job["MinCores"], job.job["MinMemory"]) == ("0", "4", "2048")
    (task,) = job.tasks
    assert task["WorkDirectory"] == "\\\\fs\\runs\\000000\\1.1"
    assert task["StdOutFilePath"] == "\\\\fs\\runs\\000000\\1.1\\output"
    assert task["StdErrFilePath"] == "\\\\fs\\runs\\000000\\1.1\\output.err"
    assert task["CommandLine"].endswith(' -File "\\\\fs\\runs\\000000\\1.1\\script.ps1"')
    assert (task["IsRerunnable"], task["MaxCores"]) == ("false", "4")
    assert job.job["State"] == "Queued"


async def test_what_directives_says_is_what_is_sent(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    asked = submission(partition="Big", time_limit=86_400.0)
    job_id = await hpc.submit(asked)
    sent = {item["Name"]: item["Value"] for item in fake.requests[0][2]}
    assert [f"{name}={value}" for name, value in sent.items()] == hpc.directives(asked.allocation)
    assert fake.jobs[int(job_id)].job["RuntimeSeconds"] == "86400"


@pytest.mark.parametrize("path", ["/jobs", r"/jobs/\d+/tasks", r"/jobs/\d+/submit"])
@pytest.mark.parametrize("status", [400, 403, 409])
async def test_a_refusal_leaves_nothing_that_could_run(
    fake: FakeHpcPack, hpc: WindowsHpc, path: str, status: int
) -> None:
    fake.trouble("POST", path, answering(status, "Die Knotengruppe ist nicht vorhanden."))
    with pytest.raises(SubmitRefused, match="Die Knotengruppe ist nicht vorhanden"):
        await hpc.submit(submission())
    assert all(job.job["State"] == "Canceled" for job in fake.jobs.values())
    assert all(seen.ending is Ending.NEVER_RAN for seen in await hpc.find(NAME))


async def test_a_refused_job_that_cannot_be_cancelled_either_is_called_off_by_find(
    fake: FakeHpcPack, hpc: WindowsHpc, caplog: pytest.LogCaptureFixture
) -> None:
    fake.trouble("POST", r"/jobs/\d+/tasks", answering(400, "no"))
    fake.trouble("POST", r"/jobs/\d+/cancel", answering(503))
    with caplog.at_level(logging.WARNING), pytest.raises(SubmitRefused):
        await hpc.submit(submission())
    assert "stays in the state Configuring" in caplog.text
    (seen,) = await hpc.find(NAME)
    assert seen.ending is Ending.NEVER_RAN


@pytest.mark.parametrize("path", ["/jobs", r"/jobs/\d+/tasks", r"/jobs/\d+/submit"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_submit_cut_off_anywhere_never_gives_a_twin(
    fake: FakeHpcPack, hpc: WindowsHpc, path: str, when: str
) -> None:
    fake.trouble("POST", path, lambda: "cut", when=when)
    with pytest.raises(Unreachable):
        await hpc.submit(submission())
    assert not any(row.name == NAME and row.state == "Configuring" for row in (await hpc.poll()).values())
    found = await hpc.find(NAME)
    submitted = path.endswith("submit") and when == "after"
    made = path != "/jobs" or when == "after"
    assert len(found) == int(made)
    if made:
        assert found[0].phase is (Phase.PENDING if submitted else Phase.ENDED)
        assert found[0].ending is (None if submitted else Ending.NEVER_RAN)
    assert len([job for job in fake.jobs.values() if job.job["State"] == "Queued"]) == int(submitted)
    assert [row.ending for row in await hpc.find(NAME)] == [row.ending for row in found]  # and so it stays


async def test_a_submit_that_arrives_after_the_calling_off_is_refused(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    arrived = asyncio.Event()
    go_on = asyncio.Event()

    async def late() -> None:
        arrived.set()
        await go_on.wait()

    impatient = adapter_of(fake, deadline=0.3)
    fake.trouble("POST", r"/jobs/\d+/submit", late)
    with pytest.raises(Unreachable, match=r"not answered within 0\.3 s"):
        await impatient.submit(submission())
    await impatient.close()
    assert arrived.is_set()
    (seen,) = await hpc.find(NAME)
    assert seen.ending is Ending.NEVER_RAN
    go_on.set()
    # The late one, by hand: the head node answers it as our own would have been.
    with pytest.raises(ValueError, match="configuration state"):
        fake._submit(fake.jobs[19], [])
    assert fake.jobs[19].job["State"] == "Canceled"


async def test_find_leaves_a_job_alone_that_is_being_handed_over(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    made, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        made.set()
        await go_on.wait()

    fake.trouble("POST", r"/jobs/\d+/tasks", slow)
    handing = asyncio.create_task(hpc.submit(submission()))
    await asyncio.wait_for(made.wait(), 5)
    (seen,) = await hpc.find(NAME)
    go_on.set()
    assert (seen.phase, seen.state) == (Phase.PENDING, "Configuring")
    assert fake.jobs[int(await handing)].job["State"] == "Queued"


async def test_find_waits_where_the_calling_off_is_refused(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    fake.trouble("POST", r"/jobs/\d+/submit", lambda: "cut")
    with pytest.raises(Unreachable):
        await hpc.submit(submission())
    fake.trouble("POST", r"/jobs/\d+/cancel", answering(400, "not now"))
    with pytest.raises(Unreachable, match="made but never submitted"):
        await hpc.find(NAME)
    (seen,) = await hpc.find(NAME)
    assert seen.ending is Ending.NEVER_RAN


async def test_a_path_the_nodes_do_not_see_is_refused(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    with pytest.raises(SubmitRefused, match="below no folder that the nodes see"):
        await hpc.submit(submission(folder="/home/ann"))
    assert fake.requests == []


# Asking ------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_job(fake: FakeHpcPack, hpc: WindowsHpc, tmp_path: Path) -> None:
    job_id = await hpc.submit(submission())
    assert (await hpc.poll())[job_id].phase is Phase.PENDING
    started = float(int(time.time())) - 60
    fake.start(job_id, "CN001,CN002", at=started)
    seen = (await hpc.poll())[job_id]
    assert (seen.phase, seen.nodes, seen.start_time, seen.name) == (Phase.RUNNING, ("CN001", "CN002"), started, NAME)
    fake.record(tmp_path, "exit", code=3, signal="none", time=int(started) + 30)
    fake.finish(job_id, 3, at=started + 30)
    assert job_id not in await hpc.poll()
    ended = (await hpc.look([job_id]))[job_id]
    assert ended is not None
    assert (ended.phase, ended.ending, ended.exit_code) == (Phase.ENDED, Ending.EXITED, 3)
    assert ended.end_time == started + 30
    left = record.read(tmp_path).exit
    assert left is not None
    assert left.code == ended.exit_code


@pytest.mark.parametrize("code", [0, 1, 255, -1073741819])
async def test_the_exit_code_is_the_tasks(fake: FakeHpcPack, hpc: WindowsHpc, code: int) -> None:
    job_id = await hpc.submit(submission())
    fake.start(job_id)
    fake.finish(job_id, code)
    seen = (await hpc.look([job_id]))[job_id]
    assert seen is not None
    assert (seen.ending, seen.exit_code) == (Ending.EXITED, code)


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("started", [True, False])
async def test_somebody_cancels(fake: FakeHpcPack, hpc: WindowsHpc, codes: bool, started: bool) -> None:
    fake.gives_error_codes = codes
    job_id = await hpc.submit(submission())
    if started:
        fake.start(job_id)
    fake.cancel(job_id)
    seen = (await hpc.look([job_id]))[job_id]
    assert seen is not None
    assert seen.ending is Ending.CANCELLED_EXTERNALLY
    assert "maintenance" in seen.reason


async def test_the_run_time_limit_is_told_without_words_or_numbers(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    job_id = await hpc.submit(submission(time_limit=60.0))
    fake.start(job_id, at=time.time() - 61)
    fake.end(job_id, "Failed", ErrorMessage="実行時間の制限を超えました")
    seen = (await hpc.look([job_id]))[job_id]
    assert seen is not None
    assert seen.ending is Ending.TIMEOUT


async def test_a_job_that_is_not_valid_is_refused_after_its_submit(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    job_id = await hpc.submit(submission())
    fake.end(job_id, "Failed", ErrorMessage="The cluster does not contain the required minimum number of resources.")
    seen = (await hpc.look([job_id]))[job_id]
    assert seen is not None
    assert seen.ending is Ending.SUBMIT_REFUSED
    assert "minimum number of resources" in seen.reason


@pytest.mark.parametrize("status", [400, 404])
async def test_an_unknown_id_is_told_from_an_outage(fake: FakeHpcPack, hpc: WindowsHpc, status: int) -> None:
    fake.unknown_status = status
    job_id = await hpc.submit(submission())
    fake.trouble("GET", f"/jobs/{job_id}", answering(500, "SQL timeout"))
    assert await hpc.look([job_id, "4711"]) == {"4711": None}
    fake.purge(job_id)
    assert await hpc.look([job_id, "x"]) == {job_id: None, "x": None}
    assert await hpc.find(NAME) == []


async def test_nothing_follows_from_a_task_list_that_does_not_come(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    job_id = await hpc.submit(submission())
    fake.start(job_id)
    fake.finish(job_id, 0)
    fake.trouble("GET", f"/jobs/{job_id}/tasks", answering(503))
    with pytest.raises(Unreachable, match="503"):
        await hpc.look([job_id])


async def test_lists_come_in_pages(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    fake.page_limit = 7
    ids = {await hpc.submit(submission(f"{NAME}{number}")) for number in range(23)}
    assert set(await hpc.poll()) == ids
    (seen,) = await hpc.find(f"{NAME}3")
    assert seen.name == f"{NAME}3"


async def test_only_our_own_jobs_are_polled_and_all_are_listed(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    ours, theirs = [await hpc.submit(submission(f"{NAME}{number}")) for number in range(2)]
    fake.jobs[int(theirs)].job["Owner"] = "HPC\\bob"
    fake.start(ours, "CN001")
    assert set(await hpc.poll()) == {ours}
    first, second = sorted(await hpc.jobs(), key=lambda job: int(job.id))
    assert (first.user, first.state, first.node_count, first.core_count, first.nodes) == (
        USER,
        "Running",
        1,
        4,
        ("CN001",),
    )
    assert (second.user, second.state, second.node_count) == ("HPC\\bob", "Queued", 0)


async def test_partitions_add_up_their_nodes(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    fake.nodes.append(node("CN003", 4, State="Offline"))
    fake.in_use = {"CN001": 3, "CN002": 0, "CN003": 0}
    head, compute, big = await hpc.partitions()
    assert (head.name, head.state, head.nodes_total) == ("HeadNodes", "down", 0)
    assert (compute.name, compute.state) == ("ComputeNodes", "up")
    assert (compute.nodes_total, compute.nodes_used, compute.nodes_free) == (3, 1, 1)
    assert (compute.cores_total, compute.cores_used, compute.cores_free) == (28, 3, 21)
    assert compute.memory_total_bytes == 3 * 28672 * 1024 * 1024
    assert (big.nodes_total, big.cores_total) == (1, 16)


# Ending ------------------------------------------------------------------------------------------------------


async def test_cancel_passes_over_what_has_ended(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    done, running = [await hpc.submit(submission(f"{NAME}{number}")) for number in range(2)]
    fake.start(done)
    fake.finish(done, 0)
    await hpc.cancel([done, "4711", running])
    assert fake.jobs[int(running)].job["State"] == "Canceled"
    assert fake.jobs[int(done)].job["State"] == "Finished"
    seen = (await hpc.look([running]))[running]
    assert seen is not None
    assert seen.ending is Ending.CANCELLED_EXTERNALLY


async def test_a_cancel_that_is_refused_is_told(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    job_id = await hpc.submit(submission())
    fake.trouble("POST", r"/jobs/\d+/cancel", answering(409, "busy"))
    with pytest.raises(Unreachable, match=f"job {job_id}.*busy"):
        await hpc.cancel([job_id])
    await hpc.cancel([job_id], kill=True)
    assert fake.jobs[int(job_id)].job["State"] == "Canceled"


# Outages -----------------------------------------------------------------------------------------------------


async def test_probe(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    assert await hpc.probe() == "6.1.7531.0"
    fake.version = {"Version": 1}
    with pytest.raises(Unreachable, match="head node"):
        await hpc.probe()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(401), "does not accept the user and password"),
        (answering(403, {"Message": "no"}), "add it to the cluster's users"),
        (answering(500, "SQL"), "not able to answer now"),
        (answering(503), "HTTP 503"),
        (lambda: web.Response(status=302, headers={"Location": "https://elsewhere/"}), "redirect"),
        (lambda: web.Response(text="<html><body>Sign in</body></html>"), "not answered in JSON: Sign in"),
        (lambda: web.Response(status=404, text="<html>IIS 404</html>"), "no REST service of HPC Pack"),
        (lambda: "cut", "failed"),
        (lambda: asyncio.sleep(30), r"not answered within 0\.3 s"),
    ],
)
async def test_troubles_say_what_to_do(fake: FakeHpcPack, answer: Callable[[], Any], words: str) -> None:
    adapter = adapter_of(fake, deadline=0.3)
    fake.trouble("GET", "/cluster/version", answer, times=5)
    with pytest.raises(Unreachable, match=words):
        await adapter.probe()
    await adapter.close()


async def test_a_list_cut_short_is_no_list(fake: FakeHpcPack, hpc: WindowsHpc) -> None:
    await hpc.submit(submission())
    fake.trouble("GET", "/jobs", answering(500), times=1)
    with pytest.raises(Unreachable):
        await hpc.poll()
    fake.trouble("GET", "/jobs", answering(200, {"not": "a list"}))
    with pytest.raises(Unreachable, match="not a list"):
        await hpc.find(NAME)
    fake.trouble("GET", "/jobs", answering(400, "the filter is not valid"))
    with pytest.raises(Unreachable, match="filter"):
        await hpc.poll()


async def test_the_head_node_must_show_a_certificate_we_trust(fake: FakeHpcPack, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    adapter = adapter_of(fake, ca_file=tmp_path / "other.pem")
    with pytest.raises(Unreachable, match=r"(?i)certificate \w+"):
        await adapter.probe()
    await adapter.close()
    assert fake.requests == []


async def test_the_password_is_never_told(fake: FakeHpcPack, hpc: WindowsHpc, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fake.trouble("POST", r"/jobs/\d+/submit", answering(400, f"bad password {PASSWORD}!"))
    with pytest.raises(SubmitRefused) as refused:
        await hpc.submit(submission())
    assert "bad password ***!" in str(refused.value)
    assert PASSWORD not in caplog.text
    wrong = adapter_of(fake)
    wrong._rest._credentials = lambda: (USER, "other-secret")
    with pytest.raises(Unreachable) as unreachable:
        await wrong.probe()
    await wrong.close()
    assert "other-secret" not in str(unreachable.value)
    assert "DOMAIN\\user" in str(unreachable.value)


async def test_plain_http_on_loopback(tmp_path: Path) -> None:
    async with FakeHpcPack(tmp_path, tls=False) as server:
        adapter = adapter_of(server, ca_file=None)
        assert await adapter.probe() == server.version
        await adapter.close()


async def test_nobody_there(fake: FakeHpcPack) -> None:
    adapter = WindowsHpc("https://127.0.0.1:1", lambda: (USER, PASSWORD), fake.ca_file)
    with pytest.raises(Unreachable, match="failed"):
        await adapter.probe()
    await adapter.close()
