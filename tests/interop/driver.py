"""How the runner speaks with a client, and the two Python clients."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from edbjobs import AsyncClient, Client, WatchEvent
from edbjobs._connection import Settings, make_stubs, metadata
from edbjobs._endpoint import Target
from edbjobs._exceptions import EdbJobsError
from edbjobs._status import from_call
from edbjobs.v1 import cluster_service_pb2, errors_pb2, jobs_service_pb2, resources_service_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # noqa: F401 (must be known for the JSON of an error's details)

LINE_DEADLINE = 90.0
_FILES = (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
SERVICES: dict[str, ServiceDescriptor] = {
    name: service for file in _FILES for name, service in file.DESCRIPTOR.services_by_name.items()
}


class Driver(ABC):
    """One client."""

    @abstractmethod
    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        """Make one call and give its answer."""

    @abstractmethod
    def watch(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Give events, of the client library's resuming watch, until one holds ``until``."""

    @abstractmethod
    def close(self) -> None:
        """End the client."""


class ProcessDriver(Driver):
    """A client in a program of its own that speaks JSON lines."""

    def __init__(self, command: Sequence[str | Path], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue(10_000)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        self._write(call)
        return self._next()

    def watch(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self._write(call)
        while "event" in (line := self._next()):
            yield json.loads(line["event"])
        assert line["code"] == 0, line

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert code == 0, f"the driver ended with {code}"

    def _write(self, call: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call, ensure_ascii=False) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next(self) -> dict[str, Any]:
        line = self._lines.get(timeout=LINE_DEADLINE)
        assert line, f"the driver ended with {self._process.wait(10)}"
        return dict(json.loads(line))


class SyncDriver(Driver):
    """The generated stubs on a channel of the Python client for threads."""

    def __init__(self, target: str) -> None:
        self._target = Target(target)
        self._channel = grpc.insecure_channel(target, options=Settings().options(self._target))
        self._stubs = make_stubs(self._channel)

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        method, request, options = _prepared(call)
        function = getattr(self._stubs[method.containing_service.name], method.name)
        messages: list[Message] = []
        try:
            if method.server_streaming:
                stream = function(request, **options)
                for message in stream:
                    messages.append(message)
                    if _is_last(message, call):
                        stream.cancel()
                        break
            else:
                messages.append(function(request, **options))
        except grpc.RpcError as error:
            return _failed(error, messages)
        return _answer(messages)

    def watch(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with Client(self._target.address) as client:
            for event in client.watch(from_oldest=_from_oldest(call)):
                yield _told(event)
                if call["until"] in json.dumps(_told(event)):
                    return

    def close(self) -> None:
        self._channel.close()


class AsyncDriver(Driver):
    """The same for asyncio."""

    def __init__(self, target: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._target = Target(target)
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        return self._loop.run_until_complete(self._call(call))

    def watch(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        client = AsyncClient(self._target.address)
        events = client.watch(from_oldest=_from_oldest(call))
        while True:
            event = _told(self._loop.run_until_complete(events.__anext__()))
            yield event
            if call["until"] in json.dumps(event):
                break
        self._loop.run_until_complete(events.aclose())  # type: ignore[attr-defined]
        self._loop.run_until_complete(client.close())

    def close(self) -> None:
        if self._channel is not None:
            self._loop.run_until_complete(self._channel.close())
        self._loop.close()

    async def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target.address, options=Settings().options(self._target))
            self._stubs = make_stubs(self._channel)
        method, request, options = _prepared(call)
        function = getattr(self._stubs[method.containing_service.name], method.name)
        messages: list[Message] = []
        try:
            if method.server_streaming:
                stream = function(request, **options)
                async for message in stream:
                    messages.append(message)
                    if _is_last(message, call):
                        stream.cancel()
                        break
            else:
                messages.append(await function(request, **options))
        except grpc.RpcError as error:
            return _failed(error, messages)
        return _answer(messages)


def _prepared(call: dict[str, Any]) -> tuple[MethodDescriptor, Message, dict[str, Any]]:
    service, _, name = call["rpc"].partition(".")
    method = SERVICES[service].methods_by_name[name]
    request = message_factory.GetMessageClass(method.input_type)()
    json_format.Parse(call["request"], request)
    options = {"timeout": call["deadline"] or None, "metadata": metadata(Target("", call["token"]))}
    return method, request, options


def _is_last(message: Message, call: dict[str, Any]) -> bool:
    return bool(call["until"]) and call["until"] in _json(message)


def _json(message: Message) -> str:
    return json_format.MessageToJson(message, indent=None, ensure_ascii=False)


def _answer(messages: Sequence[Message], error: EdbJobsError | None = None, code: int = 0) -> dict[str, Any]:
    return {
        "code": code,
        "message": str(error.args[0]) if error else "",
        "reason": error.reason if error else "",
        "errorReason": error_reason(error.reason if error else ""),
        "metadata": dict(error.metadata) if error else {},
        "fields": dict(error.fields) if error else {},
        "messages": [_json(message) for message in messages],
    }


def error_reason(reason: str) -> int:
    """Return the number of a reason in the contract; 0: it has none."""
    return dict(errors_pb2.ErrorReason.items()).get(f"ERROR_REASON_{reason}", 0)


def _failed(error: Any, messages: Sequence[Message]) -> dict[str, Any]:
    code = error.code().value[0]
    told = from_call(code, error.details() or "", error.trailing_metadata(), "")
    return _answer(messages, told, code)


def _from_oldest(call: dict[str, Any]) -> bool:
    return bool(json.loads(call["request"])["fromOldest"])


def _told(event: WatchEvent) -> dict[str, Any]:
    """Give of an event what every language's JSON has."""
    return {"revision": str(event.revision), "jobChange": {"job": {"id": event.job.id if event.job else ""}}}
