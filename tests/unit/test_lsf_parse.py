"""What LSF answers: every recorded answer of OpenLava 2.2, public ones of IBM's LSF 10.1, and garbage."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import ClusterJobStatus, Phase
from edbjobs_server.executors.schedulers.lsf import history, parse, tables
from edbjobs_server.executors.schedulers.lsf.parse import Job
from hypothesis import given
from hypothesis import strategies as st

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures"
NOW = time.mktime((2026, 11, 23, 14, 0, 0, 0, 0, -1))
E = Ending


def recorded() -> dict[str, dict[str, Any]]:
    path = CAPTURES / "openlava-2.2.jsonl"
    if not path.exists():
        return {}
    return {entry["name"]: entry for entry in map(json.loads, path.read_text().splitlines())}


RECORDED = recorded()


def capture(name: str) -> str:
    if not RECORDED:
        pytest.skip("openlava-2.2.jsonl is not beside the checkout")
    return str(RECORDED[name]["stdout"])


def public(name: str) -> list[Job]:
    path = CAPTURES / "lsf-10.1-public" / name
    if not path.exists():
        pytest.skip("lsf-10.1-public is not beside the checkout")
    found = parse.document(path.read_text())
    assert found is not None
    return parse.records(found, NOW)


def past(name: str) -> Job:
    (job,) = history.jobs(capture(name), NOW).values()
    return job


def row(name: str) -> Job:
    found = parse.table(capture(name), NOW)
    assert found is not None
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("case", "name", "state", "ending", "code"),
    [
        ("done", "ok", "DONE", E.EXITED, 0),
        ("stdin", "fromstdin", "DONE", E.EXITED, 0),
        ("sig9", "s9", "DONE", E.EXITED, 0),
        ("exit3", "e3", "EXIT", E.EXITED, 3),
        ("nocmd", "nc", "EXIT", E.EXITED, 127),
        ("bkill-run", "long", "EXIT", E.CANCELLED_EXTERNALLY, 130),
        ("bkill-r", "", "EXIT", E.CANCELLED_EXTERNALLY, 130),
        ("bkill-pend", "pend", "EXIT", E.CANCELLED_EXTERNALLY, None),
        ("runlimit", "rl", "EXIT", E.TIMEOUT, 140),
    ],
)
def test_recorded_ends(case: str, name: str, state: str, ending: Ending, code: int | None) -> None:
    long, ended = past(f"{case}-bjobs-l"), past(f"{case}-bhist-l")
    assert (long.name, long.state, ended.name, ended.state) == (name, state, name, state)
    seen = parse.settled(parse.merged(long, ended))
    assert (seen.phase, seen.ending, seen.exit_code) == (Phase.ENDED, ending, code)
    assert parse.settled(ended).ending is ending
    assert seen.end_time is not None
    assert seen.submit_time is not None
    assert seen.end_time >= (seen.start_time or seen.submit_time) >= seen.submit_time
    short = parse.status(row(f"{case}-bjobs-aw"))
    assert short.ending is (E.EXITED if state == "DONE" else None)


@pytest.mark.parametrize(
    ("case", "state", "phase", "never"),
    [
        ("run", "RUN", Phase.RUNNING, False),
        ("ususp", "USUSP", Phase.RUNNING, False),
        ("pend", "PEND", Phase.PENDING, False),
        ("psusp", "PSUSP", Phase.PENDING, True),
    ],
)
def test_recorded_states(case: str, state: str, phase: Phase, never: bool) -> None:
    for job in (past(f"{case}-bjobs-l"), row(f"{case}-bjobs-aw"), row(f"{case}-bjobs-w")):
        seen = parse.status(job)
        assert (seen.state, seen.phase, seen.never, seen.ending) == (state, phase, never, None)
    assert history.jobs(capture(f"{case}-bhist-l"), NOW) == {}  # history alone tells no state


def test_what_is_told_of_a_job() -> None:
    job = past("run-bjobs-l")
    assert (job.id, job.user, job.queue, job.hosts, job.limit) == ("101", "hpcuser", "normal", ("pbshost",), 300.0)
    assert past("pend-bjobs-l").reason == "Job slot limit reached: 1 host;"
    assert past("bkill-run-bhist-l").asked == "hpcuser"
    late = past("runlimit-bjobs-l")
    assert late.start is not None
    assert late.finish is not None
    assert late.finish - late.start == 61
    short = row("run-bjobs-w")
    assert (short.name, short.hosts, short.slots, short.user) == ("ok", ("pbshost",), 2, "hpcuser")
    # One without a name is shown by its command.
    assert row("bkill-r-bjobs-w").name == "sleep 100"


def test_members_of_an_array_are_not_taken_for_one_job() -> None:
    found = parse.table(capture("array-done"), NOW)
    assert found is not None
    assert [job.name for job in found] == ["arr[2]", "arr[3]", "arr[1]"]
    assert parse.statuses(found) == {}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_recorded_answer_can_be_read(name: str) -> None:
    text = RECORDED[name]["stdout"]
    assert parse.document(text) is None
    for job in [*(parse.table(text, NOW) or []), *history.jobs(text, NOW).values()]:
        assert job.user == "hpcuser"
        assert parse.settled(job).state == job.state
    parse.end_in_output(text)
    tables.rows(text)


def seen_public(name: str) -> list[ClusterJobStatus]:
    return list(parse.statuses(public(name)).values())


def test_public_json() -> None:
    many = seen_public("BatchEuphoria-convertBJobsResultLinesToResultMapTest.json")
    assert [item.ending for item in many] == [None] * 3 + [E.EXITED] * 3
    (done,) = public("BatchEuphoria-queryExtendedJobStateByIdTest.json")
    assert (done.name, done.hosts, done.slots, done.code) == ("ls -l", ("exec-host",), 1, None)
    assert done.finish == time.mktime((2025, 12, 28, 19, 56, 59, 0, 0, -1))  # "Dec 28 19:56 L", read in November
    assert parse.status(done).exit_code == 0
    assert public("BatchEuphoria-queryExtendedJobStateByIdEmptyTest.json") == []
    assert public("bjobs-json-exit-owner.json") == []  # its example has no id


def record(**fields: str) -> Job:
    (job,) = parse.records([{"JOBID": "7", "JOB_NAME": "edb-a-1", "STAT": "EXIT", "USER": "me", **fields}], NOW)
    return job


def test_public_reasons() -> None:
    path = CAPTURES / "lsf-10.1-public" / "bjobs-json-exit-owner.json"
    if not path.exists():
        pytest.skip("lsf-10.1-public is not beside the checkout")
    (found,) = parse.document(path.read_text()) or []
    assert parse.status(record(**found)).ending is E.CANCELLED_EXTERNALLY
    (found,) = parse.document(path.with_name("bjobs-json-pend.json").read_text()) or []
    assert parse.status(record(**found)).reason == "New job is waiting for scheduling;"
    (found,) = parse.document(path.with_name("bjobs-json-psusp.json").read_text()) or []
    assert parse.status(record(**found)).never


@pytest.mark.parametrize(
    ("code", "reason", "ending"),
    [
        ("", "TERM_OWNER: job killed by owner", E.CANCELLED_EXTERNALLY),
        ("", "TERM_ADMIN: job killed by root or LSF administrator", E.CANCELLED_EXTERNALLY),
        ("140", "TERM_RUNLIMIT: job killed after reaching LSF run time limit", E.TIMEOUT),
        ("137", "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit", E.OUT_OF_MEMORY),
        ("", "TERM_PREEMPT: job killed after preemption", E.PREEMPTED),
        ("", "TERM_REMOVE_HUNG_JOB: job removed", E.NODE_FAIL),
        ("", "TERM_CWD_NOTEXIST: current working directory is not accessible", E.START_FAILED),
        ("139", "TERM_EXTERNAL_SIGNAL: job killed by a signal external to LSF", E.SIGNALLED),
        ("", "TERM_EXTERNAL_SIGNAL: job killed by a signal external to LSF", None),
        ("", "TERM_UNHEARD_OF: what", None),
        ("3", "", E.EXITED),
        ("130", "", None),
        ("140", "", None),
        ("-", "-", None),
        ("0", "", None),
    ],
)
def test_what_an_end_means(code: str, reason: str, ending: Ending | None) -> None:
    job = record(EXIT_CODE=code, EXIT_REASON=reason, EXEC_HOST="h1")
    assert parse.status(job).ending is ending
    settled = parse.settled(job)
    assert settled.ending is not None
    assert (settled.ending, settled.exit_code) != (E.EXITED, 0)


def test_code_140_alone_is_no_time_limit() -> None:
    assert parse.settled(record(EXIT_CODE="140", EXEC_HOST="h")).ending is E.EXITED
    assert parse.settled(record(EXIT_CODE="")).ending is E.CANCELLED_EXTERNALLY  # it never had a host
    assert parse.settled(record(EXIT_CODE="", EXEC_HOST="h")).ending is E.LOST


@pytest.mark.parametrize(
    ("state", "phase"),
    [("UNKWN", Phase.RUNNING), ("ZOMBI", Phase.ENDING), ("WAIT", Phase.PENDING), ("SSUSP", Phase.RUNNING)],
)
def test_states_that_were_not_recorded(state: str, phase: Phase) -> None:
    assert parse.status(record(STAT=state)).phase is phase


def test_waits_that_do_not_end_by_themselves() -> None:
    assert parse.status(record(STAT="PEND", PEND_REASON="Dependency condition invalid or never satisfied;")).never
    assert not parse.status(record(STAT="PEND", PEND_REASON="Job slot limit reached: 1 host;")).never


def test_recorded_reasons_of_those_that_wait() -> None:
    assert parse.reasons(capture("bjobs-p")) == {"108": "Job slot limit reached: 1 host;"}
    assert parse.reasons("No pending job found\n  x\n") == {}


def test_json_after_words_for_people() -> None:
    text = 'Cannot connect to LSF. Please wait ...\n{"COMMAND":"bjobs","RECORDS":[{"JOBID":"1","STAT":"RUN"}]}\n'
    assert parse.document(text) == [{"JOBID": "1", "STAT": "RUN"}]
    assert parse.document("Cannot connect to LSF. Please wait ...\n") is None
    assert parse.document('{"COMMAND":"bjobs","JOBS":0,"RECORDS":[]}') == []
    found = parse.document('{"RECORDS":[{"JOBID":"999","ERROR":"Job <999> is not found"}]}')
    assert parse.records(found or [], NOW) == []


def test_a_job_told_twice_differently_is_not_told() -> None:
    both = [record(EXIT_CODE="3"), record(EXIT_CODE="4")]
    assert parse.statuses(both) == {}
    assert parse.statuses([both[0], both[0]]).keys() == {"7"}


IBM_LONG = """
Job <771278>, Job Name <edb-a-1>, User <me>, Project <default>, Status <EXIT>, Queue <short>, C
                     ommand <#!/bin/bash;#BSUB -J edb-a-1;exit $rc>, Share group charged </me>
