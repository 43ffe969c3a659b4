"""Faults of the old service that the documented API can show: each has a test that would catch it here.

The numbers are those of docs/compatibility.md.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio
from support.web import WebService, job_config, until

ENDED = {"completed", "failed", "cancelled"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    folder = tmp_path_factory.mktemp("gateway")
    with WebService(folder, max_local_jobs=1, telemetry_seconds=0.5, kill_leftovers_seconds=1) as running:
        yield running


@pytest.fixture
async def api(service: WebService) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(service.url) as session:
        made = Api(session)
        await made.call("PUT", "/pool/limits", {"max_concurrent_jobs": 1, "min_memory_gb": 0, "max_cpu_percent": 0})
        yield made
        for job in await made.get("/jobs"):
            if job["status"] not in ENDED:
                await made.call("POST", f"/jobs/{job['uid']}/cancel")
                await made.ended(job["uid"])


class Api:
    """The documented routes."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.session.request(method, path, **({} if body is None else {"json": body})) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        status, found = await self.call("GET", path)
        assert status == 200, found
        return found

    async def submit(self, config: dict[str, Any], priority: int = 0) -> dict[str, Any]:
        status, found = await self.call("POST", "/jobs/submit", {"config": config, "priority": priority})
        assert status == 200, found
        return dict(found)

    async def reached(self, name: str, *states: str) -> dict[str, Any]:
        async def look() -> Any:
            job = await self.get(f"/jobs/{name}")
            return job if job["status"] in states else None

        return dict(await until(look))

    async def ended(self, name: str) -> dict[str, Any]:
        return await self.reached(name, *ENDED)

    async def block(self, folder: Path, name: str = "blocker") -> None:
        """Occupy the one slot."""
        await self.submit(job_config(folder, seconds=60, jobid=name))
        await self.reached(name, "running")


