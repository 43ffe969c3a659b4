"""AEDT's batch log: what it contains about one run.

A log is appended to, so only its last segment counts, from "Starting Batch Run" on. Nothing is judged by the word
"error": healthy logs contain "interpolation error". The grammar and the fatal texts are those of real logs.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edbjobs_server.solver.fatal import Fatal, kind_of
from edbjobs_server.solver.setup_log import SetupLog, read_line
from edbjobs_server.util import files

LINE_LIMIT = 64 * 1024
MESSAGE_LIMIT = 4 * 1024
TEXT_LIMIT = 500  # of a text for people
READ_LIMIT = 512 * 1024 * 1024  # of a larger log the first part and the rest of this much at its end are read
PORTABLE_NAME_BYTES = 143  # of a file name, that all file systems take (eCryptfs the least)
HEAD = 64 * 1024 * 1024
READ_SECONDS = 60.0  # longest reading of a whole log
_CHUNK = 1024 * 1024
_MAX_SETUPS = 10_000
_NO_SETUP = b"\n"  # no line contains it
_STATE_PREFIXES = (b"Adaptive Pass", b"Initial Meshing", b"Solution ", b"Frequency - ", b"From ")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# A log is untrusted text: each expression here takes time in proportion to a line's length.
# None starts with a repetition, and none has two repetitions that can match the same characters.
_CLOCK = re.compile(r"(\d{1,2}):(\d\d):(\d\d) ([AP])M\s{1,8}([A-Z][a-z]{2}) (\d{1,2}), (\d{4})", re.ASCII)
_STAMP = re.compile(r"\(\d{1,2}:\d\d:\d\d [AP]M\s{1,8}[A-Z][a-z]{2} \d{1,2}, \d{4}\)", re.ASCII)
_STAMP_LENGTH = 40
_TAG = re.compile(r"\[(info|warning|error)\] ?")
_SETUP_LINE = re.compile(r"Project:.*?, ([^,]+?) : \[(PROFILE|CONVERGE)\]\s*(.*)", re.DOTALL)


@dataclass(slots=True)
class Segment:
    """The last run in a log.

    Attributes
    ----------
    started : bool
        The log has "Starting Batch Run".
    start : tuple of int or None
        Its time as written: year, month, day, hour, minute, second of the solver's clock, without zone.
    finished : bool
        The log has "Stopping Batch Run": the program ended by itself, successfully or not.
    normal_messages : int
        "Normal completion of simulation" messages.
    parametric_done : bool
        A parametric analysis is done.
    setups : dict
        By name, in the order of their first line.
    current : str
        Setup of the last line.
    fatal : Fatal or None
        First fatal line.
    errors : int
        Messages of level error.
    first_error : str
        The first of them.
    skipped : bool
        The log is so large that its middle was not read.
    """

    started: bool = False
    start: tuple[int, int, int, int, int, int] | None = None
    finished: bool = False
    normal_messages: int = 0
    parametric_done: bool = False
    setups: dict[str, SetupLog] = field(default_factory=dict)
    current: str = ""
    fatal: Fatal | None = None
    errors: int = 0
    first_error: str = ""
    skipped: bool = False


def job_name(project: str | Path, id: str, seq: int, attempt: int) -> str:
    """Return AEDT's ``-jobid``, which appears in its log: no other run of this service has it.

    Parameters
    ----------
    project : str or Path
        The project's real path. Beside a long name the job's id is left out, or the log's name would be too long.
    id : str
        Of the job.
    seq, attempt : int
        Numbers of the job and of its run.
    """
    name = f"{seq}-{attempt}"
    with_id = f"{id}-{name}"
    fits = files.name_length(f"{Path(project).stem}-{with_id}.log") <= PORTABLE_NAME_BYTES
    return with_id if fits else name


def find_log(project: str | Path, job_id: str) -> Path:
    """Return where AEDT writes the log of a run; it may not be there yet.

    An .aedb or .aedtz is solved as the .aedt made of it, so a log is looked for under that name as well.

    Parameters
    ----------
    project : str or Path
        The project's real path, as it was when the job was accepted; links in it are not resolved again.
    job_id : str
        What AEDT got as ``-jobid``.

    Raises
    ------
    OSError
        A transient one: see `edbjobs_server.util.files.is_transient`.
    """
    real = Path(project)
    own, other = (
        real.with_name(f"{name}.batchinfo") / f"{real.stem}-{job_id}.log" for name in (real.name, f"{real.stem}.aedt")
    )
    return other if own != other and not _may_be_there(own) and _may_be_there(other) else own


def _may_be_there(path: Path) -> bool:
    try:
        return files.mode_of(path) is not None
    except OSError as error:
        if files.is_transient(error):
            raise
        return True  # its status cannot be read; reading the file will give the reason


def read_log(path: Path, seconds: float = READ_SECONDS) -> Segment:
    """Read the last run of a log, line by line; of one that is too large or too slow the middle is left out.

    Parameters
    ----------
    path : Path
        The log.
    seconds : float
        Longest time for it. After half of it, half as much is read at the end as was read at the beginning.

    Raises
    ------
    OSError
        It cannot be read.
    BudgetSpent
        Its end cannot be read in that time; transient.
    """
    reader = LogReader()
    with files.open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        large = size > READ_LIMIT
        head = files.Budget(HEAD if large else READ_LIMIT, seconds / 2)
        if not _feed(reader, file, head):
            length = READ_LIMIT - HEAD if large else READ_LIMIT
            if head.late:
                length = min(length, max(head.used // 2, _CHUNK))
            if size - length > head.used:
                reader.skip()
                file.seek(size - length)
            tail = files.Budget(READ_LIMIT, seconds / 2)
            if not _feed(reader, file, tail) and tail.late:
                raise tail.error(path)
    return reader.end()


def start_times(segment: Segment) -> tuple[float, ...]:
    """Return the times at which the run may have started, in this host's time zone; empty: not logged.

    There are two in the hour that the end of summer time repeats.
    """
    if segment.start is None:
        return ()
    try:
        return tuple({time.mktime((*segment.start, 0, 0, summer)) for summer in (-1, 0, 1)})
    except (OverflowError, ValueError):
        return ()  # a year that no clock shows


class LogReader:
    """Parses a log piece by piece and keeps its last run; memory does not grow with the log."""

    def __init__(self) -> None:
        self.segment = Segment()
        self._rest = b""
        self._drop = False
        self._level = ""
        self._message = ""
        self._active_setup = _NO_SETUP

    def feed(self, data: bytes) -> Segment:
        """Take the next bytes."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._drop:
                self._line(line[:LINE_LIMIT])
            self._drop = False
        if len(rest) > LINE_LIMIT:
            if not self._drop:
                self._line(rest[:LINE_LIMIT])
            rest, self._drop = b"", True
        self._rest = rest
        return self.segment

    def skip(self) -> None:
        """Skip bytes that were left out; the incomplete lines before and after them are dropped."""
        self._rest, self._drop = b"", True
        self.segment.skipped = True

    def end(self) -> Segment:
        """Take what has come without a line end as the last line."""
        if self._rest and not self._drop:
            self._line(self._rest)
        self._rest = b""
        self._close()
        return self.segment

    def _line(self, raw: bytes) -> None:
        raw = raw.rstrip()
        if not self._message and self._is_plain_profile(raw):
            return
        line = raw.decode("utf-8", "replace").replace("\r", "")
        tag = _TAG.match(line)
        if tag is not None:
            self._close()
            self._level, self._message = tag[1], line[tag.end() :]
            if not self._message.startswith("Project:"):
                self._close()
        elif line.startswith(("Starting Batch Run:", "Stopping Batch Run:")):
            self._close()
            self._boundary(line)
        elif self._message:
            if len(self._message) < MESSAGE_LIMIT:
                self._message += "\n" + line
        else:
            self._take_message("", line)
        if self._message and _stamp_at(line) >= 0:
            self._close()

    def _is_plain_profile(self, raw: bytes) -> bool:
        """Return whether a line is plain profile of the active setup: most lines of a long log are, and are skipped."""
        at = raw.find(self._active_setup)
        if at < 0 or not raw.startswith(b"[info]") or not raw[-5:-1].isdigit():
            return False
        return not raw[at + len(self._active_setup) :].lstrip().startswith(_STATE_PREFIXES) and b"Status:" not in raw

    def _boundary(self, line: str) -> None:
        if line.startswith("Stopping"):
            self.segment.finished = True
            return
        self.segment = Segment(started=True, start=_clock(line), skipped=self.segment.skipped)
        self._active_setup = _NO_SETUP

    def _close(self) -> None:
        level, message = self._level, self._message
        self._level = self._message = ""
        if not message:
            return
        stamp = _stamp_at(message)
        message = message[:stamp].rstrip() if stamp >= 0 else message
        setup = _SETUP_LINE.match(message)
        if setup is not None:
            self._setup(setup[1].strip(), setup[2], setup[3])
            self._active_setup = f", {setup[1]} : [PROFILE]".encode()
        else:
            self._take_message(level, message)

    def _setup(self, name: str, kind: str, text: str) -> None:
        setups = self.segment.setups
        if name not in setups:
            if len(setups) >= _MAX_SETUPS:
                return
            setups[name] = SetupLog(name)
        self.segment.current = name
        read_line(setups[name], kind, text)

    def _take_message(self, level: str, message: str) -> None:
        """Process a message that does not belong to a setup."""
        segment = self.segment
        whole = " ".join(_without_names(message[:MESSAGE_LIMIT]).split())
        text = whole[:TEXT_LIMIT]
        if "Normal completion of simulation" in text:
            segment.normal_messages += 1
            for setup in segment.setups.values():
                if not setup.status:
                    setup.status, setup.normal, setup.phase = "Normal Completion", True, "done"
        elif text.startswith("Parametric Analysis") and text.endswith("is done."):
            segment.parametric_done = True
        if level == "error":
            segment.errors += 1
            segment.first_error = segment.first_error or text
        if segment.fatal is None and level in ("error", ""):
            kind = kind_of(whole)
            segment.fatal = Fatal(kind, text) if kind else None


