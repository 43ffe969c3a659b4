"""From the event log to one client, and never faster than the client takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from edbjobs.v1 import jobs_messages_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.events.log import Message
from edbjobs_server.gateway.events.frames import SLICE, Frame, FrameEncoder
from edbjobs_server.manager.job_manager import JobManager

BOUND = 200  # events that may wait for a client
DRAIN_SECONDS = 20.0  # longest time for a full queue to become shorter
_LOOK_SECONDS = 0.05
_IDLE_SECONDS = 3600.0  # between two marks of the log: pings tell already that the connection lives


class Client(Protocol):
    """A connection that events are sent to."""

    def waiting(self) -> int:
        """Tell how many events wait to be sent."""

    def put(self, frame: Frame) -> None:
        """Queue an event."""


class TooSlow(Exception):
    """Raised for a client that does not take what is sent to it."""


def watch_request(values: Mapping[str, Any]) -> jobs_messages_pb2.WatchJobsRequest:
    """Read from where a client wants to go on.

    Parameters
    ----------
    values : mapping
        ``after_revision`` (0: all there is on record; absent: from now on) and ``store_id``.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    request = jobs_messages_pb2.WatchJobsRequest(include_service_events=True)
    request.progress_interval.FromMilliseconds(int(_IDLE_SECONDS * 1000))
    after, store = values.get("after_revision"), values.get("store_id")
    if after not in (None, ""):
        text = str(after)
        if isinstance(after, bool) or not (text.isascii() and text.isdigit()) or int(text) >= 2**63:
            what = "a revision is wanted: a whole number, not negative"
            raise Refused("INVALID_REQUEST", f"after_revision: {what}", fields={"after_revision": what})
        request.after_revision = int(text)
    if store:
        request.store_id = str(store).encode("utf-8", "replace").decode()
    return request


class EventForwarder:
    """Sends events to one client from a place in the log on.

    The place is all that a slow client costs: what it has not taken stays in the log. One that takes nothing at
    all for a while is given up.

    Parameters
    ----------
    manager : JobManager
        Has the log.
    shaper : FrameEncoder
        Shared by all pumps.
    client : Client
        Where the events go.
    """

    def __init__(self, manager: JobManager, shaper: FrameEncoder, client: Client) -> None:
        self._manager = manager
        self._shaper = shaper
        self._client = client
        self._first: Message | None = None
        self._messages: AsyncIterator[Message] | None = None

    async def open(self, request: jobs_messages_pb2.WatchJobsRequest) -> None:
        """Find the place.

        Raises
        ------
        Refused
            OTHER_STORE, REVISION_TOO_OLD, REVISION_IN_FUTURE or DRAINING.
        """
        self._messages = self._manager.watch(request)
        self._first = await anext(self._messages)

    async def run(self) -> None:
        """Send until cancelled.

        Raises
        ------
        Refused
            DRAINING, when the service stops; REVISION_TOO_OLD, when the log was cut before it was read.
        TooSlow
            The client takes nothing.
        """
        assert self._messages is not None, "opened before"
        assert self._first is not None, "opened before"
        await self._send(self._first)
        self._first = None
        async for message in self._messages:
            await self._send(message)

    async def _send(self, message: Message) -> None:
        for number, frame in enumerate(await self._shaper.frames(message), 1):
            if self._client.waiting() >= BOUND:
                await self._room()
            self._client.put(frame)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        fewest, deadline = self._client.waiting(), loop.time() + DRAIN_SECONDS
        while (waiting := self._client.waiting()) >= BOUND:
            if waiting < fewest:
                fewest, deadline = waiting, loop.time() + DRAIN_SECONDS
            elif loop.time() > deadline:
                raise TooSlow(f"{waiting} events wait, and none was taken for {DRAIN_SECONDS:g} s")
            await asyncio.sleep(_LOOK_SECONDS)
