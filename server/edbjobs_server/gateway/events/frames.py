"""Changes as the documented events: each is encoded once, whatever the number of clients."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edbjobs.v1 import event_pb2, job_pb2, job_state_pb2, jobs_messages_pb2
from engineio import packet as engine
from socketio import packet

from edbjobs_server.core.errors import Refused
from edbjobs_server.events.log import Message
from edbjobs_server.gateway import words
from edbjobs_server.gateway.json_values import Json, dumps, reason_of, return_code, status_of, times
from edbjobs_server.gateway.models import Limits, Resources
from edbjobs_server.manager.job_manager import JobManager

SLICE = 25  # events encoded, or sent, between two iterations of the event loop
KEPT = 2000  # events in the cache, which clients at the same revision share
KEPT_BYTES = 16 * 1024**2  # size of the messages of these events: one event may hold a configuration of 1 MiB
Nodes = Mapping[tuple[str, int], Sequence[str]]  # of an attempt, by uid and number
_ENDED = ("job_completed", "job_failed", "job_cancelled")


@dataclass(frozen=True)
class Frame:
    """One event, encoded for each protocol when the first client needs it."""

    name: str
    payload: Json

    @cached_property
    def text(self) -> str:
        """JSON text for the plain WebSocket."""
        return dumps({"event": self.name, "data": self.payload})

    @cached_property
    def packet(self) -> engine.Packet:
        """Socket.IO packet."""
        text = packet.Packet(packet.EVENT, data=[self.name, self.payload], binary=False).encode()
        return engine.Packet(engine.MESSAGE, text)


class FrameEncoder:
    """Encodes the messages of the event log as the documented events.

    Parameters
    ----------
    manager : JobManager
        Source of queue position and host use, which are those of the time of encoding.
    """

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager
        self._kept: OrderedDict[bytes, Sequence[Frame]] = OrderedDict()
        self._making: dict[bytes, asyncio.Task[Sequence[Frame]]] = {}
        self._number = self._bytes = 0

    async def frames(self, message: Message) -> Sequence[Frame]:
        """Return the events of a message, which are shared by all clients at the same revision."""
        known = self._kept.get(message.serialized)
        if known is not None:
            return known
        making = self._making.get(message.serialized)
        if making is None:
            making = self._making[message.serialized] = asyncio.create_task(self._make(message))
        return await asyncio.shield(making)  # other clients wait for it too

    async def _make(self, message: Message) -> Sequence[Frame]:
        made: list[Frame] = []
        try:
            async for frame in self.encode(message.parsed):
                made.append(frame)
                if len(made) % SLICE == 0:
                    await asyncio.sleep(0)
        finally:
            del self._making[message.serialized]
        self._kept[message.serialized] = made
        self._number += len(made)
        self._bytes += len(message.serialized)
        while self._number > KEPT or self._bytes > KEPT_BYTES:
            oldest, frames = self._kept.popitem(last=False)
            self._number -= len(frames)
            self._bytes -= len(oldest)
        return made

    async def encode(self, message: jobs_messages_pb2.WatchJobsResponse) -> AsyncIterator[Frame]:
        """Yield the events of a message, and ``caught_up`` at the end of the backlog."""
        nodes = await self._nodes_of(message)
        store_id = message.position.store_id
        for event in message.events:
            base = {"revision": event.revision, "store_id": store_id, **times(time=event.time)}
            for name, payload in self._encode_one(event, nodes):
                yield Frame(name, {**payload, **base})
        if message.caught_up:
            yield Frame("caught_up", {"revision": message.position.revision, "store_id": store_id})

    def _encode_one(self, event: event_pb2.WatchEvent, nodes: Nodes) -> Iterator[tuple[str, Json]]:
        origin = {"principal": words.principal_text(event), "detail": event.message}
        kind = event.WhichOneof("change")
        if kind == "limits_change":
            change = event.limits_change
            old, new = Limits.json_of(change.old_limits), Limits.json_of(change.limits)
            yield "limits_updated", {"old_limits": old, "new_limits": new, **origin}
        elif kind == "queue_change":
            yield words.QUEUE_CHANGES.word(event.queue_change.type), origin
        else:
            name = words.JOB_CHANGES.word(event.job_change.type)
            payload = {**self._job_payload(name, event.job_change.job, nodes), **origin}
            if name == "job_cancelled":
                yield name, payload
            # As documented, every end of a job is sent as job_completed: existing programs wait for it.
            yield "job_completed" if name in _ENDED else name, payload

    def _job_payload(self, name: str, job: job_pb2.Job, nodes: Nodes) -> Json:
        payload = {
            "job_id": job.id,
            "uid": job.uid,
            "attempt": job.attempt_count,
            "status": status_of(job),
            "priority": job.priority,
            "user": job.user,
            "batch": job.config.batch or None,
            "scheduler_job_id": job.scheduler_job_id or None,
        }
        if name == "job_queued":
            payload["queue_position"] = self._manager.queue_position(job.uid)
        elif name == "job_started":
            where = list(nodes.get((job.uid, job.attempt_count), ()))
            payload |= times(start_time=job.start_time) | {"resources": self._resources(), "nodes": where}
        elif name in _ENDED:
            payload |= times(end_time=job.end_time)
            payload |= {
                "return_code": return_code(job),
                "reason": reason_of(job),
                "evidence": words.evidence_word(job),
                "outcome_unknown": job.outcome.evidence == job_state_pb2.EVIDENCE_NONE,
                "message": job.outcome.message,
            }
        return payload

    async def _nodes_of(self, message: jobs_messages_pb2.WatchJobsResponse) -> Nodes:
        """Return where the attempts run whose start is told: an event has no attempts."""
        started = [
            (event.job_change.job.uid, event.job_change.job.attempt_count)
            for event in message.events
            if event.job_change.type == event_pb2.JOB_CHANGE_TYPE_STARTED
        ]
        return await self._manager.nodes_of(started) if started else {}

    def _resources(self) -> Json:
        try:
            return Resources.json_of(self._manager.resources())
        except Refused:  # there is no sample of the host yet
            return {}
