"""The benchmark's own parts: its tables, its command line, and the peers that may not be there."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from bench import postgres as postgres_module
from bench import references
from bench.__main__ import MEASURES, read, section
from bench.beside import COMPARED, HERE, Compared, Pair, comparison
from bench.loop import longest_stall
from bench.postgres import postgres
from bench.service import MeasuredService
from bench.table import Row, markdown
from edbjobs_server.config.settings import load_settings


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_figure_stands_beside_its_floor_its_peers_and_its_goal() -> None:
    others = {"huey": 1200.0, "procrastinate": None}
    row = Row("jobs", 150.5, "/s", "≥ 0.25 of the floor", 600.0, "spawn", others, more_is_better=True)
    *_, line = cells(markdown([row]))
    assert line == [
        "jobs",
        "150 /s",
        "600 /s (spawn)",
        "0.25",
        "huey 1,200, procrastinate not installed",
        "≥ 0.25 of the floor",
    ]
    assert row.as_json()["others"] == others


def test_the_page_has_one_table_and_what_each_peer_promises() -> None:
    text = section([Row("a", 1.0, "ms", "")], datetime(2026, 1, 2, tzinfo=timezone.utc))
    assert text.startswith("02 January 2026, ")
    assert text.count("| measure |") == 1
    for name, peer in references.PEERS.items():
        assert f"| {name} | {peer.on_disk} | {peer.manager_dies} |" in text
    assert "no journal" in text


def test_a_gain_is_above_one_where_this_checkout_is_better() -> None:
    rate = Compared("rate", "/s", lambda running, folder: lambda: (0.0, 0.0))
    time = Compared("time", "ms", lambda running, folder: lambda: (0.0, 0.0), more_is_better=False)
    pairs = [Pair(rate, (300.0, 200.0), (50.0, 100.0)), Pair(time, (20.0, 10.0), (10.0, 10.0))]
    _, _, first, second = cells(comparison(pairs))
    assert first == ["rate", "300 /s", "200 /s", "1.50", "50 µs", "100 µs", "2.00"]
    assert (second[3], second[6]) == ("0.50", "1.00")


def test_the_command_line_names_measures() -> None:
    assert read([]).names == list(MEASURES)
    assert read(["noop", "--markdown"]).names == ["noop"]
    beside = read(["--beside", str(HERE)])
    assert (beside.names, beside.beside) == (list(COMPARED), HERE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["nothing"], "there is no nothing"),
        (["--beside", str(HERE), "page"], "there is no page"),
        (["--beside", "/nowhere", "noop"], "expected a checkout"),
        (["--beside", str(HERE), "--rounds", "2"], "expected 3 rounds"),
    ],
)
def test_what_cannot_be_measured_is_refused(line: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(line)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_another_checkout_is_started_by_its_own_program_or_from_its_sources(tmp_path: Path) -> None:
    tree = tmp_path / "other"
    (tree / ".venv" / "bin").mkdir(parents=True)
    other = MeasuredService(tmp_path, tree, solvers=["/bin/true"], min_free_disk_bytes=0)
    line = other.command()
    assert line[:4] == [sys.executable, "-m", "edbjobs", "serve"]
    assert other.environment["PYTHONPATH"].split(":") == [str(tree / "client" / "python"), str(tree / "server")]
    (tree / ".venv" / "bin" / "edbjobs").touch()
    assert other.command()[:2] == [str(tree / ".venv" / "bin" / "edbjobs"), "serve"]
    settings = load_settings({}, Path(line[line.index("--config") + 1]))
    assert (list(settings.solvers), settings.min_free_disk_bytes) == ([Path("/bin/true")], 0)


def test_only_gaps_of_the_time_that_is_measured_count(tmp_path: Path) -> None:
    report = tmp_path / "stalls"
    assert longest_stall(report, 0, 9) == 5.0
    report.write_text("1.0 90.5\n2.0 20.5\n3.0 30.5\n4.0 80.5\n")
    assert longest_stall(report, 1.5, 3.5) == 30.5


def test_without_postgresql_its_peer_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "_programs", lambda: None)
    monkeypatch.setattr(references, "_python", lambda name: sys.executable)
    with postgres() as database:
        assert database is None
        assert references.noop_rate("procrastinate", tmp_path, [], "/bin/true", database) is None


def test_a_peer_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_python", lambda name: sys.executable)
    with pytest.raises(RuntimeError, match=r"(?s)huey: .*ModuleNotFoundError"):
        references.noop_rate("huey", tmp_path, [Path("p")], "/bin/true", None)


def test_figures_of_peers_leave_out_what_is_not_installed() -> None:
    assert references.figures({"a": [3.0, 1.0], "b": []}, min) == {"a": 1.0, "b": None}


def test_every_peer_has_its_script() -> None:
    folder = Path(references.__file__).parent
    for peer in references.PEERS.values():
        script = folder / f"{peer.script}_peer.py"
        assert script.is_file()
