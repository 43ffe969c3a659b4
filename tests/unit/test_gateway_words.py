"""The words of the documented API: every value of every enum has one, or is left out on purpose; words lead back."""

from __future__ import annotations

import pytest
from edbjobs.v1 import convergence_pb2, event_pb2, job_pb2, job_state_pb2, principal_pb2
from edbjobs_server.gateway import words
from edbjobs_server.gateway.words import Words

TABLES = {
    "state": (words.STATES, job_state_pb2.JobState),
    "waiting reason": (words.WAITING_REASONS, job_state_pb2.WaitingReason),
    "end reason": (words.END_REASONS, job_state_pb2.EndReason),
    "phase": (words.PHASES, convergence_pb2.SolvePhase),
    "job change": (words.JOB_CHANGES, event_pb2.JobChangeType),
    "queue change": (words.QUEUE_CHANGES, event_pb2.QueueChangeType),
    "authentication": (words.AUTHENTICATION, principal_pb2.Authentication),
}
SILENT = {"UNSPECIFIED", "NOT_STARTED", "OPENING"}
SAME = {"EXPORT", "JOB_CHANGE_TYPE_SUPERSEDED", "GATE_CLOSED"}  # shares the word of another value


@pytest.mark.parametrize(("table", "enum"), TABLES.values(), ids=list(TABLES))
def test_every_value_has_a_word_that_leads_back(table: Words, enum: type) -> None:
    for full, number in enum.items():  # type: ignore[attr-defined]
        word = table.word(number)
        if any(full.endswith(name) for name in SILENT):
            assert (word, table.optional(number)) == ("", None), full
        elif any(full.endswith(name) for name in SAME):
            assert table.number(word) != number
        else:
            assert word == table.optional(number)
            assert table.number(word) == number, full
            assert word == word.lower()
    assert table.word(4711) == ""
    assert table.number("no such word") is None


def test_the_words_that_differ_from_the_names() -> None:
    authentication = principal_pb2.AUTHENTICATION_UNIX_SOCKET, principal_pb2.AUTHENTICATION_CERTIFICATE
    assert [words.AUTHENTICATION.word(number) for number in authentication] == ["uds", "mtls"]
    assert words.PHASES.word(convergence_pb2.SOLVE_PHASE_EXPORT) == "done"
    assert words.state_word(job_state_pb2.JOB_STATE_UNSPECIFIED) == "unknown"


@pytest.mark.parametrize("evidence", job_state_pb2.Evidence.values())
@pytest.mark.parametrize("started", [True, False])
def test_evidence(evidence: job_state_pb2.Evidence.ValueType, started: bool) -> None:
    job = job_pb2.Job(outcome=job_pb2.Outcome(evidence=evidence))
    if started:
        job.start_time.FromSeconds(1)
    name = job_state_pb2.Evidence.Name(evidence).removeprefix("EVIDENCE_")
    of_service = "exit_code" if started else "none"
    expected = {"UNSPECIFIED": None, "SERVICE": of_service}.get(name, name.lower())
    assert words.evidence_word(job) == expected
    assert words.evidence_word(job_pb2.Job()) is None, "before the end"


@pytest.mark.parametrize(
    ("principal", "text"),
    [
        (None, None),
        (principal_pb2.Principal(name="ann", authentication=principal_pb2.AUTHENTICATION_UNIX_SOCKET), "ann (uds)"),
        (
            principal_pb2.Principal(
                name="ann", authentication=principal_pb2.AUTHENTICATION_TOKEN, address="127.0.0.1:1"
            ),
            "ann (token, 127.0.0.1:1)",
        ),
        (principal_pb2.Principal(name="edbjobs"), "edbjobs"),
    ],
)
def test_who_asked_is_one_text(principal: principal_pb2.Principal | None, text: str | None) -> None:
    assert words.principal_text(event_pb2.WatchEvent(principal=principal)) == text
