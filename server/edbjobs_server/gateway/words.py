"""The words of the documented API for the contract's enums, and back: this table has all of them.

A word is the name of a value without its prefix, in lower case, where nothing else is said here. A value without a word
is not spoken of there: it reads as null, or as an empty text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edbjobs.v1 import convergence_pb2, event_pb2, job_pb2, job_state_pb2, principal_pb2


class Words:
    """Numbers of one enum and their words.

    Parameters
    ----------
    enum : enum of a generated module
        The enum.
    prefix : str
        Prefix of their names.
    other : mapping of str to str, optional
        Name without the prefix to the word, where that is another one; empty: it has none.
    """

    def __init__(self, enum: Any, prefix: str, other: Mapping[str, str] | None = None) -> None:
        names = {number: name.removeprefix(prefix) for name, number in enum.items()}
        changed = {"UNSPECIFIED": "", **(other or {})}
        self._words: dict[int, str] = {number: changed.get(name, name.lower()) for number, name in names.items()}
        # Of two values that share a word, it means the last one.
        self._numbers = {word: number for number, word in self._words.items() if word}

    def word(self, number: int) -> str:
        """Return the word of a value; empty: it has none."""
        return self._words.get(number, "")

    def optional(self, number: int) -> str | None:
        """Return the word of a value; None: it has none."""
        return self._words.get(number) or None

    def number(self, word: str) -> int | None:
        """Return the value of a word, in lower case; None: there is no such word."""
        return self._numbers.get(word)

    def all(self, *more: str) -> list[str]:
        """Return all words, after those given."""
        return [*more, *dict.fromkeys(word for word in self._words.values() if word)]


STATES = Words(job_state_pb2.JobState, "JOB_STATE_")
# Documented for the state of a job, which no job is ever in.
PENDING = "pending"
WAITING_REASONS = Words(job_state_pb2.WaitingReason, "WAITING_REASON_")
END_REASONS = Words(job_state_pb2.EndReason, "END_REASON_", {"NOT_STARTED": ""})
_EVIDENCE = Words(job_state_pb2.Evidence, "EVIDENCE_", {"SERVICE": ""})
EVIDENCE_WORDS = _EVIDENCE.all()
PHASES = Words(convergence_pb2.SolvePhase, "SOLVE_PHASE_", {"OPENING": "", "EXPORT": "done"})


JOB_CHANGES = Words(
    event_pb2.JobChangeType,
    "JOB_CHANGE_TYPE_",
    {
        name: f"job_{'note' if name == 'SUPERSEDED' else name.lower()}"
        for name in (value.removeprefix("JOB_CHANGE_TYPE_") for value, _ in event_pb2.JobChangeType.items())
        if name != "UNSPECIFIED"
    },
)
QUEUE_CHANGES = Words(
    event_pb2.QueueChangeType,
    "QUEUE_CHANGE_TYPE_",
    {"PAUSED": "queue_paused", "RESUMED": "queue_resumed", "GATE_CLOSED": "gate", "GATE_OPENED": "gate"},
)
# As in GET /api/me and in the text `principal`.
AUTHENTICATION = Words(principal_pb2.Authentication, "AUTHENTICATION_", {"UNIX_SOCKET": "uds", "CERTIFICATE": "mtls"})


def principal_text(event: event_pb2.WatchEvent) -> str | None:
    """Return who asked for a change as the documented text, ``name (word, address)``; None: the service itself."""
    if not event.HasField("principal"):
        return None
    principal = event.principal
    where = ", ".join(filter(None, (AUTHENTICATION.word(principal.authentication), principal.address)))
    return f"{principal.name} ({where})" if where else principal.name


def state_word(number: int) -> str:
    """Return the word of a job's state."""
    return STATES.word(number) or "unknown"


def evidence_word(job: job_pb2.Job) -> str | None:
    """Return the word for what a job's outcome rests on; None before its end."""
    if not job.HasField("outcome"):
        return None
    if job.outcome.evidence == job_state_pb2.EVIDENCE_SERVICE:
        return "exit_code" if job.HasField("start_time") else "none"
    return _EVIDENCE.optional(job.outcome.evidence)


def schema(words: Iterable[str]) -> dict[str, list[str]]:
    """Return what the OpenAPI document says of a text that is one of some words."""
    return {"enum": list(words)}
