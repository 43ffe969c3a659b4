"""The service's log: JSON lines in a rotated file, and short lines on a terminal."""

from __future__ import annotations

import copy
import logging
import logging.handlers
import queue
import sys
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

LOG_FILE = "edbjobs.log"
MAX_BYTES = 20 * 1024**2
BACKUPS = 5
MAX_WAITING = 10_000  # lines not written yet; more are dropped and counted
_COLLECT_SECONDS = 0.05
_COMPLAIN_SECONDS = 60.0
_PACKAGE = "edbjobs_server"


class Logging:
    """Logging of the service until it is closed; a context manager.

    Lines are formatted and written by the thread of a `QueueListener`, those of 50 ms at once: the event loop never
    waits for a disk. Lines that find the queue full are dropped; their number is logged.

    Parameters
    ----------
    state_dir : Path
        Folder of ``edbjobs.log``: 20 MiB, five older ones.
    level : str, default "info"
        Lowest level that is logged: debug, info, warning or error. On stderr it applies to a terminal; anything else
        gets warnings and errors.
    embedded : bool, default False
        The process belongs to another program: only the service's own loggers are handled, their lines do not reach
        the program's handlers, and stderr gets warnings and errors.
    """

    def __init__(self, state_dir: Path, level: str = "info", *, embedded: bool = False) -> None:
        self.file = state_dir / LOG_FILE
        number = getattr(logging, level.upper())
        lines: queue.Queue[Any] = queue.Queue(MAX_WAITING)
        stderr = logging.StreamHandler()
        stderr.setLevel(number if sys.stderr.isatty() and not embedded else max(number, logging.WARNING))
        stderr.setFormatter(_formatter(_short_line))
        self._file = _BatchHandler(self.file, lines)
        self._file.setFormatter(_formatter(structlog.processors.JSONRenderer(default=str, ensure_ascii=False)))
        self._handler = _QueueHandler(lines)
        self._listener = _Listener(lines, self._handler, self._file, stderr)
        self._listener.start()
        self._logger = logging.getLogger(_PACKAGE if embedded else None)
        self._logger.addHandler(self._handler)
        with _LOCK:
            if not _OPEN:
                _configure(self._logger, number, embedded)
            _OPEN.append(self)

    def close(self) -> None:
        """Write the lines in the queue, and restore what was configured before."""
        self._logger.removeHandler(self._handler)
        with _LOCK:
            _OPEN.remove(self)
            if not _OPEN:
                _RESTORE.close()
        self._listener.stop()
        self._file.close()

    def __enter__(self) -> Logging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# A program may hold several services: levels and structlog are configured once for all of them.
_LOCK = threading.Lock()
_OPEN: list[Logging] = []
_RESTORE = ExitStack()


def _configure(logger: logging.Logger, level: int, embedded: bool) -> None:
    _RESTORE.callback(logger.setLevel, logger.level)
    _RESTORE.callback(setattr, logger, "propagate", logger.propagate)
    logger.setLevel(level)
    logger.propagate = not embedded
    if not embedded:  # "Optimization" of the logging HOWTO: no line contains the caller's file, thread or process
        for name, value in (("_srcfile", None), ("logThreads", False), ("logProcesses", False)):
            _RESTORE.callback(setattr, logging, name, getattr(logging, name))
            setattr(logging, name, value)
    if embedded and structlog.is_configured():
        return  # by the program
    _RESTORE.callback(structlog.reset_defaults)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: logging.getLogger(".".join((_PACKAGE, *names))),
    )


def _formatter(renderer: Processor) -> ProcessorFormatter:
    return ProcessorFormatter(foreign_pre_chain=[structlog.processors.format_exc_info], processors=[_arrange, renderer])


def _arrange(_: Any, __: str, event: EventDict) -> EventDict:
    """Put time, level, logger and event first and the traceback last, and leave out what is None."""
    record, ours = event.pop("_record"), event.pop("_from_structlog")
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    event["traceback"] = event.pop("exception", None)
    first = {
        "time": moment.isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name.removeprefix(f"{_PACKAGE}.") if ours else record.name,
        "event": event.pop("event"),
    }
    return first | {name: value for name, value in event.items() if value is not None}


def _short_line(_: Any, __: str, event: EventDict) -> str:
    clock = datetime.fromisoformat(event.pop("time")).astimezone().strftime("%H:%M:%S")
    level, text, traceback = event.pop("level"), event.pop("event"), event.pop("traceback", "")
    rest = "".join(f" {name}={value}" for name, value in event.items())
    return _printable(f"{clock} {level:<7} {text}{rest}") + ("\n" + traceback if traceback else "")


def _printable(text: str) -> str:
    """Escape control characters: texts of clients and solvers must not control a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class _QueueHandler(logging.handlers.QueueHandler):
    """Hands records over unformatted; drops and counts those that find the queue full."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if record.args:  # they may change until the record is formatted
            record = copy.copy(record)
            record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _Listener(logging.handlers.QueueListener):
    """Handles the records of 50 ms at once: the event loop hands the interpreter over less often."""

    def __init__(self, lines: queue.Queue[Any], source: _QueueHandler, *handlers: logging.Handler) -> None:
        super().__init__(lines, *handlers, respect_handler_level=True)
        self._lines, self._source = lines, source

    def dequeue(self, block: bool) -> Any:
        idle = self._lines.empty()
        record = super().dequeue(block)
        if idle and record is not None:
            time.sleep(_COLLECT_SECONDS)
        return record

    def handle(self, record: logging.LogRecord) -> None:
        super().handle(record)
        if self._source.dropped:
            dropped, self._source.dropped = self._source.dropped, 0
            text = f"{dropped} log lines were dropped: they came faster than they could be written"
            super().handle(logging.LogRecord("logs", logging.WARNING, __file__, 0, text, None, None))

    def enqueue_sentinel(self) -> None:
        self._lines.put(None)  # waits while the queue is full


class _BatchHandler(logging.handlers.MemoryHandler):
    """Writes the records of a batch to the rotated file at once; its size is looked at once for all of them."""

    def __init__(self, file: Path, lines: queue.Queue[Any]) -> None:
        target = _FileHandler(file, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=True)
        super().__init__(MAX_WAITING, target=target)
        self._file, self._lines = target, lines

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        return self._lines.empty() or len(self.buffer) >= self.capacity

    def flush(self) -> None:
        lines, self.buffer = [self.format(record) for record in self.buffer], []
        if lines:
            self._file.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))

    def close(self) -> None:
        super().close()
        self._file.close()


class _FileHandler(logging.handlers.RotatingFileHandler):
    """Reports on stderr that the log cannot be written, once a minute: on a full disk every line fails."""

    _complained = float("-inf")

    def handleError(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self._complained >= _COMPLAIN_SECONDS:
            self._complained = time.monotonic()
            sys.stderr.write(f"edbjobs: {self.baseFilename} cannot be written: {sys.exc_info()[1]}\n")
