"""The TypeScript client against the real service, in Node and in a browser."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from edbjobs._calls import job_ref
from edbjobs._version import __version__
from edbjobs.v1 import cluster_service_pb2, jobs_messages_pb2, jobs_service_pb2, resources_service_pb2
from edbjobs_server.solver.demo import example_project
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from support.chromium import Page, chromium, quoted
from support.web import WebService, job_config, until
from support.web_client import ROOT, build

pytestmark = pytest.mark.timeout(600)  # the first one builds the client


@pytest.fixture(scope="module")
def built() -> Path:
    return build()


@pytest.fixture
async def guest(built: Path) -> AsyncIterator[str]:
    """Origin of a site that is not the service's: the sample."""
    app = web.Application()
    app.router.add_static("/", built.parent / "sample")
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
def service(tmp_path: Path, guest: str) -> Iterator[WebService]:
    with WebService(tmp_path / "service", max_local_jobs=2, cors_origins=[guest]) as running:
        yield running


def test_in_node_over_grpc_web_and_over_grpc(built: Path, service: WebService, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "EDBJOBS_TEST_URL": service.url,
        "EDBJOBS_TEST_PROJECT": str(example_project(tmp_path)),
        "EDBJOBS_RUNTIME_DIR": str(service.runtime_dir),
    }
    command: list[str | Path] = ["node", "--test", "--test-reporter=spec", built / "service.test.js"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fail 0" in done.stdout
    assert "skipped 0" in done.stdout


@asynccontextmanager
async def page_at(url: str, built: Path, tmp_path: Path) -> AsyncIterator[Page]:
    async with chromium(tmp_path / "profile") as page:
        await page.open(url)
        await page.run((built / "browser.js").read_text())
        yield page


async def failures(page: Page, options: dict[str, str], project: Path) -> dict[str, str]:
    found = {}
    service = {"options": options, "project": str(project), "run": "browser"}
    names = await page.run("edbjobsTest.names")
    assert len(names) > 10
    for name in names:
        wrong = await page.run(f"edbjobsTest.run({quoted(name)}, {quoted(service)})")
        if wrong:
            found[name] = wrong
    return found


async def status(page: Page, options: dict[str, str]) -> dict[str, Any]:
    made = f"new edbjobsTest.EdbJobsClient({quoted(options)}).status()"
    then = "(found) => ({authentication: found.caller.authentication}), (error) => ({reason: error.reason})"
    return dict(await page.run(f"{made}.then({then})"))


@pytest.mark.system
async def test_in_a_page_of_the_service(built: Path, service: WebService, tmp_path: Path) -> None:
    async with page_at(f"{service.url}/", built, tmp_path) as page:
        assert await status(page, {}) == {"authentication": 2}
        assert await failures(page, {}, example_project(tmp_path)) == {}


@pytest.mark.system
async def test_a_page_opened_with_the_token_has_a_session(built: Path, service: WebService, tmp_path: Path) -> None:
    async with page_at(f"{service.url}/", built, tmp_path) as page:
        await page.run(f"fetch({quoted(f'/?token={service.token}')}).then((answer) => answer.status)")
        assert await status(page, {}) == {"authentication": 3}


@pytest.mark.system
async def test_in_a_page_of_another_origin(built: Path, service: WebService, guest: str, tmp_path: Path) -> None:
    async with page_at(f"{guest}/index.html", built, tmp_path) as page:
        options = {"baseUrl": service.url, "token": service.token}
        assert await status(page, options) == {"authentication": 3}
        assert await status(page, {"baseUrl": service.url}) == {"reason": "UNAUTHENTICATED"}
        assert await failures(page, options, example_project(tmp_path)) == {}
        await page.open(guest.replace("127.0.0.1", "localhost") + "/index.html")  # not in the settings
        await page.run((built / "browser.js").read_text())
        assert await status(page, options) == {"reason": "UNREACHABLE"}


def test_the_sample_for_node(built: Path, service: WebService, tmp_path: Path) -> None:
    def run(project: Path) -> tuple[int, str]:
        done = subprocess.run(
            ["node", built.parents[1] / "sample" / "submit.mjs", project, "2"],
            env={**os.environ, "EDBJOBS_RUNTIME_DIR": str(service.runtime_dir)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    code, output = run(example_project(tmp_path))
    assert code == 0, output
    assert " COMPLETED " in output
    assert "Normal completion" in output
    code, output = run(tmp_path / "none.aedt")
    assert code == 1
    assert "PROJECT_NOT_FOUND" in output
    assert "config.project_path: does not exist" in output


@pytest.mark.system
async def test_the_sample_page_follows_all_jobs(built: Path, service: WebService, guest: str, tmp_path: Path) -> None:
    config = job_config(tmp_path)
    async with chromium(tmp_path / "profile") as page:

        async def shown() -> str:
            return str(await page.run("document.body.innerText"))

        await page.open(f"{guest}/index.html#service={service.url}&token={service.token}")
        await until(lambda: _holds(shown, "live"))
        request = jobs_messages_pb2.SubmitJobRequest(job_id="shown")
        request.config.project_path = config["project_path"]
        request.config.environment.update(config["environment"])
        job = service.jobs.SubmitJob(request).job
        await until(lambda: _holds(shown, "shown", "COMPLETED"))
        service.jobs.DeleteJob(jobs_messages_pb2.DeleteJobRequest(job=job_ref(job.uid)))
        await until(lambda: _lacks(shown, "COMPLETED"))


async def _holds(shown: Callable[[], Awaitable[str]], *texts: str) -> bool:
    found = await shown()
    return all(text in found for text in texts)


async def _lacks(shown: Callable[[], Awaitable[str]], text: str) -> bool:
    return text not in await shown()


def test_the_package_has_the_release_of_the_service() -> None:
    assert json.loads((ROOT / "client" / "web" / "package.json").read_text())["version"] == __version__


def test_the_stubs_are_generated_from_the_image_of_the_contract() -> None:
    image = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos" / "edbjobs.binpb").read_bytes())
    pending: list[FileDescriptor] = [
        module.DESCRIPTOR for module in (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
    ]
    stubs: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    while pending:
        file = pending.pop()
        stubs[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
        pending += file.dependencies
    ours = {found.name: found for found in image.file if found.name.startswith("edbjobs/")}
    assert set(ours) == {name for name in stubs if name.startswith("edbjobs/")}
    for name, found in ours.items():
        _strip(found)
        assert found == stubs[name], f"{name}: run `make proto`"


def _strip(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Remove what only the image has: comments, and derived names."""
    file.ClearField("source_code_info")
    file.DiscardUnknownFields()
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
