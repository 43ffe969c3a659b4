"""The record of one run on a cluster: small files in the run's folder on the shared file system.

The batch script writes them (``templates/_run.sh.j2``), the service reads them; `void` is the only one the service
writes. Each is one line of ``key=value`` words, and counts only if it is whole: it ends in a newline and has all
its fields with values of the right type. Each is written under another name, synced and renamed, so that it is
there whole or not at all. Times are seconds since the epoch by the clock of the node.

``claim``: ``kind=run|void job= restart= host= pid= time=``
    Decides who may run: put in place by ``link()``, so that the first one stands; where a file system has no
    links, by exclusive creation. ``void``: it never ran and never will. `job` and `restart` are the scheduler's.
``start``: ``time= pid= host= nodes=a,b,c``
    On disk before the program is released: without it the program has not started.
``beat``: touched every `BEAT_SECONDS` for as long as the script lives; only its time counts.
``signal``: ``signal=TERM time=``
    The script got a signal and has passed it on. The last one.
``exit``: ``code= signal=none|TERM time=``
    The program has ended: its exit code as bash tells it (128 + n for signal n), and the last signal the script got.
    Windows' codes have 32 bits and are signed, as HPC Pack reports them: 0xC0000005 is -1073741819.
``dup.<job>.<restart>``: ``job= restart= host= time=``
    A job that found the run claimed or void; it has run nothing and left with `DUPLICATE_CODE`.
``refusal``: ``text=`` and the rest of the line
    Why the program could not be run on this node; the script left with `REFUSAL_CODE`.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

BEAT_SECONDS = 30.0
DUPLICATE_CODE = 113
REFUSAL_CODE = 114
SCRIPT = "script"

_MAX_BYTES = 1 << 20  # a start with the names of thousands of nodes is well below
_NUMBER = re.compile(r"[0-9]{1,18}")
_CODE = re.compile(r"-?[0-9]{1,10}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Claim:
    """Who runs it: `kind` is ``run`` or ``void``."""

    kind: str
    job: str
    restart: int
    host: str
    pid: int
    time: float


@dataclass(frozen=True, slots=True)
class Start:
    """The program was released."""

    time: float
    pid: int
    host: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exit:
    """The program has ended; `signal` is ``none`` or the last signal that its script got."""

    code: int
    signal: str
    time: float


@dataclass(frozen=True, slots=True)
class Dup:
    """A job that ran nothing, because the run was claimed or void."""

    job: str
    restart: int
    host: str
    time: float


@dataclass(frozen=True, slots=True)
class Record:
    """What a run's folder contains.

    Attributes
    ----------
    claimed : bool
        There is a claim. If `claim` is None nonetheless, it is damaged, and nothing must be concluded from that:
        the run may have started.
    claim, start, exit : Claim, Start, Exit or None
        None: not there, or not whole.
    signal : str
        Last signal that the script got, such as ``TERM``; empty: none.
    beat : float or None
        When the script last showed that it lives, by the clock of the file system.
    dups : tuple of Dup
        By time.
    refusal : str
        Why it could not be run; empty: it was not refused.
    """

    claimed: bool = False
    claim: Claim | None = None
    start: Start | None = None
    exit: Exit | None = None
    signal: str = ""
    beat: float | None = None
    dups: tuple[Dup, ...] = ()
    refusal: str = ""


def read(folder: Path) -> Record:
    """Read a run's record; files that are missing or not whole count as absent.

    Raises
    ------
    OSError
        The folder or a file in it cannot be read. That is no statement about the run.
    """
    try:
        names = set(os.listdir(folder))  # also makes a client of NFS look again
    except (FileNotFoundError, NotADirectoryError):
        return Record()
    dups = [_parsed(folder / name, _dup) for name in names if name.startswith("dup.")]
    return Record(
        claimed="claim" in names,
        claim=_parsed(folder / "claim", _claim),
        start=_parsed(folder / "start", _start),
        exit=_parsed(folder / "exit", _exit),
        signal=_parsed(folder / "signal", lambda words: words["signal"]) or "",
        beat=_modified(folder / "beat"),
        dups=tuple(sorted((dup for dup in dups if dup is not None), key=lambda dup: dup.time)),
        refusal=_refusal(folder / "refusal"),
    )


def void(folder: Path, now: float) -> bool:
    """Call a run off, unless it was claimed before.

    Parameters
    ----------
    folder : Path
        Folder of the run; made if it is not there.
    now : float
        Seconds since the epoch.

    Returns
    -------
    bool
        True: a void claim stands, by this call or an earlier one; the run has not started and never will.
        False: another claim stands, maybe a damaged one; the run may have started.

    Raises
    ------
    OSError
        The folder cannot be written; whether the run is void is not known.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host = platform.node()
    temporary = folder / f".claim.{host}.{os.getpid()}.{time.time_ns()}"
    line = f"kind=void job= restart=0 host={host} pid={os.getpid()} time={int(now)}\n"
    _write(temporary, line.encode(), 0o600)
    try:
        _put(temporary, folder / "claim", line.encode())
    finally:
        temporary.unlink()
    _sync(folder)
    claim = _parsed(folder / "claim", _claim)
    return claim is not None and claim.kind == "void"


