"""AEDT's batch command line, as the demo solver parses it: an unknown option is an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_MACHINE = re.compile(r"^[A-Za-z0-9][\w.-]*:(-1|[1-9]\d*):[1-9]\d*(:\d{1,3}%(:\d+)?)?$")
_QUOTED = re.compile(r"'([^']*)'\s*=\s*(?:'([^']*)'|(\S+))")
_BARE = re.compile(r"([^\s'=]+)=(\S*)")
_FLAGS = ("ng", "monitor", "local", "waitforlicense", "iconic", "useelectronicsppe")
_VALUES = ("jobid", "logfile", "machinelist", "batchoptions", "archiveoptions")
_SUB_OPTIONS = ("auto", "distributed")  # may be followed by words of the form name=value


class CommandError(Exception):
    """The command line is not one that AEDT accepts; the message names the fault."""


class Machine(NamedTuple):
    """A host of the machine list; `tasks` is -1 where AEDT chooses."""

    host: str
    tasks: int
    cores: int
    ram_percent: int
    gpus: int


class Command(NamedTuple):
    """A parsed command line; `ignored_selector` is one that an option after -batchsolve made void."""

    project: Path
    selector: str
    ignored_selector: str
    job_id: str
    logfile: str
    monitor: bool
    wait_for_license: bool
    automatic: bool
    machines: tuple[Machine, ...]
    batch_options: dict[str, str]

    @property
    def tasks(self) -> int:
        """Number of engines."""
        return max(1, sum(max(1, machine.tasks) for machine in self.machines))

    def option(self, name: str) -> str:
        """Value of a batch option, by the last part of its name in any case; empty where it is not given."""
        suffix = name.lower()
        return next((v for k, v in self.batch_options.items() if k.lower().rpartition("/")[2] == suffix), "")


def parse(arguments: Sequence[str]) -> Command:
    """Read the command line that follows the program's name.

    Raises
    ------
    CommandError
        An unknown option, a missing value, a malformed machine list or batch option, or no project.
    """
    words = list(arguments)
    given: dict[str, str] = {}
    options: dict[str, str] = {}
    machines: list[Machine] = []
    batch: list[str] | None = None
    late = False
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            if batch is None:
                raise CommandError(f"{word!r} is no option; the project follows -batchsolve")
            batch.append(word)
            continue
        late = late or batch is not None
        name, _, value = word[1:].partition("=")
        name = name.lower()
        if name == "batchsolve":
            batch = []
        elif name in _SUB_OPTIONS:
            while words and "=" in words[0] and not words[0].startswith("-"):
                words.pop(0)
            given[name] = "1"
        elif name in _FLAGS:
            given[name] = "1"
        elif name in _VALUES:
            if not value and not words:
                raise CommandError(f"-{name} needs a value")
            text = value or words.pop(0)
            if name == "batchoptions":
                options.update(_batch_options(text))
            elif name == "machinelist":
                machines += _machines(text)
            given[name] = text
        else:
            raise CommandError(f"unknown option {word!r}")
    return _command(given, options, machines, batch, late)


def _command(
    given: dict[str, str],
    options: dict[str, str],
    machines: list[Machine],
    batch: list[str] | None,
    late: bool,
) -> Command:
    if not batch or len(batch) > 2:
        raise CommandError("-batchsolve needs a project, with at most one selector before it")
    if "/" in given.get("jobid", ""):
        raise CommandError("-jobid becomes part of a file name and takes no slash")
    selector = batch[0] if len(batch) == 2 else ""
    return Command(
        project=Path(batch[-1]),
        selector="" if late else selector,  # one public report: options after -batchsolve made AEDT solve everything
        ignored_selector=selector if late else "",
        job_id=given.get("jobid", ""),
        logfile=given.get("logfile", ""),
        monitor="monitor" in given,
        wait_for_license="waitforlicense" in given,
        automatic="auto" in given,
        machines=tuple(machines) or (Machine("localhost", 1, 1, 90, 0),),
        batch_options=options,
    )


def _machines(text: str) -> list[Machine]:
    kind, _, value = text.partition("=")
    if kind.lower() in ("num", "numcores"):
        if not value.isdigit() or int(value) < 1:
            raise CommandError(f"-machinelist {text!r}: a positive number is needed")
        cores = int(value)
        return [Machine("localhost", cores if kind.lower() == "num" else 1, cores, 90, 0)]
    if kind.lower() == "file":
        try:
            entries = Path(value).read_text(encoding="utf-8").split()
        except OSError as error:
            raise CommandError(f"-machinelist {text!r}: {error.strerror}") from error
    elif kind.lower() == "list":
        entries = value.split(",")
    else:
        raise CommandError(f"-machinelist {text!r}: list=, file=, num= or numcores= is needed")
    return [_machine(entry) for entry in entries]


def _machine(entry: str) -> Machine:
    if not _MACHINE.match(entry):
        raise CommandError(f"machine {entry!r} is not host:tasks:cores[:RAM%[:gpus]]")
    parts = entry.split(":")
    ram = int(parts[3].rstrip("%")) if len(parts) > 3 else 90
    return Machine(parts[0], int(parts[1]), int(parts[2]), ram, int(parts[4]) if len(parts) > 4 else 0)


def _batch_options(text: str) -> dict[str, str]:
    if "=" not in text:
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise CommandError(f"-batchoptions {text!r}: {error.strerror}") from error
        if "$begin 'Config'" not in text or "$end 'Config'" not in text:
            raise CommandError("the batch options file has no $begin 'Config' … $end 'Config'")
        text = text.replace("$begin 'Config'", "").replace("$end 'Config'", "")
    pairs = {key: quoted or bare for key, quoted, bare in _QUOTED.findall(text)}
    rest = _QUOTED.sub("", text)
    pairs.update(_BARE.findall(rest))
    if left := _BARE.sub("", rest).strip():
        raise CommandError(f"-batchoptions: {left!r} is not 'name'='value'")
    return pairs