async def test_fault_01_a_program_that_a_client_names_is_not_run(api: Api, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    program = tmp_path / "evil"
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    answer = await api.submit(job_config(tmp_path / "p", jobid="evil", ansys_edt_path=str(program)))
    assert any(str(program) in text for text in answer["warnings"])
    job = await api.ended("evil")
    assert (job["status"], job["demo"]) == ("completed", True)
    assert not witness.exists()


@pytest.mark.parametrize(
    "more",
    [
        {"scheduler_options": {"queue": "a\n#SBATCH --wrap=evil"}},
        {"scheduler_options": {"account": "a\nevil"}},
        {"design_name": "'; touch evil; '"},
        {"setup_name": "a\nb"},
        {"machine_nodes": [{"hostname": "a -evil"}]},
        {"layout_options": {"mpi_vendor": "x' -evil '"}},
        {"jobid": "../evil"},
    ],
)
async def test_fault_02_no_text_becomes_part_of_a_script(api: Api, tmp_path: Path, more: dict[str, Any]) -> None:
    body = {"config": {**job_config(tmp_path), **more}}
    status, answer = await api.call("POST", "/jobs/submit", body)
    assert (status, answer["reason"]) == (400, "INVALID_JOB")


async def test_fault_02_a_path_with_spaces_and_quotes_is_solved(api: Api, tmp_path: Path) -> None:
    job = await api.submit(job_config(tmp_path / "with 'quotes' and $(spaces)"))
    assert (await api.ended(job["uid"]))["status"] == "completed"


async def test_faults_03_and_06_priority_counts_and_may_be_negative(api: Api, tmp_path: Path) -> None:
    await api.block(tmp_path / "b")
    for name, priority in (("low", -5), ("middle", 0), ("high", 10)):
        answer = await api.submit(job_config(tmp_path / name, jobid=name), priority)
        assert answer["priority"] == priority
    assert (await api.get("/queue"))["priority_queues"] == {"-5": 1, "10": 1}
    await api.call("POST", "/jobs/blocker/cancel")
    jobs = [await api.ended(name) for name in ("low", "middle", "high")]
    started = sorted(jobs, key=lambda job: job["start_time"])
    assert [job["id"] for job in started] == ["high", "middle", "low"]


async def test_fault_04_the_limits_hold(api: Api, tmp_path: Path) -> None:
    # No gate for processors: that of a busy machine would be reported first.
    status, _ = await api.call("PUT", "/pool/limits", {"min_memory_gb": 1_000_000, "max_cpu_percent": 0})
    assert status == 200
    await api.submit(job_config(tmp_path, jobid="gated"))
    job = await api.get("/jobs/gated")
    assert (job["status"], job["waiting_reason"]) == ("queued", "memory_gate")
    assert "memory" in job["waiting_detail"]
    await api.call("PUT", "/pool/limits", {"min_memory_gb": 0})
    assert (await api.ended("gated"))["status"] == "completed"


async def test_fault_05_priority_never_runs_a_job_again(api: Api, tmp_path: Path) -> None:
    await api.submit(job_config(tmp_path / "a", jobid="once", seconds=60))
    await api.reached("once", "running")
    status, answer = await api.call("POST", "/jobs/once/priority", {"priority": 5})
    assert (status, answer["reason"]) == (409, "JOB_STARTED")
    await api.submit(job_config(tmp_path / "b", jobid="waits"))
    status, answer = await api.call("POST", "/jobs/waits/priority", {"priority": "high"})
    assert (status, answer["reason"]) == (400, "INVALID_PRIORITY")
    assert (await api.get("/jobs/waits"))["jobs_before"] == 0  # still in the queue
    status, answer = await api.call("POST", "/jobs/waits/priority", {"priority": 4})
    assert (status, answer["priority"]) == (200, 4)
    assert (await api.get("/jobs/waits"))["priority"] == 4
    await api.call("POST", "/jobs/once/cancel")
    job = await api.ended("once")
    status, answer = await api.call("POST", "/jobs/once/priority", {"priority": 5})
    assert (status, answer["reason"]) == (409, "JOB_ENDED")
    await api.ended("waits")
    later = await api.get("/jobs/once")
    assert (later["revision"], later["attempts"]) == (job["revision"], job["attempts"])


async def test_fault_07_a_live_id_is_not_run_twice_and_history_stays(api: Api, tmp_path: Path) -> None:
    config = job_config(tmp_path, jobid="twice")
    first, second = await api.submit(config), await api.submit(config)
    assert (first["uid"], second["existed"]) == (second["uid"], True)
    other = await api.submit({**config, "cores": 2})
    assert other["uid"] == first["uid"]
    assert "was not taken" in " ".join(other["warnings"])
    await api.ended("twice")
    third = await api.submit(config)
    assert (third["existed"], third["job_id"]) == (False, "twice")
    await api.ended(third["uid"])
    assert (await api.get(f"/jobs/{first['uid']}"))["status"] == "completed"
    assert len([job for job in await api.get("/jobs") if job["id"] == "twice"]) == 2


async def test_fault_08_limits_are_taken_whole_or_not_at_all(api: Api) -> None:
    before = await api.get("/pool/limits")
    for wrong in ({"min_memory_gb": 1, "min_disk_gb": "x"}, {"max_concurrent_jobs": True}, {"max_cpu_percent": 101}):
        status, answer = await api.call("PUT", "/pool/limits", wrong)
        assert (status, answer["reason"]) == (400, "INVALID_LIMITS")
    assert await api.get("/pool/limits") == before


def pids_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("children", ["stubborn", "daemon"])
async def test_faults_11_and_12_cancel_ends_the_engines_too(api: Api, tmp_path: Path, children: str) -> None:
    """Engines that outlive the program, hold its output open and ignore TERM: all go, and the slot is free again."""
    config = job_config(tmp_path / "a", seconds=60, children=children, jobid=f"tree-{children}", cancel_grace=0.5)
    mark = f"edbjobs-fault-11-{os.getpid()}-{children}"
    config["environment"]["ANS_MARK"] = mark
    await api.submit(config)
    await api.reached(f"tree-{children}", "running")

    async def engines() -> bool:
        return len(pids_with(mark)) >= 2

    await until(engines)
    await api.call("POST", f"/jobs/tree-{children}/cancel")
    assert (await api.ended(f"tree-{children}"))["status"] == "cancelled"
    assert pids_with(mark) == []
    await api.submit(job_config(tmp_path / "b", jobid=f"next-{children}"))
    assert (await api.ended(f"next-{children}"))["status"] == "completed"
    assert (await api.get(f"/jobs/tree-{children}"))["status"] == "cancelled"


async def test_fault_13_cancel_is_announced_for_waiting_and_running_jobs(
    api: Api, service: WebService, tmp_path: Path
) -> None:
    heard: list[tuple[str, str, str]] = []
    client = socketio.AsyncClient()
    client.on("*", lambda name, data: heard.append((name, data.get("job_id", ""), data.get("status", ""))))
    await client.connect(service.url, transports=["websocket"])
    await api.block(tmp_path / "b", "running-one")
    await api.submit(job_config(tmp_path / "w", jobid="waiting-one"))
    for name in ("waiting-one", "running-one"):
        assert (await api.call("POST", f"/jobs/{name}/cancel"))[0] == 200
        await api.ended(name)

    async def announced() -> bool:
        return all((kind, name, "cancelled") in heard for kind in ("job_cancelled", "job_completed") for name in names)

    names = ("waiting-one", "running-one")
    await until(announced)
    assert not any(status == "failed" for _, name, status in heard if name in names)
    await client.disconnect()


async def test_fault_14_output_is_served_and_not_kept_in_memory(api: Api, service: WebService, tmp_path: Path) -> None:
    def memory() -> int:
        assert service.process is not None
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    before = memory()
    config = job_config(tmp_path, jobid="loud")
    config["environment"]["ANS_EDBJOBS_DEMO"] += ",output=64"
    await api.submit(config)
    await api.ended("loud")
    assert memory() - before < 32 * 1024
    size = 0
    async with api.session.get("/jobs/loud/logs/stdout") as response:
        async for piece in response.content.iter_any():
            size += len(piece)
    assert size > 64 * 1024 * 1024
    assert memory() - before < 32 * 1024


async def test_fault_17_jobs_and_solves_outlive_the_service(tmp_path: Path) -> None:
    service = WebService(tmp_path / "s", max_local_jobs=1)
    with service:
        async with aiohttp.ClientSession(service.url) as session:
            api = Api(session)
            await api.submit(job_config(tmp_path / "a", jobid="long", seconds=3))
            await api.submit(job_config(tmp_path / "b", jobid="later"))
            running = await api.reached("long", "running")
        service.again()
        async with aiohttp.ClientSession(service.url) as session:
            api = Api(session)
            job = await api.ended("long")
            assert (job["status"], job["attempt"], job["start_time"]) == ("completed", 1, running["start_time"])
            assert (await api.ended("later"))["status"] == "completed"


@pytest.mark.parametrize(
    ("fail", "status", "reason"),
    [
        ("cut", "failed", "unverified"),
        ("engine", "failed", "solver_error"),
        ("exit", "failed", "exit_code"),
        ("convergence", "completed", "normal"),
    ],
)
async def test_faults_18_and_30_the_log_is_the_judge_and_not_its_words(
    api: Api, tmp_path: Path, fail: str, status: str, reason: str
) -> None:
    await api.submit(job_config(tmp_path, jobid=f"judged-{fail}", fail=fail))
    job = await api.ended(f"judged-{fail}")
    assert (job["status"], job["reason"]) == (status, reason)


async def test_fault_23_answers_do_not_wait_for_telemetry(api: Api) -> None:
    """The old one slept a second of every six in its loop."""
    slowest, end = 0.0, time.monotonic() + 6.5
    while time.monotonic() < end:
        started = time.monotonic()
        await api.get("/queue")
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.005)
    assert slowest < 0.7


