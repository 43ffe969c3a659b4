"""Messages of the contract as the documented JSON: the old field names and types, and what was added beside them.

Times are naive local ISO 8601, as documented; each has its UTC twin, ``<name>_utc``. What is not known is null.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from edbjobs._enums import EndReason, Evidence, JobStatus, from_number, optional_from_number
from edbjobs.v1 import cluster_pb2, cluster_service_pb2, job_pb2, resource_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.codec import seconds
from edbjobs_server.manager.clusters import NO_CLUSTER

Json = dict[str, Any]

GIB = 1024**3
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # `json.dumps` would make one for each call
DOCUMENTED_LIMITS = ("max_concurrent_jobs", "max_cpu_percent", "min_memory_gb", "min_disk_gb")
_FURTHER_LIMITS = ("max_cores", "max_memory_mib", "max_cluster_jobs")


def dumps(value: Any) -> str:
    """Write JSON, without what JSON has no word for."""
    return _ENCODER.encode(value)


def times(**stamps: Timestamp | None) -> Json:
    """Write each time twice: naive local, and UTC."""
    found: Json = {}
    for name, stamp in stamps.items():
        at = seconds(stamp) if stamp is not None else None
        found[name] = None if at is None else datetime.fromtimestamp(at).isoformat()
        found[f"{name}_utc"] = None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()
    return found


def _stamp(message: Message, name: str) -> Timestamp | None:
    return getattr(message, name) if message.HasField(name) else None


def status_of(job: job_pb2.Job) -> str:
    """Tell the state in the documented word."""
    return from_number(JobStatus, job.state).value


def return_code(ended: job_pb2.Job | job_pb2.Attempt) -> int | None:
    """Tell how a process ended as the documented return code: its exit code, or the signal below zero."""
    if ended.HasField("exit_code"):
        return ended.exit_code
    return -ended.signal if ended.HasField("signal") else None


def job_reason(job: job_pb2.Job) -> str | None:
    """Tell in a word why a job ended; None: it has not."""
    return _word(EndReason, job.reason)


def job_evidence(job: job_pb2.Job) -> str | None:
    """Tell in a word what its end rests on; None: it has not ended."""
    return _word(Evidence, job.evidence)


def job_times(message: Message, *names: str) -> Json:
    """Write times of a job or an attempt; null where it has none."""
    return times(**{name: _stamp(message, name) for name in names})


def attempt_json(attempt: job_pb2.Attempt) -> Json:
    """Write an attempt."""
    return {
        "number": attempt.number,
        **job_times(attempt, "reserve_time", "start_time", "end_time"),
        "nodes": list(attempt.nodes),
        "pid": attempt.pid or None,
        "scheduler_job_id": attempt.scheduler_job_id or None,
        "reason": _word(EndReason, attempt.reason),
        "return_code": return_code(attempt),
        "cpu_seconds": attempt.cpu_seconds,
        "max_rss_bytes": attempt.max_rss_bytes,
        "message": attempt.message,
    }


def progress_json(progress: job_pb2.JobProgress) -> Json:
    """Write how far a solve is."""
    return {
        "setup": progress.setup,
        "adaptive_pass": progress.adaptive_pass,
        "max_passes": progress.max_passes,
        "delta_s": progress.delta_s if progress.HasField("delta_s") else None,
        "target_delta_s": progress.target_delta_s if progress.HasField("target_delta_s") else None,
        "elements": progress.elements,
        "frequencies_solved": progress.frequencies_solved,
        "frequencies_total": progress.frequencies_total,
        "fraction": progress.fraction if progress.HasField("fraction") else None,
        "phase": progress.phase,
    }


def limits_json(limits: resource_pb2.Limits) -> Json:
    """Write the limits: the four documented ones, then the others."""
    return {
        **{name: getattr(limits, name) for name in (*DOCUMENTED_LIMITS, *_FURTHER_LIMITS)},
        "licenses": dict(limits.licenses),
        "default_user": _user_limits_json(limits.default_user),
        "users": {name: _user_limits_json(user) for name, user in limits.users.items()},
    }


def _user_limits_json(user: resource_pb2.UserLimits) -> Json:
    found: Json = {"max_running_jobs": user.max_running_jobs, "max_cores": user.max_cores}
    return {**found, "max_priority": user.max_priority} if user.HasField("max_priority") else found


def queue_json(queue: resource_pb2.QueueStatus) -> Json:
    """Write the queue; jobs of priority 0 are its regular part, as documented."""
    by_priority = dict(queue.queued_by_priority)
    regular = by_priority.pop(0, 0)
    return {
        "total_queued": queue.queued,
        "regular_queue_size": regular,
        "priority_queues": {str(priority): count for priority, count in sorted(by_priority.items())},
        "running_jobs": queue.running,
        "max_concurrent": queue.max_concurrent_jobs,
        "scheduled_jobs": queue.scheduled,
        "held_jobs": queue.held,
        "paused": queue.paused,
        "draining": queue.draining,
        "cores_reserved": queue.cores_reserved,
        "memory_reserved_mib": queue.memory_reserved_mib,
        "licenses_reserved": dict(queue.licenses_reserved),
        "gate": queue.gate or None,
    }


def resources_json(host: resource_pb2.ResourceSnapshot) -> Json:
    """Write the host; the documented disk is the one of the state folder."""
    disk = host.disks[0] if host.disks else resource_pb2.DiskUsage()
    return {
        "cpu_percent": round(host.cpu_percent, 1),
        "memory_percent": round(host.memory_percent, 1),
        "memory_used_gb": round(host.memory_used_bytes / GIB, 2),
        "memory_total_gb": round(host.memory_total_bytes / GIB, 2),
        "memory_free_gb": round(host.memory_available_bytes / GIB, 2),
        "disk_usage_percent": round(disk.used_percent, 1),
        "disk_free_gb": round(disk.free_bytes / GIB, 2),
        **times(timestamp=host.time),
        "cpu_count": host.cpu_count,
        "foreign_cpu_percent": round(host.foreign_cpu_percent, 1),
        "disks": [
            {
                "path": item.path,
                "total_gb": round(item.total_bytes / GIB, 2),
                "free_gb": round(item.free_bytes / GIB, 2),
                "used_percent": round(item.used_percent, 1),
            }
            for item in host.disks
        ],
    }


def partition_json(partition: cluster_pb2.Partition) -> Json:
    """Write a partition: the documented keys, which are the same for every scheduler, then the others."""
    return {
        "name": partition.name,
        "nodes_total": partition.nodes_total,
        "nodes_used": partition.nodes_used,
        "cores_total": partition.cores_total,
        "cores_used": partition.cores_used,
        "memory_total_gb": round(partition.memory_total_bytes / GIB, 2),
        "memory_used_gb": round(partition.memory_used_bytes / GIB, 2),
        "nodes_free": partition.nodes_free,
        "cores_free": partition.cores_free,
        "state": partition.state,
        "default": partition.default,
        "time_limit_seconds": partition.time_limit_seconds or None,
        "scheduler": partition.scheduler,
    }


def scheduler_json(status: cluster_pb2.SchedulerStatus) -> Json:
    """Write whether a scheduler answers, and since when that is so."""
    return {
        "name": status.name,
        "answering": status.answering,
        **times(since=_stamp(status, "since")),
        "version": status.version,
        "error": status.error,
    }


def status_json(status: cluster_service_pb2.GetSystemStatusResponse, scheduler: str) -> Json:
    """Write the combined status; `scheduler`: the detected one, ``none`` where there is none."""
    answering = {found.name for found in status.schedulers if found.answering}
    host = resources_json(status.resources) if status.HasField("resources") else {}
    return {
        "scheduler_detection": {
            "active_scheduler": scheduler.upper(),
            "detected_by": "edbjobs",
            "backend_available": (scheduler in answering) if scheduler != NO_CLUSTER else not status.draining,
        },
        "schedulers": [scheduler_json(found) for found in status.schedulers],
        "resource_monitoring": {"active": True, "last_update": host.get("timestamp", "Never"), **host},
        "mode": scheduler,
        "local_pool": {
            "running_jobs": status.queue.running,
            "queued_jobs": status.queue.queued,
            "max_concurrent": status.queue.max_concurrent_jobs,
        },
        "limits": limits_json(status.limits),
        "queue": queue_json(status.queue),
        "service": status.service,
        "version": status.version,
        "api_level": status.api_level,
        "features": list(status.features),
        "store_id": status.store_id,
        "revision": status.revision,
        "account": status.account,
        "host": status.host,
        "pid": status.pid,
        **times(service_start_time=status.start_time),
        "draining": status.draining,
        "store_writable": status.store_writable,
        "warnings": list(status.warnings),
    }


def _word(kind: Any, number: int) -> str | None:
    found = optional_from_number(kind, number)
    return None if found is None else str(found.value)
