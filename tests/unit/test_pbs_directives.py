"""What PBS is asked for, and that no value adds a directive."""

from __future__ import annotations

import re
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.pbs import directives
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

NAME = "edb-board-0123456789abcdef-1"


def asked(options: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    allocation = Allocation(NAME, "edbjobs:u:me", options=SchedulerOptions(**(options or {})), **fields)
    lines = directives.directives_of(allocation)
    assert lines[:2] == [f"-N {NAME}", "-r n"]
    return lines[2:]


def refused(options: dict[str, Any], **fields: Any) -> dict[str, str]:
    with pytest.raises(Refused) as caught:
        asked(options, **fields)
    assert caught.value.reason == "INVALID_JOB"
    return caught.value.fields


def test_least() -> None:
    assert asked() == ["-l select=1:mpiprocs=1"]
    assert asked(tasks_per_node=4) == ["-l select=1:ncpus=4:mpiprocs=4"]


def test_all() -> None:
    lines = asked(
        {
            "exclusive": True,
            "gpus_per_node": 2,
            "priority": "high",
            "email": "me@site.org",
            "licenses": {"hpc": 1, "hfss": 2},
            "extra": {"-P": "proj1", "W": "group_list=ansys"},
        },
        nodes=2,
        tasks_per_node=4,
        cores_per_node=16,
        memory_bytes_per_node=65536 << 20,
        time_limit=36 * 3600.0,
        partition="workq@server",
        account="acct1",
    )
    assert lines == [
        "-A acct1",
        "-q workq@server",
        "-l select=2:ncpus=16:mpiprocs=4:mem=65536mb:ngpus=2",
        "-l place=scatter:exclhost",
        "-l walltime=36:00:00",
        "-l hfss=2",
        "-l hpc=1",
        "-p 512",
        "-M me@site.org",
        "-m ae",
        "-P proj1",
        "-W group_list=ansys",
    ]


@pytest.mark.parametrize(
    ("limit", "line"), [(0.5, "00:00:01"), (90.0, "00:01:30"), (172_800.0, "48:00:00"), (0.0, "43800:00:00")]
)
def test_time(limit: float, line: str) -> None:
    assert asked(time_limit=limit)[-1] == f"-l walltime={line}"


def test_nodes_by_name() -> None:
    lines = asked({"include_nodes": ["n1", "n2"]}, nodes=2, cores_per_node=1)
    assert lines[0] == "-l select=1:ncpus=1:mpiprocs=1:host=n1+1:ncpus=1:mpiprocs=1:host=n2"
    assert "nodes is 3" in refused({"include_nodes": ["n1", "n2"]}, nodes=3)["config.scheduler_options.include_nodes"]


@pytest.mark.parametrize(("exclusive", "place"), [(True, "exclhost"), (False, "shared")])
def test_other_jobs_on_the_nodes(exclusive: bool, place: str) -> None:
    assert asked({"exclusive": exclusive})[-1] == f"-l place={place}"


def test_a_reservation_is_a_queue() -> None:
    assert asked({"reservation": "R12.server"})[0] == "-q R12.server"
    assert "config.scheduler_options.reservation" in refused({"reservation": "R12"}, partition="workq")


def test_what_pbs_has_no_word_for() -> None:
    options = {"qos": "a", "constraint": "b", "gpu_type": "c", "exclude_nodes": ["d"], "wckey": "e",
               "run_as_administrator": True}  # fmt: skip
    assert refused(options).keys() == {f"config.scheduler_options.{name}" for name in options}


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"partition": "work q"}),
        ({}, {"partition": "a,b"}),
        ({}, {"partition": "-V"}),
        ({}, {"account": "a -V"}),
        ({}, {"account": "a\n#PBS -V"}),
        ({"include_nodes": ["n[1-4]"]}, {}),
        ({"licenses": {"a.b": 2}}, {}),
        ({"reservation": "R1 -V"}, {}),
        ({"email": "$(id)@x"}, {}),
        ({"extra": {"v": "A=1"}}, {}),
        ({"extra": {"-o": "/etc/passwd"}}, {}),
        ({"extra": {"W": "a=b c"}}, {}),
        ({"extra": {"W": "a=`id`"}}, {}),
        ({"extra": {"long": "x"}}, {}),
    ],
)
def test_refused_by_field(options: dict[str, Any], fields: dict[str, Any]) -> None:
    (name,) = refused(options, **fields)
    field = ".".join(["extra", *options["extra"]]) if "extra" in options else next(iter(options or fields))
    assert name == f"config.scheduler_options.{field}"


TEXT = st.text(max_size=12) | st.text("ab1-.:,=+@/ '\"\\$`;#\n\r\t\x85\u2028", max_size=12)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "include_nodes": st.lists(TEXT, max_size=2),
        "reservation": TEXT,
        "licenses": st.dictionaries(TEXT, st.integers(1, 9), max_size=2),
        "email": TEXT,
        "extra": st.dictionaries(TEXT, TEXT, max_size=2),
        "comment": TEXT,
    },
)


@given(OPTIONS, TEXT, TEXT)
def test_no_value_adds_a_directive(options: dict[str, Any], partition: str, account: str) -> None:
    try:
        chosen = SchedulerOptions(**options)
    except ValidationError:
        return
    allocation = Allocation(NAME, "c", partition=partition, account=account, options=chosen)
    try:
        lines = directives.directives_of(allocation)
    except Refused:
        return
    for line in lines:
        assert re.fullmatch(r"-[A-Za-z]( [A-Za-z0-9_.,:=+@/%^-]+)?", line), line
    assert sum(line.startswith("-N") for line in lines) == 1
    assert len(lines) <= 3 + 6 + len(chosen.licenses) + len(chosen.extra)