async def test_fault_28_local_stays_local(api: Api, tmp_path: Path) -> None:
    job = await api.submit(job_config(tmp_path / "a", scheduler_type="local"))
    assert (await api.ended(job["uid"]))["executor"] == "local"
    body = {"config": job_config(tmp_path / "b", scheduler_type="slurm")}
    status, answer = await api.call("POST", "/jobs/submit", body)
    assert (status, answer["reason"]) == (409, "NO_SCHEDULER")


async def test_fault_31_a_missing_user_is_filled_in(api: Api, tmp_path: Path) -> None:
    me = (await api.get("/api/me"))["username"]
    for number, user in enumerate((None, "unknown", "")):
        job = await api.submit(job_config(tmp_path / str(number), user=user))
        assert (await api.get(f"/jobs/{job['uid']}"))["user"] == me
    status, answer = await api.call("POST", "/api/submit", {"config": job_config(tmp_path / "api")})
    assert (status, answer["status"]) == (200, "submitted")
    # The configuration of an answer can be submitted unchanged.
    answered = (await api.get(f"/jobs/{answer['uid']}"))["config"]
    again = await api.submit({**answered, "jobid": "round-trip"})
    assert again["job_id"] == "round-trip"


async def test_fault_33_time_limits_in_any_form_are_taken(api: Api, tmp_path: Path) -> None:
    for number, limit in enumerate(("unlimited", "24:00:00", "1-12:00:00", "90")):
        config = job_config(tmp_path / str(number), scheduler_options={"time": limit})
        job = await api.submit(config)
        # A limit of the scheduler means nothing to a run on this host.
        assert (await api.get(f"/jobs/{job['uid']}"))["config"]["scheduler_options"]["time"] == "24:00:00"


