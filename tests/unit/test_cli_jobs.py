"""How the command prints jobs; nothing runs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs import _models as m
from edbjobs._enums import EndReason, Evidence, JobState, WaitingReason
from edbjobs.cli._jobs import EVIDENCE, _facts
from edbjobs.cli._output import COLORS, job_table, show_pairs
from rich.console import Console

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
LATER = NOW + timedelta(minutes=2)
LONG = "board-with-a-long-name-cutout-17-variant-b-of-many"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edbjobs.cli._jobs.local_time", lambda time: f"{time:%H:%M}" if time else "")


def job(state: JobState, name: str = "j", **more: Any) -> m.Job:
    return m.Job("u", name, state, create_time=NOW, user="ann", project_path=f"/data/{name}.aedb", **more)


def facts(state: JobState, **more: Any) -> dict[str, object]:
    return {name: value for name, value in _facts(job(state, **more)).items() if value not in ("", [], None)}


def ended(reason: EndReason, **more: Any) -> dict[str, object]:
    outcome = m.Outcome(reason, "what happened", evidence=more.pop("evidence", Evidence.SERVICE))
    return facts(JobState.FAILED, end_time=LATER, outcome=outcome, **more)


def test_the_table_fits_80_columns_and_names_every_job() -> None:
    waiting = m.Waiting(WaitingReason.JOB_LIMIT, "1 of 1 runs are going on, as many as are allowed here", 12)
    outcome = m.Outcome(EndReason.LICENSE, "Failed to check out license 'hfss_solve'.\nsecond line")
    jobs = [
        job(JobState.QUEUED, LONG, waiting=waiting, priority=5),
        job(JobState.FAILED, "bad", start_time=NOW, end_time=LATER, outcome=outcome),
        job(JobState.UNKNOWN, "newer"),
    ]
    screen = Console(width=80, highlight=False)
    with screen.capture() as printed:
        screen.print(job_table(jobs))
    lines = printed.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert "second line" not in printed.get()
    assert LONG in "".join(line.split()[0] for line in lines[1:3])
    assert "p5 1 of" in lines[1]
    assert "2m00s  bad.aedb" in lines[3]
    assert "(license)" in lines[3]
    assert "unknown" in lines[4]


def test_every_state_has_a_color_and_every_evidence_a_text() -> None:
    assert set(COLORS) == {state.value for state in JobState} - {"unknown"}
    assert set(EVIDENCE) == {evidence.value for evidence in Evidence} - {"unknown"}


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        (m.Waiting(WaitingReason.HELD), "held"),
        (m.Waiting(WaitingReason.CORES, "8 of 4", 0), "8 of 4"),
        (m.Waiting(WaitingReason.CORES, "8 of 4", 1), "8 of 4, 1 job before it"),
        (m.Waiting(WaitingReason.NOT_BEFORE, "not before 2026-01-01 00:02:00 UTC", 2, None, LATER), "not before 00:02"),
        (m.Waiting(WaitingReason.BACK_OFF, "no license", None, None, LATER), "no license, next attempt 00:02"),
        (m.Waiting(WaitingReason.UNKNOWN, "the moon is full"), "the moon is full"),
    ],
)
def test_what_a_job_waits_for(waiting: m.Waiting, text: str) -> None:
    assert str(facts(JobState.QUEUED, waiting=waiting)["waits for"]).startswith(text)


def test_an_end_has_its_message_evidence_and_time() -> None:
    found = ended(EndReason.TIMEOUT, start_time=NOW)
    assert (found["message"], found["evidence"]) == ("what happened", "the service itself")
    assert found["ended"] == "00:02 after 2m00s"
    assert ended(EndReason.CANCELLED)["ended"] == "00:02, it never ran"
    assert ended(EndReason.TIMEOUT, evidence=Evidence.UNKNOWN)["evidence"] is Evidence.UNKNOWN
    assert "evidence" not in ended(EndReason.TIMEOUT, evidence=None)


def test_attempts_say_how_they_ended() -> None:
    failed = m.Outcome(EndReason.NOT_STARTED)
    attempts = (
        m.Attempt(1, NOW, None, NOW, outcome=failed),
        m.Attempt(2, NOW, NOW, LATER, ("n1", "n2"), 4711, outcome=m.Outcome(EndReason.NODE_FAIL)),
        m.Attempt(3, NOW, LATER, None, ("n3",), run_directory="/runs/1.3"),
    )
    found = facts(JobState.RUNNING, attempts=attempts)
    assert found["attempts"] == [
        "1: never ran, not started",
        "2: 00:00, node fail after 2m00s, on n1, n2 (pid 4711)",
        "3: 00:02, on n3",
    ]
    assert found["logs"] == "/runs/1.3"


def test_a_reservation_names_what_is_reserved() -> None:
    assert "reserves" not in facts(JobState.QUEUED)
    reservation = m.Reservation(8, 16 << 30, {"hfss_solve": 2})
    assert facts(JobState.QUEUED, reservation=reservation)["reserves"] == "8 cores, 16.0 GiB, 2 hfss_solve"
    assert facts(JobState.QUEUED, reservation=m.Reservation(1))["reserves"] == "1 core"


def test_facts_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show_pairs(facts(JobState.QUEUED, superseded_by="f" * 32))
    assert f"superseded by  {'f' * 32}" in capsys.readouterr().out
