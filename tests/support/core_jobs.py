"""Jobs for tests of the core."""

from __future__ import annotations

from typing import Any

from edbjobs_server.core.job import Job, Spec


def make_job(seq: int, **values: Any) -> Job:
    """A waiting job; `project`, `cores`, `licenses`, ... of its spec may be given directly."""
    spec_fields = {name: values.pop(name) for name in list(values) if name in Spec.__dataclass_fields__}
    project = values.pop("project", f"/p/{seq}")
    spec = Spec(project_path=f"{project}.aedb", project_key=project, **spec_fields)
    return Job(uid=f"u{seq:04d}", seq=seq, id=f"job{seq}", spec=spec, create_time=float(seq), **values)
