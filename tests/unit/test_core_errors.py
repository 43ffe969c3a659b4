"""A refusal carries a reason for programs and a sentence for people."""

from __future__ import annotations

from edbjobs_server.core.errors import Refused, store_unavailable


def test_a_refusal_without_details_has_empty_ones() -> None:
    refused = Refused("DRAINING", "what to do")
    assert (str(refused), refused.reason, refused.fields, refused.metadata) == ("what to do", "DRAINING", {}, {})


def test_a_store_that_cannot_be_written_says_what_goes_on_and_what_to_do() -> None:
    refused = store_unavailable("disk full")
    assert refused.reason == "STORE_UNAVAILABLE"
    assert "(disk full); running solves go on" in refused.message
    assert "free space" in refused.message
