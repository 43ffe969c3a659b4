"""Running a scheduler's command: with a deadline, a clean environment, and bounds on what it may print."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edbjobs_server.executors.schedulers.base import Unreachable
from edbjobs_server.util.timeouts import timeout

MAX_OUTPUT = 64 << 20  # bytes; 5,000 jobs of `scontrol -o show job` are 4.9 MB (facts measured on SLURM 22.05)
MAX_WORDS = 2000  # of a command's stderr in a message
_CHUNK = 1 << 16
# Each scheduler's commands take defaults from such variables: the account's own habits must not change what we ask.
_HABITS = ("SBATCH_", "SLURM_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_", "LSB_", "PBS_", "CCP_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_TIME_FORMAT", "PBS_CONF_FILE", "PBS_EXEC", "PBS_HOME", "PBS_SERVER"})
_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """Its output when it failed: its stderr, else its stdout."""
        return (self.stderr.strip() or self.stdout.strip())[:MAX_WORDS] or f"exit code {self.code}"


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would change the meaning of a scheduler's commands."""
    return {
        name: value
        for name, value in environ.items()
        if name in _KEPT or not any(name.startswith(prefix) for prefix in _HABITS)
    }


def is_there(program: str, environ: Mapping[str, str]) -> bool:
    """Return whether a command is installed."""
    return shutil.which(program, path=environ.get("PATH", os.defpath)) is not None


async def run(
    argv: Sequence[str], env: Mapping[str, str], deadline: float, stdin: bytes = b"", cwd: Path | None = None
) -> Answer:
    """Run a command to its end; what it prints is read as UTF-8 with replacements.

    Parameters
    ----------
    argv : sequence of str
        Program and arguments; no shell is involved.
    env : mapping of str to str
        Whole environment; cleaned here, and its messages are asked for in English.
    deadline : float
        Seconds until it is killed with everything it started.
    stdin : bytes
        What it reads.
    cwd : Path, optional
        Where it runs; absent: where the service does.

    Raises
    ------
    Unreachable
        It is not installed, `cwd` is not there, it did not end in time, or printed more than 64 MiB.
    """
    line = shlex.join(argv[:4])
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            env={**clean(env), "LC_ALL": "C", "LANG": "C"},
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            cwd=cwd,
        )
    except OSError as error:
        raise Unreachable(f"{argv[0]} cannot be run: {error.strerror}") from error
    try:
        async with timeout(deadline):
            out, err = await _talk(child, stdin)
    except (asyncio.TimeoutError, TimeoutError):
        raise Unreachable(f"`{line}` did not answer within {deadline:g} s") from None
    except _TooMuch:
        raise Unreachable(f"`{line}` printed more than {MAX_OUTPUT >> 20} MiB") from None
    finally:
        if child.returncode is None:
            await _kill(child)
    assert child.returncode is not None, "it has been waited for"
    return Answer(child.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


class _TooMuch(Exception):
    """A command prints without end."""


async def _talk(child: asyncio.subprocess.Process, stdin: bytes) -> tuple[bytes, bytes]:
    assert child.stdout is not None, "it is a pipe"
    assert child.stderr is not None, "it is a pipe"
    reads = [asyncio.ensure_future(_read(stream)) for stream in (child.stdout, child.stderr)]
    try:
        if child.stdin is not None:
            await _feed(child.stdin, stdin)
        out, err = await asyncio.gather(*reads)
    finally:
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
    await child.wait()
    return out, err


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    try:
        pipe.write(data)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it did not read to the end; its answer has the reason


async def _read(stream: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await stream.read(_CHUNK):
        size += len(piece)
        if size > MAX_OUTPUT:
            raise _TooMuch
        pieces.append(piece)
    return b"".join(pieces)


async def _kill(child: asyncio.subprocess.Process) -> None:
    """Kill a command with all it started; one in an uninterruptible sleep is not waited for."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except ProcessLookupError:
        return
    assert child.stdout is not None, "it is a pipe"
    assert child.stderr is not None, "it is a pipe"
    try:  # what it has printed is read to the end, or its pipes would stay open
        async with timeout(_GRACE):
            await asyncio.gather(child.wait(), child.stdout.read(), child.stderr.read())
    except (asyncio.TimeoutError, TimeoutError):
        return  # the loop's child watcher takes its end
