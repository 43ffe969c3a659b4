"""A run is called successful only on proof; every other end has the most telling reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending, RunEnded, RunKey
from edbjobs_server.core.states import Evidence, Reason, State
from edbjobs_server.solver import batch_log as log_module
from edbjobs_server.solver.batch_log import find_log
from edbjobs_server.solver.demo.journal import clock
from edbjobs_server.solver.request import SolveRequest
from edbjobs_server.solver.verdict import Verdict, judge

STAMP = "(9:41:40 PM  Mar 17, 2023)"
NOW = 1_700_000_000.4
PASS = f"[info] Project:p, S1 : [CONVERGE] Pass Number:  2;  Solved Elements:  900;  Max Mag. Delta S:  0.01; {STAMP}"
S1 = f"[info] Project:p, S1 : [PROFILE] Solution Process : Stop Time: x, Status: Normal Completion {STAMP}"
S2 = S1.replace(" S1 ", " S2 ")
MESSAGE = f"[info] Project:p, Design:d, Normal completion of simulation on server: h. {STAMP}"
STOP = "Stopping Batch Run: 9:50:00 PM  Mar 17, 2023"
LICENSE = f"[error] Project:p, Design:d, Simulation was terminated by license error. {STAMP}"
CRASH = f"[error] Project:p, Design:d, process hf3d exited with code 259. {STAMP}"
ABORT = f"[error] Project:p, Design:d, Simulation was aborted by user on server: h. {STAMP}"
ODD = f"[error] Project:p, Design:d, Null body found for part X. {STAMP}"

Run = Callable[..., Verdict]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Judge a run that left this log and this output; log=None: no log at all."""
    project = tmp_path / "p.aedt"
    project.touch()
    path = find_log(project, "j1")

    def judged(
        log: list[str] | None = None, *, code: int | None = 0, ending: Ending = Ending.EXITED,
        signal: int | None = None,
        stdout: str | None = "", stderr: str = "", at: float = NOW, mtime: float | None = None, message: str = "",
        same_host: bool = True, start: str | None = None, start_time: float | None = NOW, by_scheduler: bool = False,
        stem: str = "p", **asked: Any,
    ) -> Verdict:  # fmt: skip
        if log is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join([f"Starting Batch Run: {start or clock(at)}", *log, ""]))
            os.utime(path, (mtime or at + 60, mtime or at + 60))
        if stdout is not None:
            (tmp_path / "stdout").write_text(stdout)
        (tmp_path / "stderr").write_text(stderr)
        ended = RunEnded(
            RunKey(1, "u", 1),
            ending,
            NOW + 60,
            start_time,
            code,
            signal,
            message=message,
            by_scheduler=by_scheduler,
        )
        solved = project.with_stem(stem) if stem else tmp_path / "unmounted" / "p.aedt"
        if stem and not solved.is_symlink():
            solved.touch()
        return judge(
            ended, project_path=solved, job_name="j1",
            stdout=tmp_path / "stdout", stderr=tmp_path / "stderr", request=SolveRequest(**asked), same_host=same_host,
        )  # fmt: skip

    return judged


def summary(verdict: Verdict) -> tuple[State, Reason, Evidence]:
    return verdict.reason.state, verdict.reason, verdict.evidence


PROVEN = (State.COMPLETED, Reason.NORMAL, Evidence.SOLVER_LOG)
BY_CODE = (State.COMPLETED, Reason.NORMAL, Evidence.EXIT_CODE)


def failed(reason: Reason, evidence: Evidence = Evidence.SOLVER_LOG) -> tuple[State, Reason, Evidence]:
    return State.FAILED, reason, evidence


