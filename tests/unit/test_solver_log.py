"""The reader takes AEDT's log as it really is: appended to, cut off, with stray bytes and lines of several lines."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import pytest
from edbjobs_server.solver import batch_log as log_module
from edbjobs_server.solver.batch_log import LogReader, Segment, find_log, read_log, start_times
from edbjobs_server.solver.fatal import FatalKind
from edbjobs_server.util import files
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample logs are not beside this checkout")
STAMP = "(9:41:40 PM  Mar 17, 2023)"
START = "Starting Batch Run: 9:40:00 PM  Mar 17, 2023"
NORMAL = f"[info] Project:p, S1 : [PROFILE] Solution Process : Stop Time: x, Status: Normal Completion {STAMP}"


def take(*lines: str, reader: LogReader | None = None) -> Segment:
    reader = reader or LogReader()
    reader.feed(("\n".join(lines) + "\n").encode())
    return reader.end()


def converge(number: int, delta: str) -> str:
    text = f"Pass Number:  {number};  Solved Elements:  {number}000;  Max Mag. Delta S:  {delta};"
    return f"[info] Project:p, S1 : [CONVERGE] {text}  Delta Output Var:  N/A;   {STAMP}"


@needs_samples
def test_the_real_log_that_is_cut_off() -> None:
    found = read_log(SAMPLES / "hfss-3dlayout-2025r2-truncated.log")
    assert found.started
    assert not found.finished
    assert found.start == (2025, 10, 12, 11, 55, 29)
    assert (found.fatal, found.errors, found.normal_messages) == (None, 0, 0)
    setup = found.setups["HFSS_Solution"]
    assert list(found.setups) == ["HFSS_Solution"]
    assert (setup.passes_done, setup.elements, setup.delta_s, setup.converged) == (8, 65671, 0.017318, True)
    assert (setup.sweep, setup.sweep_kind, setup.points, setup.frequencies) == ("Sweep1", "interpolating", 201, 4)
    assert (setup.phase, setup.normal, setup.status) == ("sweep", False, "")


@needs_samples
@pytest.mark.parametrize(
    ("name", "start", "setup"),
    [
        ("lsf_auto_header_pyaedt2648.log", (2023, 3, 17, 20, 22, 43), "Pyaedt_Setup"),
        ("lsf_manual_header_pyaedt2648.log", (2023, 3, 18, 22, 7, 18), "Pyaedt_setup"),
    ],
)
def test_the_real_headers_of_a_cluster(name: str, start: tuple[int, ...], setup: str) -> None:
    found = read_log(SAMPLES / name)
    assert found.start == start
    assert found.setups[setup].points == 792
    assert found.fatal is None


def test_only_the_last_run_counts() -> None:
    found = take(
        START, f"[error] Project:p, Design:d, Simulation was terminated by license error. {STAMP}",
        "Stopping Batch Run: 9:41:00 PM  Mar 17, 2023",
        "Starting Batch Run: 10:00:00 PM  Mar 17, 2023", NORMAL,
    )  # fmt: skip
    assert found.fatal is None
    assert found.setups["S1"].normal
    assert not found.finished
    found = take(START, NORMAL, "Starting Batch Run: 10:00:00 PM  Mar 17, 2023")
    assert found.setups == {}


def test_a_setup_that_started_again_has_not_ended() -> None:
    assert take(START, NORMAL).setups["S1"].normal
    for again in ("Adaptive Pass 1 : Frequency: 1GHz", "Frequency - 1GHz : host", "Solution Process : Start Time: x"):
        found = take(START, NORMAL, f"[info] Project:p, S1 : [PROFILE] {again} {STAMP}")
        assert not found.setups["S1"].normal
    for late in ("Stop : Elapsed Time: x", "Frequency - 1GHz : Elapsed time : 00:00:01"):
        assert take(START, NORMAL, f"[info] Project:p, S1 : [PROFILE] {late} {STAMP}").setups["S1"].normal


def test_an_abnormal_status_is_kept_as_written() -> None:
    found = take(START, NORMAL.replace("Normal Completion", "Engine Detected Error"))
    assert (found.setups["S1"].status, found.setups["S1"].normal) == ("Engine Detected Error", False)
    found = take(
        START, NORMAL.replace("Normal Completion", "Aborted"),
        f"[info] Project:p, Design:d, Normal completion of simulation on server: h. {STAMP}",
    )  # fmt: skip
    assert not found.setups["S1"].normal


def test_the_message_of_the_design_ends_what_is_open() -> None:
    line = f"[info] Project:p, Design:d, Normal completion of simulation on server: Local Machine. {STAMP}"
    found = take(START, converge(1, "N/A"), line)
    assert found.setups["S1"].normal
    assert found.normal_messages == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Request name elec_solve_hfss does not exist in the licensing pool. Cannot connect", FatalKind.LICENSE),
        ("Failed.\nFeature: anshpc\nFlexNet Licensing error:-15,10.  System Error: 111", FatalKind.LICENSE),
        ("Simulation was terminated by license error.", FatalKind.LICENSE),
        ("Solving frequencies ... (Nondomain solver), process hf3d exited with code 259.", FatalKind.SOLVER),
        ("Solving, process hf3d exited with code -1073741819.", FatalKind.SOLVER),
        ("Port refinement, process hf3d error: Too few conductors were found on port 1.", FatalKind.SOLVER),
        ("Simulation has stopped since solver is hanging", FatalKind.SOLVER),
        ("Engine terminated unexpectedly", FatalKind.SOLVER),
        ("Process 'G3dMesher' terminated abnormally.", FatalKind.SOLVER),
        ("The attempted launch of solvers via MPI failed while connecting", FatalKind.SOLVER),
        ("Sweep Sweep1 failed", FatalKind.SOLVER),
        ("Simulation completed with execution error on server: Local Machine.", FatalKind.SOLVER),
        ("Simulation was aborted by user on server: Local Machine.", FatalKind.ABORT),
        ("Script macro error: The simulation for p : d has been stopped on user request", FatalKind.ABORT),
    ],
)
def test_fatal_texts(text: str, kind: FatalKind) -> None:
    found = take(START, f"[error] Project:p, Design:d, {text} {STAMP}", f"[error] Project:p, Design:d, later {STAMP}")
    assert found.fatal is not None
    assert found.fatal.kind is kind
    assert found.fatal.text == " ".join(text.split())
    assert (found.errors, found.first_error) == (2, found.fatal.text)
    for level in ("info", "warning"):
        assert take(START, f"[{level}] Project:p, Design:d, {text} {STAMP}").fatal is None


def test_healthy_texts_are_not_fatal() -> None:
    found = take(
        START,
        f"[info] Project:p, S1 : [PROFILE]   Basis Element # 5, Frequency: 1GHz; interpolation error = 5% {STAMP}",
        f"[warning] Project:p, Design:d, Interpolating frequency sweep did NOT converge. {STAMP}",
        f"[warning] Project:p, Design:d, Com Engine non-responsive since 19:04:21. {STAMP}",
        f"[error] Project:p, Design:d, Null body found for part X. {STAMP}",
        f"[error] Project:p, Design:d, process hf3d exited with code 0. {STAMP}",
        "FAILED error Error: error",
    )
    assert found.fatal is None
    assert found.errors == 2


def test_untagged_lines_of_the_output_can_be_fatal() -> None:
    assert take("some text", "FlexNet Licensing error:-5,357").fatal is not None


def test_unusual_bytes_line_ends_and_lengths() -> None:
    reader = LogReader()
    text = f"{START}\r\n\xff\xfe[info] x\r\n[info] Project:p, S\xe91 : [PROFILE]\r Adaptive Pass 2 : F {STAMP}\r\n"
    reader.feed(text.encode("latin-1"))
    reader.feed(b"x" * (log_module.LINE_LIMIT * 3))
    reader.feed(b"y" * 100 + b"\n" + converge(2, "0.5").encode() + b"\r\n")
    found = reader.end()
    assert found.setups["S\ufffd1"].adaptive_pass == 2
    assert found.setups["S1"].delta_s == 0.5


def test_any_cut_of_the_bytes_reads_the_same() -> None:
    text = "\n".join(
        [START, converge(1, "N/A"), converge(2, "0.1"), f"[error] Project:p, Design:d, a\nb {STAMP}", NORMAL]
    )
    whole = take(text)
    for size in (1, 2, 3, 7, 64):
        reader = LogReader()
        for at in range(0, len(text), size):
            reader.feed(text[at : at + size].encode())
        assert reader.end() == whole
    assert whole.setups["S1"].normal
    assert whole.first_error == "a b"


FRAGMENTS = st.sampled_from(
    [
        START.encode(), NORMAL.encode(), converge(3, "0.1").encode(), converge(1, "x").encode(), STAMP.encode(), b"\n",
        b"\r\n", b"[error] ", b"[info] Project:", b", Design:", b" : [PROFILE] ", b" : [CONVERGE] ", b"Adaptive Pass 9",
        b"Solution - S : Discrete x", b"From 99999999999999999999 Frequencies", b"Status: ", b"\xff\x00",
        b"process x exited with code 1", b"Stopping Batch Run: ", b"Starting Batch Run: 9:40:00 PM  Mar 99, 0000\n",
        *(converge(1, delta).encode() for delta in (".e+-", "1.2.3", "1e999", "-", "9" * 5000)),
        f"[info] Project:p, S1 : [PROFILE] Adaptive Pass {'9' * 5000} : x {STAMP}\n".encode(),
        f"[info] Project:p, S1 : [PROFILE] From {'9' * 5000} Frequencies {STAMP}\n".encode(),
    ]
)  # fmt: skip


@given(st.lists(FRAGMENTS | st.binary(max_size=20), max_size=40), st.integers(1, 50))
def test_nothing_that_is_in_a_file_can_stop_the_reader(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    whole, cut = LogReader(), LogReader()
    whole.feed(data)
    for at in range(0, len(data), size):
        cut.feed(data[at : at + size])
    assert whole.end() == cut.end()
    start_times(whole.segment)


def test_passing_over_plain_profile_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = f"[info] Project:p, S1 : [PROFILE] Matrix Solve : Real Time 00:00:01 : Memory 1.15 G {STAMP}"
    telling = [
        "Adaptive Pass 3 : F", "Adaptive Passes did not converge", "Initial Meshing : T",
        "Solution - Sw : Discrete HFSS ", "       From 0Hz to 5GHz, 201 Frequencies",
        "Frequency - 1GHz : Elapsed time : 1", "Solution Process : Start Time",
        "Solution Process : Stop Time: x, Status: Normal Completion",
    ]  # fmt: skip
    lines = [START, plain, plain.replace("S1", "S2"), f"[error] Project:p, Design:d, a (b\n{plain}", plain]
    for text in telling:
        lines += [plain, f"[info] Project:p, S1 : [PROFILE] {text} {STAMP}", plain.replace("info", "warning")]
    text = "\n".join([*lines, converge(4, "0.1"), plain, "[info] Project:p, S1 : [PROFILE] cut\nsolver is hanging\n"])
    logs = [text.encode(), text.replace("\n", "\r\n").encode(), *(p.read_bytes() for p in SAMPLES.glob("*.log"))]

    def read_all() -> list[Segment]:
        readers = [LogReader() for _ in logs]
        return [reader.feed(data) and reader.end() for reader, data in zip(readers, logs, strict=True)]

    quick = read_all()
    monkeypatch.setattr(LogReader, "_is_plain_profile", lambda self, raw: False)
    assert quick == read_all()
    assert quick[0].setups["S1"].adaptive_pass == 4
    assert quick[0].setups["S1"].converged is False
    assert list(quick[0].setups) == ["S1", "S2"]


def test_a_fatal_text_far_inside_a_message_is_found() -> None:
    found = take(START, f"[error] Project:p, Design:d, {'word ' * 300} process hf3d exited with code 259. {STAMP}")
    assert found.fatal is not None
    assert len(found.fatal.text) == log_module.TEXT_LIMIT


def test_memory_is_bounded() -> None:
    reader = LogReader()
    reader.feed(f"{START}\n[error] Project:p, Design:d, started\n".encode())
    for _ in range(200):
        reader.feed(b"a line of a message that never ends\n" * 1000)
    assert len(reader._message) < 2 * log_module.MESSAGE_LIMIT
    reader.feed(b"[error] Project:p, " + b"x" * 500_000 + b"\n")
    assert len(reader._message) <= log_module.LINE_LIMIT
    for number in range(12_000):
        reader.feed(f"[info] Project:p, S{number} : [PROFILE] x {STAMP}\n".encode())
    assert len(reader.segment.setups) == 10_000


def test_the_middle_of_a_huge_log_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "READ_LIMIT", 4096)
    monkeypatch.setattr(log_module, "HEAD", 1024)
    path = tmp_path / "big.log"
    middle = f"[error] Project:p, Design:d, solver is hanging {STAMP}\n" * 400
    path.write_text(f"{START}\n" + "[info] x\n" * 200 + middle + "[info] y\n" * 500 + NORMAL + "\n")
    found = read_log(path)
    assert found.skipped
    assert found.started
    assert found.setups["S1"].normal
    assert found.fatal is None
    path.write_text("[info] x\n" * 2000 + f"{START}\n{NORMAL}\n")
    assert read_log(path).skipped
    assert read_log(path).setups["S1"].normal


def test_twelve_hour_clock() -> None:
    for text, hour in (("12:00:01 AM", 0), ("1:00:01 AM", 1), ("12:00:01 PM", 12), ("11:00:01 PM", 23)):
        assert take(f"Starting Batch Run: {text}  Mar 17, 2023").start == (2023, 3, 17, hour, 0, 1)
    for strange in ("12:00:01  17.03.2023", "13:99 XM", "9:40:00 PM  Mrz 17, 2023", ""):
        found = take(f"Starting Batch Run: {strange}")
        assert found.started
        assert found.start is None
        assert start_times(found) == ()


def test_both_hours_of_a_repeated_one_are_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        times = start_times(take("Starting Batch Run: 2:30:00 AM  Oct 29, 2023"))
        assert {1698539400.0, 1698543000.0} <= set(times)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_path_of_the_log(tmp_path: Path) -> None:
    own = tmp_path / "a.b.aedb.batchinfo" / "a.b-J-1.log"
    other = tmp_path / "a.b.aedt.batchinfo" / "a.b-J-1.log"
    assert find_log(tmp_path / "a.b.aedb", "J-1") == own
    other.parent.mkdir()
    other.touch()
    assert find_log(tmp_path / "a.b.aedb", "J-1") == other
    own.parent.mkdir()
    own.touch()
    assert find_log(tmp_path / "a.b.aedb", "J-1") == own


class Clock:
    """A clock that goes on by so much each time it is looked at."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def test_of_a_log_that_is_read_slowly_the_middle_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slow.log"
    fatal = f"[error] Project:p, Design:d, solver is hanging {STAMP}\n"
    path.write_text(f"{START}\n" + "[info] x\n" * 2000 + fatal + "[info] y\n" * 2000 + NORMAL + "\n")
    monkeypatch.setattr(log_module, "_CHUNK", 1024)
    monkeypatch.setattr(files, "time", Clock(0.1))
    found = read_log(path, seconds=1000)
    assert (found.skipped, found.fatal is not None, found.setups["S1"].normal) == (False, True, True)
    found = read_log(path, seconds=3)
    assert (found.skipped, found.started, found.fatal, found.setups["S1"].normal) == (True, True, None, True)


def test_a_log_whose_end_cannot_be_read_in_time_is_read_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slow.log"
    path.write_text(f"{START}\n" + "[info] x\n" * 20_000 + NORMAL + "\n")
    monkeypatch.setattr(log_module, "_CHUNK", 1024)
    clock = Clock(0.1)
    monkeypatch.setattr(files, "time", clock)
    original = LogReader.skip

    def slower(self: LogReader) -> None:
        original(self)
        clock.step = 1.0

    monkeypatch.setattr(LogReader, "skip", slower)
    with pytest.raises(files.BudgetSpent, match="too large or too slow") as error:
        read_log(path, seconds=3)
    assert files.is_transient(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_a_fifo_in_place_of_a_log_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.log")
    with pytest.raises(files.NotRegularFile):
        read_log(tmp_path / "x.log")


def test_the_log_of_another_account_is_found_if_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "a.aedb.batchinfo" / "a-J.log"
    original = os.stat

    def stat(path: str | Path, **how: bool) -> os.stat_result:
        if str(path) == str(own):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    other = tmp_path / "a.aedt.batchinfo" / "a-J.log"
    other.parent.mkdir()
    other.touch()
    assert find_log(tmp_path / "a.aedb", "J") == own
