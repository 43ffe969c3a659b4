"""Text of strangers is read in time proportional to its length: no expression goes over it again and again.

A log line of 65,000 blanks once held the interpreter, and with it the event loop, for 11 s.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import edbjobs_server.executors
import edbjobs_server.solver
import pytest
from edbjobs_server.gateway.rest.parsed_log import LogParser
from edbjobs_server.solver.batch_log import LogReader
from edbjobs_server.solver.setups import hertz, read_setups

SIZE = 64 * 1024
# Processor time for one text, the best of three. Linear expressions need some milliseconds, quadratic ones 0.3 s for
# the cheapest kind of step and minutes for others; so neither a slow machine nor a busy one makes a difference.
SECONDS = 0.15

FILLERS = (" ", "1", "x", "(", "[", "<", ", ", "'", ".", "\n")
LINES = (
    " ", "(", "[", "[info] ", "1", "x", "1:", ", ", "Project:", "Project:, Design:", ", Sweep x", "From ", "From 1 ",
    "Status: ", "process x", "Solution - x : ", "(9:41:40 PM  Mar 17, 2023) ", "(9:41:40 PM  ", "\t", "\r", "\f",
    "Pass Number: 1; ", "Delta S: 9", "Memory 1.", "Frequency - 1", "Real Time 1", "Elapsed time ", "$begin '", "n='",
    "SimSetup(", "'a'=", "Name=", "e9",
)  # fmt: skip
HEADS = (
    "", "[info] ", "[error] ", "[info] Project:", "[error] Project:p, Design:d, ", "[info] Project:p, S1 : [PROFILE] ",
    "[info] Project:p, S1 : [PROFILE] From ", "[info] Project:p, S1 : [PROFILE] Adaptive Pass ",
    "[info] Project:p, S1 : [CONVERGE] Pass Number: ", "Starting Batch Run: ", "Starting Batch Run: 1:00:00 AM",
    "[info] Project:p, S1 : [CONVERGE] Pass Number: 1; Solved Elements: 1; Max Mag. Delta S: ",
    "[info] Project:p, S1 : [PROFILE] Real Time ",
)  # fmt: skip


def cost(work: Callable[[], object]) -> float:
    """Processor seconds of this thread; of a slow one the best of three."""
    best = float("inf")
    for _ in range(3):
        begin = time.thread_time()
        work()
        best = min(best, time.thread_time() - begin)
        if best < SECONDS:
            break
    return best


def modules() -> Iterator[ModuleType]:
    for package in (edbjobs_server.solver, edbjobs_server.executors):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # The demo reads its own command line; the Windows parts cannot be imported elsewhere.
            if ".demo" not in module.name and ".local.windows" not in module.name:
                yield import_module(module.name)
    for name in ("gateway.rest.parsed_log", "manager.log_reader", "util.files"):
        yield import_module(f"edbjobs_server.{name}")


def compiled(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        for item in value.items():
            yield from compiled(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from compiled(part)


def expressions() -> dict[str, tuple[re.Pattern[str], frozenset[str]]]:
    """All compiled expressions, with the ways in which their modules use them."""
    found = {}
    for module in modules():
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            for number, pattern in enumerate(compiled(value) if not name.startswith("__") else ()):
                ways = frozenset(re.findall(rf"\b{name}\.(match|fullmatch)\b", source))
                if not ways or re.search(rf"\b{name}\.(search|sub|finditer|findall|split)\b", source):
                    ways |= {"search"}
                found[f"{module.__name__}.{name}.{number}"] = (pattern, ways)
    return found


def texts(pattern: str) -> Iterator[str]:
    """Make texts that begin as an expression wants, and then go on with what it may take for the rest."""
    sample = re.sub(r"\(\?P<\w+>|\(\?[:!=]|\{[0-9,]+\}|(?<!\\)[()^$*+?]", "", pattern)
    for form, text in ((r"\d", "1"), (r"\S", "x"), (r"\w", "x"), (r"\s", " "), (r"\b", ""), (r"\n", "\n")):
        sample = sample.replace(form, text)
    sample = re.sub(r"(?<!\\)\[\^?[^\]]*\]", "x", sample).replace("\\", "")
    ends = [*range(len(sample) + 1)] if len(sample) < 16 else [*range(0, len(sample) + 1, max(1, len(sample) // 12))]
    ends += [match.end() for match in re.finditer(r"[1x ][^1x ]", sample)][:12]
    for begin in dict.fromkeys(sample[:end] for end in ends):
        for filler in FILLERS:
            yield begin + filler * (SIZE // len(filler))
        if begin:
            yield begin * (SIZE // len(begin))


EXPRESSIONS = expressions()


def test_the_expressions_of_all_readers_are_looked_at() -> None:
    assert len(EXPRESSIONS) > 80
    slurm = "executors.schedulers.slurm.states._STRUCK.0"
    for name in ("solver.batch_log._STAMP.0", "gateway.rest.parsed_log._DESIGN.0", slurm):
        assert f"edbjobs_server.{name}" in EXPRESSIONS


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_expression_is_linear(name: str) -> None:
    pattern, ways = EXPRESSIONS[name]
    for text in texts(pattern.pattern):
        for way in ways:
            use = getattr(pattern, way)
            assert cost(partial(use, text + "\x01")) < SECONDS, f"{way} {text[:80]!r}"


@pytest.mark.parametrize(
    "pattern", [r"\s*\(x\)$", r"From .*?(\d+) F", r"A \S+(.*?)\*", r"Project:([^,]+), Design"], ids=range(4)
)
def test_this_test_finds_one_that_is_not(pattern: str) -> None:
    expression = re.compile(pattern)

    def costs() -> Iterator[float]:
        for size in (SIZE // 8, SIZE // 4, SIZE):
            for text in texts(pattern):
                begin = time.thread_time()
                expression.search(text[:size] + "\x01")
                yield time.thread_time() - begin

    assert any(spent > SECONDS for spent in costs()), "it is quadratic, and no text has shown it"


def read_log(text: bytes) -> None:
    reader = LogReader()
    reader.feed(b"Starting Batch Run: 9:40:00 PM  Mar 17, 2023\n" + text + b"\n")
    reader.end()


def view_log(text: bytes) -> None:
    view = LogParser()
    view.feed(b"Starting Batch Run: 9:40:00 PM  Mar 17, 2023\n" + text + b"\n")
    view.result(1).model_dump()


@pytest.mark.parametrize("read", [read_log, view_log])
@pytest.mark.parametrize("head", HEADS)
def test_no_line_of_a_log_holds_its_readers_up(read: Callable[[bytes], None], head: str) -> None:
    for piece in LINES:
        for end in ("", "x", ")", " (9:41:40 PM  Mar 17, 2023)"):
            text = (head + piece * ((SIZE - len(head) - 40) // len(piece)) + end).encode()
            assert cost(partial(read, text)) < SECONDS, f"{piece!r} {end!r}"


@pytest.mark.parametrize("piece", LINES)
def test_no_line_of_a_project_holds_its_reader_up(tmp_path: Path, piece: str) -> None:
    path = tmp_path / "a.aedt"
    for head in ("", "$begin 'SolveSetups'\n$begin 'S'\n", "SimSetup(id=2, n='", "MaxDelta="):
        path.write_text(head + piece * (SIZE // len(piece)))
        assert cost(lambda: read_setups(path)) < SECONDS
    assert cost(lambda: hertz("1" + piece * (SIZE // len(piece)))) < SECONDS


def test_blocks_without_end_do_not_hold_its_reader_up(tmp_path: Path) -> None:
    path = tmp_path / "a.aedt"
    path.write_text("$begin 'a'\n" * 100 + "$end 'b'\n" * 20_000)
    assert cost(lambda: read_setups(path)) < 1
    path.write_text("$begin 'a'\n" * 300)
    with pytest.raises(OSError, match="nested more than 256 deep"):
        read_setups(path)
