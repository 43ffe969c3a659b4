"""Forwards the event log to one client, never faster than the client reads."""

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
DRAIN_SECONDS = 20.0  # limit for a full queue to become shorter
_POLL_SECONDS = 0.05
_IDLE_SECONDS = 3600.0  # between two heartbeats of the log: pings keep the connection alive


class Client(Protocol):
    """A connection that events are sent to."""

    def waiting(self) -> int:
        """Return the number of events that wait to be sent."""

    def put(self, frame: Frame) -> None:
        """Queue an event."""


class TooSlow(Exception):
    """Raised for a client that does not read the events sent to it."""


def watch_request(values: Mapping[str, Any], store_id: str) -> jobs_messages_pb2.WatchJobsRequest:
    """Return the watch request of a client.

    Parameters
    ----------
    values : mapping
        ``after_revision`` (0: the whole log; absent: only new events) and ``store_id``.
    store_id : str
        Id of the service's store.

    Raises
    ------
    Refused
        INVALID_REQUEST or OTHER_STORE.
    """
    request = jobs_messages_pb2.WatchJobsRequest(include_service_changes=True)
    request.filter.include_superseded = True  # each change of each job, as documented
    request.heartbeat_interval.FromMilliseconds(int(_IDLE_SECONDS * 1000))
    after, store = values.get("after_revision"), values.get("store_id")
    if after not in (None, ""):
        text = str(after)
        if isinstance(after, bool) or not (text.isascii() and text.isdigit()) or int(text) >= 2**63:
            what = "expected a revision: an integer from 0"
            raise Refused("INVALID_REQUEST", f"after_revision: {what}", fields={"after_revision": what})
        if int(text):
            request.after.revision = int(text)
        else:
            request.from_oldest = True
    if store and str(store) != store_id:
        text = f"revisions of another store mean nothing here, this is {store_id}: list the jobs again"
        raise Refused("OTHER_STORE", text, metadata={"store_id": store_id})
    return request


class EventForwarder:
    """Sends events to one client, starting at a revision.

    A slow client costs no memory: events that it has not read stay in the log. A client that reads nothing for
    `DRAIN_SECONDS` is disconnected.

    Parameters
    ----------
    manager : JobManager
        Source of the event log.
    encoder : FrameEncoder
        Shared by all forwarders.
    client : Client
        Receiver of the events.
    """

    def __init__(self, manager: JobManager, encoder: FrameEncoder, client: Client) -> None:
        self._manager = manager
        self._encoder = encoder
        self._client = client
        self._first: Message | None = None
        self._messages: AsyncIterator[Message] | None = None

    async def open(self, request: jobs_messages_pb2.WatchJobsRequest) -> None:
        """Start the watch.

        Raises
        ------
        Refused
            OTHER_STORE, REVISION_TOO_OLD, REVISION_IN_FUTURE or DRAINING.
        """
        self._messages = self._manager.watch(request)
        self._first = await anext(self._messages)

    async def run(self) -> None:
        """Forward events until cancelled.

        Raises
        ------
        Refused
            DRAINING, when the service stops; REVISION_TOO_OLD, when the log was trimmed before it was read.
        TooSlow
            The client reads nothing.
        """
        assert self._messages is not None, "call open first"
        assert self._first is not None, "call open first"
        await self._send(self._first)
        self._first = None
        async for message in self._messages:
            await self._send(message)

    async def _send(self, message: Message) -> None:
        for number, frame in enumerate(await self._encoder.frames(message), 1):
            if self._client.waiting() >= BOUND:
                await self._wait_for_room()
            self._client.put(frame)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    async def _wait_for_room(self) -> None:
        loop = asyncio.get_running_loop()
        fewest, deadline = self._client.waiting(), loop.time() + DRAIN_SECONDS
        while (waiting := self._client.waiting()) >= BOUND:
            if waiting < fewest:
                fewest, deadline = waiting, loop.time() + DRAIN_SECONDS
            elif loop.time() > deadline:
                raise TooSlow(f"{waiting} events are queued, and none was read for {DRAIN_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)
