from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import structlog
from edbjobs_server.service import logging as service_logging
from edbjobs_server.service.logging import Logging


def lines(log: Logging) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.file.read_text(encoding="utf-8").splitlines()]


def test_lines_are_json_with_context(tmp_path: Path) -> None:
    with Logging(tmp_path) as log, structlog.contextvars.bound_contextvars(job="a1"):
        structlog.get_logger("manager").info("started", pid=7, path=tmp_path, nothing=None)
        structlog.get_logger("manager").debug("not written")
        logging.getLogger("other").warning("from %s", "elsewhere")
    first, second = lines(log)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "manager",
        "event": "started",
        "job": "a1",
        "pid": 7,
        "path": str(tmp_path),
    }
    assert (second["event"], second["level"], second["logger"]) == ("from elsewhere", "warning", "other")


def test_a_newline_in_a_value_stays_within_its_line(tmp_path: Path) -> None:
    with Logging(tmp_path) as log:
        structlog.get_logger().info('forged\n{"level": "info"}', name="a\nb")
    (line,) = lines(log)
    assert line["name"] == "a\nb"


def test_a_traceback_stands_in_the_file_and_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Logging(tmp_path) as log:
        structlog.get_logger().error("failed", exc_info=ValueError("odd"))
        structlog.get_logger().info("not for stderr: it is no terminal")
        try:
            int("x")
        except ValueError:
            logging.getLogger().exception("again")
            structlog.get_logger().exception("and again")
    first, _, third, fourth = lines(log)
    assert "ValueError: odd" in first["traceback"]
    assert "invalid literal" in third["traceback"]
    assert "invalid literal" in fourth["traceback"]
    err = capsys.readouterr().err
    assert "error   failed" in err
    assert "ValueError: odd" in err
    assert "not for stderr" not in err


def test_control_characters_do_not_reach_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Logging(tmp_path):
        structlog.get_logger().warning("from a \x1b[2Jclient", path="a\nb\u202e")
    err = capsys.readouterr().err
    assert err.endswith(r" from a \x1b[2Jclient logger=edbjobs_server path=a\nb\u202e" + "\n")


def test_when_lines_come_too_fast_they_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_logging, "MAX_WAITING", 4)
    stuck, free = threading.Event(), threading.Event()
    emit = service_logging._FileHandler.emit

    def slow(self: Any, record: logging.LogRecord) -> None:
        stuck.set()
        assert free.wait(10)
        emit(self, record)

    monkeypatch.setattr(service_logging._FileHandler, "emit", slow)
    with Logging(tmp_path) as log:
        structlog.get_logger().info("first")
        assert stuck.wait(10)
        for number in range(20):
            structlog.get_logger().info("line", number=number)
        free.set()  # reached though nothing can be written: logging does not wait for the disk
    found = lines(log)
    assert [line["number"] for line in found if line["event"] == "line"] == [0, 1, 2, 3]
    assert [line["event"].partition(":")[0] for line in found if "dropped" in line["event"]] == [
        "16 log lines were dropped"
    ]


def write(log: Logging, number: int) -> None:
    """Write one line as a batch of its own."""
    log._file.emit(logging.LogRecord("x", logging.INFO, __file__, 0, "line %s", (number,), None))


def test_a_log_that_cannot_be_written_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, record: logging.LogRecord) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service_logging._FileHandler, "shouldRollover", full)
    with Logging(tmp_path) as log:
        for batch in range(2):
            write(log, batch)
    err = capsys.readouterr().err
    assert err.count("cannot be written") == 1
    assert "No space left" in err


def test_the_file_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_logging, "MAX_BYTES", 2000)
    with Logging(tmp_path) as log:
        for number in range(200):
            write(log, number)
    assert len(list(tmp_path.glob("edbjobs.log*"))) == service_logging.BACKUPS + 1


def test_closing_restores_what_was_configured_before(tmp_path: Path) -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    with Logging(tmp_path, "debug"):
        assert logging.getLogger().level == logging.DEBUG
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
