"""What PBS answers: every recorded answer of OpenPBS 23.06, and garbage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import ClusterJobStatus, Phase
from edbjobs_server.executors.schedulers.pbs import parse, tables
from hypothesis import given
from hypothesis import strategies as st

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures" / "openpbs-23.06.jsonl"
E = Ending
GB = 1024**3


def recorded() -> dict[str, dict[str, Any]]:
    if not CAPTURES.exists():
        return {}
    return {entry["name"]: entry for entry in map(json.loads, CAPTURES.read_text().splitlines())}


RECORDED = recorded()


def capture(name: str) -> dict[str, Any]:
    if not RECORDED:
        pytest.skip("openpbs-23.06.jsonl is not beside the checkout")
    return RECORDED[name]


def sighted(name: str) -> ClusterJobStatus:
    document = parse.document(capture(name)["stdout"])
    assert document is not None
    (status,) = parse.statuses(parse.entries(document, "Jobs")).values()
    return status


def job(**fields: object) -> dict[str, object]:
    return {"Job_Name": "edb-a-1", "job_state": "F", "substate": 92, "stime": "Mon Nov 23 13:03:46 2026", **fields}


def one(**fields: object) -> ClusterJobStatus:
    return parse.statuses({"1.host": job(**fields)})["1.host"]


ENDED = [
    ("done-ok-qstat-x", E.EXITED, 0, None),
    ("done-exit3-qstat-x", E.EXITED, 3, None),
    ("done-sig9-qstat-x", E.EXITED, 137, None),
    ("done-child-segv-qstat-x", E.EXITED, 139, None),
    ("done-cmdform-qstat-x", E.EXITED, 0, None),
    ("badshell-qstat-x", E.EXITED, 254, None),
    ("cmd-missing-qstat-x", E.EXITED, 254, None),
    ("cwd-blank-qstat-x", E.EXITED, 0, None),
    ("held-released-done-qstat-x", E.EXITED, 0, None),
    ("suspended-done-qstat-x", E.EXITED, 0, None),
    ("rerun-done-qstat-x", E.EXITED, 0, None),
    ("srestart-done-qstat-x", E.EXITED, 4, None),
    ("args-qstat-x", E.EXITED, 0, None),
    ("array-done-qstat-x", E.EXITED, 1, None),
    ("array-done-sub", E.EXITED, 1, None),
    ("qstat-v23.06.06/exit3", E.EXITED, 3, None),
    ("qsig-INT-after-qstat-x", E.SIGNALLED, None, 2),
    ("walltime-exceeded-qstat-x", E.TIMEOUT, None, None),
    ("dep-failed-after-qstat-x", E.NEVER_RAN, None, None),
    ("qdel-running-after-qstat-x", E.CANCELLED_EXTERNALLY, None, 15),
    ("qdel-running-trapTERM-after-qstat-x", E.CANCELLED_EXTERNALLY, None, 15),
    ("qdel-ignoring-TERM-after-qstat-x", E.CANCELLED_EXTERNALLY, None, 15),
    ("qdel-pending-after-qstat-x", E.CANCELLED_EXTERNALLY, None, None),
    ("qdel-waiting-after-qstat-x", E.CANCELLED_EXTERNALLY, None, None),
    ("mdown-after-qdel-qstat-x", E.CANCELLED_EXTERNALLY, None, None),
    ("mdown-after-mom-restart-qstat-x", E.CANCELLED_EXTERNALLY, None, None),
]


@pytest.mark.parametrize(("name", "ending", "code", "signal"), ENDED)
def test_recorded_ends(name: str, ending: Ending, code: int | None, signal: int | None) -> None:
    seen = sighted(name)
    assert (seen.phase, seen.ending, seen.exit_code, seen.signal) == (Phase.ENDED, ending, code, signal)
    assert seen.end_time is not None
    assert seen.submit_time is not None
    assert seen.end_time >= seen.submit_time


LIVE = [
    ("running-qstat", Phase.RUNNING),
    ("running-qstat-x", Phase.RUNNING),
    ("rerun-qstat-x", Phase.RUNNING),
    ("suspended-qstat", Phase.RUNNING),
    ("suspended-qstat-x", Phase.RUNNING),
    ("array-running-qstat", Phase.RUNNING),
    ("array-running-qstat-x", Phase.RUNNING),
    ("srestart-after-qstat", Phase.RUNNING),
    ("queued-qstat", Phase.PENDING),
    ("held-qstat", Phase.PENDING),
    ("waiting-qstat", Phase.PENDING),
    ("waiting-qstat-x", Phase.PENDING),
    ("dep-held-qstat", Phase.PENDING),
    ("dep-held-qstat-x", Phase.PENDING),
    ("mdown-running-node-down-qstat", Phase.PENDING),
    ("mdown-queued-node-down-qstat-x", Phase.PENDING),
    ("outdir-missing-qstat", Phase.ENDING),
    ("outdir-missing-qstat-x", Phase.ENDING),
    ("qdel-force-after-qstat-x", Phase.ENDING),
    ("qdel-running-just-after-qstat", Phase.ENDING),
]


@pytest.mark.parametrize(("name", "phase"), LIVE)
def test_recorded_states(name: str, phase: Phase) -> None:
    seen = sighted(name)
    assert (seen.phase, seen.ending, seen.end_time) == (phase, None, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("never-qstat", "nothing the cluster has"),
        ("never-qstat-x", "nothing the cluster has"),
        ("stopped-queue-qstat", "stopped is stopped"),
        ("stopped-queue-qstat-x", "stopped is stopped"),
        ("held-qstat-x", "qrls"),
    ],
)
def test_recorded_waits_that_do_not_end_by_themselves(name: str, words: str) -> None:
    seen = sighted(name)
    assert seen.never
    assert words in seen.message


def test_a_full_cluster_is_no_reason_to_give_up() -> None:
    seen = sighted("queued-qstat-x")
    assert (seen.never, seen.reason) == (False, "Not Running: Not enough free nodes available")


def test_nodes_and_times() -> None:
    seen = sighted("done-ok-qstat-x")
    assert (seen.id, seen.name, seen.nodes) == ("1.pbshost", "ok", ("pbshost",))
    assert seen.start_time is not None
    assert seen.end_time is not None
    assert seen.end_time - seen.start_time == 4
    assert parse.nodes("n1/0*4+n2/1*4+n1/2") == ("n1", "n2")
    assert parse.nodes("") == ()


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_recorded_answer_can_be_read(name: str) -> None:
    text = RECORDED[name]["stdout"]
    document = parse.document(text)
    jobs = parse.plain(text) if document is None else parse.entries(document, "Jobs")
    for status in parse.statuses(jobs).values():
        assert status.name
        assert (status.ending is not None) == (status.phase is Phase.ENDED)
    for ident, record in jobs.items():
        assert parse.cluster_job(ident, record).user == "hpcuser"


@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("haz-") and "submit" not in name])
def test_recorded_environments_do_no_harm(name: str) -> None:
    assert sighted(name).phase is Phase.PENDING


def test_the_release_prints_documents_that_are_no_json() -> None:
    assert parse.document(capture("qstat-v23.06.06/env-hazards")["stdout"]) is None


def test_plain_form_says_the_same() -> None:
    seen = parse.statuses(parse.plain(capture("two-ids-plain")["stdout"]))
    assert [(item.id, item.name, item.phase) for item in seen.values()] == [
        ("1055.pbshost", "two", Phase.PENDING),
        ("1056.pbshost", "two", Phase.PENDING),
    ]


PLAIN = """Job Id: 5.host
    Job_Name = edb-a-1
    Job_Owner = me@host
    job_state = R
    substate = 42
    Resource_List.ncpus = 4
    Variable_List = PBS_O_HOME=/home/me,PBS_O_LANG=C,
