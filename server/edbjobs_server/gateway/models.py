"""The documented JSON objects as pydantic models: they write the objects, and OpenAPI describes them.

A model reads the message of the contract that it shows: fields of the same name as they are, others by alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from edbjobs.v1 import cluster_pb2, cluster_service_pb2, resource_pb2
from google.protobuf.message import Message
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from edbjobs_server.gateway.json_values import Json, fields_of
from edbjobs_server.manager.clusters import NO_CLUSTER

MIB = 1024**2
GIB = 1024**3

# Bounds are documented, not enforced: an answer is not refused because a scheduler reported a strange number.
Count = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
LimitCount = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**31 - 1})]
OptionalLimit = Annotated[int | None, WithJsonSchema({"type": ["integer", "null"], "minimum": 0, "maximum": 2**31 - 1})]
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


def mib(size: int) -> int:
    """Return a size in MiB, rounded up."""
    return -(-size // MIB)


def make_optional(schema: Json) -> None:
    """Make every member optional in a schema."""
    del schema["required"]


# The documented limits, of which 0 is "no limit" but for the first, by their names in the contract.
LIMIT_NAMES = {
    "max_concurrent_jobs": "max_local_jobs",
    "max_cpu_percent": "max_cpu_percent",
    "min_memory_gb": "min_free_memory_bytes",
    "min_disk_gb": "min_free_disk_bytes",
    "max_cores": "max_cores",
    "max_memory_mib": "max_memory_bytes",
    "max_cluster_jobs": "max_cluster_jobs",
}
UNLIMITED_JOBS = 2**31 - 1  # `max_concurrent_jobs` without a limit


def _limit(message: Message, name: str) -> Any:
    """Return a limit as documented: 0 if there is none, and null for one of 0, which lets nothing start."""
    return (getattr(message, name) or None) if message.HasField(name) else 0


class UserLimits(Model):
    """Limits of one user; each may be absent."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=make_optional)

    max_running_jobs: OptionalLimit
    max_cores: OptionalLimit
    max_priority: Annotated[int | None, WithJsonSchema({"type": "integer"})] = Field(
        default_factory=lambda: None, exclude_if=lambda value: value is None
    )

    @classmethod
    def values_of(cls, message: resource_pb2.UserLimits) -> Json:
        """Return the values."""
        limits = {name: _limit(message, name) for name in ("max_running_jobs", "max_cores")}
        return {**limits, "max_priority": message.max_priority if message.HasField("max_priority") else None}


class Limits(Model):
    """Limits of the service: the four documented ones, then the others."""

    max_concurrent_jobs: LimitCount
    max_cpu_percent: Annotated[float | None, WithJsonSchema({"type": ["number", "null"], "minimum": 0, "maximum": 100})]
    min_memory_gb: Amount
    min_disk_gb: Amount
    max_cores: OptionalLimit
    max_memory_mib: Annotated[int | None, WithJsonSchema({"type": ["integer", "null"], "minimum": 0, "maximum": 2**53})]
    max_cluster_jobs: OptionalLimit
    licenses: dict[str, LimitCount]
    default_user: UserLimits
    users: dict[str, UserLimits]

    @classmethod
    def values_of(cls, message: resource_pb2.Limits) -> Json:
        """Return the values; without `default_user` its limits are 0, none."""
        values = {name: _limit(message, field) for name, field in LIMIT_NAMES.items()}
        jobs, memory = message.max_local_jobs, values["max_memory_mib"]
        return {
            **values,
            "max_concurrent_jobs": jobs if message.HasField("max_local_jobs") else UNLIMITED_JOBS,
            "max_memory_mib": mib(memory) if memory else memory,
            "min_memory_gb": round(message.min_free_memory_bytes / GIB, 9),  # one byte is 1e-9 GiB
            "min_disk_gb": round(message.min_free_disk_bytes / GIB, 9),
            "licenses": dict(message.licenses),
            "default_user": message.default_user,
            "users": dict(message.users),
        }


class Disk(Model):
    """A volume."""

    path: str
    total_gb: Gib = Field(validation_alias="total_bytes")
    free_gb: Gib = Field(validation_alias="free_bytes")
    used_percent: Percent

    @classmethod
    def values_of(cls, message: resource_pb2.Volume) -> Json:
        """Return the values, with the used share."""
        return {**fields_of(message), "used_percent": _used_percent(message)}


def _used_percent(volume: resource_pb2.Volume) -> float:
    return 100.0 * (1 - volume.free_bytes / volume.total_bytes) if volume.total_bytes else 0.0


class Resources(Model):
    """Use of the host; the documented disk is the one of the state folder."""

    cpu_percent: Percent
    memory_percent: Percent
    memory_used_gb: Gib = Field(validation_alias="memory_used_bytes")
    memory_total_gb: Gib = Field(validation_alias="memory_total_bytes")
    memory_free_gb: Gib = Field(validation_alias="memory_available_bytes")
    disk_usage_percent: Percent
    disk_free_gb: Gib
    timestamp: Time = Field(validation_alias="sample_time")
    timestamp_utc: Time = Field(validation_alias="sample_time_utc")
    cpu_count: Count
    foreign_cpu_percent: Percent
    disks: list[Disk]

    @classmethod
    def values_of(cls, message: resource_pb2.HostResources) -> Json:
        """Return the values, with those of the first disk; a volume that does not respond is left out."""
        total, used = message.memory_total_bytes, message.memory_used_bytes
        volumes = [volume for volume in message.volumes if not volume.unreachable]
        first = volumes[0] if volumes else resource_pb2.Volume()
        return {
            **fields_of(message),
            "memory_percent": 100.0 * used / total if total else 0.0,
            "disk_usage_percent": _used_percent(first),
            "disk_free_gb": first.free_bytes,
            "disks": volumes,
        }