Mon Nov 23 10:16:26: Submitted from host <falcon>, CWD <$HOME/test>;

 RUNLIMIT
 1.0 min of n28
Mon Nov 23 10:16:31: [1] started 2 Task(s) on Host(s) <2*n28> <n29>, Allocated 3 Slot(s) on Ho
                     st(s) <2*n28> <n29>, Execution Home </home/me>, Execution
                      CWD </home/me/test>;
Mon Nov 23 10:17:33: Exited with exit code 140. The CPU time used is 0.1 second
                     s.
Mon Nov 23 10:17:33: Completed <exit>; TERM_RUNLIMIT: job killed after reaching LSF run time l
                     imit.

 SCHEDULING PARAMETERS:
           r15s   r1m  r15m   ut      pg    io   ls    it    tmp    swp    mem
 loadSched   -     -     -     -       -     -    -     -     -      -      -

"""


def test_long_form_of_ibm() -> None:
    (job,) = history.jobs(IBM_LONG, NOW).values()
    assert (job.name, job.hosts, job.code, job.limit) == ("edb-a-1", ("n28", "n29"), 140, 60.0)
    assert job.term == "TERM_RUNLIMIT: job killed after reaching LSF run time limit"
    assert parse.status(job).ending is E.TIMEOUT


def test_a_run_that_was_put_back_has_not_ended() -> None:
    text = IBM_LONG.replace(" SCHEDULING", "Mon Nov 23 10:18:00: Pending: Job has been requeued;\n\n SCHEDULING")
    (job,) = history.jobs(text.replace("Status <EXIT>", "Status <PEND>"), NOW).values()
    assert (job.state, job.start, job.finish, job.code, job.term) == ("PEND", None, None, None, "")


def test_answers_cut_short_are_not_believed() -> None:
    cut = IBM_LONG.index(" SCHEDULING")
    for length in range(cut):
        assert history.jobs(IBM_LONG[:length], NOW) == {}
    text = capture("exit3-bjobs-aw")
    for length in range(len(text) - 1):
        assert all(job.name == "e3" for job in parse.table(text[:length], NOW) or [])


def test_said() -> None:
    line = "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit."
    report = f"# LSBATCH: User input\n\n{line}\nExited with exit code 137.\n"
    assert parse.end_in_output(report) == (E.OUT_OF_MEMORY, line)
    assert parse.end_in_output("Exited with exit code 140.\n") is None
    assert parse.end_in_output("see TERM_OWNER: of the manual") is None


def test_recorded_output_has_no_reason() -> None:
    assert parse.end_in_output(capture("runlimit-out")) is None
    assert parse.end_in_output(capture("done-out")) is None


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("Nov 23 13:29", (2026, 11, 23, 13, 29, 0)),
        ("Nov 23 13:29 L", (2026, 11, 23, 13, 29, 0)),
        ("Mon Nov 23 13:29:39", (2026, 11, 23, 13, 29, 39)),
        ("Dec  31 23:48 L", (2025, 12, 31, 23, 48, 0)),
        ("Nov 24 13:29 E", (2026, 11, 24, 13, 29, 0)),
        ("Jan  1 05:07", (2026, 1, 1, 5, 7, 0)),
        ("Nov 23 13:29:39 2024", (2024, 11, 23, 13, 29, 39)),
    ],
)
def test_times_without_a_year(text: str, when: tuple[int, ...]) -> None:
    assert parse.moment(text, NOW) == time.mktime((*when, 0, 0, -1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "after", "latest"),
    [("Nov 23 13:30 L", 0.0, NOW - 1741), ("Nov 23 14:00 L", 5.0, NOW + 5), ("Nov 23 14:00:02 2026", 5.0, NOW + 2)],
)
def test_a_minute_is_taken_for_its_end(text: str, after: float, latest: float) -> None:
    """LSF may tell no seconds of starts and ends: an end must not come before its start, nor after now."""
    found = {"JOBID": "7", "STAT": "EXIT", "START_TIME": text, "FINISH_TIME": text}
    (job,) = parse.records([found], NOW + after)
    assert (job.start, job.finish) == (latest, latest)


def test_what_is_no_time() -> None:
    assert all(parse.moment(text, NOW) is None for text in ("", "-", "now", "Foo 23 13:29", "Nov 23"))


def test_recorded_queues() -> None:
    found = tables.partitions(
        tables.queues(capture("bqueues-l")),
        tables.rows(capture("bhosts")),
        tables.rows(capture("lshosts")),
        {},
    )
    small, normal = found
    assert (small.name, small.is_default, small.time_limit, small.state) == ("small", False, 600, "up")
    assert (normal.name, normal.is_default, normal.time_limit) == ("normal", True, None)
    assert (normal.nodes_total, normal.nodes_used, normal.nodes_free) == (1, 0, 1)
    assert (normal.cores_total, normal.cores_used, normal.cores_free) == (4, 0, 4)
    assert normal.memory_total_bytes == 24105 << 20


QUEUES = """
QUEUE: big
  -- Big jobs.  This is the default queue.

