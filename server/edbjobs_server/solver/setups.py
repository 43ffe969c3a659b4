"""What a project asks to be solved: setups, adaptive passes, delta S and sweeps.

The solver's log contains neither the maximum number of passes nor the target delta S, so progress needs them
from the project. They are text in an ``.aedt`` file and, escaped, in the ``edb.def`` of an ``.aedb``
folder. Standard library only, and cheap to import: the demo solver reads its projects with it too.
"""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

from edbjobs_server.util import files
from edbjobs_server.util.files import Budget

READ_LIMIT = 128 * 1024 * 1024  # a project's geometry may be larger; its setups are then left unknown
READ_SECONDS = 30.0
_LINE_LIMIT = 1024 * 1024
_DIRECTORY_LIMIT = 4 * 1024 * 1024  # of an archive's list of members, which is read at once: some 30,000 names
_MAX_ITEMS = 10_000  # setups and sweeps of a project
_MAX_DEPTH = 256
_MAX_VALUE = 1024
_MAX = 1e9  # larger numbers of passes or frequencies are slips, and would not fit into the contract's fields
_BEGIN = re.compile(r"\$begin '([^']*)'$")
_END = re.compile(r"\$end '([^']*)'")
_EDB_SETUP = re.compile(r"^SimSetup\(.*?\bn='([^']*)'")
_PAIR = re.compile(r"^'?([A-Za-z ]+)'?=(.*)$")
_NUMBER = re.compile(r"^([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\s*([kMGT]?)Hz$", re.IGNORECASE)
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_LIST_OF = {
    "kSingle": "SingleFrequencyDataList",
    "kBroadband": "BroadbandFrequencyDataList",
    "kMultiFrequencies": "MultiFrequencyDataList",
}
_SETUP_KEYS = frozenset(
    {"Enabled", "IsEnabled", "AdaptType", "AdaptiveFrequency", "Frequency"}
    | {"MaxPasses", "MaximumPasses", "MaxDelta", "MaxDeltaS"}
)
_SWEEP_KEYS = frozenset(
    {"Name", "Enabled", "IsEnabled", "FreqSweepType", "Type", "FrequencyString"}
    | {"RangeStart", "RangeEnd", "RangeStep", "RangeCount"}
)


class Sweep(NamedTuple):
    """A frequency sweep; `kind` is interpolating, discrete or fast, `start` and `stop` are in hertz."""

    name: str
    kind: str = "interpolating"
    points: int = 0
    start: float = 0.0
    stop: float = 0.0


class Setup(NamedTuple):
    """A solution setup. Empty or 0: not given in the project."""

    design: str
    name: str
    frequency: str = ""
    max_passes: int = 0
    delta_s: float = 0.0
    sweeps: tuple[Sweep, ...] = ()


def read_setups(project: Path, budget: Budget | None = None) -> tuple[Setup, ...]:
    """Read the enabled setups of an .aedt file, an .aedtz archive or an .aedb folder.

    Parameters
    ----------
    project : Path
        The project.
    budget : Budget, optional
        Of bytes and time; of an archive both what is stored and what it unpacks to are counted. Default: 128 MiB and
        30 s.

    Returns
    -------
    tuple of Setup
        In the order of the project; empty where the budget did not suffice (its `spent` is then set): some of the
        setups would be worse than none.

    Raises
    ------
    OSError
        The project cannot be read, or is none.
    """
    budget = budget or Budget(READ_LIMIT, READ_SECONDS)
    reader = _Reader()
    try:
        for line in _lines(project, budget):
            reader.take(line)
    except files.BudgetSpent:
        return ()
    return tuple(reader.setups)


def select(setups: Iterable[Setup], design: str, name: str) -> tuple[Setup, ...]:
    """Choose setups as AEDT's selector does; empty is any. An .aedb does not name the design of a setup."""
    return tuple(s for s in setups if (not design or s.design in ("", design)) and (not name or s.name == name))


def hertz(text: str) -> float:
    """Read a frequency such as ``2.5GHz``; 0 where it is none."""
    match = _NUMBER.match(text.strip())
    return _float(match[1]) * _SCALE[match[2].lower()] if match else 0.0


def _lines(project: Path, budget: Budget) -> Iterator[str]:
    if project.suffix.lower() == ".aedtz":
        yield from _archived(project, budget)
        return
    mode = files.mode_of(project)
    path = project / "edb.def" if mode is not None and stat.S_ISDIR(mode) else project
    with files.open_regular(path) as file:
        yield from _text(file, path, budget)


def _archived(project: Path, budget: Budget) -> Iterator[str]:
    import zipfile  # rare, and a third of the demo solver's start if it stood above
    import zlib

    with files.open_regular(project) as file:
        bounded = _Bounded(file, budget)
        try:
            with zipfile.ZipFile(cast("BinaryIO", bounded)) as archive:
                for item in archive.infolist():
                    # Other ways of packing, which AEDT does not use, unpack a few bytes to any number at once.
                    if item.filename.lower().endswith(".aedt") and item.compress_type in (
                        zipfile.ZIP_STORED,
                        zipfile.ZIP_DEFLATED,
                    ):
                        with archive.open(item) as member:
                            yield from _text(member, project, budget)
        except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, zlib.error) as error:
            if bounded.error is not None:  # which `zipfile` takes for a bad archive
                raise bounded.error from None
            raise OSError(errno.EINVAL, f"the archive cannot be read: {error}", str(project)) from error


