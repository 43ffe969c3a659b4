"""Progress is told from the log while it grows, and no number is made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from edbjobs_server.solver import progress as progress_module
from edbjobs_server.solver.batch_log import LogReader
from edbjobs_server.solver.progress import LogFollower, Progress, progress
from edbjobs_server.solver.setups import Setup, Sweep

STAMP = "(9:41:40 PM  Mar 17, 2023)"
START = "Starting Batch Run: 9:40:00 PM  Mar 17, 2023\n"
ONE = (Setup("d", "S1", "5GHz", 10, 0.01, (Sweep("Sw", "discrete", 4),)),)


def line(setup: str, text: str, kind: str = "PROFILE") -> str:
    return f"[info] Project:p, {setup} : [{kind}] {text} {STAMP}\n"


def converge(number: int, delta: str, setup: str = "S1") -> str:
    return line(setup, f"Pass Number:  {number};  Solved Elements:  900;  Max Mag. Delta S:  {delta};  ", "CONVERGE")


def after(text: str, setups: tuple[Setup, ...] = ONE) -> Progress:
    return progress(LogReader().feed((START + text).encode()), setups)


def test_progress_is_empty_before_the_first_line_of_a_setup() -> None:
    assert after("[info] x\n") == Progress()


def test_passes() -> None:
    found = after(line("S1", "Adaptive Pass 1 : Frequency: 5GHz") + converge(1, "N/A"))
    assert (found.setup, found.phase, found.last_pass, found.max_passes) == ("S1", "adaptive", 1, 10)
    assert found.current_pass is None, "the pass has ended and the next one has not started"
    assert (found.delta, found.target_delta, found.elements) == (None, 0.01, 900)
    assert found.fraction == pytest.approx(0.15)
    found = after(line("S1", "Adaptive Pass 3 : Frequency: 5GHz") + converge(3, "0.1"))
    assert (found.last_pass, found.delta) == (3, 0.1)
    assert found.fraction == pytest.approx(0.35), "delta S has gone half the way, by its logarithm"
    going_on = after(converge(2, "0.3") + line("S1", "Adaptive Pass 3 : F"), ())
    assert (going_on.last_pass, going_on.current_pass, going_on.fraction) == (2, 3, None)
    assert (going_on.max_passes, going_on.frequencies_solved, going_on.frequencies_total) == (None, None, None)


def test_a_discrete_sweep_has_a_total_and_an_interpolating_one_has_none() -> None:
    sweep = line("S1", "Solution - Sw : Discrete HFSS Frequency Sweep, x") + line(
        "S1", "From 1GHz to 2GHz, 4 Frequencies"
    )
    sweep += line("S1", "Frequency - 1GHz : h") + line("S1", "Frequency - 1GHz : Elapsed time : 00:00:01")
    found = after(sweep)
    assert (found.setup, found.sweep, found.phase) == ("S1", "Sw", "sweep")
    assert (found.frequencies_solved, found.frequencies_total) == (1, 4)
    assert found.fraction == pytest.approx(0.6 + 0.35 / 4)
    found = after(sweep.replace("Discrete", "Interpolating"))
    assert (found.frequencies_solved, found.frequencies_total, found.fraction) == (1, None, None)


def test_several_setups_share_the_whole() -> None:
    two = (Setup("d", "S1", "", 10, 0.01), Setup("d", "S2", "", 10, 0.01))
    done = line("S1", "Solution Process : Stop Time: x, Status: Normal Completion")
    assert after(done, two).fraction == pytest.approx(0.5)
    assert (after(done, ()).fraction, after(done, ()).phase) == (None, "done")
    assert after(done + converge(5, "N/A", "S2") + line("S2", "Adaptive Pass 6 : F"), two).fraction == pytest.approx(
        0.675
    )
    end = line("S2", "Solution Process : Stop Time: x, Status: Normal Completion")
    assert (after(done + end, two).fraction, after(done + end, two).phase) == (1.0, "done")


def test_a_growing_log_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    follower = LogFollower(path)
    assert not follower.poll().started
    path.write_text(START + converge(1, "N/A")[:20])
    assert follower.poll().setups == {}
    with path.open("a") as file:
        file.write(converge(1, "N/A")[20:])
    assert follower.poll().setups["S1"].passes_done == 1
    assert follower.poll().setups["S1"].passes_done == 1


def test_a_log_that_is_cut_or_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(START + converge(1, "N/A") + converge(2, "0.5"))
    follower = LogFollower(path)
    assert follower.poll().setups["S1"].passes_done == 2
    path.write_text(START + converge(3, "0.4"))
    assert follower.poll().setups["S1"].passes_done == 3
    other = tmp_path / "b.log"
    other.write_text(START + converge(7, "0.1", "S2") * 9)
    assert other.stat().st_size > path.stat().st_size
    other.replace(path)
    assert {name: setup.passes_done for name, setup in follower.poll().setups.items()} == {"S2": 7}


def test_a_poll_reads_a_bounded_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "POLL_LIMIT", 300)
    path = tmp_path / "a.log"
    path.write_text(START + "".join(converge(number, "0.1") for number in range(1, 31)))
    follower = LogFollower(path)
    first = follower.poll().setups["S1"].passes_done
    assert 1 <= first < 5
    for _ in range(30):
        follower.poll()
    assert follower.poll().setups["S1"].passes_done == 30


def test_a_log_that_is_written_anew_and_is_longer_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(START + converge(1, "N/A"))
    follower = LogFollower(path)
    assert follower.poll().setups["S1"].passes_done == 1
    path.write_text(START + converge(2, "0.5", "S2") * 9)
    assert list(follower.poll().setups) == ["S2"]