def _clock(line: str) -> tuple[int, int, int, int, int, int] | None:
    match = _CLOCK.search(line)
    if match is None or match[5] not in _MONTHS:
        return None
    hour = int(match[1]) % 12 + (12 if match[4] == "P" else 0)
    return (int(match[7]), _MONTHS.index(match[5]) + 1, int(match[6]), hour, int(match[2]), int(match[3]))


def _stamp_at(text: str) -> int:
    """Return where the time at the end of a text starts; -1: there is none."""
    at = text.rfind("(", max(0, len(text) - _STAMP_LENGTH))
    return at if at >= 0 and _STAMP.fullmatch(text, at) else -1


def _without_names(text: str) -> str:
    """Return a text without "Project:..., Design:..., "."""
    begin = text.find("Project:")
    design = text.find(", Design:", begin) if begin >= 0 else -1
    end = text.find(", ", design + len(", Design:")) if design >= 0 else -1
    return text[:begin] + text[end + 2 :] if end >= 0 else text


def _feed(reader: LogReader, file: BinaryIO, budget: files.Budget) -> bool:
    """Read within the budget; return whether the end of the file was reached."""
    while limit := budget.allow(_CHUNK):
        data = file.read(limit)
        if not data:
            return True
        budget.take(len(data))
        reader.feed(data)
    return False