class _Bounded:
    """An archive as `zipfile` reads it: what is read is counted, and a list of members without end is refused."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self.error: OSError | None = None
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        limit = _DIRECTORY_LIMIT if size < 0 else size
        if limit > _DIRECTORY_LIMIT:
            raise ValueError(f"its list of members has {limit} bytes; at most {_DIRECTORY_LIMIT} are read")
        try:
            if limit and not self._budget.allow(limit):
                raise self._budget.error("the archive")
            data = self._file.read(limit)
        except OSError as error:
            self.error = error
            raise
        self._budget.take(len(data))
        return data


def _text(file: IO[bytes], path: Path, budget: Budget) -> Iterator[str]:
    while limit := budget.allow(_LINE_LIMIT):
        raw = file.readline(limit)
        if not raw:
            return
        budget.take(len(raw))
        # Inside edb.def a setup is one quoted string: tabs, quotes and line ends are escaped by backslashes.
        yield raw.decode("latin-1").replace("\\", "").strip()
    raise budget.error(path)


class _Reader:
    """Follows the nesting of ``$begin`` and ``$end`` and keeps what belongs to setups."""

    def __init__(self) -> None:
        self.setups: list[Setup] = []
        self._stack: list[str] = []
        self._design = ""
        self._setup: dict[str, str] | None = None
        self._setup_depth = 0
        self._sweep: dict[str, str] | None = None
        self._sweep_depth = 0
        self._sweeps: list[Sweep] = []
        self._items = 0

    def take(self, line: str) -> None:
        if edb := _EDB_SETUP.match(line):
            self._open_setup(edb[1][:_MAX_VALUE], len(self._stack) + 1)
        if begin := _BEGIN.search(line):
            self._begin(begin[1])
        elif end := _END.match(line):
            self._end(end[1])
        elif pair := _PAIR.match(line):
            self._pair(pair[1], pair[2][:_MAX_VALUE].strip("'"))
        elif self._sweep is not None and line.startswith("Frequencies("):
            self._sweep["RangeCount"] = str(line.count("'") // 2)

    def _begin(self, name: str) -> None:
        name = name[:_MAX_VALUE]
        parent = self._stack[-1] if self._stack else ""
        if len(self._stack) >= _MAX_DEPTH:
            raise OSError(errno.EINVAL, f"no project: its blocks are nested more than {_MAX_DEPTH} deep")
        self._stack.append(name)
        if parent == "SolveSetups":
            self._open_setup(name, len(self._stack))
        elif self._setup is not None and (name == "SweepData" or parent == "Sweeps"):
            self._sweep = {"Name": name}
            self._sweep_depth = len(self._stack)

    def _end(self, name: str) -> None:
        name = name[:_MAX_VALUE]
        if name not in self._stack:
            return
        while self._stack.pop() != name:
            pass
        depth = len(self._stack)
        if self._sweep is not None and depth < self._sweep_depth:
            self._close_sweep(self._sweep)
        if self._setup is not None and depth < self._setup_depth:
            self._close_setup(self._setup)

    def _pair(self, key: str, value: str) -> None:
        if self._sweep is not None:
            if key in _SWEEP_KEYS:
                self._sweep[key] = value
        elif self._setup is not None:
            if key not in _SETUP_KEYS:
                return
            lists = [name for name in self._stack if name.endswith("FrequencyDataList")]
            requested = _LIST_OF.get(self._setup.get("AdaptType", "kSingle"), "")
            if not lists or lists[-1] == requested:
                self._setup.setdefault(key, value)
        elif key == "Name" and len(self._stack) == 2:
            self._design = value

    def _open_setup(self, name: str, depth: int) -> None:
        self._setup, self._setup_depth, self._sweeps = {"Setup": name}, depth, []

    def _close_sweep(self, pairs: dict[str, str]) -> None:
        self._sweep = None
        if not self._counts(pairs):
            return
        kind = pairs.get("FreqSweepType", pairs.get("Type", "Interpolating")).removeprefix("k").lower()
        start, stop = hertz(pairs.get("RangeStart", "")), hertz(pairs.get("RangeEnd", ""))
        words = pairs.get("FrequencyString", "").split()
        if len(words) >= 3:
            start, stop = hertz(words[1]), hertz(words[2])
        self._sweeps.append(Sweep(pairs["Name"], kind, _points(pairs, start, stop), start, stop))

    def _counts(self, pairs: dict[str, str]) -> bool:
        """Whether a setup or sweep is enabled, and one of those that are kept."""
        if "false" in (pairs.get("Enabled"), pairs.get("IsEnabled")):
            return False
        self._items += 1
        return self._items <= _MAX_ITEMS

    def _close_setup(self, pairs: dict[str, str]) -> None:
        self._setup = None
        if not self._counts(pairs):
            return
        self.setups.append(
            Setup(
                self._design,
                pairs["Setup"],
                pairs.get("AdaptiveFrequency", pairs.get("Frequency", "")),
                int(_float(pairs.get("MaxPasses", pairs.get("MaximumPasses", "")))),
                _float(pairs.get("MaxDelta", pairs.get("MaxDeltaS", ""))),
                tuple(self._sweeps),
            )
        )


def _points(pairs: dict[str, str], start: float, stop: float) -> int:
    step = hertz(pairs.get("RangeStep", ""))
    if "RangeCount" not in pairs and step > 0:
        return int(_float(str((stop - start) / step + 1.5)))
    return int(_float(pairs.get("RangeCount", "")))


def _float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 <= number < _MAX else 0.0
