"""The jobs that a `JobFilter` matches: as a test of a message, and as SQL with the same result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from edbjobs.v1 import job_pb2, job_ref_pb2, job_state_pb2, jobs_messages_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.codec import seconds

LIVE = (job_state_pb2.JOB_STATE_QUEUED, job_state_pb2.JOB_STATE_SCHEDULED, job_state_pb2.JOB_STATE_RUNNING)
ENDED = (job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED)
_MOST_DRIVERS = 16  # each is a query of its own
_CHANGING = ("states", "ended", "held", "end_reasons", "end_time_from", "end_time_before")
_BOUNDS = ("create_time_from", "create_time_before", "end_time_from", "end_time_before")


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    r"""Write labels so that one pair can be looked for as text.

    Each pair is a JSON list on a line of its own. JSON escapes line ends, so ``\n[...]\n`` occurs only where
    exactly that pair stands.
    """
    lines = [f"[{_quoted(key)}, {_quoted(value)}]" for key, value in labels]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def states_of(job_filter: jobs_messages_pb2.JobFilter) -> frozenset[int] | None:
    """Return the states that a filter allows, by `states` and `ended`; None: all."""
    if not job_filter.states and not job_filter.HasField("ended"):
        return None
    allowed: Iterable[int] = (*LIVE, *ENDED)
    if job_filter.HasField("ended"):
        allowed = ENDED if job_filter.ended else LIVE
    return frozenset(allowed) & frozenset(job_filter.states or allowed)


def excludes_superseded(job_filter: jobs_messages_pb2.JobFilter) -> bool:
    """Return whether a filter leaves superseded jobs out; a job that it names may be one."""
    return not job_filter.include_superseded and not job_filter.jobs


def is_held(job: job_pb2.Job) -> bool:
    """Return whether a job is held; one that has ended keeps in its message what it was before."""
    return job.held and not job.HasField("end_time")


class JobMatcher:
    """Tests messages against a filter.

    Parameters
    ----------
    job_filter : JobFilter
        Every field that is set must agree. An id in `jobs` is every job that has it.

    Attributes
    ----------
    everything : bool
        Whether the filter selects every job, superseded ones too.
    looks_at_changes : bool
        Whether it looks at something that changes during the life of a job, besides `superseded_by`.
    """

    def __init__(self, job_filter: jobs_messages_pb2.JobFilter) -> None:
        fields = {descriptor.name for descriptor, _ in job_filter.ListFields()}
        self.everything = fields == {"include_superseded"}
        self.looks_at_changes = not fields.isdisjoint(_CHANGING)
        self._states = states_of(job_filter)
        self._held = job_filter.held if job_filter.HasField("held") else None
        self._end_reasons = frozenset(job_filter.end_reasons)
        self._users = frozenset(job_filter.users)
        self._batches = frozenset(job_filter.batches)
        self._labels = tuple(job_filter.labels.items())
        self._project = job_filter.project_path
        self._schedulers = frozenset(job_filter.schedulers)
        self._uids = frozenset(ref.uid for ref in job_filter.jobs if ref.uid)
        self._ids = frozenset(ref.id for ref in job_filter.jobs if ref.id)
        self._excludes_superseded = excludes_superseded(job_filter)
        self._bounds = {
            name: seconds(getattr(job_filter, name))
            for name in _BOUNDS
            if job_filter.HasField(name)  # type: ignore[arg-type]
        }

    def __call__(self, job: job_pb2.Job) -> bool:
        """Return whether the filter matches the job."""
        return self.everything or (
            (self._states is None or job.state in self._states)
            and (self._held is None or is_held(job) == self._held)
            and (not self._end_reasons or job.outcome.reason in self._end_reasons)
            and (not self._users or job.user in self._users)
            and (not self._batches or job.config.batch in self._batches)
            and (not self._schedulers or job.scheduler in self._schedulers)
            and (not self._project or job.project_path == self._project)
            and not (self._excludes_superseded and job.superseded_by)
            and self._is_named(job)
            and self._is_in_time("create_time", job.create_time)
            and self._is_in_time("end_time", job.end_time if job.HasField("end_time") else None)
            and self._has_labels(job)
        )

    def _is_named(self, job: job_pb2.Job) -> bool:
        return not (self._uids or self._ids) or job.uid in self._uids or job.id in self._ids

    def _is_in_time(self, name: str, stamp: Timestamp | None) -> bool:
        first, before = self._bounds.get(f"{name}_from"), self._bounds.get(f"{name}_before")
        if first is None and before is None:
            return True
        if stamp is None:
            return False
        time = seconds(stamp)
        return (first is None or time >= first) and (before is None or time < before)

    def _has_labels(self, job: job_pb2.Job) -> bool:
        labels = job.config.labels
        return all(key in labels and labels[key] == value for key, value in self._labels)


@dataclass(frozen=True, slots=True)
class Condition:
    """One term of a query; `text` is made of constants only, values are in `values`."""

    text: str
    values: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Where:
    """A filter as SQL, but for the superseded jobs.

    Attributes
    ----------
    drivers : tuple of Condition
        Each is served by an index in the order of seq; together, as alternatives, they are the most selective
        part of the filter. Never empty.
    rest : tuple of Condition
        What a row must fulfill besides; never lets the query planner choose another index.
    created : Condition or None
        The times of acceptance among `rest`, in a form that an index serves.
    """

    drivers: tuple[Condition, ...]
    rest: tuple[Condition, ...]
    created: Condition | None


NOT_SUPERSEDED = Condition("+superseded_by = ''")


def where(job_filter: jobs_messages_pb2.JobFilter) -> Where:
    """Make SQL of a filter; an id in `jobs` is its newest job."""
    equal = _equalities(job_filter)
    if job_filter.jobs:
        drivers = [_named(job_filter.jobs)]
    elif (driver := next(filter(_is_indexed, equal), None)) is not None:
        equal.remove(driver)
        column, values = driver
        also = " AND batch <> ''" if column == "batch" else ""
        drivers = [Condition(f"{column} = ?{also}", (value,)) for value in values] or [Condition("false")]
    else:
        drivers = [Condition("true")]
    # A unary plus hides a column from the indexes, so that the driver's index is the one that is used.
    rest = [_one_of(f"+{column}", values) for column, values in equal]
    created, ended = _times(job_filter, "create_time"), _times(job_filter, "end_time")
    if created:
        rest.append(Condition(created.text.replace("create_time", "+create_time"), created.values))
    if ended:
        rest.append(ended)
    if job_filter.HasField("held"):
        rest.append(Condition("held = ?", (job_filter.held,)))
    for column, wanted in (("end_reason", job_filter.end_reasons), ("scheduler", job_filter.schedulers)):
        if wanted:
            rest.append(_one_of(column, wanted))
    rest += [Condition("instr(labels, ?)", (labels_text([pair]),)) for pair in job_filter.labels.items()]
    return Where(tuple(drivers), tuple(rest), created)


def _equalities(job_filter: jobs_messages_pb2.JobFilter) -> list[tuple[str, list[Any]]]:
    """Columns with an index, and the values they may have, the most selective first."""
    states = states_of(job_filter)
    columns: list[tuple[str, Sequence[Any]]] = [
        ("project_path", [job_filter.project_path] if job_filter.project_path else []),
        ("batch", job_filter.batches),
        ("user", job_filter.users),
    ]
    found: list[tuple[str, list[Any]]] = [(column, sorted(set(values))) for column, values in columns if values]
    if states is not None:
        found.append(("state", sorted(states)))
    return found


def _is_indexed(equal: tuple[str, list[Any]]) -> bool:
    """Return whether an index serves a column and values; that of batches has no jobs of no batch."""
    column, values = equal
    return len(values) <= _MOST_DRIVERS and not (column == "batch" and "" in values)


def _named(refs: Sequence[job_ref_pb2.JobRef]) -> Condition:
    text = (
        "seq IN (SELECT j.seq FROM json_each(?) n JOIN jobs j ON j.uid = n.value"
        " UNION SELECT (SELECT max(j.seq) FROM jobs j WHERE j.id = n.value) FROM json_each(?) n)"
    )
    uids, ids = [ref.uid for ref in refs if ref.uid], [ref.id for ref in refs if ref.id]
    return Condition(text, (json.dumps(uids), json.dumps(ids)))


def _one_of(column: str, values: Sequence[object]) -> Condition:
    if len(values) > _MOST_DRIVERS:  # SQLite bounds the number of values
        text = f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608
        return Condition(text, (json.dumps(list(values)),))
    return Condition(f"{column} IN ({', '.join('?' * len(values))})", tuple(values))


def _times(job_filter: jobs_messages_pb2.JobFilter, column: str) -> Condition | None:
    terms: list[str] = []
    values: list[object] = []
    for name, compare in ((f"{column}_from", ">="), (f"{column}_before", "<")):
        if job_filter.HasField(name):  # type: ignore[arg-type]
            terms.append(f"{column} {compare} ?")
            values.append(seconds(getattr(job_filter, name)))
    return Condition(" AND ".join(terms), tuple(values)) if terms else None
