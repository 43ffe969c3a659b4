"""The record of one run: an append-only file of JSON lines that outlives everybody who wrote in it.

The file is called ``record`` and lies in the run's folder. A line counts only when it ends in a newline, is a
JSON object, and has the fields below with values of the right type; everything else is stepped over, because
a full disk or a crash may leave half a line. Each line is written with a newline before it as well, so that
what a broken write left cannot swallow the next line. Fields may be added; none may change its meaning.

``claim`` is the first line and decides who may start the run. It is written to a temporary file, which is then put
in place by ``link()``: the first one stays, a later claimer finds it. It is on disk as soon as a later
line is synced, and nothing of the run is started before that.

============  ==========================================================================================
``t``         ``"claim"``
``format``    1
``kind``      ``"run"``: a supervisor will run it. ``"void"``: it never ran and never will
``host``      node name of the machine
``boot``      boot id of its kernel (``/proc/sys/kernel/random/boot_id``)
``pidns``     pid namespace in which the pids of this record count (``/proc/self/ns/pid``)
``pid``       of the claimer
``ticks``     start time of the claimer, field 22 of ``/proc/PID/stat``: distinguishes a reused pid
``time``      Unix time in seconds, as everywhere below
``seq``       number of the job
``uid``       uid of the job
``attempt``   number of the attempt
``keep``      names of programs that may outlive the run
``info``      names and texts copied from the request, to rebuild a lost store from
============  ==========================================================================================

``start`` (at most one, synced before the solver is started): ``time``, and ``pid`` and ``ticks`` of the solver where
these are known before; else 0.

``solver`` (after ``start``): ``pid`` and ``ticks`` of the solver.

``cancel`` (any number, the newest counts, written by the service): ``grace`` in seconds, ``time``.

``stuck`` (any number, the newest counts): ``pids`` that are still there long after KILL, ``time``.

``end`` (the first counts, synced, written when nothing of the run is left but the supervisor): ``ending`` (a
value of `Ending`), ``code`` (exit code or null), ``signal`` (number or null), ``time``, ``cpu`` (seconds of
user and system time of all processes), ``rss`` (bytes of the largest one), ``message`` (for people).
"""

from __future__ import annotations

import errno
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # the launcher imports this file: every module it loads is copied into each supervisor
    from collections.abc import Mapping
    from typing import Any

FORMAT = 1
NAME = "record"
_LARGEST = 2**63
_sync = getattr(os, "fdatasync", os.fsync)  # the times of the file need not be on disk
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write another newline
_FIELDS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "claim": {
        **dict.fromkeys(("format", "pid", "ticks", "seq", "attempt"), int),
        **dict.fromkeys(("kind", "host", "boot", "pidns", "uid"), str),
        "time": (int, float),
        "keep": list,
        "info": dict,
    },
    "solver": {"pid": int, "ticks": int},
    "start": {"pid": int, "ticks": int, "time": (int, float)},
    "cancel": {"grace": (int, float), "time": (int, float)},
    "stuck": {"pids": list, "time": (int, float)},
    "end": {
        "ending": str,
        "code": (int, type(None)),
        "signal": (int, type(None)),
        "time": (int, float),
        "cpu": (int, float),
        "rss": int,
        "message": str,
    },
}


class Here:
    """Where a process lives: what the pids in a record must agree with to mean anything to it."""

    __slots__ = ("boot", "host", "pidns")

    def __init__(self, host: str, boot: str, pidns: str) -> None:
        self.host = host
        self.boot = boot
        self.pidns = pidns

    def facts(self) -> dict[str, str]:
        """Give the fields of a claim."""
        return {"host": self.host, "boot": self.boot, "pidns": self.pidns}


