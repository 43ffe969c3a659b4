"""JSON schemas of requests and answers, by name; the OpenAPI document holds them, the tests check answers by them."""

from __future__ import annotations

from typing import Any

from edbjobs._enums import EndReason, Evidence, JobStatus, WaitingReason
from edbjobs.config import HFSSSimulationConfig

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
INTEGER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
TIME: Schema = {"type": ["string", "null"], "description": "ISO 8601; local without a zone, or UTC where so named"}
_LIMIT_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def ref(name: str) -> Schema:
    """Point to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str, properties: Schema, **more: Any) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties, **more}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _words(kind: Any, null: bool = True) -> Schema:
    words = [word.value for word in kind]
    return {"type": ["string", "null"], "enum": [*words, None]} if null else {"type": "string", "enum": words}


def _times(*names: str) -> Schema:
    return {full: TIME for name in names for full in (name, f"{name}_utc")}


def _all(properties: Schema, **more: Any) -> Schema:
    return _object(" ".join(properties), properties, **more)


_STATE: Schema = {
    "job_id": TEXT,
    "uid": TEXT,
    "status": TEXT,
    "revision": INTEGER,
    "priority": INTEGER,
}
_LIMITS: Schema = {
    "max_concurrent_jobs": _LIMIT_COUNT,
    "max_cpu_percent": {"type": "number", "minimum": 0, "maximum": 100},
    "min_memory_gb": {"type": "number", "minimum": 0},
    "min_disk_gb": {"type": "number", "minimum": 0},
    "max_cores": _LIMIT_COUNT,
    "max_memory_mib": {"type": "integer", "minimum": 0, "maximum": 2**53},
    "max_cluster_jobs": _LIMIT_COUNT,
    "licenses": {"type": "object", "additionalProperties": _LIMIT_COUNT},
    "default_user": ref("UserLimits"),
    "users": {"type": "object", "additionalProperties": ref("UserLimits")},
}
_HOST: Schema = {
    "cpu_percent": NUMBER,
    "memory_percent": NUMBER,
    "memory_used_gb": NUMBER,
    "memory_total_gb": NUMBER,
    "memory_free_gb": NUMBER,
    "disk_usage_percent": NUMBER,
    "disk_free_gb": NUMBER,
    **_times("timestamp"),
    "cpu_count": COUNT,
    "foreign_cpu_percent": NUMBER,
    "disks": {
        "type": "array",
        "items": _all({"path": TEXT, "total_gb": NUMBER, "free_gb": NUMBER, "used_percent": NUMBER}),
    },
}
_QUEUE: Schema = {
    "total_queued": COUNT,
    "regular_queue_size": COUNT,
    "priority_queues": {"type": "object", "additionalProperties": COUNT},
    "running_jobs": COUNT,
    "max_concurrent": COUNT,
    "scheduled_jobs": COUNT,
    "held_jobs": COUNT,
    "paused": FLAG,
    "draining": FLAG,
    "cores_reserved": COUNT,
    "memory_reserved_mib": COUNT,
    "licenses_reserved": {"type": "object", "additionalProperties": COUNT},
    "gate": _maybe(TEXT),
}
_ATTEMPT: Schema = {
    "number": COUNT,
    **_times("reserve_time", "start_time", "end_time"),
    "nodes": TEXTS,
    "pid": _maybe(INTEGER),
    "scheduler_job_id": _maybe(TEXT),
    "reason": _words(EndReason),
    "return_code": _maybe(INTEGER),
    "cpu_seconds": NUMBER,
    "max_rss_bytes": COUNT,
    "message": TEXT,
}
_PROGRESS: Schema = {
    "setup": TEXT,
    "adaptive_pass": COUNT,
    "max_passes": COUNT,
    "delta_s": _maybe(NUMBER),
    "target_delta_s": _maybe(NUMBER),
    "elements": COUNT,
    "frequencies_solved": COUNT,
    "frequencies_total": COUNT,
    "fraction": _maybe(NUMBER),
    "phase": TEXT,
}
_JOB: Schema = {
    "id": TEXT,
    "user": TEXT,
    "config": {"type": "object", "description": "The documented form of the configuration"},
    "status": _words(JobStatus, null=False),
    "return_code": _maybe(INTEGER),
    "scheduler_job_id": _maybe(TEXT),
    "priority": INTEGER,
    "uid": TEXT,
    "revision": COUNT,
    "attempt": COUNT,
    **_times("start_time", "end_time", "create_time", "cancel_time", "not_before"),
    "held": FLAG,
    "waiting_reason": _words(WaitingReason),
    "waiting_detail": TEXT,
    "jobs_before": COUNT,
    "reason": _words(EndReason),
    "signal": _maybe(INTEGER),
    "evidence": _words(Evidence),
    "outcome_unknown": FLAG,
    "message": TEXT,
    "warnings": TEXTS,
    "attempts": {"type": "array", "items": ref("Attempt")},
    "retry_of": _maybe(TEXT),
    "batch": _maybe(TEXT),
    "labels": {"type": "object", "additionalProperties": TEXT},
    "executor": TEXT,
    "solver_version": TEXT,
    "demo": FLAG,
    "cores": COUNT,
    "memory_mib": COUNT,
    "progress": _maybe(ref("Progress")),
}
_PARTITION: Schema = {
    "name": TEXT,
    "nodes_total": COUNT,
    "nodes_used": COUNT,
    "cores_total": COUNT,
    "cores_used": COUNT,
    "memory_total_gb": NUMBER,
    "memory_used_gb": NUMBER,
    "nodes_free": COUNT,
    "cores_free": COUNT,
    "state": TEXT,
    "default": FLAG,
    "time_limit_seconds": {**_maybe(COUNT), "description": "Longest run; null: no limit"},
    "scheduler": TEXT,
}
_STATUS: Schema = {
    "scheduler_detection": _all({"active_scheduler": TEXT, "detected_by": TEXT, "backend_available": FLAG}),
    "schedulers": {"type": "array", "items": ref("Scheduler")},
    "resource_monitoring": _object("active last_update", {"active": FLAG, "last_update": TEXT}),
    "mode": TEXT,
    "local_pool": _all({"running_jobs": COUNT, "queued_jobs": COUNT, "max_concurrent": COUNT}),
    "limits": ref("Limits"),
    "queue": ref("Queue"),
    "service": TEXT,
    "version": TEXT,
    "api_level": COUNT,
    "features": TEXTS,
    "store_id": TEXT,
    "revision": COUNT,
    "account": TEXT,
    "host": TEXT,
    "pid": COUNT,
    **_times("service_start_time"),
    "draining": FLAG,
    "store_writable": FLAG,
    "warnings": TEXTS,
}
_PARSED_LOG: Schema = {
    "project": _all({"name": TEXT, "file": TEXT, "design": TEXT, "user": TEXT, "cmd_line": TEXT}),
    "init_mesh": _maybe(ref("InitialMesh")),
    "adaptive": {"type": "array", "items": ref("AdaptivePass")},
    "sweep": _maybe(ref("Sweep")),
    "log_parser": _all({"is_converged": FLAG, "is_completed": FLAG, "errors": TEXTS}),
    "attempt": COUNT,
}


def _config() -> tuple[Schema, dict[str, Schema]]:
    """Give the schema of the configuration, and the schemas it refers to."""
    schema = HFSSSimulationConfig.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, Schema] = schema.pop("$defs", {})
    return schema, parts


def schemas() -> dict[str, Schema]:
    """Give all schemas by name."""
    config, parts = _config()
    submit = {"config": ref("HFSSSimulationConfig"), "priority": {**INTEGER, "default": 0}}
    overrides = {"user": TEXT, "machine_nodes": {"type": "array"}, "batch_options": {"type": "object"}}
    user_limits = {"max_running_jobs": _LIMIT_COUNT, "max_cores": _LIMIT_COUNT, "max_priority": INTEGER}
    event = _all({"event": TEXT, "data": _object("revision store_id", {"revision": COUNT, "store_id": TEXT})})
    return {
        **parts,
        "HFSSSimulationConfig": config,
        "Error": _all(
            {"success": {"const": False}, "error": TEXT, "reason": TEXT, "fields": {"type": "object"}, "metadata": {}}
        ),
        "Submit": _object("config", submit),
        "ApiSubmit": _object("config", {**submit, **overrides}),
        "Submitted": _all({"success": {"const": True}, "message": TEXT, "existed": FLAG, "warnings": TEXTS, **_STATE}),
        "Changed": _object("success " + " ".join(_STATE), {"success": {"const": True}, "message": TEXT, **_STATE}),
        "Done": _all({"success": {"const": True}, "message": TEXT}),
        "Empty": {"type": "object"},
        "Priority": _all({"priority": {"type": "integer", "minimum": -1_000_000, "maximum": 1_000_000}}),
        "Job": _all(_JOB),
        "Jobs": {"type": "array", "items": ref("Job")},
        "Attempt": _all(_ATTEMPT),
        "Progress": _all(_PROGRESS),
        "JobEvents": _all(
            {
                "job_id": TEXT,
                "uid": TEXT,
                "store_id": TEXT,
                "events": {"type": "array", "items": event},
                "next_after_revision": _maybe(INTEGER),
            }
        ),
        "Resources": _all(_HOST),
        "Queue": _all(_QUEUE),
        "UserLimits": _object("", user_limits, additionalProperties=False),
        "Limits": _all(_LIMITS),
        "LimitChanges": _object("", _LIMITS, additionalProperties=False, minProperties=1),
        "NewLimits": _object("success message limits", {"success": FLAG, "message": TEXT, "limits": ref("Limits")}),
        "Partitions": {"type": "array", "items": ref("Partition")},
        "Partition": _all(_PARTITION),
        "Scheduler": _all({"name": TEXT, "answering": FLAG, **_times("since"), "version": TEXT, "error": TEXT}),
        "Status": _all(_STATUS),
        "SchedulerType": _all({"scheduler_type": TEXT}),
        "Me": _all({"username": TEXT, "door": TEXT}),
        "Health": _all({"status": {"const": "ok"}}),
        "Ready": _all({"ready": FLAG, "draining": FLAG, "store_writable": FLAG}),
        "ParsedLog": _all(_PARSED_LOG),
        "InitialMesh": _all(
            {"tetrahedra": COUNT, "memory_mb": NUMBER, "real_time_sec": NUMBER, "cpu_time_sec": NUMBER}
        ),
        "AdaptivePass": _all(
            {
                "pass_nr": COUNT,
                "freq_hz": _maybe(NUMBER),
                "tetrahedra": COUNT,
                "matrix_size": COUNT,
                "memory_mb": NUMBER,
                "delta_s": _maybe(NUMBER),
                "converged": FLAG,
                "elapsed_sec": NUMBER,
                "setup": TEXT,
            }
        ),
        "Sweep": _all(
            {"type": TEXT, "frequencies": COUNT, "solved": {"type": "array", "items": NUMBER}, "elapsed_sec": NUMBER}
        ),
    }
