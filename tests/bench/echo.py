"""The floor of everything that goes over gRPC: a server that sends back what it gets, and one that sends to many.

Run as ``python -m bench.echo SOCKET``; prints ``ready`` on stdout.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from edbjobs.v1 import jobs_messages_pb2 as pb

ECHO = "/bench.Floor/Echo"
FAN = "/bench.Floor/Fan"
PUBLISH = "/bench.Floor/Publish"


async def _echo(request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobRequest:
    return request


class _Fan:
    """Sends each subscriber every message of the subscriber that asks for some."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[bytes]] = set()

    async def subscribe(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield b"ready"
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    async def publish(self, request: bytes, context: Any) -> bytes:
        for queue in self._queues:
            queue.put_nowait(request)
        return b""


async def serve(socket: str) -> None:
    server = grpc.aio.server(options=[("grpc.server.max_pending_requests", 20_000)])
    fan = _Fan()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(
            _echo, pb.SubmitJobRequest.FromString, pb.SubmitJobRequest.SerializeToString
        ),
        "Fan": grpc.unary_stream_rpc_method_handler(fan.subscribe),
        "Publish": grpc.unary_unary_rpc_method_handler(fan.publish),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Floor", handlers),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


@contextmanager
def echo_server(folder: Path) -> Iterator[str]:
    """Run the server in a process of its own; gives its address."""
    socket = folder / "echo"
    process = subprocess.Popen([sys.executable, "-m", "bench.echo", str(socket)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield f"unix:{socket}"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
