"""SLURM's answers are read right or not at all: whole lines count, nothing ended comes out of garbage."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import ClusterJobStatus, Phase
from edbjobs_server.executors.schedulers.slurm import parse
from hypothesis import given
from hypothesis import strategies as st

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures" / "slurm"

QUEUE = """\
7|RUNNING|1795455907|1795455908|1795459508|n[1-2]|None|edb-a-0123456789abcdef-1|
8|PENDING|1795455907|1795459508|1795463108||Resources|edb-b-0123456789abcdef-1|
9|PENDING|1795455907|N/A|N/A||PartitionTimeLimit|edb-c-0123456789abcdef-1|
10|COMPLETED|1795455907|1795455908|1795455910|n1|None|edb-d-0123456789abcdef-1|
11|FAILED|1795455907|1795455908|1795455910|n1|NonZeroExitCode|edb-e-0123456789abcdef-1|
12|CANCELLED|1795455907|1795455909|1795455909||Resources|edb-f-0123456789abcdef-1|
13|COMPLETING|1795455907|1795455908|1795455910|n3|None|mine|with|bars|
14|PENDING|1795455907|N/A|N/A||ReqNodeNotAvail, UnavailableNodes:n[1-2]|edb-g-0123456789abcdef-1|
"""
SHOWN = (
    "JobId={id} JobName={name} UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=1 Nice=0 Account=(null) QOS=n "
    "JobState={state} Reason={reason} Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={code} "
    "RunTime=00:00:01 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=1795455907 EligibleTime=1795455907 AccrueTime=Unknown "
    "StartTime=1795455908 EndTime=1795455909 Deadline=N/A SuspendTime=None Partition=normal "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList={nodes} BatchHost=n1 NumNodes=1 NumCPUs=1 NumTasks=1 "
    "Features=(null) Command=/d/s.sh WorkDir=/d JobState=COMPLETED Comment=u JobState=COMPLETED ExitCode=0:0 \n"
)
ACCOUNT = """\
21|COMPLETED|0:0|1795455907|1795455908|1795455910|n[1-2]|edb-a-0123456789abcdef-1
22|CANCELLED by 1000|0:0|1795455907|1795455909|1795455909|None assigned|edb-b-0123456789abcdef-1
23|RUNNING|0:0|1795455907|1795455908|Unknown|n1|edb-c-0123456789abcdef-1
24|FAILED|9:0|1795455907|1795455908|1795455910|n1|edb-d-0123456789abcdef-1
25|FAILED|0:9|1795455907|1795455908|1795455910|n1|edb-e-0123456789abcdef-1
"""


def shown(state: str = "RUNNING", code: str = "0:0", reason: str = "None", nodes: str = "n1", id: int = 5) -> str:
    return SHOWN.format(id=id, name="edb-a-0123456789abcdef-1", state=state, reason=reason, code=code, nodes=nodes)


def one(text: str) -> ClusterJobStatus:
    read = parse.controller(text)
    assert read.whole
    (seen,) = read.jobs.values()
    return seen


def captured(name: str) -> str:
    """Output as it was captured, with its times as we ask for them."""
    if not CAPTURES.is_dir():
        pytest.skip("the captured outputs are not beside this checkout")
    text = next(CAPTURES.glob(f"{name}_*.txt")).read_text().split("# --- stdout\n")[1].split("# --- stderr")[0]

    def seconds(match: re.Match[str]) -> str:
        return str(int(datetime.fromisoformat(match[0]).replace(tzinfo=timezone.utc).timestamp()))

    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", seconds, text)


def test_the_queue_tells_phases_reasons_and_times() -> None:
    read = parse.queue(QUEUE)
    assert read.whole
    assert [seen.phase.value for seen in read.jobs.values()] == [
        *("running", "pending", "pending", "ended", "ended", "ended", "ending", "pending")
    ]
    running, waiting, never = read.jobs["7"], read.jobs["8"], read.jobs["9"]
    assert (running.nodes, running.start_time, running.end_time) == (("n1", "n2"), 1795455908.0, None)
    assert (waiting.start_time, waiting.reason, waiting.never) == (None, "Resources", False), "expected is not started"
    assert never.never
    assert "partition" in never.message
    assert read.jobs["13"].name == "mine|with|bars"
    assert read.jobs["14"].reason.startswith("ReqNodeNotAvail")
    assert not read.jobs["14"].never


def test_the_queue_tells_ends_as_far_as_it_knows_them() -> None:
    jobs = parse.queue(QUEUE).jobs
    assert (jobs["10"].ending, jobs["10"].exit_code, jobs["10"].end_time) == (Ending.EXITED, 0, 1795455910.0)
    assert (jobs["11"].phase, jobs["11"].ending) == (Phase.ENDED, None), "its exit code is not told: look closer"
    cancelled = jobs["12"]
    assert (cancelled.ending, cancelled.start_time) == (Ending.CANCELLED_EXTERNALLY, None), "it never ran"


@pytest.mark.parametrize("cut", range(len(QUEUE.splitlines()[3])))
def test_half_a_line_of_the_queue_is_left_out(cut: int) -> None:
    first, half = QUEUE.splitlines()[0], QUEUE.splitlines()[3][:cut]
    read = parse.queue(f"{first}\n{half}")
    assert list(read.jobs) == ["7"]
    assert read.whole == (not half)


def test_an_id_with_two_different_lines_is_left_out() -> None:
    twice = QUEUE.splitlines()[0]
    assert parse.queue(f"{twice}\n{twice}\n") == parse.queue(f"{twice}\n"), "the same line twice is one"
    read = parse.queue(f"{QUEUE}7|COMPLETED|1|1|1|n1|None|edb-a-0123456789abcdef-1|\n")
    assert "7" not in read.jobs
    assert "8" in read.jobs
    assert not read.whole


def test_an_unknown_state_says_nothing() -> None:
    assert not parse.queue("7|REVOKED|1|1|1|n1|None|x|\n").jobs
    assert not parse.controller(shown("EXPEDITING")).jobs


@pytest.mark.parametrize(
    ("state", "code", "reason", "ending", "exit_code", "number"),
    [
        ("COMPLETED", "0:0", "None", Ending.EXITED, 0, None),
        ("FAILED", "3:0", "NonZeroExitCode", Ending.EXITED, 3, None),
        ("FAILED", "137:0", "NonZeroExitCode", Ending.EXITED, 137, None),
        ("FAILED", "0:9", "JobLaunchFailure", Ending.SIGNALLED, None, 9),
        ("FAILED", "0:53", "JobLaunchFailure", Ending.START_FAILED, None, None),
        ("FAILED", "0:0", "JobLaunchFailure", Ending.LOST, None, None),
        ("CANCELLED", "0:15", "None", Ending.CANCELLED_EXTERNALLY, None, 15),
        ("CANCELLED", "0:0", "None", Ending.CANCELLED_EXTERNALLY, None, None),
        ("TIMEOUT", "0:0", "TimeLimit", Ending.TIMEOUT, None, None),
        ("DEADLINE", "0:0", "DeadLine", Ending.TIMEOUT, None, None),
        ("NODE_FAIL", "0:0", "NodeDown", Ending.NODE_FAIL, None, None),
        ("BOOT_FAIL", "0:0", "None", Ending.NODE_FAIL, None, None),
        ("OUT_OF_MEMORY", "0:125", "OutOfMemory", Ending.OUT_OF_MEMORY, None, None),
        ("PREEMPTED", "0:0", "None", Ending.PREEMPTED, None, None),
    ],
)
def test_the_controller_tells_how_a_job_ended(
    state: str, code: str, reason: str, ending: Ending, exit_code: int | None, number: int | None
) -> None:
    seen = one(shown(state, code, reason))
    assert (seen.phase, seen.ending) == (Phase.ENDED, ending)
    assert (seen.exit_code, seen.signal) == (exit_code, number)
    assert (seen.start_time, seen.end_time) == (1795455908.0, 1795455909.0)


def test_what_never_ran_was_refused() -> None:
    seen = one(shown("FAILED", "0:1", "BadConstraints", nodes=""))
    assert (seen.ending, seen.start_time, seen.signal) == (Ending.SUBMIT_REFUSED, None, None)
    assert "BadConstraints" in seen.message


def test_words_that_people_chose_pass_for_nothing() -> None:
    assert one(shown()).state == "RUNNING", "the folder and the comment hold JobState=COMPLETED"
    seen = one(shown(reason="job requeued in held state", state="PENDING", nodes=""))
    assert (seen.reason, seen.never) == ("job requeued in held state", True)


def test_a_line_break_in_a_name_is_no_second_job() -> None:
    text = shown() + SHOWN.format(
        id=6, name="x\n" + shown("COMPLETED").strip(), state="RUNNING", reason="None", code="0:0", nodes="n1"
    )
    read = parse.controller(text)
    assert not read.whole
    assert "5" not in read.jobs


def test_half_a_line_of_the_controller_is_left_out() -> None:
    line = shown("COMPLETED")
    for cut in range(1, line.index("NumCPUs=")):
        assert parse.controller(line[:cut]) == parse.Read(whole=False)


def test_the_accounting_is_believed_once_it_tells_an_end() -> None:
    read = parse.accounting(ACCOUNT)
    assert read.whole
    assert (read.jobs["21"].ending, read.jobs["21"].nodes) == (Ending.EXITED, ("n1", "n2"))
    assert read.jobs["22"].ending is Ending.CANCELLED_EXTERNALLY
    assert "1000" in read.jobs["22"].message
    assert read.jobs["23"].phase is Phase.RUNNING
    assert "137" in read.jobs["24"].message, "9 may stand for 137"
    assert (read.jobs["25"].ending, read.jobs["25"].signal) == (Ending.SIGNALLED, 9)
    unfinished = parse.accounting("26|COMPLETED|0:0|1795455907|1795455908|Unknown|n1|edb-a-0123456789abcdef-1\n")
    assert unfinished == parse.Read(whole=False)


def test_other_line_breaks_break_no_line() -> None:
    read = parse.queue("7|RUNNING|1|1|1|n1|None|a\u2028\x858|COMPLETED|1|1|1|n1|None|b|\n")
    assert list(read.jobs) == ["7"]
    assert read.whole


@given(st.text(alphabet="JobIdStateENDCOMPLT=|:0159 \n[]-,()AWunkow") | st.text(), st.integers(0, 2000))
def test_nothing_ended_comes_out_of_garbage(text: str, cut: int) -> None:
    for read in (parse.queue, parse.controller, parse.accounting):
        for seen in read(text).jobs.values():
            assert seen.phase is not Phase.ENDED
        read(QUEUE[cut:] + text + shown()[:cut] + ACCOUNT[cut:])
    parse.jobs(text)
    parse.partitions(text, text)


@given(st.text(alphabet="n0123456789[],-x") | st.text())
def test_any_host_list_gives_a_bounded_answer(text: str) -> None:
    assert len(parse.hosts(text)) <= parse.MAX_HOSTS


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n[1-4,7],m[001-003]", "n1 n2 n3 n4 n7 m001 m002 m003"),
        ("login", "login"),
        ("r[1-2]n[08-10]x", "r1n08x r1n09x r1n10x r2n08x r2n09x r2n10x"),
        ("n[9-11]", "n9 n10 n11"),
        ("", ""),
        ("(null)", ""),
        ("n[1-", "n[1-"),
        ("n[a]", "n[a]"),
    ],
)
def test_host_lists_are_expanded(text: str, names: str) -> None:
    assert parse.hosts(text) == tuple(names.split())


def test_endless_host_lists_end() -> None:
    assert len(parse.hosts("n[1-999999999999]")) == parse.MAX_HOSTS
    assert len(parse.hosts("a[1-9999]b[1-9999]c[1-9999]")) == parse.MAX_HOSTS


def test_partitions_are_sums_over_their_nodes() -> None:
    partitions = (
        "PartitionName=normal Default=YES MaxTime=UNLIMITED Nodes=n[1-4] State=UP TotalCPUs=32\n"
        "PartitionName=short Default=NO MaxTime=1-00:05:00 Nodes=n[1-2] State=DRAIN TotalCPUs=16\n"
    )
    node = "NodeName={} CPUAlloc={} CPUEfctv=8 CPUTot=8 RealMemory=6000 AllocMem={} State={} Partitions={} \n"
    nodes = (
        node.format("n1", 2, 200, "MIXED+PLANNED", "normal,short")
        + node.format("n2", 0, 0, "IDLE", "normal,short")
        + node.format("n3", 4, 400, "MIXED+DRAIN", "normal")
        + node.format("n4", 0, 0, "DOWN*+NOT_RESPONDING", "normal")
    )
    normal, short = parse.partitions(partitions, nodes)
    assert (normal.name, normal.is_default, normal.state, normal.time_limit) == ("normal", True, "up", None)
    assert (normal.nodes_total, normal.nodes_used, normal.nodes_free) == (4, 1, 1)
    assert (normal.cores_total, normal.cores_used, normal.cores_free) == (32, 6, 14)
    assert (normal.memory_total_bytes, normal.memory_used_bytes) == (24000 << 20, 600 << 20)
    assert (short.is_default, short.state, short.time_limit, short.nodes_total) == (False, "drain", 86_700, 2)


def test_jobs_of_the_cluster_are_those_that_have_not_ended() -> None:
    text = (
        "19_[2-3%2]|ann|normal|PENDING|1|4|1795455999||JobArrayTaskLimit|arr|\n"
        "20|bob|normal|RUNNING|2|8|1795455907|n[1-2]|None|a|b|\n"
        "21|bob|normal|COMPLETED|2|8|1795455907|n[1-2]|None|done|\n"
        "22|bob|nor"
    )
    waiting, running = parse.jobs(text)
    assert (waiting.id, waiting.user, waiting.start_time, waiting.reason) == (
        *("19_[2-3%2]", "ann", None, "JobArrayTaskLimit"),
    )
    assert (running.name, running.node_count, running.core_count, running.nodes) == ("a|b", 2, 8, ("n[1-2]",))
    assert (running.start_time, running.reason) == (1795455907.0, "")


@pytest.mark.parametrize(
    ("name", "ending", "exit_code", "number"),
    [
        ("104", Ending.EXITED, 3, None),
        ("105", Ending.TIMEOUT, None, 15),
        ("106", Ending.SIGNALLED, None, 9),
        ("107", Ending.CANCELLED_EXTERNALLY, None, None),
        ("119", Ending.NODE_FAIL, None, None),
        ("121", Ending.CANCELLED_EXTERNALLY, None, 15),
        ("122", Ending.CANCELLED_EXTERNALLY, None, None),
    ],
)
def test_captured_ends(name: str, ending: Ending, exit_code: int | None, number: int | None) -> None:
    seen = one(captured(name))
    assert (seen.ending, seen.exit_code, seen.signal) == (ending, exit_code, number)


def test_captured_states() -> None:
    assert one(captured("065").replace("\n   ", " ")).never, "held"
    assert one(captured("109")).phase is Phase.RUNNING, "suspended"
    requeued = one(captured("120"))
    assert (requeued.phase, requeued.start_time, requeued.never) == (Phase.PENDING, None, False)
    array = parse.controller(captured("067"))
    assert len(array.jobs) == 3, "the tasks of an array"


def test_captured_accounting() -> None:
    rows = "".join(
        "|".join((id, state, code, start, start, end, nodes, name)) + "\n"
        for _, id, name, state, code, _, start, end, _, _, nodes in (
            line.split("|") for line in captured("102").split("\n")[1:] if line.count("|") == 10
        )
        if state != "REQUEUED"
    )
    read = parse.accounting(rows)
    assert read.whole
    assert read.jobs["10"].exit_code == 9, "it ended with 137"
    assert read.jobs["36"].ending is Ending.SUBMIT_REFUSED
    assert read.jobs["42"].ending is Ending.START_FAILED
    assert read.jobs["24"].start_time is None


def test_captured_partitions() -> None:
    normal, short, closed = parse.partitions(captured("074"), captured("077"))
    assert (normal.nodes_total, normal.cores_total, normal.cores_used) == (4, 32, 8)
    assert normal.memory_total_bytes == 24000 << 20
    assert (short.time_limit, closed.time_limit) == (300, 3600)
    assert closed.state == "down"
