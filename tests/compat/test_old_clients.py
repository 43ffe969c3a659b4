"""The old package's own client programs and functions, against our service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.reference import run_reference
from support.web import WebService, job_config, until

BACKEND = "pyedb.workflows.job_manager.backend"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("gateway"), max_local_jobs=4) as running:
        yield running


async def jobs_of(service: WebService, *projects: str) -> list[dict[str, Any]]:
    """Wait until every job of these projects has ended."""
    async with aiohttp.ClientSession(service.url) as http:

        async def ended() -> Any:
            async with http.get("/jobs") as response:
                found = [job for job in await response.json() if job["config"]["project_path"] in projects]
            return found if found and all(job["end_time"] for job in found) else None

        return list(await until(ended))


def program(service: WebService, folder: Path, name: str, *arguments: str) -> str:
    line = ["-m", f"{BACKEND}.{name}", "--host", "127.0.0.1", "--port", str(service.port), *arguments]
    done = run_reference(folder, *line)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


async def test_submit_local_job(service: WebService, tmp_path: Path) -> None:
    project = job_config(tmp_path / "p")["project_path"]
    output = program(service, tmp_path, "submit_local_job", "--project-path", project, "--num-cores", "2")
    assert "Job submit successful (status=200)" in output
    (job,) = await jobs_of(service, project)
    assert (job["status"], job["cores"]) == ("completed", 2)


async def test_submit_batch_jobs(service: WebService, tmp_path: Path) -> None:
    projects = [job_config(tmp_path / "root" / str(number))["project_path"] for number in range(3)]
    arguments = ("--root-dir", str(tmp_path / "root"), "--recursive", "--num-cores", "1", "--delay-ms", "1")
    output = program(service, tmp_path, "submit_batch_jobs", *arguments)
    assert "Successful: 3" in output
    jobs = await jobs_of(service, *projects)
    assert [job["status"] for job in jobs] == ["completed"] * 3


async def test_submit_job_on_scheduler(service: WebService, tmp_path: Path) -> None:
    """It names no scheduler, so the job goes where this host's jobs go."""
    project = job_config(tmp_path / "p")["project_path"]
    arguments = ("--project-path", project, "--run-limit", "60", "--nodes", "2")
    output = program(service, tmp_path, "submit_job_on_scheduler", *arguments)
    assert "Job submitted successfully (status=200)" in output
    (job,) = await jobs_of(service, project)
    assert (job["status"], job["executor"]) == ("completed", "local")
    assert job["config"]["scheduler_options"]["nodes"] == 2


async def test_the_function_for_remote_submits(service: WebService, tmp_path: Path) -> None:
    """Fault 32: submit_job_to_manager never reached its own service, and then ran the solver in the caller."""
    project = job_config(tmp_path / "p")["project_path"]
    script = f"""
import asyncio
from {BACKEND}.job_submission import create_hfss_config
from {BACKEND}.service import submit_job_to_manager
config = create_hfss_config({project!r}, jobid="by_function")
print(asyncio.run(submit_job_to_manager(config, 3, {service.url!r})))
"""
    done = run_reference(tmp_path, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "by_function"
    (job,) = await jobs_of(service, project)
    assert (job["id"], job["priority"], job["status"]) == ("by_function", 3, "completed")


async def test_waiting_as_the_old_handler_waits(service: WebService, tmp_path: Path) -> None:
    """Its loops look for the job's id and lower-case status in /api/jobs."""
    project = job_config(tmp_path / "p")["project_path"]
    script = f"""
import requests
from {BACKEND}.job_manager_handler import JobManagerHandler
from {BACKEND}.job_submission import create_hfss_config
config = create_hfss_config({project!r}, jobid="waited")
answer = requests.post({service.url!r} + "/api/submit", json={{"config": config.to_dict(), "user": "somebody"}}).json()
assert answer["status"] == "submitted", answer
waiter = JobManagerHandler.__new__(JobManagerHandler)
waiter.started, waiter._url = True, {service.url!r}
waiter.host, waiter.port = "127.0.0.1", {service.port}
print(JobManagerHandler.wait_until_done(waiter, answer["job_id"], poll_every=0.1))
JobManagerHandler.wait_until_all_done(waiter, poll_every=0.1)
"""
    done = run_reference(tmp_path, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "completed"
    (job,) = await jobs_of(service, project)
    assert job["user"] == "somebody"
