"""No value of a run can add a line or an option to the batch script; what SLURM cannot be asked is refused."""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions, SchedulerPriority
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.slurm.directives import UNLIMITED, directives, limit_seconds
from hypothesis import given
from hypothesis import strategies as st

NAME = "edb-board-0123456789abcdef-1"
PLAIN = Allocation(NAME, "edbjobs:u:ann")


def asked(**options: Any) -> list[str]:
    return directives(replace(PLAIN, options=SchedulerOptions(**options)))


def refused(allocation: Allocation) -> str:
    with pytest.raises(Refused) as error:
        directives(allocation)
    assert error.value.reason == "INVALID_JOB"
    (field,) = error.value.fields
    field = field.removeprefix("config.scheduler_options.")
    assert f"{field}: " in error.value.message
    return field


def test_the_least() -> None:
    assert directives(PLAIN) == [
        f"job-name={NAME}",
        'comment="edbjobs:u:ann"',
        *("no-requeue", "open-mode=append", "nodes=1", "ntasks-per-node=1"),
    ]


def test_everything() -> None:
    options = SchedulerOptions(
        reservation="maint",
        qos="long",
        constraint="[a|b]&c*2",
        exclusive=True,
        gpus_per_node=2,
        gpu_type="a100",
        priority=SchedulerPriority.LOW,
        email="ann@example.com",
        licenses={"hpc": 1, "hfss": 2},
        include_nodes=("n[1-2,7]", "m1"),
        exclude_nodes=("n3", "n4"),
        wckey="key",
        extra={"hint": "nomultithread", "contiguous": ""},
    )
    allocation = Allocation(
        NAME, "c", 2, 3, 8, 64_000 << 20, 129_600.0, partition="a,b", account="proj1", options=options
    )
    assert directives(allocation)[4:] == [
        *("nodes=2", "ntasks-per-node=3", "cpus-per-task=3", "time=1-12:00:00", "mem=64000M"),
        *("partition=a,b", "account=proj1", "reservation=maint", "qos=long", "constraint=[a|b]&c*2"),
        *("nodelist=n[1-2,7],m1", "exclude=n3,n4", "wckey=key", "mail-user=ann@example.com"),
        *("mail-type=END,FAIL", "licenses=hfss:2,hpc:1", "exclusive", "gpus-per-node=a100:2", "nice=200"),
        *("hint=nomultithread", "contiguous"),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("5", 300), ("5:30", 330), ("1:05:30", 3930), ("1-2", 93_600), ("1-2:30", 95_400), ("1-2:30:10", 95_410)),
        *(("UNLIMITED", UNLIMITED), ("infinite", UNLIMITED), ("0", UNLIMITED)),
        *(("", None), ("abc", None), ("1h", None), ("-1", None), ("1:2:3:4", None), ("1.5", None), ("1-", None)),
    ],
)
def test_time_limits(text: str, seconds: int | None) -> None:
    assert limit_seconds(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "UNLIMITED"), (0.1, "0-00:00:01"), (60.0, "0-00:01:00"), (90_061.5, "1-01:01:02")]
)
def test_the_time_limit_is_rounded_up(seconds: float, text: str) -> None:
    assert f"time={text}" in directives(replace(PLAIN, time_limit=seconds))


def test_cores_are_asked_for_where_they_are_given() -> None:
    assert not any("cpus" in line for line in directives(replace(PLAIN, tasks_per_node=2)))
    assert "cpus-per-task=3" in directives(replace(PLAIN, tasks_per_node=2, cores_per_node=5))


@pytest.mark.parametrize(
    "priority",
    [SchedulerPriority.NORMAL, SchedulerPriority.ABOVE_NORMAL, SchedulerPriority.HIGH, SchedulerPriority.HIGHEST],
)
def test_nothing_raises_a_priority(priority: SchedulerPriority) -> None:
    assert not any(line.startswith("nice") for line in asked(priority=priority))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("reservation", "a b"),
            ("qos", "a\\"),
            ("constraint", "a#b"),
            ("gpu_type", 'x"'),
            ("include_nodes", ("/etc/passwd",)),
        ),
        *(("exclude_nodes", ("n 1",)), ("wckey", "a'"), ("email", "a@b%`"), ("qos", "-h")),
    ],
)
def test_other_characters_are_refused(field: str, value: Any) -> None:
    values: dict[str, Any] = {field: value, "gpus_per_node": 1}
    options = SchedulerOptions.model_construct(**values)
    assert refused(replace(PLAIN, options=options)) == field
    assert refused(replace(PLAIN, partition="a b")) == "partition"


@pytest.mark.parametrize("name", ["output", "outp", "job-name", "job", "array", "nodes", "--hint", "J", "wrap", "Hint"])
def test_extra_directives_do_not_touch_ours(name: str) -> None:
    assert refused(replace(PLAIN, options=SchedulerOptions(extra={name: "1"}))) == f"extra.{name}"


def test_extra_values_need_no_quotes() -> None:
    assert refused(replace(PLAIN, options=SchedulerOptions(extra={"hint": "a b"}))) == "extra.hint"


TEXT = st.text(max_size=40) | st.text(alphabet="ab1 \t\n\"'\\#-=,;$`()[]|&\u2028\x85", max_size=40)


def words_of(line: str) -> list[str]:
    """Split a directive as sbatch does: words, quotes, backslashes and remarks, as in a shell."""
    return shlex.split(line, comments=True)


@given(TEXT)
def test_a_comment_stays_one_word(comment: str) -> None:
    line = directives(replace(PLAIN, comment=comment))[1]
    printable = "".join(letter if letter.isprintable() else " " for letter in comment)
    assert words_of(line) == [f"comment={printable}"]
    assert len(line.splitlines()) == 1


def test_a_long_comment_is_cut_at_a_whole_letter() -> None:
    line = directives(replace(PLAIN, comment="é" * 2000))[1]
    assert line == 'comment="' + "é" * 500 + '"'


FIELDS = ["reservation", "qos", "constraint", "gpu_type", "include_nodes", "exclude_nodes", "wckey"]


@given(st.sampled_from(FIELDS), TEXT | st.from_regex(r"[A-Za-z0-9_.,:\[\]-]{1,20}", fullmatch=True))
def test_no_value_adds_a_line_or_an_option(field: str, value: str) -> None:
    options: dict[str, Any] = {"gpus_per_node": 1, field: [value] if field.endswith("_nodes") else value}
    check(replace(PLAIN, options=SchedulerOptions.model_construct(**options)))


@given(TEXT | st.sampled_from(["hint", "contiguous", "mem-bind"]), TEXT)
def test_no_extra_directive_adds_a_line_or_an_option(name: str, value: str) -> None:
    check(replace(PLAIN, options=SchedulerOptions.model_construct(extra={name: value})))


@given(TEXT)
def test_no_partition_or_account_adds_a_line_or_an_option(text: str) -> None:
    check(replace(PLAIN, partition=text))
    check(replace(PLAIN, account=text))


def check(allocation: Allocation) -> None:
    lines: list[str] = []
    with contextlib.suppress(Refused):
        lines = directives(allocation)
    for line in lines:
        assert len(line.splitlines()) == 1
        assert words_of(line) == [line] or line.startswith("comment=")
        assert re.match(r"[a-z][a-z0-9-]+(=|$)", line)
