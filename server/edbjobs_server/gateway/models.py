"""The documented JSON objects as pydantic models: they write the objects, and OpenAPI describes them.

A model reads the message of the contract that it shows: fields of the same name as they are, others by alias.
"""

from __future__ import annotations

from typing import Annotated, Any

from edbjobs.v1 import cluster_service_pb2, resource_pb2
from google.protobuf.message import Message
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from edbjobs_server.gateway.json_values import Json, fields_of
from edbjobs_server.manager.clusters import NO_CLUSTER

GIB = 1024**3

# Bounds are documented, not enforced: an answer is not refused because a scheduler reported a strange number.
Count = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
LimitCount = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**31 - 1})]
Amount = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0})]
Percent = Annotated[float, BeforeValidator(lambda value: round(value, 1))]
Gib = Annotated[float, BeforeValidator(lambda size: round(size / GIB, 2))]
Time = Annotated[str | None, Field(description="ISO 8601; local without a zone, or UTC where so named")]
OptionalText = Annotated[str | None, BeforeValidator(lambda text: text or None)]


class Model(BaseModel):
    """Base of the objects."""

    model_config = ConfigDict(use_enum_values=True, json_schema_serialization_defaults_required=True)

    @classmethod
    def json_of(cls, message: Message) -> Json:
        """Return the JSON object that shows a message."""
        return cls.model_validate(message).model_dump()

    @classmethod
    def values_of(cls, message: Any) -> Json:
        """Return the values that the model reads from a message."""
        return fields_of(message)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return cls.values_of(value) if isinstance(value, Message) else value


def make_optional(schema: Json) -> None:
    """Make every member optional in a schema."""
    del schema["required"]


class UserLimits(Model):
    """Limits of one user; each may be absent."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=make_optional)

    max_running_jobs: LimitCount
    max_cores: LimitCount
    max_priority: Annotated[int | None, WithJsonSchema({"type": "integer"})] = Field(
        default_factory=lambda: None, exclude_if=lambda value: value is None
    )


class Limits(Model):
    """Limits of the service: the four documented ones, then the others."""

    max_concurrent_jobs: LimitCount
    max_cpu_percent: Annotated[float, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100})]
    min_memory_gb: Amount
    min_disk_gb: Amount
    max_cores: LimitCount
    max_memory_mib: Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**53})]
    max_cluster_jobs: LimitCount
    licenses: dict[str, LimitCount]
    default_user: UserLimits
    users: dict[str, UserLimits]

    @classmethod
    def values_of(cls, message: resource_pb2.Limits) -> Json:
        """Return the values; without `default_user` its limits are 0, none."""
        return {**fields_of(message), "default_user": message.default_user}


class Disk(Model):
    """A volume."""

    path: str
    total_gb: Gib = Field(validation_alias="total_bytes")
    free_gb: Gib = Field(validation_alias="free_bytes")
    used_percent: Percent


class Resources(Model):
    """Use of the host; the documented disk is the one of the state folder."""

    cpu_percent: Percent
    memory_percent: Percent
    memory_used_gb: Gib = Field(validation_alias="memory_used_bytes")
    memory_total_gb: Gib = Field(validation_alias="memory_total_bytes")
    memory_free_gb: Gib = Field(validation_alias="memory_available_bytes")
    disk_usage_percent: Percent
    disk_free_gb: Gib
    timestamp: Time = Field(validation_alias="time")
    timestamp_utc: Time = Field(validation_alias="time_utc")
    cpu_count: Count
    foreign_cpu_percent: Percent
    disks: list[Disk]

    @classmethod
    def values_of(cls, message: resource_pb2.ResourceSnapshot) -> Json:
        """Return the values, with those of the first disk."""
        disk = message.disks[0] if message.disks else resource_pb2.DiskUsage()
        return {**fields_of(message), "disk_usage_percent": disk.used_percent, "disk_free_gb": disk.free_bytes}


class Queue(Model):
    """The queue; jobs of priority 0 are its regular part, as documented."""

    total_queued: Count = Field(validation_alias="queued")
    regular_queue_size: Count
    priority_queues: dict[str, Count]
    running_jobs: Count = Field(validation_alias="running")
    max_concurrent: Count = Field(validation_alias="max_concurrent_jobs")
    scheduled_jobs: Count = Field(validation_alias="scheduled")
    held_jobs: Count = Field(validation_alias="held")
    paused: bool
    draining: bool
    cores_reserved: Count
    memory_reserved_mib: Count
    licenses_reserved: dict[str, Count]
    gate: OptionalText

    @classmethod
    def values_of(cls, message: resource_pb2.QueueStatus) -> Json:
        """Return the values, with the waiting jobs by priority."""
        counts = dict(message.queued_by_priority)
        regular = counts.pop(0, 0)
        by_priority = {str(priority): count for priority, count in sorted(counts.items())}
        return {**fields_of(message), "regular_queue_size": regular, "priority_queues": by_priority}


class Partition(Model):
    """A partition or queue of a cluster: the documented keys, equal for every scheduler, then the others."""

    name: str
    nodes_total: Count
    nodes_used: Count
    cores_total: Count
    cores_used: Count
    memory_total_gb: Gib = Field(validation_alias="memory_total_bytes")
    memory_used_gb: Gib = Field(validation_alias="memory_used_bytes")
    nodes_free: Count
    cores_free: Count
    state: str
    default: bool
    time_limit_seconds: Annotated[Count | None, BeforeValidator(lambda limit: limit or None)] = Field(
        description="Longest run; null: no limit"
    )
    scheduler: str


class Scheduler(Model):
    """Whether a scheduler is reachable, and since when this is so."""

    name: str
    answering: bool
    since: Time
    since_utc: Time
    version: str
    error: str


class SchedulerDetection(Model):
    """The detected scheduler."""

    active_scheduler: str
    detected_by: str = "edbjobs"
    backend_available: bool


class Monitoring(Model):
    """The monitoring of the host, and the members of Resources once there is a sample."""

    model_config = ConfigDict(extra="allow")

    active: bool = True
    last_update: str


class LocalPool(Model):
    """The local runs."""

    running_jobs: Count = Field(validation_alias="running")
    queued_jobs: Count = Field(validation_alias="queued")
    max_concurrent: Count = Field(validation_alias="max_concurrent_jobs")


class Status(Model):
    """The combined status."""

    scheduler_detection: SchedulerDetection
    schedulers: list[Scheduler]
    resource_monitoring: Monitoring
    mode: str
    local_pool: LocalPool = Field(validation_alias="queue")
    limits: Limits
    queue: Queue
    service: str
    version: str
    api_level: Count
    features: list[str]
    store_id: str
    revision: Count
    account: str
    host: str
    pid: Count
    service_start_time: Time = Field(validation_alias="start_time")
    service_start_time_utc: Time = Field(validation_alias="start_time_utc")
    draining: bool
    store_writable: bool
    warnings: list[str]

    @classmethod
    def of(cls, status: cluster_service_pb2.GetSystemStatusResponse, scheduler: str) -> Status:
        """Return the status; `scheduler`: the detected one, ``none`` where there is none."""
        answering = {found.name for found in status.schedulers if found.answering}
        available = (scheduler in answering) if scheduler != NO_CLUSTER else not status.draining
        host = Resources.json_of(status.resources) if status.HasField("resources") else {}
        values = {
            **fields_of(status),
            "scheduler_detection": {"active_scheduler": scheduler.upper(), "backend_available": available},
            "resource_monitoring": {"last_update": host.get("timestamp", "Never"), **host},
            "mode": scheduler,
        }
        return cls.model_validate(values)
