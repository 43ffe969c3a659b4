"""Values that the store returns to its users."""

from __future__ import annotations

from dataclasses import dataclass

from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import EventType


@dataclass(frozen=True, slots=True)
class Committed:
    """One change that is on disk.

    Attributes
    ----------
    event : bytes
        Serialized ``edbjobs.v1.WatchEvent``.
    """

    revision: int
    time: float
    type: EventType
    event: bytes
    job: Job | None = None
    limits: Limits | None = None
    old_limits: Limits | None = None
    principal: Principal | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is on disk at one revision.

    Attributes
    ----------
    jobs : tuple of Job
        Jobs that have not ended, in order of acceptance.
    generation : int
        Grows each time the state is read again after a failed commit. What was decided on an older one is void.
    """

    store_id: str
    revision: int
    jobs: tuple[Job, ...]
    limits: Limits
    paused: bool
    generation: int = 0
