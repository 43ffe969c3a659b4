"""Pages of lists that are made anew for each call."""

from __future__ import annotations

import pytest
from edbjobs.v1 import cluster_pb2, cluster_service_pb2
from edbjobs_server.core.errors import Refused
from edbjobs_server.manager import pages
from edbjobs_server.manager.pages import page_of, page_size

REQUEST = cluster_service_pb2.ListClusterJobsRequest(user="ann")


def jobs(*names: str) -> list[cluster_pb2.ClusterJob]:
    return [cluster_pb2.ClusterJob(scheduler_job_id=name) for name in names]


def page(names: str, size: int = 2, token: str = "", request: object = REQUEST) -> tuple[str, str]:
    found, following = page_of(jobs(*names), request, size, token, lambda job: job.scheduler_job_id)  # type: ignore[arg-type]
    return "".join(job.scheduler_job_id for job in found), following


@pytest.mark.parametrize(("requested", "size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_sizes_are_coerced(requested: int, size: int) -> None:
    assert page_size(requested) == size


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        page_size(-1)
    assert (refused.value.reason, [*refused.value.fields]) == ("INVALID_REQUEST", ["page_size"])


def test_pages_follow_each_other_in_any_size() -> None:
    first, token = page("abcde")
    second, token = page("abcde", 1, token)
    third, end = page("abcde", 9, token)
    assert (first, second, third, end) == ("ab", "c", "de", "")
    assert page("") == ("", "")
    assert page("ab") == ("ab", "")


@pytest.mark.parametrize(
    ("now", "following"),
    [
        ("abcd", "cd"),
        ("xabcd", "cd"),  # one more before
        ("bcd", "cd"),  # one less before
        ("acd", "cd"),  # the last one of the page before is gone
        ("ab", ""),
        ("", ""),
    ],
)
def test_a_list_that_changes_goes_on_behind_the_last_item(now: str, following: str) -> None:
    _, token = page("abcd")
    assert page(now, 9, token) == (following, "")


def test_a_page_ends_before_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_BYTES", 7)  # two items of three bytes
    first, token = page("abc", 3)
    assert (first, page("abc", 3, token)) == ("ab", ("c", ""))
    monkeypatch.setattr(pages, "MAX_BYTES", 1)
    assert page("abc", 3)[0] == "a", "an item is never left out"


@pytest.mark.parametrize("token", ["x", "%%", "W10=", "WzEsMiwzXQ==", "bnVsbA=="])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(Refused) as refused:
        page("abc", token=token)
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


def test_a_token_of_another_request_is_refused() -> None:
    _, token = page("abc")
    others = (cluster_service_pb2.ListClusterJobsRequest(user="bob"), cluster_service_pb2.ListSolversRequest())
    for other in others:
        with pytest.raises(Refused):
            page("abc", token=token, request=other)