def prepare(folder: Path, script_text: str, name: str = SCRIPT) -> Path:
    """Make a run's folder and write its batch script, for the account alone and safely on disk.

    Parameters
    ----------
    folder : Path
        Made with its parents, mode 0700.
    script_text : str
        What `Scripts.render` gave.
    name : str
        Of the script; PowerShell runs only files that are called ``.ps1``.

    Returns
    -------
    Path
        The script, mode 0700.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    _make(folder)
    temporary = folder / f".{name}.{os.getpid()}.{time.time_ns()}"
    try:
        _write(temporary, script_text.encode("utf-8", "surrogateescape"), 0o700)
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(folder)
    return folder / name


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)  # `mkdir(parents=True)` gives parents the usual mode
        folder.mkdir(mode=0o700, exist_ok=True)


def _put(temporary: Path, claim: Path, line: bytes) -> None:
    try:
        os.link(temporary, claim)
    except FileExistsError:
        return  # its reader sees whose it is; over NFS it may be our own
    except OSError:
        try:
            _write(claim, line, 0o600)  # no links here
        except FileExistsError:
            return


def _write(path: Path, data: bytes, mode: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(file, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _line(path: Path) -> str | None:
    """Read the first line of a file; None: it is not there, or its line is not whole."""
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_BYTES)
    except (FileNotFoundError, IsADirectoryError):
        return None
    return line[:-1].decode(errors="replace") if line.endswith(b"\n") else None


def _parsed(path: Path, make: Callable[[Mapping[str, str]], _T]) -> _T | None:
    line = _line(path)
    if line is None:
        return None
    words = dict(word.partition("=")[::2] for word in line.split(" "))
    try:
        return make(words)
    except (KeyError, ValueError):
        return None


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _refusal(path: Path) -> str:
    line = _line(path)
    return line.removeprefix("text=").strip() if line is not None and line.startswith("text=") else ""


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _claim(words: Mapping[str, str]) -> Claim:
    kind = words["kind"]
    if kind not in ("run", "void"):
        raise ValueError(kind)
    return Claim(
        kind,
        words["job"],
        _number(words["restart"]),
        words["host"],
        _number(words["pid"]),
        float(_number(words["time"])),
    )


def _start(words: Mapping[str, str]) -> Start:
    nodes = tuple(name for name in words["nodes"].split(",") if name)
    return Start(float(_number(words["time"])), _number(words["pid"]), words["host"], nodes)


def _exit(words: Mapping[str, str]) -> Exit:
    if not _CODE.fullmatch(words["code"]) or not -(2**31) <= int(words["code"]) < 2**31:
        raise ValueError(words["code"])
    return Exit(int(words["code"]), words["signal"], float(_number(words["time"])))


def _dup(words: Mapping[str, str]) -> Dup:
    return Dup(words["job"], _number(words["restart"]), words["host"], float(_number(words["time"])))
