"""What a job asks a scheduler for, and what a site lets it ask for."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import HFSSSimulationConfig, MachineNode, SchedulerOptions
from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.cluster.allocation import MAX_COMMENT, allocation_of, job_name, refuse
from hypothesis import given
from hypothesis import strategies as st

UID = "0190abcdef01" + "0123456789abcdef4567"
OPEN = ClusterPolicy(shared_dir=Path("/shared/runs"))
PROJECT = Path("/shared/projects/a.aedb")


def config(options: dict[str, Any] | None = None, **fields: Any) -> HFSSSimulationConfig:
    return HFSSSimulationConfig(
        project_path=str(PROJECT), scheduler_options=SchedulerOptions(**(options or {})), **fields
    )


def allocation(
    options: dict[str, Any] | None = None, site: ClusterPolicy = OPEN, *, user: str = "ann", **fields: Any
) -> Allocation:
    return allocation_of(config(options, **fields), uid=UID, job_id="board.1", attempt=2, user=user, site=site)


def refused(options: dict[str, Any], policy: ClusterPolicy, path: Path = PROJECT) -> Refused:
    with pytest.raises(Refused) as caught:
        refuse(config(options), path, policy)
    return caught.value


def test_a_plain_job_asks_for_one_core_and_nothing_more() -> None:
    options = SchedulerOptions()
    name = "edb-board-1-456789abcdef4567-2"
    assert allocation() == Allocation(name, f"edbjobs:{UID}:ann", options=options)


def test_documented_defaults_are_not_asked_for() -> None:
    found = allocation({"queue": "default", "time": "24:00:00", "memory": "4GB"}, memory_mib=10)
    assert (found.queue, found.time, found.memory_mib) == ("", "", 10)
    found = allocation({"queue": "long", "time": "1-0", "memory": "4096MB"}, memory_mib=10)
    assert (found.queue, found.time, found.memory_mib) == ("long", "1-0", 4096)


def test_the_wall_clock_limit_is_in_seconds() -> None:
    assert allocation(wall_clock_limit=timedelta(hours=1)).wall_clock_limit == 3600.0
    assert allocation().wall_clock_limit is None


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("64GB", 65536),
        ("64g", 65536),
        ("64 GiB", 65536),
        ("1.5T", 1572864),
        ("0.001T", 1049),
        ("512M", 512),
        ("512", 512),
        ("0.5", 1),
        ("1KB", 1),
        ("1025 kib", 2),
        ("0", 0),
        ("0GB", 0),
    ],
)
def test_memory_is_rounded_up_to_mib(text: str, mib: int) -> None:
    assert allocation({"memory": text}).memory_mib == mib


@given(
    st.from_regex(r"\A\d{1,12}(\.\d{1,3})? ?([KkMmGgTt]([Ii]?[Bb])?)?\Z").filter(
        lambda text: text != SchedulerOptions.NOT_SET["memory"]
    )
)
def test_every_memory_that_is_valid_can_be_read(text: str) -> None:
    asked = any(char.isdecimal() and int(char) > 0 for char in text)
    assert (allocation({"memory": text}).memory_mib > 0) == asked


@given(st.integers(0, 2**40), st.integers(1, 1000))
def test_shares_of_the_nodes_add_up_to_what_the_job_declares(memory: int, nodes: int) -> None:
    share = allocation({"nodes": nodes}, memory_mib=memory).memory_mib
    assert 0 <= share * nodes - memory < nodes


@pytest.mark.parametrize(
    ("options", "fields", "cores"),
    [
        ({}, {}, 1),
        ({"tasks_per_node": 4}, {}, 4),
        ({"cores_per_node": 8, "tasks_per_node": 2}, {"cores": 96}, 8),
        ({"cores_per_node": 2, "tasks_per_node": 4}, {}, 4),
        ({"nodes": 3}, {"cores": 16}, 6),
        ({"nodes": 2}, {"machine_nodes": (MachineNode(cores=8), MachineNode(hostname="b", cores=9))}, 9),
        ({"nodes": 2}, {}, 1),
    ],
)
def test_cores_of_each_node(options: dict[str, Any], fields: dict[str, Any], cores: int) -> None:
    assert allocation(options, **fields).cores_per_node == cores


def test_partition_and_account_fall_back_to_the_sites() -> None:
    site = ClusterPolicy(("a", "b"), "b", ("x", "y"), "y")
    found = allocation({}, site)
    assert (found.queue, found.account) == ("b", "y")
    found = allocation({"queue": "a", "account": "x"}, site)
    assert (found.queue, found.account) == ("a", "x")
    found = allocation({}, ClusterPolicy(("a", "b"), "", ("x", "y"), ""))
    assert (found.queue, found.account) == ("a", "x")
    assert (allocation().queue, allocation().account) == ("", "")


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
    refuse(config({"queue": "long", "account": "em", "extra": {"switches": "1"}}), PROJECT, policy)
    refuse(config({"queue": "short,long"}), PROJECT, policy)
    refuse(config(), PROJECT, policy)  # the site's defaults are used
    found = refused({"queue": "long,gpu", "account": "other", "extra": {"wckey": "x"}}, policy)
    assert found.reason == "INVALID_JOB"
    assert found.fields == {
        "config.scheduler_options.queue": "gpu is not allowed; one of short, long is",
        "config.scheduler_options.account": "other is not allowed; one of em is",
        "config.scheduler_options.extra.wckey": "is not allowed here; only switches may be given",
    }


def test_further_options_want_the_sites_word() -> None:
    refuse(config({"queue": "any", "account": "any"}), PROJECT, OPEN)
    found = refused({"extra": {"partition": "root"}}, OPEN)
    assert list(found.fields) == ["config.scheduler_options.extra.partition"]
    assert "no further options" in found.message
