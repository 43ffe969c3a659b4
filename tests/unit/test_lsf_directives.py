"""What LSF is asked for, and that no value adds a directive."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.lsf import directives
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

NAME = "edb-board-0123456789abcdef-1"


def asked(options: dict[str, Any] | None = None, old: bool = False, **fields: Any) -> list[str]:
    allocation = Allocation(NAME, "edbjobs:u:me", options=SchedulerOptions(**(options or {})), **fields)
    return directives.directives_of(allocation, old=old)


def refused(options: dict[str, Any], old: bool = False, **fields: Any) -> dict[str, str]:
    with pytest.raises(Refused) as caught:
        asked(options, old, **fields)
    assert caught.value.reason == "INVALID_JOB"
    return caught.value.fields


def test_least() -> None:
    assert asked() == asked(old=True) == [f"-J {NAME}", "-n 1", '-R "span[ptile=1]"']


def test_all() -> None:
    lines = asked(
        {
            "constraint": "bigmem && type==any",
            "exclude_nodes": ["n7", "n8"],
            "include_nodes": ["n1", "n2"],
            "licenses": {"hpc": 1, "hfss": 2},
            "exclusive": True,
            "gpus_per_node": 2,
            "gpu_type": "TeslaV100",
            "priority": "lowest",
            "reservation": "user1#0",
            "email": "me@site.org",
            "extra": {"-app": "ansys", "ptl": "3"},
        },
        nodes=2,
        tasks_per_node=4,
        cores_per_node=16,
        memory_bytes_per_node=65536 << 20,
        time_limit=86_400.0,
        partition="night,normal",
        account="proj1",
    )
    assert lines[1:] == [
        "-P proj1",
        '-q "night normal"',
        "-n 32",
        "-R \"select[(bigmem && type==any) && hname!='n7' && hname!='n8'] span[ptile=16] "
        'rusage[mem=65536MB,hfss=2,hpc=1]"',
        "-W 24:00",
        "-x",
        '-gpu "num=2:gmodel=TeslaV100"',
        "-U user1#0",
        '-m "n1 n2"',
        "-sp 1",
        "-u me@site.org",
        "-N",
        "-M 131072MB",
        '-app "ansys"',
        '-ptl "3"',
    ]


def test_memory_before_units() -> None:
    lines = asked(old=True, memory_bytes_per_node=(2 << 20) - 1)
    assert lines[-1] == "-M 2048"
    assert lines[2] == '-R "span[ptile=1] rusage[mem=2]"'


@pytest.mark.parametrize(("limit", "line"), [(0.5, "0:01"), (61.0, "0:02"), (129_600.0, "36:00"), (0.0, "43800:00")])
def test_time(limit: float, line: str) -> None:
    assert asked(time_limit=limit)[-1] == f"-W {line}"


def test_words_for_people_cannot_end_the_description() -> None:
    allocation = Allocation(NAME, 'edbjobs:u:me: über "$(id)" `x` \\ <b>\n#BSUB -q root')
    words = "edbjobs:u:me: _ber __(id)_ _x_ _ _b___BSUB -q root"
    assert directives.command_options(allocation, old=False) == ["-rn", "-Jd", words]
    assert directives.command_options(allocation, old=True) == []


def test_what_lsf_has_no_word_for() -> None:
    options = {"qos": "a", "wckey": "e", "run_as_administrator": True}
    assert refused(options).keys() == {f"config.scheduler_options.{name}" for name in options}
    options = {"gpus_per_node": 1, "reservation": "r"}
    assert refused(options, old=True).keys() == {f"config.scheduler_options.{name}" for name in options}


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"partition": 'a" -K'}),
        ({}, {"partition": "-K"}),
        ({}, {"account": "a b"}),
        ({}, {"account": "a\n#BSUB -K"}),
        ({"include_nodes": ["n[1-4]"]}, {}),
        ({"constraint": 'x] rusage[mem=1" -K'}, {}),
        ({"gpu_type": "a100"}, {}),
        ({"reservation": "R1 -K"}, {}),
        ({"email": "$(id)@x"}, {}),
        ({"extra": {"K": ""}}, {}),
        ({"extra": {"-o": "/etc/passwd"}}, {}),
        ({"extra": {"app": 'a" -K "'}}, {}),
        ({"extra": {"a b": "x"}}, {}),
    ],
)
def test_refused_by_field(options: dict[str, Any], fields: dict[str, Any]) -> None:
    (name,) = refused(options, **fields)
    field = ".".join(["extra", *options["extra"]]) if "extra" in options else next(iter(options or fields))
    assert name == f"config.scheduler_options.{field}"


@pytest.mark.parametrize(
    ("options", "field"), [({"licenses": {"a.b": 2}}, "licenses"), ({"exclude_nodes": ["n1;x"]}, "exclude_nodes")]
)
def test_parts_of_the_resource_requirement_are_named(options: dict[str, Any], field: str) -> None:
    assert list(refused(options)) == [f"config.scheduler_options.{field}"]


TEXT = st.text(max_size=12) | st.text("ab1-.:,=+@/ '\"\\$`;#[]\n\r\t\x85\u2028", max_size=12)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "include_nodes": st.lists(TEXT, max_size=2),
        "exclude_nodes": st.lists(TEXT, max_size=2),
        "constraint": TEXT,
        "reservation": TEXT,
        "gpu_type": TEXT,
        "gpus_per_node": st.integers(0, 4),
        "licenses": st.dictionaries(TEXT, st.integers(1, 9), max_size=2),
        "email": TEXT,
        "extra": st.dictionaries(TEXT, TEXT, max_size=2),
    },
)


@given(OPTIONS, TEXT, TEXT, TEXT, st.booleans())
def test_no_value_adds_a_directive(
    options: dict[str, Any], comment: str, partition: str, account: str, old: bool
) -> None:
    try:
        chosen = SchedulerOptions(**options)
    except ValidationError:
        return
    allocation = Allocation(NAME, comment, partition=partition, account=account, options=chosen)
    try:
        lines = directives.directives_of(allocation, old=old)
    except Refused:
        return
    for line in lines:
        assert re.fullmatch(r"-[A-Za-z0-9_-]+( ([A-Za-z0-9_.@/+:#-]+|\"[^\"\\$`\n\r]*\"))?", line), line
        assert len(shlex.split(line)) <= 2
    assert sum(line.startswith("-J ") for line in lines) == 1
