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
            "constraints": "bigmem && type==any",
            "exclude": "n7, n8",
            "nodelist": "n1,n2",
            "licenses": ["hfss:2", "hpc"],
            "exclusive": True,
            "gpus": 2,
            "gpu_type": "TeslaV100",
            "priority": "Lowest",
            "reservation": "user1#0",
            "email_notification": "me@site.org",
            "begin": "2026-12-31T23:59",
            "extra": {"-app": "ansys", "ptl": "3"},
        },
        nodes=2,
        tasks_per_node=4,
        cores_per_node=16,
        memory_mib=65536,
        time="24:00:00",
        queue="night,normal",
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
        "-b 2026:12:31:23:59",
        "-M 131072MB",
        '-app "ansys"',
        '-ptl "3"',
    ]


def test_memory_before_units() -> None:
    lines = asked(old=True, memory_mib=2)
    assert lines[-1] == "-M 2048"
    assert lines[2] == '-R "span[ptile=1] rusage[mem=2]"'


@pytest.mark.parametrize(
    ("time", "limit", "line"),
    [("90", None, "1:30"), ("30:00", None, "30:00"), ("0:00:30", None, "0:01"), ("1-12:00:00", None, "36:00"),
     ("", 61.0, "0:02"), ("", 0.5, "0:01"), ("2:30", 5.0, "2:30")],
)  # fmt: skip
def test_time(time: str, limit: float | None, line: str) -> None:
    assert asked(time=time, wall_clock_limit=limit)[-1] == f"-W {line}"


def test_words_for_people_cannot_end_the_description() -> None:
    allocation = Allocation(NAME, 'edbjobs:u:me: über "$(id)" `x` \\ <b>\n#BSUB -q root')
    words = "edbjobs:u:me: _ber __(id)_ _x_ _ _b___BSUB -q root"
    assert directives.command_options(allocation, old=False) == ["-rn", "-Jd", words]
    assert directives.command_options(allocation, old=True) == []


def test_what_lsf_has_no_word_for() -> None:
    options = {"qos": "a", "wckey": "e", "run_as_administrator": True}
    assert refused(options).keys() == {f"config.scheduler_options.{name}" for name in options}
    options = {"gpus": 1, "reservation": "r"}
    assert refused(options, old=True).keys() == {f"config.scheduler_options.{name}" for name in options}


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"queue": 'a" -K'}),
        ({}, {"queue": "-K"}),
        ({}, {"account": "a b"}),
        ({}, {"account": "a\n#BSUB -K"}),
        ({}, {"time": "soon"}),
        ({}, {"time": "0:00"}),
        ({"nodelist": "n[1-4]"}, {}),
        ({"begin": "tomorrow"}, {}),
        ({"constraints": 'x] rusage[mem=1" -K'}, {}),
        ({"gpu_type": "a100"}, {}),
        ({"reservation": "R1 -K"}, {}),
        ({"email_notification": "$(id)@x"}, {}),
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
    ("options", "field"), [({"licenses": ["a.b:2"]}, "licenses"), ({"exclude": "n1;x"}, "exclude")]
)
def test_parts_of_the_resource_requirement_are_named(options: dict[str, Any], field: str) -> None:
    assert list(refused(options)) == [f"config.scheduler_options.{field}"]


TEXT = st.text(max_size=12) | st.text("ab1-.:,=+@/ '\"\\$`;#[]\n\r\t\x85\u2028", max_size=12)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "nodelist": TEXT,
        "exclude": TEXT,
        "constraints": TEXT,
        "begin": TEXT,
        "reservation": TEXT,
        "gpu_type": TEXT,
        "gpus": st.integers(0, 4),
        "licenses": st.lists(TEXT, max_size=2),
        "email_notification": TEXT,
        "extra": st.dictionaries(TEXT, TEXT, max_size=2),
    },
)


@given(OPTIONS, TEXT, TEXT, TEXT, TEXT, st.booleans())
def test_no_value_adds_a_directive(
    options: dict[str, Any], comment: str, queue: str, account: str, time: str, old: bool
) -> None:
    try:
        chosen = SchedulerOptions(**options)
    except ValidationError:
        return
    allocation = Allocation(NAME, comment, queue=queue, account=account, time=time, options=chosen)
    try:
        lines = directives.directives_of(allocation, old=old)
    except Refused:
        return
    for line in lines:
        assert re.fullmatch(r"-[A-Za-z0-9_-]+( ([A-Za-z0-9_.@/+:#-]+|\"[^\"\\$`\n\r]*\"))?", line), line
        assert len(shlex.split(line)) <= 2
    assert sum(line.startswith("-J ") for line in lines) == 1
