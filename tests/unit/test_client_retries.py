"""What the client lets gRPC repeat follows from the contract."""

from __future__ import annotations

from edbjobs._connection import _REPEATABLE


def test_a_call_is_repeated_if_the_contract_makes_that_safe() -> None:
    repeated = {name["method"] for name in _REPEATABLE}
    assert {"GetJob", "ListJobs", "CancelJob", "UpdateLimits", "GetSystemStatus"} <= repeated
    assert {"SubmitJob", "SubmitJobs", "RetryJob"} <= repeated, "they have a request_id"


def test_a_call_whose_second_try_would_answer_otherwise_is_not() -> None:
    assert {"DeleteJob", "WatchJobs"}.isdisjoint(name["method"] for name in _REPEATABLE)
