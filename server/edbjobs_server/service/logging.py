"""The service's log: JSON lines in a rotated file, and short lines for people on a terminal."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import MutableMapping
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

LOG_FILE = "edbjobs.log"
MAX_BYTES = 20 * 1024**2
BACKUPS = 5
MAX_WAITING = 10_000  # lines not written yet; more are dropped and counted
_COLLECT_SECONDS = 0.05
_COMPLAIN_SECONDS = 60.0

_Event = MutableMapping[str, Any]


class Logging:
    """Logging in force until it is closed; a context manager.

    Lines are formatted and written by a thread, all that came within 50 ms at once: the event loop never waits for
    a disk, and a line costs it some microseconds. Lines for which there is no room are dropped and counted; the
    count is logged.

    Parameters
    ----------
    state_dir : Path
        Folder of ``edbjobs.log``: 20 MiB, five older ones.
    level : str, default "info"
        Least level that is logged: debug, info, warning or error. On stderr it holds for a terminal; anything else
        gets warnings and errors.
    embedded : bool, default False
        The process belongs to another program: only the service's own loggers are listened to, their lines are
        kept from the program's, and stderr gets warnings and errors.
    """

    def __init__(self, state_dir: Path, level: str = "info", *, embedded: bool = False) -> None:
        self.file = state_dir / LOG_FILE
        number = getattr(logging, level.upper())
        self._people_level = number if sys.stderr.isatty() and not embedded else max(number, logging.WARNING)
        self._handler = _FileHandler(self.file, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=True)
        self._waiting: deque[_Event] = deque()
        self._dropped = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()
        self._bridge = _Bridge(self.put)
        self._logger = logging.getLogger("edbjobs_server" if embedded else None)
        self._logger.addHandler(self._bridge)
        with _SHARED:
            if not _OPEN:
                _set_up(self._logger, number, embedded)
            _OPEN.append(self)

    def close(self) -> None:
        """Write what waits, and log no more."""
        self._logger.removeHandler(self._bridge)
        with _SHARED:
            _OPEN.remove(self)
            if not _OPEN:
                _SET_UP.close()
        self._closing.set()
        self._wake.set()
        self._thread.join()
        self._handler.close()

    def __enter__(self) -> Logging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, event: _Event) -> None:
        """Take a line, or drop it where too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._append(event)

    def _append(self, event: _Event) -> None:
        event["time"] = time.time()
        self._waiting.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def _write_all(self) -> None:
        while not (self._closing.is_set() and not self._waiting):
            self._wake.wait()
            self._closing.wait(_COLLECT_SECONDS)
            self._wake.clear()  # before taking: a line that comes now wakes again
            self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                text = "log lines were dropped: they came faster than they could be written"
                self._append({"event": text, "lines": dropped, "level": "warning", "logger": "logs"})

    def _write(self, events: list[_Event]) -> None:
        lines, people = [], []
        for event in events:
            lines.append(_json_line(event))
            if getattr(logging, event["level"].upper(), logging.INFO) >= self._people_level:
                people.append(_people_line(event))
        if lines:
            self._handler.emit(logging.makeLogRecord({"msg": "\n".join(lines)}))
        if people:
            sys.stderr.write("".join(people))
            sys.stderr.flush()


# A program may hold several services: what is set up for them is shared, and each log has the lines of all.
_SHARED = threading.Lock()
_OPEN: list[Logging] = []
_SET_UP = ExitStack()


def _set_up(logger: logging.Logger, level: int, embedded: bool) -> None:
    _SET_UP.callback(logger.setLevel, logger.level)
    _SET_UP.callback(setattr, logger, "propagate", logger.propagate)
    logger.setLevel(level)
    logger.propagate = not embedded
    if embedded and structlog.is_configured():
        return  # it is the program's own
    _SET_UP.callback(structlog.reset_defaults)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Sink(names[0] if names else "edbjobs"),
    )


def _json_line(event: _Event) -> str:
    moment = datetime.fromtimestamp(event["time"], timezone.utc)
    values = {"time": moment.isoformat(timespec="milliseconds"), **_known(event)}
    if text := _traceback(event):
        values["traceback"] = text
    return json.dumps(values, default=str, ensure_ascii=False)


def _people_line(event: _Event) -> str:
    clock = datetime.fromtimestamp(event["time"]).astimezone().strftime("%H:%M:%S")
    rest = "".join(f" {name}={value}" for name, value in _known(event).items() if name not in ("level", "event"))
    return f"{clock} {event['level']:<7} {event['event']}{rest}\n{_traceback(event)}"


def _known(event: _Event) -> dict[str, Any]:
    first = {name: event[name] for name in ("level", "logger", "event")}
    return first | {
        name: value for name, value in event.items() if value is not None and name not in ("time", "exc_info")
    }


def _traceback(event: _Event) -> str:
    found = event.get("exc_info")
    error = found[1] if isinstance(found, tuple) else found
    return "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""


class _Sink:
    """What structlog's loggers write to."""

    def __init__(self, name: str) -> None:
        self._name = name

    def msg(self, **event: Any) -> None:
        if event.get("exc_info") is True:
            event["exc_info"] = sys.exc_info()
        event["logger"] = self._name
        for log in tuple(_OPEN):
            log.put(dict(event))

    debug = info = warning = error = critical = exception = msg


class _Bridge(logging.Handler):
    """Brings what libraries log by the standard library to the same place."""

    def __init__(self, put: Any) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        self._put(
            {
                "level": record.levelname.lower(),
                "logger": record.name,
                "event": record.getMessage(),
                "exc_info": record.exc_info,
            }
        )


class _FileHandler(logging.handlers.RotatingFileHandler):
    """A log that cannot be written is told on stderr, once a minute: on a full disk every line fails."""

    _complained = float("-inf")

    def handleError(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self._complained >= _COMPLAIN_SECONDS:
            self._complained = time.monotonic()
            sys.stderr.write(f"edbjobs: {self.baseFilename} cannot be written: {sys.exc_info()[1]}\n")