class Queue(Model):
    """The queue; jobs of priority 0 are its regular part, as documented."""

    total_queued: Count
    regular_queue_size: Count
    priority_queues: dict[str, Count]
    running_jobs: Count
    max_concurrent: Count
    scheduled_jobs: Count
    held_jobs: Count
    paused: bool
    draining: bool
    cores_reserved: Count
    memory_reserved_mib: Count
    licenses_reserved: dict[str, Count]
    gate: OptionalText

    @classmethod
    def of(
        cls, queue: resource_pb2.QueueStatus, limits: resource_pb2.Limits, waiting: Mapping[int, int], draining: bool
    ) -> Queue:
        """Return the queue.

        Parameters
        ----------
        queue, limits
            As the contract has them.
        waiting : mapping of int to int
            Jobs that wait by priority, without those that are being started.
        draining : bool
            Whether the service is stopping.
        """
        others = {str(priority): count for priority, count in sorted(waiting.items()) if priority}
        return cls(
            total_queued=queue.queued - queue.starting,
            regular_queue_size=waiting.get(0, 0),
            priority_queues=others,
            running_jobs=queue.local_runs,
            max_concurrent=limits.max_local_jobs if limits.HasField("max_local_jobs") else UNLIMITED_JOBS,
            scheduled_jobs=queue.scheduled,
            held_jobs=queue.held,
            paused=queue.paused,
            draining=draining,
            cores_reserved=queue.reserved.cores,
            memory_reserved_mib=mib(queue.reserved.memory_bytes),
            licenses_reserved=dict(queue.reserved.licenses),
            gate="" if queue.paused or draining else queue.blocked_message,
        )


class Partition(Model):
    """A partition or queue of a cluster: the documented keys, equal for every scheduler, then the others."""

    name: str
    nodes_total: Count
    nodes_used: Count
    cores_total: Count
    cores_used: Count
    memory_total_gb: Gib
    memory_used_gb: Gib
    nodes_free: Count
    cores_free: Count
    state: str
    default: bool = Field(validation_alias="is_default")
    time_limit_seconds: Count | None = Field(description="Longest run; null: no limit")
    scheduler: str

    @classmethod
    def values_of(cls, message: cluster_pb2.Partition) -> Json:
        """Return the values; numbers that are not known are 0."""
        numbers = {name: value or 0 for name, value in fields_of(message).items() if name.endswith(_NUMBERS)}
        return {
            **fields_of(message),
            **numbers,
            "memory_total_gb": message.memory_total_bytes,
            "memory_used_gb": message.memory_used_bytes,
            "time_limit_seconds": message.time_limit.seconds or None,
        }


_NUMBERS = ("_total", "_used", "_free")


class Scheduler(Model):
    """Whether a scheduler is reachable, and since when this is so."""

    name: str
    answering: bool = Field(validation_alias="responding")
    since: Time = Field(validation_alias="since_time")
    since_utc: Time = Field(validation_alias="since_time_utc")
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

    running_jobs: Count
    queued_jobs: Count
    max_concurrent: Count


FEATURES = ("jobs", "resources", "logs", "watch", "local", "clusters")


class Status(Model):
    """The combined status."""

    scheduler_detection: SchedulerDetection
    schedulers: list[Scheduler]
    resource_monitoring: Monitoring
    mode: str
    local_pool: LocalPool
    limits: Limits
    queue: Queue
    service: str = "edbjobs"
    version: str
    api_level: Count
    features: list[str] = list(FEATURES)
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
    def of(cls, status: cluster_service_pb2.GetSystemStatusResponse, waiting: Mapping[int, int]) -> Status:
        """Return the status; `waiting` as of `Queue.of`."""
        scheduler = status.detected_scheduler or NO_CLUSTER
        responding = {found.name for found in status.schedulers if found.responding}
        available = (scheduler in responding) if scheduler != NO_CLUSTER else not status.draining
        host = Resources.json_of(status.resources) if status.HasField("resources") else {}
        queue = Queue.of(status.queue, status.limits, waiting, status.draining)
        values = {
            **fields_of(status),
            **{name: getattr(status.details, name) for name in ("account", "pid", "warnings")},
            "store_id": status.position.store_id,
            "revision": status.position.revision,
            "store_writable": not status.store_unavailable,
            "scheduler_detection": {"active_scheduler": scheduler.upper(), "backend_available": available},
            "resource_monitoring": {"last_update": host.get("timestamp", "Never"), **host},
            "mode": scheduler,
            "queue": queue,
            "local_pool": {
                "running_jobs": queue.running_jobs,
                "queued_jobs": queue.total_queued,
                "max_concurrent": queue.max_concurrent,
            },
        }
        return cls.model_validate(values)
