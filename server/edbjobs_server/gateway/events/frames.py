"""Changes as the documented events: each is encoded once, whatever the number of clients."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from edbjobs._enums import EventType, from_number
from edbjobs.v1 import event_pb2, jobs_messages_pb2
from engineio import packet as engine
from socketio import packet

from edbjobs_server.core.errors import Refused
from edbjobs_server.events.log import Message
from edbjobs_server.gateway import words
from edbjobs_server.gateway.json_values import Json, dumps, evidence_of, reason_of, return_code, status_of, times
from edbjobs_server.gateway.models import Limits, Resources
from edbjobs_server.manager.job_manager import JobManager

SLICE = 25  # events encoded, or sent, between two iterations of the event loop
KEPT = 2000  # events in the cache, which clients at the same revision share
KEPT_BYTES = 16 * 1024**2  # size of the messages of these events: one event may hold a configuration of 1 MiB
_ENDED = (EventType.JOB_COMPLETED, EventType.JOB_FAILED, EventType.JOB_CANCELLED)


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
            for frame in self.encode(message.parsed):
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

    def encode(self, message: jobs_messages_pb2.WatchJobsResponse) -> Iterator[Frame]:
        """Yield the events of a message, and ``caught_up`` at the end of the backlog."""
        for event in message.events:
            base = {"revision": event.revision, "store_id": message.store_id, **times(time=event.time)}
            for name, payload in self._encode_one(event):
                yield Frame(name, {**payload, **base})
        if message.caught_up:
            yield Frame("caught_up", {"revision": message.revision, "store_id": message.store_id})

    def _encode_one(self, event: event_pb2.Event) -> Iterator[tuple[str, Json]]:
        kind = from_number(EventType, event.type)
        if kind is EventType.JOB_SUPERSEDED:
            kind = EventType.JOB_NOTE  # its text names the new job
        origin = {"principal": words.principal_text(event), "detail": event.detail}
        if kind is EventType.LIMITS_UPDATED:
            old, new = Limits.json_of(event.old_limits), Limits.json_of(event.limits)
            yield kind.value, {"old_limits": old, "new_limits": new, **origin}
        elif not event.HasField("job"):
            yield kind.value, origin
        else:
            payload = {**self._job_payload(kind, event), **origin}
            if kind is EventType.JOB_CANCELLED:
                yield kind.value, payload
            # As documented, every end of a job is sent as job_completed: existing programs wait for it.
            yield "job_completed" if kind in _ENDED else kind.value, payload

    def _job_payload(self, kind: EventType, event: event_pb2.Event) -> Json:
        job = event.job
        payload = {
            "job_id": job.id,
            "uid": job.uid,
            "attempt": job.attempt,
            "status": status_of(job),
            "priority": job.priority,
            "user": job.user,
            "batch": job.config.batch or None,
            "scheduler_job_id": job.scheduler_job_id or None,
        }
        if kind is EventType.JOB_QUEUED:
            payload["queue_position"] = self._manager.queue_position(job.uid)
        elif kind is EventType.JOB_STARTED:
            nodes = list(job.attempts[-1].nodes) if job.attempts else []
            payload |= times(start_time=job.start_time) | {"resources": self._resources(), "nodes": nodes}
        elif kind in _ENDED:
            payload |= times(end_time=job.end_time)
            payload |= {
                "return_code": return_code(job),
                "reason": reason_of(job),
                "evidence": evidence_of(job),
                "outcome_unknown": job.outcome_unknown,
                "message": job.message,
            }
        return payload

    def _resources(self) -> Json:
        try:
            return Resources.json_of(self._manager.resources())
        except Refused:  # there is no sample of the host yet
            return {}
