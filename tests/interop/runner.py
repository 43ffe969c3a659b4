"""Makes all calls of the table with one client, checks each answer, and gives what can be compared with others'."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from edbjobs.v1 import resources_service_pb2
from edbjobs_server.solver.demo import example_project
from support.service import DEADLINE, ServiceProcess

from interop.case import Case
from interop.driver import Driver, error_reason
from interop.table import CASES

CODES = {code.name: code.value[0] for code in grpc.StatusCode}
# Values that are another service's, another endpoint's or another moment's on each run. That they are there, and
# of which type, is compared.
CHANGING = frozenset(
    {
        *("uid", "retryOf", "supersededBy", "superseded_by", "storeId", "store_id", "revision", "nextPageToken"),
        "etag",
        *("principal", "authentication", "pid", "stateDirectory", "runDirectory"),
        *("size_bytes", "cpuDuration", "peakMemoryBytes", "warnings", "message"),
    }
)
TIME = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z")
MADE_ID = re.compile(r"(patch_antenna-)[0-9a-f]{8}")
# Something may or may not be there yet, or not for every endpoint.
PASSING = frozenset(
    {"waiting", "progress", "reserved", "running", "starting", "localRuns", "blockedMessage", "resources", "address"}
)
SHORT_LOG = 16
PASSING_CHANGES = ("JOB_CHANGE_TYPE_NOTE", "QUEUE_CHANGE_TYPE_GATE_CLOSED", "QUEUE_CHANGE_TYPE_GATE_OPENED")


def settings(folder: Path) -> dict[str, Any]:
    """Give the settings of the service that the table wants."""
    return {
        "http": "127.0.0.1:0",
        "max_local_jobs": 2,
        "max_cores": 4,
        "project_roots": [str(folder / "projects")],
    }


class Player:
    """Plays the table.

    Parameters
    ----------
    driver : Driver
        The client.
    service : ServiceProcess
        Fresh, with `settings`.
    """

    def __init__(self, driver: Driver, service: ServiceProcess) -> None:
        self._driver = driver
        projects = service.folder / "projects"
        elsewhere = service.folder / "elsewhere"
        elsewhere.mkdir()
        self._saved = {
            "folder": str(projects),
            "project": str(example_project(_new(projects / "天线"))),
            "other": str(example_project(_new(projects / "other"))),
            "elsewhere": str(example_project(elsewhere)),
        }
        self._private = str(service.folder)
        _wait_for_sample(service)

    def play(self) -> dict[str, Any]:
        """Make all calls; gives what came of each, by name."""
        return {case.name: self._one(case) for case in CASES}

    def _one(self, case: Case) -> Any:
        answer = self._driver.call(
            {
                "rpc": case.rpc,
                "request": json.dumps(self._filled(case.request), ensure_ascii=False),
                "deadline": case.deadline,
                "token": case.token,
                "until": case.until,
            }
        )
        messages = [json.loads(message) for message in answer["messages"]]
        self._check(case, answer, messages)
        for name, path in case.save.items():
            self._saved[name] = _at(messages[0], path)
        return self._comparable(case, answer, messages) if case.same else None

    def _check(self, case: Case, answer: Mapping[str, Any], messages: Sequence[Any]) -> None:
        where = f"{case.name}: {answer}"
        assert answer["code"] == CODES[case.code], where
        if case.code != "DEADLINE_EXCEEDED":  # each client library has its own word where no answer came
            assert answer["reason"] == case.reason, where
            assert answer["errorReason"] == error_reason(case.reason), where
        assert set(answer["fields"]) >= set(case.fields), where
        assert all(answer["fields"].values()), where
        assert answer["metadata"].items() >= self._filled(case.metadata).items(), where
        if case.code != "OK":
            assert answer["message"], where
            return
        assert messages, where
        _must_have(self._filled(case.expect), messages[0], case.name)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, str):
            name = re.match(r"\$(\w+)", value)
            if name and name[1] in self._saved:
                return self._saved[name[1]] + value[name.end() :]
        return value

    def _comparable(self, case: Case, answer: Mapping[str, Any], messages: Sequence[Any]) -> Any:
        told = {name: answer[name] for name in ("code", "reason", "fields", "metadata")}
        if case.code == "DEADLINE_EXCEEDED":
            told["reason"] = ""  # no answer came, and each client library has its own word for that
        if case.rpc == "JobsService.ReadLog":
            data = b"".join(base64.b64decode(message.get("data", "")) for message in messages)
            told["data"] = data.decode() if len(data) <= SHORT_LOG else "long"
            told["eof"] = any(message.get("eof") for message in messages)
        elif case.rpc == "JobsService.WatchJobs":
            events = [event for message in messages for event in message.get("events", ())]
            told["events"] = [event for event in events if not _is_passing(event)]
        else:
            told["messages"] = messages[:1]
        return json.loads(self._without_names(json.dumps(_kept(told))))

    def _without_names(self, text: str) -> str:
        longest_first = sorted(self._saved.items(), key=lambda item: -len(item[1]))
        for name, value in longest_first:
            if "/" in value:
                text = text.replace(json.dumps(value)[1:-1], f"${name}")
        text = MADE_ID.sub(r"\1*", text.replace(self._private, "$private"))
        return TIME.sub("<time>", text)


def _wait_for_sample(service: ServiceProcess) -> None:
    """Wait until the service has looked at its host, so that the answers are those of a service at work."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            service.resources.GetResources(resources_service_pb2.GetResourcesRequest(), timeout=10)
        except grpc.RpcError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the host was not looked at in time")


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _at(message: Any, path: str) -> str:
    for step in path.split("."):
        message = message[int(step)] if step.isdigit() else message[step]
    return str(message)


def _is_passing(event: Mapping[str, Any]) -> bool:
    changes = (event.get(name, {}) for name in ("jobChange", "queueChange"))
    return any(change.get("type") in PASSING_CHANGES for change in changes)


def _must_have(wanted: Any, found: Any, where: str) -> None:
    """Compare the expected values with those found, which may be more; ``*`` is any value that is present."""
    if wanted == "*":
        assert found, where
    elif isinstance(wanted, Mapping):
        for key, value in wanted.items():
            assert key in found, f"{where}: no {key} in {found}"
            _must_have(value, found[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(wanted) == len(found), f"{where}: {found}"
        for number, value in enumerate(wanted):
            _must_have(value, found[number], f"{where}.{number}")
    else:
        assert wanted == found, where


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: f"<{type(item).__name__}>" if key in CHANGING else _kept(item)
            for key, item in value.items()
            if key not in PASSING
        }
    return [_kept(item) for item in value] if isinstance(value, list) else value
