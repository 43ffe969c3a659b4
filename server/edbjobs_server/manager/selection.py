"""Which jobs a call on many applies to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edbjobs.v1 import job_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.contract.views import BASIC
from edbjobs_server.core.job import Job
from edbjobs_server.store import Reader, states_of

MAX_SELECTED = 1000

Applies = Callable[[job_pb2.Job], bool]


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs that a filter selects, as they were when they were looked up.

    Attributes
    ----------
    job_filter : JobFilter
        The filter.
    uids : sequence of str
        The jobs, oldest first: those that the filter names, or those that have not ended.
    named : mapping of str to JobRef
        How the filter names jobs, by uid.
    missing : sequence of JobRef
        Jobs that the filter names and that do not exist.
    more : bool
        There are more than `uids`.
    """

    job_filter: jobs_messages_pb2.JobFilter
    uids: Sequence[str]
    named: Mapping[str, JobRef] = field(default_factory=dict)
    missing: Sequence[JobRef] = ()
    more: bool = False


def select(reader: Reader, job_filter: jobs_messages_pb2.JobFilter, applies: Applies) -> Selection:
    """Look up the jobs that a filter names, or else the oldest live ones that it selects and the call applies to."""
    if not job_filter.jobs:
        found = _uids(reader, _live(job_filter), applies)
        return Selection(job_filter, found[:MAX_SELECTED], more=len(found) > MAX_SELECTED)
    named: dict[str, JobRef] = {}
    missing: list[JobRef] = []
    for ref in job_filter.jobs:
        uid = reader.uid(ref)
        if uid is not None:
            named.setdefault(uid, ref)
        elif ref not in missing:
            missing.append(ref)
    by_uid = jobs_messages_pb2.JobFilter()
    by_uid.CopyFrom(job_filter)
    by_uid.ClearField("jobs")
    by_uid.jobs.extend(JobRef(uid=uid) for uid in named)
    found = _uids(reader, by_uid, lambda job: True) if named else []
    return Selection(job_filter, found, named, missing)


def still_selected(job_filter: jobs_messages_pb2.JobFilter, job: Job) -> bool:
    """Return whether a job that a filter selected agrees with it now; all that can change is looked at."""
    states = states_of(job_filter)
    is_held = job.held and not job.state.terminal
    held = job_filter.held if job_filter.HasField("held") else is_held
    reasons = job_filter.end_reasons
    return (
        (states is None or job.state in states)
        and held == is_held
        and (not reasons or (job.outcome is not None and job.outcome.reason.value in reasons))
        and not (job.superseded_by and not job_filter.jobs and not job_filter.include_superseded)
    )


def _live(job_filter: jobs_messages_pb2.JobFilter) -> jobs_messages_pb2.JobFilter | None:
    """Return the filter of the live jobs that a filter selects; None: it selects none."""
    if job_filter.HasField("ended") and job_filter.ended:
        return None
    found = jobs_messages_pb2.JobFilter()
    found.CopyFrom(job_filter)
    found.ended = False
    return found


def _uids(reader: Reader, job_filter: jobs_messages_pb2.JobFilter | None, applies: Applies) -> list[str]:
    """Find jobs, at most one more than are taken."""
    found: list[str] = []
    token = ""
    while job_filter is not None and len(found) <= MAX_SELECTED:
        page = reader.page(job_filter, token, MAX_SELECTED, view=BASIC)
        found += [job.uid for job in page.jobs if applies(job)]
        token = page.next_token
        if not token:
            break
    return found[: MAX_SELECTED + 1]
