"""Bodies of REST requests and answers as pydantic models, from which the OpenAPI document is generated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel

from edbjobs_server.gateway.documented.config import HFSSSimulationConfig
from edbjobs_server.gateway.json_values import Json
from edbjobs_server.gateway.models import Count, Limits, Model, Partition, Time, make_optional
from edbjobs_server.gateway.words import END_REASONS, EVIDENCE_WORDS, PENDING, STATES, WAITING_REASONS, schema

_Status = Annotated[str, Field(json_schema_extra=schema(STATES.all(PENDING)))]
_WaitingReason = Annotated[str, Field(json_schema_extra=schema(WAITING_REASONS.all()))]
_EndReason = Annotated[str, Field(json_schema_extra=schema(END_REASONS.all()))]
_Evidence = Annotated[str, Field(json_schema_extra=schema(EVIDENCE_WORDS))]


class Empty(Model):
    """A body without members."""


class Submit(Model):
    """A job to queue."""

    config: HFSSSimulationConfig
    priority: int = 0


class ApiSubmit(Submit):
    """A job to queue; values beside the configuration override those in it."""

    user: str = ""
    machine_nodes: list[Any] = Field(default_factory=list)
    batch_options: Json = Field(default_factory=dict)


class Priority(Model):
    """A new priority."""

    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)]


def _any_of_them(schema: Json) -> None:
    make_optional(schema)
    schema["minProperties"] = 1


class LimitChanges(Limits):
    """Limits to change; absent ones stay as they are."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_any_of_them)


class Attempt(Model):
    """One run of a job."""

    number: Count
    reserve_time: Time
    reserve_time_utc: Time
    start_time: Time
    start_time_utc: Time
    end_time: Time
    end_time_utc: Time
    nodes: list[str]
    pid: int | None
    scheduler_job_id: str | None
    reason: _EndReason | None
    return_code: int | None
    cpu_seconds: float
    max_rss_bytes: Count
    message: str


class Progress(Model):
    """How far a solve is."""

    setup: str
    adaptive_pass: Count
    max_passes: Count
    delta_s: float | None
    target_delta_s: float | None
    elements: Count
    frequencies_solved: Count
    frequencies_total: Count
    fraction: float | None
    phase: str


class Job(Model):
    """A job. `job_text` writes it without this model, as a list may have 100,000 of them."""

    id: str
    user: str
    config: Annotated[Json, Field(description="The documented form of the configuration")]
    status: _Status
    return_code: int | None
    scheduler_job_id: str | None
    priority: int
    uid: str
    revision: Count
    attempt: Count
    start_time: Time
    start_time_utc: Time
    end_time: Time
    end_time_utc: Time
    create_time: Time
    create_time_utc: Time
    cancel_time: Time
    cancel_time_utc: Time
    not_before: Time
    not_before_utc: Time
    held: bool
    waiting_reason: _WaitingReason | None
    waiting_detail: str
    jobs_before: Count
    reason: _EndReason | None
    signal: int | None
    evidence: _Evidence | None
    outcome_unknown: bool
    message: str
    warnings: list[str]
    attempts: list[Attempt]
    retry_of: str | None
    batch: str | None
    labels: dict[str, str]
    executor: str
    solver_version: str
    demo: bool
    cores: Count
    memory_mib: Count
    progress: Progress | None


class Jobs(RootModel[list[Job]]):
    """A list of jobs."""


class EventData(Model):
    """Data of an event; each type adds its own."""

    model_config = ConfigDict(extra="allow")

    revision: Count
    store_id: str


class Event(Model):
    """A change, as Socket.IO sends it."""

    event: str
    data: EventData


class JobEvents(Model):
    """Changes of one job."""

    job_id: str
    uid: str
    store_id: str
    events: list[Event]
    next_after_revision: int | None


class Partitions(RootModel[list[Partition]]):
    """A list of partitions."""


class DetectedScheduler(Model):
    """The detected scheduler."""

    scheduler_type: str


class Me(Model):
    """The caller."""

    username: str
    door: str  # codespell:ignore door


class Health(Model):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(Model):
    """Whether the service accepts jobs."""

    ready: bool
    draining: bool
    store_writable: bool


class Error(Model):
    """An error: text, reason code, the invalid fields, and what programs need besides."""

    model_config = ConfigDict(extra="allow")

    success: Literal[False] = False
    error: str
    reason: str
    fields: dict[str, str]
    metadata: dict[str, str]


class Done(Model):
    """Success."""

    success: Literal[True] = True
    message: str


class Changed(Model):
    """State of the job that was changed."""

    success: Literal[True] = True
    message: str = Field("", exclude_if=lambda text: not text)
    job_id: str
    uid: str
    status: str
    revision: int
    priority: int


class Submitted(Changed):
    """State of the job that was queued, or existed already."""

    message: str
    existed: bool
    warnings: list[str]


class NewLimits(Done):
    """All limits, and those that were changed again by name."""

    model_config = ConfigDict(extra="allow")

    limits: Limits
