"""The jobs that a `JobFilter` matches: as a test of a message, and as SQL with the same result.

A project is compared by its path as submitted, made absolute in form and without .aedb, .aedt or .aedtz.
Links are not followed: neither a message nor a row can ask the file system.
"""

from __future__ import annotations

import json
import ntpath
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted

from edbjobs.v1 import job_pb2, jobs_messages_pb2

from edbjobs_server.contract.codec import seconds

_SUFFIXES = frozenset({".aedb", ".aedt", ".aedtz"})


@lru_cache(4096)
def project_of(path: str) -> str:
    """Reduce a project's path to what filters compare."""
    flavor = ntpath if path[1:2] == ":" or path.startswith("\\\\") else posixpath
    plain = flavor.normpath(path) if path else ""
    stem, suffix = flavor.splitext(plain)
    return stem if suffix.lower() in _SUFFIXES else plain


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    r"""Write labels so that one pair can be looked for as text.

    Each pair is a JSON list on a line of its own. JSON escapes line ends, so ``\n[...]\n`` occurs only where
    exactly that pair stands.
    """
    lines = [f"[{_quoted(key)}, {_quoted(value)}]" for key, value in labels]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


class JobMatcher:
    """Tests messages against a filter.

    Parameters
    ----------
    job_filter : JobFilter
        Every set field must agree; an empty filter finds all.
    """

    def __init__(self, job_filter: jobs_messages_pb2.JobFilter) -> None:
        self.everything = not job_filter.ByteSize()
        self._states = frozenset(job_filter.states)
        self._user = job_filter.user
        self._batch = job_filter.batch
        self._labels = tuple(job_filter.labels.items())
        self._project = project_of(job_filter.project_path)
        self._after = seconds(job_filter.created_after) if job_filter.HasField("created_after") else None
        self._before = seconds(job_filter.created_before) if job_filter.HasField("created_before") else None
        self._names = frozenset(job_filter.names)

    def __call__(self, job: job_pb2.Job) -> bool:
        """Return whether the filter matches the job."""
        return self.everything or (
            (not self._states or job.state in self._states)
            and (not self._user or job.user == self._user)
            and (not self._batch or job.config.batch == self._batch)
            and (not self._names or job.uid in self._names or job.id in self._names)
            and (not self._project or project_of(job.config.project_path) == self._project)
            and self._in_time(job)
            and self._has_labels(job)
        )

    def _in_time(self, job: job_pb2.Job) -> bool:
        if self._after is None and self._before is None:
            return True
        time = seconds(job.create_time)
        return (self._after is None or time >= self._after) and (self._before is None or time < self._before)

    def _has_labels(self, job: job_pb2.Job) -> bool:
        labels = job.config.labels
        return all(key in labels and labels[key] == value for key, value in self._labels)


@dataclass(frozen=True, slots=True)
class Condition:
    """One term of a query; `text` is made of constants only, values are in `values`."""

    text: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Where:
    """A filter as SQL.

    Attributes
    ----------
    drivers : tuple of Condition
        Each is served by an index in the order of seq; together, as alternatives, they are the most selective
        part of the filter. Never empty.
    rest : tuple of Condition
        What a row must fulfill besides; never lets the query planner choose another index.
    created : Condition or None
        The times among `rest`, in a form that an index serves.
    """

    drivers: tuple[Condition, ...]
    rest: tuple[Condition, ...]
    created: Condition | None


def where(job_filter: jobs_messages_pb2.JobFilter) -> Where:
    """Make SQL of a filter."""
    equal = _equalities(job_filter)
    if job_filter.names:
        drivers = [_named(job_filter.names)]
    elif equal:
        column, values = equal.pop(0)
        # The index of batches has none for jobs of no batch.
        also = " AND batch <> ''" if column == "batch" else ""
        drivers = [Condition(f"{column} = ?{also}", (value,)) for value in values]
    else:
        drivers = [Condition("true", ())]
    # A unary plus hides a column from the indexes, so that the driver's index is the one that is used.
    rest = [Condition(f"+{column} IN ({_marks(values)})", tuple(values)) for column, values in equal]
    created = _created(job_filter)
    if created:
        rest.append(Condition(created.text.replace("create_time", "+create_time"), created.values))
    rest += [Condition("instr(labels, ?)", (labels_text([pair]),)) for pair in job_filter.labels.items()]
    return Where(tuple(drivers), tuple(rest), created)


def _equalities(job_filter: jobs_messages_pb2.JobFilter) -> list[tuple[str, list[object]]]:
    """Columns and the values they may have, the most selective first."""
    columns: list[tuple[str, list[object]]] = [
        ("project", [project_of(job_filter.project_path)] if job_filter.project_path else []),
        ("batch", [job_filter.batch] if job_filter.batch else []),
        ("user", [job_filter.user] if job_filter.user else []),
        ("state", [*sorted(set(job_filter.states))]),
    ]
    return [(column, values) for column, values in columns if values]


def _named(names: Iterable[str]) -> Condition:
    text = (
        "seq IN (SELECT j.seq FROM json_each(?) n JOIN jobs j ON j.uid = n.value"
        " UNION SELECT j.seq FROM json_each(?) n JOIN jobs j ON j.id = n.value)"
    )
    array = json.dumps(list(names))
    return Condition(text, (array, array))


def _marks(values: list[object]) -> str:
    return ", ".join("?" * len(values))


def _created(job_filter: jobs_messages_pb2.JobFilter) -> Condition | None:
    terms: list[str] = []
    values: list[object] = []
    if job_filter.HasField("created_after"):
        terms.append("create_time >= ?")
        values.append(seconds(job_filter.created_after))
    if job_filter.HasField("created_before"):
        terms.append("create_time < ?")
        values.append(seconds(job_filter.created_before))
    return Condition(" AND ".join(terms), tuple(values)) if terms else None