\tPBS_O_PATH=/usr/bin,A=1
    Submit_arguments = -N edb-a-1
    project = _pbs_project_default

"""


def test_plain_form_cannot_be_forged_by_an_environment() -> None:
    assert parse.statuses(parse.plain(PLAIN))["5.host"].phase is Phase.RUNNING
    assert parse.plain(PLAIN + PLAIN).keys() == {"5.host"}
    # Line breaks in somebody's environment make it look as if jobs were told there.
    lie = PLAIN.replace("job_state = R", "job_state = F").replace("= 42", "= 92\n    Exit_status = 0")
    other = PLAIN.replace("5.host", "6.host")
    forged = other.replace("A=1\n", f"A=1\n{lie}")
    assert "5.host" not in parse.plain(PLAIN + forged)
    assert "5.host" not in parse.plain(forged + PLAIN)
    inside = PLAIN.replace("A=1\n", "A=1\n    job_state = F\n    substate = 92\n    Exit_status = 0\n")
    assert parse.statuses(parse.plain(inside))["5.host"].phase is Phase.RUNNING


def test_plain_form_cut_short_is_not_believed() -> None:
    for length in range(len(PLAIN) - 1):
        assert parse.plain(PLAIN[:length]) == {}, PLAIN[:length]


def test_a_job_told_twice_differently_is_not_told() -> None:
    text = '{"Jobs": {"1.h": {"job_state": "F", "substate": 92, "Exit_status": 0}, "1.h": {"job_state": "R"}}}'
    document = parse.document(text)
    assert document is not None
    assert parse.entries(document, "Jobs") == {}


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        ({"Exit_status": 0}, E.EXITED),
        ({"Exit_status": 0, "substate": 93}, E.LOST),
        ({"Exit_status": 0, "substate": 91}, E.CANCELLED_EXTERNALLY),
        ({"Exit_status": 0, "substate": None}, E.LOST),
        ({}, E.LOST),
        ({"stime": ""}, E.NEVER_RAN),
        ({"substate": 91, "stime": ""}, E.CANCELLED_EXTERNALLY),
        ({"Exit_status": 265, "substate": 91}, E.CANCELLED_EXTERNALLY),
        ({"Exit_status": 265, "substate": 93}, E.SIGNALLED),
        ({"Exit_status": -29, "substate": 93}, E.TIMEOUT),
        ({"Exit_status": -28, "substate": 93}, E.TIMEOUT),
        ({"Exit_status": -27, "substate": 93}, E.OUT_OF_MEMORY),
        ({"Exit_status": -26, "substate": 93}, E.OUT_OF_MEMORY),
        ({"Exit_status": -20, "substate": 93}, E.NODE_FAIL),
        ({"Exit_status": -4, "substate": 93}, E.NODE_FAIL),
        ({"Exit_status": -3, "substate": 93}, E.START_FAILED),
        ({"Exit_status": -999, "substate": 93}, E.START_FAILED),
        ({"Exit_status": 271, "substate": 93, "comment": "Job run at x and exceeded resource mem"}, E.OUT_OF_MEMORY),
        ({"Exit_status": 271, "substate": 93, "comment": "Job run at x and exceeded resource walltime"}, E.TIMEOUT),
        ({"Exit_status": 271, "substate": 93, "comment": "Job run and terminated by me@h"}, E.CANCELLED_EXTERNALLY),
    ],
)  # fmt: skip
def test_what_an_end_means(fields: dict[str, object], ending: Ending) -> None:
    assert one(**fields).ending is ending


def test_said() -> None:
    assert parse.end_in_output("start\n=>> PBS: job killed: walltime 10 exceeded limit 3\n") == (
        E.TIMEOUT,
        "=>> PBS: job killed: walltime 10 exceeded limit 3",
    )
    assert (parse.end_in_output("=>> PBS: job killed: mem 2048kb exceeded limit 1024kb") or [None])[
        0
    ] is E.OUT_OF_MEMORY
    assert (parse.end_in_output("Cgroup mem limit exceeded: oom-kill") or [None])[0] is E.OUT_OF_MEMORY
    assert parse.end_in_output("my program: walltime exceeded limit") is None
    assert parse.end_in_output("") is None


def test_recorded_output_of_a_job_beyond_its_limit() -> None:
    found = parse.end_in_output(capture("walltime-files")["stdout"])
    assert found is not None
    assert found[0] is E.TIMEOUT


def figures(queues: str, nodes: str) -> dict[str, Any]:
    documents = [parse.document(capture(name)["stdout"]) for name in (queues, nodes)]
    assert documents[0] is not None
    assert documents[1] is not None
    found = tables.partitions(parse.entries(documents[0], "Queue"), parse.entries(documents[1], "nodes"), "workq")
    return {partition.name: partition for partition in found}


@pytest.mark.parametrize(
    ("queues", "nodes", "used"),
    [("queues-json", "nodes-json", 2), ("qstat-v23.06.06/queues", "qstat-v23.06.06/nodes", 0)],
)
def test_recorded_queues(queues: str, nodes: str, used: int) -> None:
    found = figures(queues, nodes)
    assert {name: item.state for name, item in found.items()} == {
        "workq": "up",
        "small": "up",
        "stopped": "down",
        "disabled": "drain",
    }
    workq = found["workq"]
    assert workq.is_default
    assert (workq.nodes_total, workq.cores_total, workq.cores_used, workq.cores_free) == (1, 4, used, 4 - used)
    assert (workq.nodes_used, workq.nodes_free) == ((1, 0) if used else (0, 1))
    assert workq.memory_total_bytes == 24684084 * 1024
    assert (found["small"].time_limit, workq.time_limit) == (600, None)


def test_a_node_that_is_down_is_not_free() -> None:
    workq = figures("queues-json", "nodes-down-json")["workq"]
    assert (workq.nodes_total, workq.nodes_free, workq.cores_free) == (1, 0, 0)


def test_nodes_of_a_queue_are_its_own() -> None:
    def node(host: str, **fields: object) -> dict[str, object]:
        resources = {"host": host, "ncpus": "8", "mem": "64gb"}
        return {"state": "free", "resources_available": resources, "resources_assigned": {}, **fields}

    nodes = {
        "a[0]": node("a"),
        "a[1]": node("a", state="job-busy", resources_assigned={"ncpus": 8}),
        "b": node("b", queue="big"),
        "c": node("c", state="offline,job-busy"),
    }
    queues = {"workq": {"queue_type": "Execution"}, "big": {}, "way": {"queue_type": "Route", "started": "False"}}
    found = {item.name: item for item in tables.partitions(queues, nodes, "way")}
    workq, big, way = found["workq"], found["big"], found["way"]
    assert (workq.nodes_total, workq.nodes_used, workq.nodes_free) == (2, 2, 0)
    assert (workq.cores_total, workq.cores_used, workq.cores_free) == (24, 8, 8)
    assert (big.nodes_total, big.nodes_free, big.memory_total_bytes) == (1, 1, 64 * GB)
    assert (way.nodes_total, way.state, way.is_default) == (0, "down", True)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("2b", 2), ("3kb", 3072), ("4MB", 4 << 20), ("5gb", 5 * GB), ("1tb", GB << 10), ("2kw", 16384),
     ("1w", 8), ("", 0), ("many", 0), ("-3kb", 0)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert tables.size_bytes(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("00:10:00", 600), ("90", 90), ("2:30", 150), ("", 0), ("x:y", 0)])
def test_durations(text: str, seconds: int) -> None:
    assert tables.duration_seconds(text) == seconds


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["job_state", "substate", "Exit_status", "comment", "stime", "exec_host", "Job_Name", "qtime", "Hold_Types",
         "depend", "Resource_List", "obittime", "history_timestamp", "queue", "state", "resources_available"]
    ),
    VALUES | st.sampled_from(["F", "Q", "E", "R", 0, 92, "92", "Mon Nov 23 13:03:46 2026"]),
)  # fmt: skip


@given(st.text())
def test_garbage_is_no_end(text: str) -> None:
    document = parse.document(text)
    assert parse.statuses(parse.entries(document or {}, "Jobs")) == {}
    assert parse.statuses(parse.plain(text)) == {}
    parse.end_in_output(text)


@given(FIELDS)
def test_odd_records_are_read(fields: dict[str, Any]) -> None:
    parse.cluster_job("1.h", fields)
    tables.partitions({"q": fields}, {"n": fields}, "q")
    for status in parse.statuses({"1.h": fields}).values():
        success = status.ending is Ending.EXITED and status.exit_code == 0
        proven = (str(fields.get("job_state")), str(fields.get("substate")), str(fields.get("Exit_status")))
        assert not success or proven == ("F", "92", "0")


@given(FIELDS, st.integers(min_value=0))
def test_a_document_cut_short_is_not_read(fields: dict[str, Any], cut: int) -> None:
    text = json.dumps({"Jobs": {"1.h": fields}})
    assert parse.document(text[: cut % len(text)]) is None
