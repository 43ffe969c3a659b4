"""Every client makes the same calls and gets the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import job_config_pb2, jobs_messages_pb2
from edbjobs_server.contract import unserved
from edbjobs_server.contract.errors import TABLE
from edbjobs_server.solver.demo import example_project
from google.protobuf import json_format
from google.protobuf.message import Message
from support.service import ServiceProcess

from interop import toolchains, web
from interop.driver import SERVICES, AsyncDriver, Driver, ProcessDriver, SyncDriver
from interop.maximal import maximal_submit
from interop.runner import Player, settings
from interop.table import CASES, ELSEWHERE

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # the first test of a worker builds the clients

Make = Callable[[ServiceProcess, pytest.TempPathFactory], Driver]


def _cpp(service: ServiceProcess, factory: pytest.TempPathFactory) -> Driver:
    return ProcessDriver([toolchains.cpp(factory) / "driver" / "driver"], _found(service))


def _csharp(service: ServiceProcess, factory: pytest.TempPathFactory) -> Driver:
    return ProcessDriver(["mono", toolchains.csharp(factory) / "driver.exe"], _found(service))


def _found(service: ServiceProcess) -> dict[str, str]:
    return {"EDBJOBS_RUNTIME_DIR": str(service.runtime_dir)}


CLIENTS: dict[str, Make] = {
    "python": lambda service, _: SyncDriver(service.target),
    "python-asyncio": lambda service, _: AsyncDriver(service.target),
    "cpp": _cpp,
    "csharp": _csharp,
    "node": web.node,
    "node-grpc-web": web.node_web,
    "chromium": web.browser,
}
OTHERS = [name for name in CLIENTS if name != "python"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], ServiceProcess]]:
    """Start a service for the table."""
    running: list[ServiceProcess] = []

    def start() -> ServiceProcess:
        folder = tmp_path / str(len(running))
        (folder / "projects").mkdir(parents=True)
        service = ServiceProcess(folder, **settings(folder))
        running.append(service)
        service.start()
        return service

    yield start
    for service in running:
        service.stop()


def _play(name: str, start: Callable[[], ServiceProcess], factory: pytest.TempPathFactory) -> dict[str, Any]:
    service = start()
    driver = CLIENTS[name](service, factory)
    try:
        return Player(driver, service).play()
    finally:
        driver.close()


@pytest.mark.parametrize("name", OTHERS)
def test_all_calls_have_the_same_answers_as_from_python(
    name: str, start: Callable[[], ServiceProcess], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def reference(folder: Path) -> None:
        answers = _play("python", start, tmp_path_factory)
        (folder / "answers.json").write_text(json.dumps(answers))

    folder = toolchains.once(tmp_path_factory, "reference", reference)
    expected = json.loads((folder / "answers.json").read_text())
    found = _play(name, start, tmp_path_factory)
    assert len(found) == len(CASES)
    different = {case: (expected[case], found[case]) for case in expected if expected[case] != found[case]}
    assert not different


@pytest.mark.parametrize("name", CLIENTS)
def test_a_watch_goes_on_after_the_service_was_killed(
    name: str, start: Callable[[], ServiceProcess], tmp_path_factory: pytest.TempPathFactory
) -> None:
    service = start()
    project = example_project(service.folder / "projects")
    driver = CLIENTS[name](service, tmp_path_factory)
    try:
        request = json.dumps({"fromOldest": True})
        events = driver.watch({"rpc": "watch", "request": request, "deadline": 0, "token": "", "until": "the-last"})
        _hold(service, project, "the-first")
        seen = [next(events)]
        service.again()
        _hold(service, project, "the-last")
        seen += events
        call = {"rpc": "ClusterService.GetSystemStatus", "request": "{}", "deadline": 20, "token": "", "until": ""}
        assert driver.call(call)["code"] == 0, "calls go to where the service is now"
    finally:
        driver.close()
    revisions = [int(event["revision"]) for event in seen]
    assert revisions == sorted(set(revisions)), "each change once, in order"
    names = [event.get("jobChange", {}).get("job", {}).get("id") for event in seen]
    assert [name for name in names if name] == ["the-first", "the-last"]


def _hold(service: ServiceProcess, project: Path, name: str) -> None:
    config = job_config_pb2.JobConfig(project_path=str(project))
    request = jobs_messages_pb2.SubmitJobRequest(job_id=name, config=config, hold=True)
    service.jobs.SubmitJob(request, timeout=30, wait_for_ready=True)


def test_the_table_makes_every_call() -> None:
    wanted = {f"{name}.{method.name}" for name, service in SERVICES.items() for method in service.methods}
    assert {case.rpc for case in CASES} == wanted


def test_the_table_meets_every_reason_that_a_healthy_service_can_give() -> None:
    met = {case.reason for case in CASES if case.reason}
    assert met | set(ELSEWHERE) == set(TABLE)
    assert not met & set(ELSEWHERE)


def test_the_largest_submit_sets_every_field_that_is_served() -> None:
    request = jobs_messages_pb2.SubmitJobRequest()
    json_format.ParseDict(maximal_submit("/p"), request)
    unset = {name.removeprefix("edbjobs.v1.") for name in _unset(request)}
    assert unset == {name for name in unserved.FIELDS if name.startswith("JobConfig.")}


def _unset(message: Message) -> Iterator[str]:
    """Give the names of fields that are not set, here or in the first message of each field."""
    given = {field.name: value for field, value in message.ListFields()}
    for field in message.DESCRIPTOR.fields:
        if field.name not in given:
            yield field.full_name
        elif (kind := field.message_type) is not None and kind.file.package == message.DESCRIPTOR.file.package:
            value = given[field.name]
            if not kind.GetOptions().map_entry:
                yield from _unset(value if isinstance(value, Message) else value[0])