@pytest.mark.parametrize(
    ("log", "config", "expected"),
    [
        ([PASS, S1, MESSAGE, STOP], {}, PROVEN),
        ([PASS, S1], {}, PROVEN),
        ([PASS, MESSAGE, STOP], {}, PROVEN),
        ([MESSAGE, STOP], {}, PROVEN),
        ([S1, S2, STOP], {"design": "d", "setup": "S2"}, PROVEN),
        ([PASS, S2, STOP], {"design": "d", "setup": "S2"}, PROVEN),
        ([S1, ODD, STOP], {}, PROVEN),
        ([PASS, S2, STOP], {}, failed(Reason.UNVERIFIED)),
        ([PASS], {}, failed(Reason.UNVERIFIED)),
        ([PASS, STOP], {}, failed(Reason.UNVERIFIED)),
        ([S1.replace("Normal Completion", "Aborted"), STOP], {}, failed(Reason.UNVERIFIED)),
        ([], {}, failed(Reason.UNVERIFIED)),
        ([STOP], {}, failed(Reason.NOTHING_SOLVED)),
        ([S1, STOP], {"design": "d", "setup": "S2"}, failed(Reason.NOTHING_SOLVED)),
        ([S1], {"design": "d", "setup": "S2"}, failed(Reason.UNVERIFIED)),
        ([S1, MESSAGE, STOP], {"design": "d", "setup": "S2"}, failed(Reason.NOTHING_SOLVED)),
        ([LICENSE, STOP], {}, failed(Reason.LICENSE)),
        ([CRASH, STOP], {}, failed(Reason.SOLVER_ERROR)),
        ([ABORT, STOP], {}, failed(Reason.SOLVER_ERROR)),
        ([CRASH, S1, MESSAGE, STOP], {}, failed(Reason.SOLVER_ERROR)),
        ([LICENSE, S1, STOP], {}, failed(Reason.LICENSE)),
        ([LICENSE, S1, STOP], {"wait_for_license": True}, PROVEN),
        ([LICENSE, STOP], {"wait_for_license": True}, failed(Reason.LICENSE)),
        (None, {}, BY_CODE),
        ([STOP], {"validate_only": True}, PROVEN),
        ([ODD, STOP], {"validate_only": True}, failed(Reason.UNVERIFIED)),
        ([], {"validate_only": True}, failed(Reason.UNVERIFIED)),
    ],
)
def test_exit_code_0(run: Run, log: list[str] | None, config: dict[str, Any], expected: tuple[Any, ...]) -> None:
    verdict = run(log, **config)
    assert summary(verdict) == expected
    assert verdict.exit_code == 0
    assert (verdict.log_path is None) is (log is None)


def test_variations(run: Run) -> None:
    wish = {"design": "d", "optimetrics": True, "setup": "Par1"}
    done = f"[info] Project:p, Design:d, Parametric Analysis on Par1 is done. {STAMP}"
    assert summary(run([S1, MESSAGE, done, STOP], **wish)) == PROVEN
    assert run([S1, MESSAGE, STOP], **wish).reason is Reason.UNVERIFIED
    assert run([PASS, done, STOP], **wish).reason is Reason.UNVERIFIED
    assert run([STOP], **wish).reason is Reason.NOTHING_SOLVED