PARAMETERS/STATISTICS
PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV
 40    0  Open:Inact       -    -    -    -     0     0     0     0     0    0

 RUNLIMIT
 1440.0 min of hostA

USERS: all
HOSTS:  fat/ n9+2

-------------------------------------------------------------------------------

QUEUE: shut
PARAMETERS/STATISTICS
PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV
 40    0  Closed:Active    -    -    -    -     0     0     0     0     0    0
HOSTS:  all
"""
HOSTS = """HOST_NAME          STATUS          JL/U    MAX  NJOBS    RUN  SSUSP  USUSP    RSV
n1                 ok                 -     16      4      4      0      0      0
n2                 closed_Full        -      8      8      8      0      0      0
n3                 unavail            -      -      0      0      0      0      0
n9                 ok                 -      2      0      0      0      0      0
"""
STATIC = """HOST_NAME                       type       model  cpuf ncpus maxmem maxswp server RESOURCES
n1                             X86_64      Intel 100.0    16  512G      -    Yes (mg)
n2                             X86_64      Intel 100.0     8 15.5G      -    Yes ()
n3                             X86_64          -     -    32     -      -    Yes ()
n9                             X86_64      Intel 100.0     2     1T     -    Yes
"""


def test_queues_with_hosts_of_their_own() -> None:
    known = tables.groups("GROUP_NAME    HOSTS\nfat          n1 n3\n")
    big, shut = tables.partitions(
        tables.queues(QUEUES), tables.rows(HOSTS), tables.rows(STATIC), known
    )  # fmt: skip
    assert (big.name, big.state, big.is_default, big.time_limit) == ("big", "down", True, 86400)
    assert (big.nodes_total, big.nodes_used, big.nodes_free) == (3, 1, 1)
    assert (big.cores_total, big.cores_used, big.cores_free) == (50, 4, 14)
    assert big.memory_total_bytes == (512 << 30) + (1 << 40)
    assert (shut.state, shut.nodes_total, shut.cores_free) == ("drain", 4, 14)


@pytest.mark.parametrize(
    ("text", "size"),
    [("24105M", 24105 << 20), ("512G", 512 << 30), ("4 Gbytes", 4 << 30), ("15.5G", int(15.5 * 2**30)),
     ("522 MBytes", 522 << 20), ("1T", 1 << 40), ("2048", 2 << 20), ("-", 0), ("", 0)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert tables.size_bytes(text) == size


TEXTS = st.text() | st.text("Job<>, NameStaus0123456789:\n -EXITDONE{}[]\"'")
RECORDS = st.dictionaries(
    st.sampled_from(
        ["JOBID", "STAT", "JOB_NAME", "EXIT_CODE", "EXIT_REASON", "EXEC_HOST", "START_TIME", "FINISH_TIME", "ERROR"]
    ),
    st.text(max_size=12) | st.sampled_from(["1", "EXIT", "DONE", "RUN", "0", "Nov 23 13:29 L"]) | st.none(),
)


@given(TEXTS)
def test_garbage_is_no_end(text: str) -> None:
    found = parse.document(text)
    assert parse.records(found or [], NOW) == []
    assert not history.jobs(text, NOW)
    assert not parse.table(text, NOW)
    parse.end_in_output(text)
    tables.partitions(tables.queues(text), tables.rows(text), tables.rows(text), tables.groups(text))


@given(RECORDS)
def test_odd_records_are_read(fields: dict[str, Any]) -> None:
    for job in parse.records([fields], NOW):
        seen = parse.settled(job)
        success = seen.ending is Ending.EXITED and seen.exit_code == 0
        assert success == (fields["STAT"] == "DONE")
        parse.cluster_job(job)


@given(RECORDS, st.integers(min_value=0))
def test_a_document_cut_short_is_not_read(fields: dict[str, Any], cut: int) -> None:
    text = json.dumps({"COMMAND": "bjobs", "JOBS": 1, "RECORDS": [fields]})
    assert parse.document(text[: cut % len(text)]) is None
