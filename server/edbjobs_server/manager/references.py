"""Checks of what names jobs in requests: references and filters."""

from __future__ import annotations

import re

from edbjobs.v1 import jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.core.errors import Refused

MAX_NAMED = 1000
_UID_FORM = re.compile(r"[0-9A-Fa-f]{32}")


def has_uid_form(name: str) -> bool:
    """Return whether a name has the form of a uid, which no new id has."""
    return _UID_FORM.fullmatch(name) is not None


def require_ref(ref: JobRef, field: str = "job") -> JobRef:
    """Return a reference that names a job by exactly one of the two.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    if bool(ref.uid) != bool(ref.id):
        return ref
    what = "expected exactly one of uid and id"
    raise Refused("INVALID_REQUEST", f"{field}: {what}, got {'both' if ref.uid else 'none'}", fields={field: what})


def require_filter(job_filter: jobs_messages_pb2.JobFilter, field: str = "filter") -> jobs_messages_pb2.JobFilter:
    """Return a filter whose values are right.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    for index, ref in enumerate(job_filter.jobs):
        require_ref(ref, f"{field}.jobs[{index}]")
    for name in ("states", "end_reasons"):
        for index, value in enumerate(getattr(job_filter, name)):
            if not value:
                path, what = f"{field}.{name}[{index}]", "expected a value other than UNSPECIFIED"
                raise Refused("INVALID_REQUEST", f"{path}: {what}", fields={path: what})
    return job_filter


def require_selection(
    job_filter: jobs_messages_pb2.JobFilter, everything: bool, field: str = "filter"
) -> jobs_messages_pb2.JobFilter:
    """Return the filter of a call on many jobs.

    Raises
    ------
    Refused
        FILTER_REQUIRED, TOO_MANY_ITEMS, and as `require_filter`.
    """
    fields = [descriptor.name for descriptor, _ in job_filter.ListFields()]
    if not everything and set(fields) <= {"include_superseded"}:
        text = "expected a filter, got an empty one, which means every job; set `all` to apply it to every job"
        raise Refused("FILTER_REQUIRED", text)
    if len(job_filter.jobs) > MAX_NAMED:
        text = f"{len(job_filter.jobs)} jobs in {field}.jobs; expected at most {MAX_NAMED}"
        raise Refused("TOO_MANY_ITEMS", text, metadata={"limit": str(MAX_NAMED)})
    return require_filter(job_filter, field)
