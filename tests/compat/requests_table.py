"""The requests that were put to the old service and are put to ours: one table for the recording and the test."""

from __future__ import annotations

from typing import Any, NamedTuple


class Request(NamedTuple):
    """One request; ``{project}`` and ``{solver}`` in its body stand for paths of the host it is put to.

    `wait` is the id of a job that must have ended, or ``id:running``, before it is put.
    """

    name: str
    method: str
    path: str
    body: Any = None
    wait: str = ""


def _config(job_id: str, project: int, **more: Any) -> dict[str, Any]:
    return {
        "jobid": job_id,
        "user": "somebody",
        "project_path": f"{{project{project}}}",
        "ansys_edt_path": "{solver}",
        "machine_nodes": [{"hostname": "localhost", "cores": 1, "max_cores": 20, "utilization": 90}],
        "scheduler_type": "none",
        **more,
    }


REQUESTS = (
    Request("resources", "GET", "/resources"),
    Request("api resources", "GET", "/api/resources"),
    Request("empty queue", "GET", "/queue"),
    Request("empty jobs", "GET", "/jobs"),
    Request("system status", "GET", "/system/status"),
    Request("scheduler type", "GET", "/api/scheduler_type"),
    Request("me", "GET", "/api/me"),
    Request("partitions", "GET", "/scheduler/partitions"),
    Request("api partitions", "GET", "/api/cluster_partitions"),
    Request("start monitoring", "POST", "/system/start_monitoring"),
    Request("submit", "POST", "/jobs/submit", {"config": _config("one", 1), "priority": 0}),
    Request("submit a live id again", "POST", "/jobs/submit", {"config": _config("one", 1), "priority": 0}),
    Request("submit with a priority", "POST", "/jobs/submit", {"config": _config("two", 2), "priority": 5}),
    Request("submit to the other route", "POST", "/api/submit", {"config": _config("three", 3), "user": "other"}),
    Request("queue with jobs", "GET", "/queue", wait="one:running"),
    Request("api queue", "GET", "/api/queue"),
    Request("jobs", "GET", "/jobs"),
    Request("api jobs", "GET", "/api/jobs"),
    Request("priority", "POST", "/jobs/three/priority", {"priority": 7}),
    Request("priority of no job", "POST", "/jobs/nothing/priority", {"priority": 7}),
    Request("cancel a waiting job", "POST", "/jobs/three/cancel"),
    Request("cancel no job", "POST", "/jobs/nothing/cancel"),
    Request("cancel no job on the other route", "POST", "/api/cancel/nothing"),
    Request("cancel an ended job", "POST", "/jobs/one/cancel", wait="one"),
    Request("submit an ended id again", "POST", "/jobs/submit", {"config": _config("one", 1)}, wait="two"),
    Request("cancel a running job on the other route", "POST", "/api/cancel/one", wait="one:running"),
    Request("jobs at the end", "GET", "/api/jobs", wait="one"),
    Request("limits", "PUT", "/pool/limits", {"max_concurrent_jobs": 2, "max_cpu_percent": 80.0}),
    Request("empty limits", "PUT", "/pool/limits", {}),
    Request("limits of a wrong type", "PUT", "/pool/limits", {"max_concurrent_jobs": "two"}),
    Request("unknown limits", "PUT", "/pool/limits", {"max_everything": 1}),
    Request("log of no job", "GET", "/api/jobs/nothing/log"),
    Request("log of a job without one", "GET", "/api/jobs/three/log"),
    Request("submit without a configuration", "POST", "/jobs/submit", {}),
    Request("submit of a wrong type", "POST", "/jobs/submit", {"config": _config("four", 1, machine_nodes="x")}),
    Request("submit without a user", "POST", "/jobs/submit", {"config": {**_config("five", 1), "user": None}}),
    Request("no such route", "GET", "/nothing"),
)


def shape(value: Any) -> Any:
    """Reduce an answer to keys and types; of a list, the shape of its first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    if value is None:
        return None
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