class Record:
    """Content of a record: each line as a dict, or None.

    Attributes
    ----------
    exists : bool
        The file is there. A file without a claim is damaged; nothing must be concluded from it.
    claim, start, end : dict or None
        The first of each.
    cancel, stuck : dict or None
        The newest of each.
    size : int
        Bytes that it had.
    """

    __slots__ = ("cancel", "claim", "end", "exists", "size", "start", "stuck")

    def __init__(self, exists: bool, size: int = 0) -> None:
        self.exists = exists
        self.size = size
        self.claim: dict[str, Any] | None = None
        self.start: dict[str, Any] | None = None
        self.cancel: dict[str, Any] | None = None
        self.stuck: dict[str, Any] | None = None
        self.end: dict[str, Any] | None = None

    @property
    def void(self) -> bool:
        """The run never ran and never will."""
        return self.claim is not None and self.claim["kind"] == "void"


def claim(folder: str, facts: Mapping[str, Any]) -> int | None:
    """Put a claim in place.

    Parameters
    ----------
    folder : str
        Folder of the run; made if it is not there.
    facts : dict
        The fields of the claim but for ``t``, ``format`` and ``time``.

    Returns
    -------
    int or None
        The record, open for appending; None if another claim stands.

    Raises
    ------
    OSError
        If the file cannot be written; nothing is in place then.
    """
    path = f"{folder}/{NAME}"
    temporary = f"{folder}/.claim.{os.getpid()}.{time.time_ns()}"
    file = _create(folder, temporary)
    try:
        try:
            append(file, {"t": "claim", "format": FORMAT, "time": time.time(), **facts})
            os.link(temporary, path)
        except BaseException:
            os.close(file)
            raise
        if _BINARY:  # Windows does not remove a file that is open
            os.close(file)
    except FileExistsError:
        return None
    finally:
        os.unlink(temporary)
    return os.open(path, os.O_WRONLY | os.O_APPEND | _BINARY) if _BINARY else file


def _create(folder: str, path: str) -> int:
    """Create a file in a folder, which is made if it is not there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    return os.open(path, flags, 0o600)


def append(record: int, line: Mapping[str, Any], *, sync: bool = False) -> None:
    """Add a line with one write.

    Raises
    ------
    OSError
        If the line could not be written whole (or synced); what is left of it does not count.
    """
    data = b"\n" + json.dumps(line).encode() + b"\n"
    if os.write(record, data) != len(data):
        raise OSError(errno.ENOSPC, "no space left for a whole line of the run's record")
    if sync:
        _sync(record)


def append_cancel(folder: str, grace: float) -> None:
    """Add a ``cancel`` line to a record that is in place."""
    record = os.open(f"{folder}/{NAME}", os.O_WRONLY | os.O_APPEND | _BINARY)
    try:
        append(record, {"t": "cancel", "grace": grace, "time": time.time()})
    finally:
        os.close(record)


def read(folder: str) -> Record:
    """Read the record in a run's folder; a missing file gives a record that does not exist."""
    try:
        with open(f"{folder}/{NAME}", "rb") as file:
            return parse(file.read())
    except FileNotFoundError:
        return Record(exists=False)


def size(folder: str) -> int:
    """Return how many bytes the record in a run's folder has; 0 if there is none."""
    try:
        return os.stat(f"{folder}/{NAME}").st_size
    except FileNotFoundError:
        return 0


def parse(data: bytes) -> Record:
    """Make sense of a record's bytes, whatever their end looks like."""
    record = Record(exists=True, size=len(data))
    for piece in data.split(b"\n")[:-1]:
        line = _line(piece)
        if line is None:
            continue
        name = line["t"]
        if name == "solver":
            if record.start is not None:
                record.start = {**record.start, "pid": line["pid"], "ticks": line["ticks"]}
        elif name in ("cancel", "stuck") or getattr(record, name) is None:
            setattr(record, name, line)
    return record


def _line(piece: bytes) -> dict[str, Any] | None:
    try:
        line = _DECODER.decode(piece.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("t"), str):
        return None
    fields = _FIELDS.get(line["t"])
    if fields is None or not all(_fits(line.get(name, ...), kind) for name, kind in fields.items()):
        return None
    return line


def _fits(value: object, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, (int, float)) or 0 <= value < _LARGEST


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # json.loads would make one for each line
