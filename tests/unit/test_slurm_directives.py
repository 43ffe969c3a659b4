"""No value of a run can add a line or an option to the batch script; what SLURM cannot be asked is refused."""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions
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
        *("no-requeue", "open-mode=append", "nodes=1", "ntasks-per-node=1", "cpus-per-task=1"),
    ]


def test_everything() -> None:
    options = SchedulerOptions(
        reservation="maint",
        qos="long",
        constraints="[a|b]&c*2",
        exclusive=True,
        gpus=2,
        gpu_type="a100",
        priority="Low",
        email_notification="ann@example.com",
        licenses=("hfss:2", "hpc"),
        nodelist="n[1-2]",
        exclude="n3,n4",
        begin="now+1hour",
        wckey="key",
        extra={"hint": "nomultithread", "contiguous": ""},
    )
    allocation = Allocation(
        NAME, "c", 2, 3, 8, 64_000, "1-12:00:00", wall_clock_limit=90, queue="a,b", account="proj1", options=options
    )
    assert directives(allocation)[4:] == [
        *("nodes=2", "ntasks-per-node=3", "cpus-per-task=3", "time=1-12:00:00", "mem=64000M"),
        *("partition=a,b", "account=proj1", "reservation=maint", "qos=long", "constraint=[a|b]&c*2"),
        *("nodelist=n[1-2]", "exclude=n3,n4", "begin=now+1hour", "wckey=key", "mail-user=ann@example.com"),
        *("mail-type=END,FAIL", "licenses=hfss:2,hpc", "exclusive", "gpus-per-node=a100:2", "nice=200"),
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
    allocation = replace(PLAIN, time=text)
    if seconds is None and text:
        assert refused(allocation) == "time"
    elif text:
        assert f"time={text.upper()}" in directives(allocation)


@pytest.mark.parametrize(("seconds", "minutes"), [(1.0, 1), (60.0, 1), (60.1, 2), (3600.0, 60)])
def test_the_wall_clock_limit_is_rounded_up(seconds: float, minutes: int) -> None:
    assert f"time={minutes}" in directives(replace(PLAIN, wall_clock_limit=seconds))


@pytest.mark.parametrize("priority", ["Normal", "AboveNormal", "High", "Highest"])
def test_nothing_raises_a_priority(priority: str) -> None:
    assert not any(line.startswith("nice") for line in asked(priority=priority))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("reservation", "a b"),
            ("qos", "a\\"),
            ("constraints", "a#b"),
            ("gpu_type", 'x"'),
            ("nodelist", "/etc/passwd"),
        ),
        *(("exclude", "n 1"), ("begin", "now --hold"), ("wckey", "a'"), ("email_notification", "a@b%`"), ("qos", "-h")),
    ],
)
def test_other_characters_are_refused(field: str, value: str) -> None:
    values: dict[str, Any] = {field: value, "gpus": 1}
    options = SchedulerOptions(**values)
    assert refused(replace(PLAIN, options=options)) == field
    assert refused(replace(PLAIN, queue="a b")) == "queue"


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


FIELDS = ["reservation", "qos", "constraints", "gpu_type", "nodelist", "exclude", "begin", "wckey"]


@given(st.sampled_from(FIELDS), TEXT | st.from_regex(r"[A-Za-z0-9_.,:\[\]-]{1,20}", fullmatch=True))
def test_no_value_adds_a_line_or_an_option(field: str, value: str) -> None:
    options: dict[str, Any] = {"gpus": 1, field: value}
    check(replace(PLAIN, options=SchedulerOptions.model_construct(**options)))


@given(TEXT | st.sampled_from(["hint", "contiguous", "mem-bind"]), TEXT)
def test_no_extra_directive_adds_a_line_or_an_option(name: str, value: str) -> None:
    check(replace(PLAIN, options=SchedulerOptions.model_construct(extra={name: value})))


@given(TEXT)
def test_no_time_queue_or_account_adds_a_line_or_an_option(text: str) -> None:
    check(replace(PLAIN, time=text))
    check(replace(PLAIN, queue=text))
    check(replace(PLAIN, account=text))


def check(allocation: Allocation) -> None:
    lines: list[str] = []
    with contextlib.suppress(Refused):
        lines = directives(allocation)
    for line in lines:
        assert len(line.splitlines()) == 1
        assert words_of(line) == [line] or line.startswith("comment=")
        assert re.match(r"[a-z][a-z0-9-]+(=|$)", line)