async def test_fault_34_cores_are_cores(api: Api, tmp_path: Path) -> None:
    nodes = [{"hostname": "localhost", "cores": 16, "max_cores": 20, "utilization": 90}]
    job = await api.submit(job_config(tmp_path, machine_nodes=nodes))
    found = await api.get(f"/jobs/{job['uid']}")
    assert found["cores"] == 16
    assert found["config"]["machine_nodes"] == nodes


async def test_fault_36_no_installation_is_needed_to_submit(api: Api, tmp_path: Path) -> None:
    config = job_config(tmp_path)
    assert "ansys_edt_path" not in config
    assert (await api.ended((await api.submit(config))["uid"]))["status"] == "completed"


async def test_fault_38_nothing_is_made_in_the_working_folder_and_the_page_is_there(api: Api) -> None:
    async with api.session.get("/") as response:
        assert response.status == 200
    assert not os.path.exists("static")  # noqa: ASYNC240 (a test may wait)
    async with api.session.options("/pool/limits") as response:
        assert "PUT" in (await response.json())["error"]


async def test_fault_39_the_log_is_that_of_the_job(api: Api, tmp_path: Path) -> None:
    """Two jobs on one .aedt project: each has its own log, and a job that never ran has none."""
    config = job_config(tmp_path / "p")
    for name in ("log-one", "log-two"):
        await api.submit({**config, "jobid": name})
        await api.ended(name)
    lines = [(await api.get(f"/api/jobs/{name}/log"))["project"]["cmd_line"] for name in ("log-one", "log-two")]
    assert "log-one" in lines[0]
    assert "log-two" in lines[1]
    await api.block(tmp_path / "b")
    await api.submit({**config, "jobid": "log-three"})
    async with api.session.get("/api/jobs/log-three/log") as response:
        assert response.status == 204


async def test_fault_40_the_log_of_a_running_solve_is_told(api: Api, tmp_path: Path) -> None:
    await api.submit(job_config(tmp_path, jobid="live", seconds=6))
    await api.reached("live", "running")

    async def passes() -> Any:
        async with api.session.get("/api/jobs/live/log") as response:
            assert response.status in (200, 204)
            return response.status == 200 and (await response.json())["adaptive"]

    assert (await until(passes))[0]["pass_nr"] == 1
    assert (await api.get("/jobs/live"))["status"] == "running"


async def test_a_signal_from_outside_is_no_success(api: Api, tmp_path: Path) -> None:
    """Fault 13, reversed: a job that another program kills is failed, not cancelled."""
    await api.submit(job_config(tmp_path, jobid="killed", seconds=60))
    job = await api.reached("killed", "running")
    os.kill(job["attempts"][-1]["pid"], signal.SIGKILL)
    job = await api.ended("killed")
    assert (job["status"], job["reason"], job["return_code"]) == ("failed", "signal", -9)
