"""What a job asks a scheduler for, and what a site lets it ask for."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import JobConfig, SchedulerOptions
from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.cluster.allocation import MAX_COMMENT, allocation_of, job_name, refuse
from hypothesis import given
from hypothesis import strategies as st

UID = "0190abcdef01" + "0123456789abcdef4567"
OPEN = ClusterPolicy(shared_dir=Path("/shared/runs"))
PROJECT = Path("/shared/projects/a.aedb")


def config(options: dict[str, Any] | None = None, **fields: Any) -> JobConfig:
    return JobConfig(project_path=str(PROJECT), scheduler_options=SchedulerOptions(**(options or {})), **fields)


def allocation(
    options: dict[str, Any] | None = None, site: ClusterPolicy = OPEN, *, user: str = "ann", **fields: Any
) -> Allocation:
    return allocation_of(config(options, **fields), uid=UID, job_id="board.1", attempt=2, user=user, site=site)


def refused(options: dict[str, Any], policy: ClusterPolicy, path: Path = PROJECT) -> Refused:
    with pytest.raises(Refused) as caught:
        refuse(config(options), path, policy)
    return caught.value


def test_a_plain_job_asks_for_one_task_and_nothing_more() -> None:
    name = "edb-board-1-456789abcdef4567-2"
    assert allocation() == Allocation(name, f"edbjobs:{UID}:ann", options=SchedulerOptions())
    assert (allocation().nodes, allocation().tasks_per_node, allocation().known_cores) == (1, 1, 1)


def test_names_that_look_like_defaults_count() -> None:
    found = allocation({"partition": "default", "memory_bytes_per_node": 4 * 1024**3}, time_limit=86_400)
    assert (found.partition, found.memory_mib, found.time_limit) == ("default", 4096, 86_400.0)


def test_a_time_limit_of_0_is_asked_for() -> None:
    assert allocation(time_limit=timedelta(0)).time_limit == 0.0
    assert allocation(time_limit=timedelta(hours=1)).time_limit == 3600.0
    assert allocation().time_limit is None


def test_memory_is_rounded_up_to_mib() -> None:
    assert allocation({"memory_bytes_per_node": 1}).memory_mib == 1
    assert allocation({"memory_bytes_per_node": 2 * 1024**2 + 1}).memory_mib == 3
    assert allocation().memory_mib == 0


@pytest.mark.parametrize(
    ("options", "asked", "known"),
    [({}, None, 1), ({"tasks_per_node": 4}, None, 4), ({"cores_per_node": 8, "tasks_per_node": 2}, 8, 8)],
)
def test_cores_of_each_node(options: dict[str, Any], asked: int | None, known: int) -> None:
    found = allocation(options)
    assert (found.cores_per_node, found.known_cores) == (asked, known)


def test_partition_and_account_fall_back_to_the_sites() -> None:
    site = ClusterPolicy(("a", "b"), "b", ("x", "y"), "y")
    found = allocation({}, site)
    assert (found.partition, found.account) == ("b", "y")
    found = allocation({"partition": "a", "account": "x"}, site)
    assert (found.partition, found.account) == ("a", "x")
    found = allocation({}, ClusterPolicy(("a", "b"), "", ("x", "y"), ""))
    assert (found.partition, found.account) == ("a", "x")
    assert (allocation().partition, allocation().account) == ("", "")


@given(st.text(max_size=80), st.text(alphabet="0123456789abcdef", min_size=32, max_size=32), st.integers(1, 10**9))
def test_names_suit_every_scheduler(job_id: str, uid: str, attempt: int) -> None:
    name = job_name(uid, job_id, attempt)
    assert re.fullmatch(r"edb-[A-Za-z0-9_-]{0,40}-[0-9a-f]{16}-[0-9]+", name)
    assert len(name) <= 80
    assert job_name(uid, job_id, attempt + 1) != name


@given(st.text(max_size=300), st.from_regex(r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,255}\Z"))
def test_comments_are_one_printable_line(user: str, words: str) -> None:
    comment = allocation({"comment": words}, user=user).comment
    assert comment.isprintable()
    assert len(comment) <= MAX_COMMENT
    assert comment.startswith(f"edbjobs:{UID}:")


def test_a_comment_ends_with_the_jobs_own_words() -> None:
    assert allocation({"comment": "for the review"}).comment == f"edbjobs:{UID}:ann: for the review"


def test_without_a_shared_folder_nothing_goes_to_a_cluster() -> None:
    found = refused({}, ClusterPolicy())
    assert found.reason == "NO_SHARED_DIR"
    assert "--shared-dir" in found.message


def test_projects_lie_where_the_nodes_see_them() -> None:
    policy = ClusterPolicy(shared_dir=Path("/s"), shared_roots=(Path("/shared"), Path("/home")))
    refuse(config(), PROJECT, policy)
    found = refused({}, policy, Path("/shared2/a.aedb"))
    assert found.reason == "PROJECT_NOT_SHARED"
    assert found.fields == {"config.project_path": "projects of cluster jobs must be in one of /shared, /home"}
    refuse(config(), Path("/anywhere/a.aedb"), OPEN)


def test_what_the_site_does_not_allow_is_named_with_what_it_does() -> None:
    policy = ClusterPolicy(
        partitions=("short", "long"), accounts=("em",), extra_options=("switches",), shared_dir=Path("/s")
    )
    refuse(config({"partition": "long", "account": "em", "extra": {"switches": "1"}}), PROJECT, policy)
    refuse(config({"partition": "short,long"}), PROJECT, policy)
    refuse(config(), PROJECT, policy)  # the site's defaults are used
    found = refused({"partition": "long,gpu", "account": "other", "extra": {"wckey": "x"}}, policy)
    assert found.reason == "INVALID_JOB"
    assert found.fields == {
        "config.scheduler_options.partition": "gpu is not allowed; one of short, long is",
        "config.scheduler_options.account": "other is not allowed; one of em is",
        "config.scheduler_options.extra.wckey": "is not allowed here; only switches may be given",
    }


def test_further_options_want_the_sites_word() -> None:
    refuse(config({"partition": "any", "account": "any"}), PROJECT, OPEN)
    found = refused({"extra": {"partition": "root"}}, OPEN)
    assert list(found.fields) == ["config.scheduler_options.extra.partition"]
    assert "no further options" in found.message
