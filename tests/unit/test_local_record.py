"""The record: the first claim stands, what is unfinished does not count, nothing in the tail misleads."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.executors.local import record
from hypothesis import given
from hypothesis import strategies as st

CLAIM: dict[str, Any] = {
    "kind": "run",
    "host": "h",
    "boot": "b",
    "pidns": "n",
    "pid": 10,
    "ticks": 20,
    "seq": 1,
    "uid": "u",
    "attempt": 1,
    "keep": [],
    "info": {"a": "b"},
}
START = {"t": "start", "pid": 11, "ticks": 21, "time": 2.5}
END = {"t": "end", "ending": "exited", "code": 0, "signal": None, "time": 3.5, "cpu": 0.1, "rss": 5, "message": ""}
LINES = [{"t": "claim", "format": 1, "time": 1.5, **CLAIM}, START, {"t": "cancel", "grace": 30, "time": 3}, END]


def bytes_of(*lines: object) -> bytes:
    return b"".join(b"\n" + json.dumps(line).encode() + b"\n" for line in lines)


def named(found: record.Record) -> list[str]:
    return [name for name in ("claim", "start", "cancel", "stuck", "end") if getattr(found, name) is not None]


@given(st.integers(0, len(bytes_of(*LINES))))
def test_a_line_counts_when_it_is_whole(cut: int) -> None:
    data = bytes_of(*LINES)[:cut]
    whole = [line for count, line in enumerate(LINES, 1) if len(bytes_of(*LINES[:count])) <= cut]
    assert named(record.parse(data)) == [line["t"] for line in whole]


@given(st.integers(0, len(bytes_of(START)) - 2), st.binary(max_size=40))
def test_a_broken_write_swallows_nothing(cut: int, garbage: bytes) -> None:
    data = bytes_of(LINES[0]) + bytes_of(START)[:cut] + bytes_of(END)
    assert named(record.parse(data)) == ["claim", "end"]
    assert "end" in named(record.parse(bytes_of(LINES[0]) + garbage + bytes_of(END)))


@given(st.binary())
def test_any_bytes_can_be_read(data: bytes) -> None:
    record.parse(data)
    assert "claim" in named(record.parse(bytes_of(LINES[0]) + data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.sampled_from(LINES), st.data())
def test_a_field_of_another_type_makes_the_line_not_count(line: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(set(line) - {"t"})))
    value = data.draw(JSON)
    found = record.parse(bytes_of({**line, name: value}))
    for each in ("claim", "start", "end"):
        kept = getattr(found, each)
        assert kept is None or isinstance(kept["time"], (int, float))
        assert kept is None or not isinstance(kept["time"], bool)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"t": []}', b'{"t": "start", "pid": NaN}', b"null", b"\xff"])
def test_nonsense_is_stepped_over(text: bytes) -> None:
    assert named(record.parse(text + b"\n" + bytes_of(START))) == ["start"]


def test_the_first_claim_start_and_end_and_the_newest_cancel_count() -> None:
    later = [{**LINES[0], "kind": "void"}, {**START, "pid": 99}, {**LINES[2], "grace": 1}, {**END, "code": 9}]
    found = record.parse(bytes_of(*LINES, *later))
    assert not found.void
    assert found.start == START
    assert found.end == END
    assert found.cancel == later[2]


def test_one_claim_stands(tmp_path: Path) -> None:
    """Twenty claim at once; the file names the one that was told so."""
    folder = str(tmp_path / "1")
    gate = threading.Barrier(20)
    won: list[int] = []

    def claim(pid: int) -> None:
        gate.wait()
        file = record.claim(folder, {**CLAIM, "pid": pid})
        if file is not None:
            won.append(pid)
            os.close(file)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = record.read(folder)
    assert found.claim is not None
    assert won == [found.claim["pid"]]
    assert os.listdir(folder) == [record.NAME]


def test_a_claim_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda file, data: len(data) - 1)
    with pytest.raises(OSError, match="no space"):
        record.claim(str(tmp_path), CLAIM)
    assert os.listdir(tmp_path) == []


def test_appending(tmp_path: Path) -> None:
    file = record.claim(str(tmp_path), CLAIM)
    assert file is not None
    record.append(file, START, sync=True)
    record.append_cancel(str(tmp_path), 2.5)
    record.append(file, END, sync=True)
    os.close(file)
    found = record.read(str(tmp_path))
    assert named(found) == ["claim", "start", "cancel", "end"]
    assert found.cancel is not None
    assert found.cancel["grace"] == 2.5


def test_no_record(tmp_path: Path) -> None:
    found = record.read(str(tmp_path / "nowhere"))
    assert not found.exists
    assert named(found) == []
    with pytest.raises(FileNotFoundError):
        record.append_cancel(str(tmp_path), 1.0)


def test_the_process_of_a_solver_may_stand_in_a_line_of_its_own() -> None:
    """The start is on disk before there is a process; a kill between the two leaves the mark to find it by."""
    start = b'{"t": "start", "pid": 0, "ticks": 0, "time": 5.0}\n'
    alone = record.parse(start)
    assert alone.start is not None
    assert (alone.start["pid"], alone.start["time"]) == (0, 5.0)
    both = record.parse(start + b'{"t": "solver", "pid": 7, "ticks": 9}\n')
    assert both.start is not None
    assert (both.start["pid"], both.start["ticks"], both.start["time"]) == (7, 9, 5.0)
    assert record.parse(b'{"t": "solver", "pid": 7, "ticks": 9}\n').start is None
