from __future__ import annotations

from typing import Any

import pytest
from edbjobs import _enums as e
from edbjobs.v1 import (
    convergence_pb2,
    event_pb2,
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
    principal_pb2,
)

PAIRS: list[tuple[type[e.Word], Any, str]] = [
    (e.JobState, job_state_pb2.JobState, "JOB_STATE_"),
    (e.JobView, job_pb2.JobView, "JOB_VIEW_"),
    (e.Convergence, convergence_pb2.Convergence, "CONVERGENCE_"),
    (e.SolvePhase, convergence_pb2.SolvePhase, "SOLVE_PHASE_"),
    (e.WaitingReason, job_state_pb2.WaitingReason, "WAITING_REASON_"),
    (e.EndReason, job_state_pb2.EndReason, "END_REASON_"),
    (e.Evidence, job_state_pb2.Evidence, "EVIDENCE_"),
    (e.JobChangeType, event_pb2.JobChangeType, "JOB_CHANGE_TYPE_"),
    (e.QueueChangeType, event_pb2.QueueChangeType, "QUEUE_CHANGE_TYPE_"),
    (e.DesignMode, job_config_pb2.DesignMode, "DESIGN_MODE_"),
    (e.SchedulerPriority, job_config_pb2.SchedulerPriority, "SCHEDULER_PRIORITY_"),
    (e.ExistingResults, job_config_pb2.ExistingResults, "EXISTING_RESULTS_"),
    (e.LogStream, jobs_messages_pb2.LogStream, "LOG_STREAM_"),
    (e.Role, principal_pb2.Role, "ROLE_"),
    (e.Authentication, principal_pb2.Authentication, "AUTHENTICATION_"),
]


@pytest.mark.parametrize(("kind", "proto", "prefix"), PAIRS)
def test_names_and_numbers_are_those_of_the_contract(kind: type[e.Word], proto: Any, prefix: str) -> None:
    for name, number in proto.items():
        word = e.from_number(kind, number)
        if number:
            assert word.value == name.removeprefix(prefix).lower()
            assert e.to_number(word) == number
    named = {name.removeprefix(prefix).lower() for name, number in proto.items() if number}
    assert {word.value for word in kind} - named <= {"unknown", "none"}


@pytest.mark.parametrize("kind", [kind for kind, *_ in PAIRS if "UNKNOWN" in kind.__members__])
def test_a_number_of_a_newer_service_is_unknown(kind: type[e.Word]) -> None:
    assert e.from_number(kind, 99).value == "unknown"
    assert e.from_number(kind, -1).value == "unknown"


def test_the_number_of_a_dropped_state_is_unknown() -> None:
    assert e.from_number(e.JobState, 1) is e.JobState.UNKNOWN
    assert e.to_number(e.JobState.UNKNOWN) == 0


def test_a_word_prints_as_itself_and_is_found_in_any_case() -> None:
    assert f"{e.JobState.RUNNING}" == "running"
    assert e.JobState.RUNNING in {"running"}
    assert e.ExistingResults("CLEAR") is e.ExistingResults.CLEAR
    with pytest.raises(ValueError, match="burn"):
        e.ExistingResults("burn")


def test_zero_of_an_optional_word_is_none() -> None:
    assert e.optional_from_number(e.EndReason, 0) is None
    assert e.optional_from_number(e.EndReason, 5) is e.EndReason.LICENSE