@pytest.mark.parametrize(
    ("log", "output", "expected"),
    [
        ([LICENSE], "", failed(Reason.LICENSE)),
        ([CRASH, LICENSE], "", failed(Reason.SOLVER_ERROR)),
        ([S1, STOP], "", failed(Reason.EXIT_CODE, Evidence.EXIT_CODE)),
        (None, "", failed(Reason.EXIT_CODE, Evidence.EXIT_CODE)),
        (None, "FlexNet Licensing error:-5", failed(Reason.LICENSE)),
        ([PASS], "FlexNet Licensing error:-5", failed(Reason.LICENSE)),
        ([PASS], "an error that failed", failed(Reason.EXIT_CODE, Evidence.EXIT_CODE)),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_another_exit_code(
    run: Run, log: list[str] | None, output: str, stream: str, expected: tuple[Any, ...]
) -> None:
    verdict = run(log, code=7, **{stream: output})
    assert summary(verdict) == expected
    assert verdict.exit_code == 7
    assert "exit code 7" in verdict.message


def test_the_first_fatal_line_is_reported(run: Run) -> None:
    assert "process hf3d exited with code 259" in run([CRASH, LICENSE]).message
    assert "Null body found" in run([PASS, ODD]).message
    assert "S1: normal completion after 2 adaptive passes, delta S 0.01" in run([PASS, S1]).message


def test_an_exit_code_of_a_shell_after_a_signal(run: Run) -> None:
    assert "signal 9" in run([PASS], code=137).message
    assert "signal" not in run([PASS], code=7).message


@pytest.mark.parametrize(
    ("ending", "signal", "expected"),
    [
        (Ending.CANCELLED, 15, (State.CANCELLED, Reason.CANCELLED, Evidence.SERVICE)),
        (Ending.TIMEOUT, 15, failed(Reason.TIMEOUT, Evidence.SERVICE)),
        (Ending.SIGNALLED, 9, failed(Reason.SIGNAL, Evidence.EXIT_CODE)),
        (Ending.LOST, None, failed(Reason.LOST, Evidence.NONE)),
        (Ending.START_FAILED, None, failed(Reason.START_FAILED, Evidence.SERVICE)),
        (Ending.NEVER_RAN, None, failed(Reason.START_FAILED, Evidence.SERVICE)),
    ],
)
def test_other_endings(run: Run, ending: Ending, signal: int | None, expected: tuple[Any, ...]) -> None:
    for log in (None, [PASS], [S1, STOP], [LICENSE], [ABORT]):
        verdict = run(log, ending=ending, code=None, signal=signal, message="why")
        assert summary(verdict) == expected
        assert verdict.signal == signal
        assert "why" in verdict.message


def test_the_logs_fatal_line_is_reported_with_other_endings(run: Run) -> None:
    lost = {"ending": Ending.LOST, "code": None}
    assert "normal end" in run([S1, STOP], **lost).message
    assert "license error" in run([LICENSE, STOP], **lost).message
    assert "log" not in run([PASS], **lost).message
    assert "aborted" not in run([ABORT, STOP], ending=Ending.CANCELLED, code=None).message


UNPLACED = failed(Reason.UNVERIFIED, Evidence.EXIT_CODE)


def test_only_what_is_newer_than_the_start_is_proof(run: Run) -> None:
    for log in ([S1, STOP], [PASS], [CRASH, STOP]):
        verdict = run(log, at=NOW - 10)
        assert summary(verdict) == UNPLACED
        assert "was the clock changed?" in verdict.message
        assert "the run started at" in verdict.message
    assert "process hf3d exited" in run([CRASH, STOP], at=NOW - 10).message
    assert summary(run([S1, STOP], at=NOW - 10, mtime=NOW + 60)) == UNPLACED, "a copied file is new but tells its age"
    assert summary(run([S1, STOP], at=NOW + 30, mtime=NOW - 60)) == PROVEN, "a file server's clock may be behind"
    assert run([S1, STOP], at=NOW - 10, code=1).reason is Reason.EXIT_CODE


def test_without_a_readable_clock_or_on_another_host_the_file_time_decides(run: Run) -> None:
    strange = "21:40:00 17.03.2023"
    assert summary(run([S1, STOP], start=strange, mtime=NOW + 9)) == PROVEN
    assert summary(run([S1, STOP], start=strange, mtime=NOW - 9)) == UNPLACED
    other_zone = clock(NOW - 7 * 3600)
    assert summary(run([S1, STOP], start=other_zone, same_host=False)) == PROVEN
    assert summary(run([S1, STOP], start=other_zone, same_host=False, mtime=NOW - 600)) == UNPLACED
    assert summary(run([S1, STOP], same_host=False, mtime=NOW - 600)) == PROVEN, "a file server's clock may be wrong"


def test_a_log_that_does_not_show_a_start_is_no_proof_and_no_lack_of_a_log(run: Run, tmp_path: Path) -> None:
    log = find_log(tmp_path / "p.aedt", "j1")
    log.parent.mkdir()
    for text in ("", S1, f"{CRASH}\n"):
        log.write_text(text)
        verdict = run(None)
        assert summary(verdict) == UNPLACED
        assert "does not show that the run started" in verdict.message
    assert summary(run(None, stdout=f"Starting Batch Run: x\n{S1}\n{STOP}\n")) == PROVEN
    assert run(None, code=3).reason is Reason.EXIT_CODE


def test_without_a_known_start_a_log_is_no_proof(run: Run) -> None:
    verdict = run([S1, STOP], start_time=None)
    assert summary(verdict) == UNPLACED
    assert "not known when the run started" in verdict.message


def test_without_its_project_a_missing_log_is_no_evidence(run: Run, tmp_path: Path) -> None:
    run(None)
    verdict = run(None, stem="")
    assert summary(verdict) == UNPLACED
    assert "its project is not there any more" in verdict.message


def test_the_schedulers_message_is_reported(run: Run) -> None:
    assert run([PASS], at=NOW - 600, by_scheduler=True).evidence is Evidence.SCHEDULER


def test_a_moved_project_is_not_judged_by_a_log(run: Run, tmp_path: Path) -> None:
    assert summary(run([S1, STOP])) == PROVEN
    (tmp_path / "other.aedt").touch()
    (tmp_path / "p.aedt").unlink()
    (tmp_path / "p.aedt").symlink_to("other.aedt")
    for log, ending in ((None, Ending.EXITED), ([S1, STOP], Ending.EXITED)):
        verdict = run(log, ending=ending, stdout=f"Starting Batch Run: x\n{S1}\n{STOP}\n")
        assert summary(verdict) == UNPLACED
        assert f"p.aedt now leads to {tmp_path}/other.aedt" in verdict.message
    verdict = run([S1, STOP], ending=Ending.CANCELLED, code=None)
    assert (verdict.reason.state, "now leads to" in verdict.message) == (State.CANCELLED, True)


def test_of_a_log_that_was_not_read_whole_its_end_must_say_that_all_was_solved(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "READ_LIMIT", 4096)
    monkeypatch.setattr(log_module, "HEAD", 1024)
    middle = ["[info] x"] * 2000
    assert summary(run([*middle, S1, MESSAGE, STOP])) == PROVEN
    assert "was not read" in run([*middle, S1, MESSAGE, STOP]).message
    assert summary(run([*middle, S1, STOP])) == failed(Reason.UNVERIFIED)
    assert summary(run([*middle, S1, STOP], design="d", setup="S1")) == PROVEN


def test_the_log_whose_name_is_too_long_to_exist_is_not_taken_for_missing(run: Run, tmp_path: Path) -> None:
    verdict = run(None, stem="s" * 248)
    assert summary(verdict) == UNPLACED
    assert "its name is longer than the file system allows" in verdict.message


def test_printed_with_monitor_is_as_good_as_the_log(run: Run) -> None:
    printed = f"demo solver\nStarting Batch Run: x\n{S1}\n{STOP}\n"
    verdict = run(None, stdout=printed)
    assert summary(verdict) == PROVEN
    assert verdict.log_path is not None
    assert verdict.log_path.name == "stdout"
    assert run(None, stdout=f"Starting Batch Run: x\n{PASS}\n").reason is Reason.UNVERIFIED
    assert run(None, stdout="FlexNet Licensing error:-5\n").reason is Reason.LICENSE


def test_where_there_is_a_log_the_output_adds_nothing_to_exit_code_0(run: Run) -> None:
    assert summary(run([S1, STOP], stdout="FlexNet Licensing error:-5\n")) == PROVEN


def test_missing_output_is_no_hindrance(run: Run) -> None:
    assert summary(run(None, stdout=None)) == BY_CODE


def test_a_log_that_cannot_be_read_proves_nothing(run: Run, tmp_path: Path) -> None:
    find_log(tmp_path / "p.aedt", "j1").mkdir(parents=True)
    verdict = run(None)
    assert summary(verdict) == failed(Reason.UNVERIFIED, Evidence.EXIT_CODE)
    assert "cannot be read" in verdict.message
    assert run(None, code=3).reason is Reason.EXIT_CODE
    assert run(None, ending=Ending.CANCELLED, code=None).reason.state is State.CANCELLED
    assert summary(run(None, stdout=f"Starting Batch Run: x\n{S1}\n{STOP}\n")) == PROVEN
