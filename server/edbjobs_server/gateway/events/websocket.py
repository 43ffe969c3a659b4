"""The same events as JSON over a plain WebSocket, at ``/ws/events``."""

from __future__ import annotations

import asyncio

from aiohttp import WSCloseCode, WSMsgType, web

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.events.forwarder import BOUND, DRAIN_SECONDS, EventForwarder, TooSlow, watch_request
from edbjobs_server.gateway.events.frames import Frame, FrameEncoder
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.util.timeouts import timeout

PING_SECONDS = 25.0
_MAX_MESSAGE_BYTES = 4096  # from a client; these are not read


class _Client:
    """A WebSocket with a queue of events."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._queue: asyncio.Queue[Frame] = asyncio.Queue(BOUND + 1)

    def waiting(self) -> int:
        return self._queue.qsize()

    def put(self, frame: Frame) -> None:
        self._queue.put_nowait(frame)

    async def write(self) -> None:
        """Send queued events; raise TimeoutError if the client does not read."""
        while True:
            frame = await self._queue.get()
            async with timeout(DRAIN_SECONDS):
                await self._socket.send_str(frame.text)


class WebSockets:
    """Handler of ``GET /ws/events?after_revision=&store_id=``.

    Parameters
    ----------
    manager : JobManager
        Source of the events.
    encoder : FrameEncoder
        Encodes them.
    """

    def __init__(self, manager: JobManager, encoder: FrameEncoder) -> None:
        self._manager = manager
        self._encoder = encoder
        self._clients: set[_Client] = set()

    @property
    def has_clients(self) -> bool:
        """Whether a client is connected."""
        return bool(self._clients)

    def offer(self, frame: Frame) -> None:
        """Send an event, which may be lost, to all clients that keep up."""
        for client in self._clients:
            if client.waiting() < BOUND // 2:
                client.put(frame)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send events until one side closes the connection."""
        socket = web.WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=_MAX_MESSAGE_BYTES, compress=False)
        if not socket.can_prepare(request).ok:
            raise Refused("INVALID_REQUEST", "expected a WebSocket upgrade; send its headers")
        client = _Client(socket)
        forwarder = EventForwarder(self._manager, self._encoder, client)
        await forwarder.open(watch_request(request.query, self._manager.store_id))
        await socket.prepare(request)
        self._clients.add(client)
        tasks = [
            asyncio.create_task(forwarder.run()),
            asyncio.create_task(client.write()),
            asyncio.create_task(_until_closed(socket)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await _close(socket, next(iter(done)).exception())
        finally:
            self._clients.discard(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            return


async def _close(socket: web.WebSocketResponse, error: BaseException | None) -> None:
    if error is None or isinstance(error, ConnectionError):
        return
    if isinstance(error, Refused):
        code = WSCloseCode.SERVICE_RESTART if error.reason == "DRAINING" else WSCloseCode.TRY_AGAIN_LATER
        await socket.close(code=code, message=error.reason.encode())
    elif isinstance(error, TooSlow | asyncio.TimeoutError | TimeoutError):
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"TOO_SLOW")
    else:
        raise error
