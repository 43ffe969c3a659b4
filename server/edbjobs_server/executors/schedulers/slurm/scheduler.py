"""SLURM, by its text formats: they are the same over many releases, and its JSON gives wrong exit codes in some."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers import command
from edbjobs_server.executors.schedulers.base import (
    ClusterJob,
    ClusterJobStatus,
    Partition,
    Phase,
    SamePaths,
    Submission,
    SubmitRefused,
    Unreachable,
)
from edbjobs_server.executors.schedulers.slurm import parse, states
from edbjobs_server.executors.schedulers.slurm.directives import directives

_T = TypeVar("_T")

_PING_DEADLINE = 10.0  # `scontrol ping` takes 4 ms, up or down; it hangs where munged hangs
_AT_ONCE = 4  # commands of one `look` at the same time
_ON_A_LINE = 500  # ids; 1,000 of them take scancel 0.4 s
_ASK_AGAIN = 600.0  # seconds until accounting, once disabled, is asked for again
_ACCOUNTING_BEGINS = "now-30days"  # for a search by name, which reads all jobs since then


class Slurm(SamePaths):
    """SLURM's commands.

    Parameters
    ----------
    env : mapping of str to str
        Environment of its commands: ``PATH``, and ``SLURM_CONF`` where it is not in the usual place.
    deadline : float
        Seconds for one command. With its controller down SLURM itself gives up after 9 to 20 s.
    """

    name = "slurm"
    template = "slurm.sh.j2"

    def __init__(self, env: Mapping[str, str], deadline: float = 30.0) -> None:
        self._env = {**env, "SLURM_TIME_FORMAT": "%s"}
        self._deadline = deadline
        self._version = ""
        self._no_accounting_until = 0.0

    async def probe(self) -> str:
        """Ask the controllers whether one of them is up; gives SLURM's release."""
        answer = await self._run("scontrol", "ping", deadline=min(self._deadline, _PING_DEADLINE))
        if not re.search(r"^Slurmctld\([^)\n]*\) at .* is UP\s*$", answer.stdout, re.MULTILINE):
            raise Unreachable(answer.words.splitlines()[0])
        if not self._version:
            told = await self._run("scontrol", "--version")
            self._version = told.stdout.split()[-1] if told.code == 0 and told.stdout.strip() else ""
        return self._version

    def directives(self, allocation: Allocation) -> Sequence[str]:
        """Write what is asked for as ``#SBATCH --...`` directives, without that prefix."""
        return directives(allocation)

    def submit_command(self, submission: Submission) -> Sequence[str]:
        """Return the command that submits.

        Everything the scheduler writes goes to one file. Its directives cannot lead it elsewhere: what stands on the
        command line counts more.
        """
        output = _pattern(submission.output)
        return (
            "sbatch",
            "--parsable",
            f"--chdir={submission.cwd}",
            f"--output={output}",
            f"--error={output}",
            str(submission.script),
        )

    async def submit(self, submission: Submission) -> str:
        """Hand a run over; gives the job's id."""
        argv = list(self.submit_command(submission))
        program = shutil.which(argv[0], path=self._env.get("PATH", os.defpath))
        if program is None:  # the job's own PATH need not lead to SLURM, or leads to another one
            raise Unreachable("sbatch cannot be run: it is not installed")
        argv[0] = program
        env = {name: value for name, value in submission.env.items() if name != "SLURM_TIME_FORMAT"}
        if "SLURM_CONF" in self._env:
            env["SLURM_CONF"] = self._env["SLURM_CONF"]
        answer = await command.run(argv, env, self._deadline)
        if answer.code == 0:
            id = re.search(r"^(\d+)(;\S*)?\s*\Z", answer.stdout, re.MULTILINE)
            if id is None:
                raise Unreachable(f"sbatch gave no id: {answer.words}")
            return id[1]
        # One that was killed, or did not hear back, may have handed the job over all the same.
        if answer.code < 0 or states.is_silence(answer.words) or answer.stdout.strip():
            raise Unreachable(answer.words)
        raise SubmitRefused(answer.words)

    async def find(self, name: str) -> Sequence[ClusterJobStatus]:
        """Find this account's jobs of a name: in the queue, then in the accounting of the last 30 days.

        A line that cannot be read makes the whole answer useless: it might be the job, which would be submitted again.
        """
        found = await self._queue("-n", name)
        jobs = dict(found.jobs)
        if found.whole:
            recorded = await self._accounting("-u", _account(), f"--name={name}", "-S", _ACCOUNTING_BEGINS)
            jobs = {**recorded.jobs, **jobs}
            if recorded.whole:
                return list(jobs.values())
        raise Unreachable("SLURM's answer to a search by name cannot be read whole")

    async def poll(self) -> Mapping[str, ClusterJobStatus]:
        """See all jobs of this account. Lines that cannot be read are left out: nothing follows from a missing id."""
        return (await self._queue()).jobs

    async def look(self, ids: Sequence[str]) -> Mapping[str, ClusterJobStatus | None]:
        """See some jobs closely: the controller first, and then the accounting for those that it does not know.

        The controller is asked for one id at a time (4 ms). In its list of all jobs other users' jobs could pass for
        ours, since SLURM takes line breaks in a job's name.
        """
        answers: dict[str, ClusterJobStatus | None] = {}
        for chunk in _chunks(_numbers(ids), _AT_ONCE):
            for id, read in zip(chunk, await _all([self._show(id) for id in chunk]), strict=True):
                if read is None or id in read.jobs:
                    answers[id] = read.jobs[id] if read else None
        for chunk in _chunks([id for id, seen in answers.items() if seen is None], _ON_A_LINE):
            await self._fill_in(chunk, answers)
        return answers

    async def _show(self, id: str) -> parse.Read | None:
        """Ask the controller for a job; None: it does not know it."""
        answer = await self._run("scontrol", "-a", "-o", "show", "job", id)
        if answer.code == 0:
            return parse.controller(answer.stdout)
        if states.is_unknown_job(answer.words):
            return None
        raise Unreachable(answer.words)

    async def _fill_in(self, ids: Sequence[str], answers: dict[str, ClusterJobStatus | None]) -> None:
        """Put in what the accounting knows of jobs that the controller does not know.

        Only an end counts: rows are late by seconds, and those of jobs that got lost never change.
        """
        try:
            recorded = await self._accounting("-j", ",".join(ids), "-S", "1970-01-01")
        except Unreachable:
            recorded = parse.Read(whole=False)  # what the controller reported of other jobs is still valid
        for id in ids:
            seen = recorded.jobs.get(id)
            if seen is not None and seen.phase is Phase.ENDED:
                answers[id] = seen
            elif not recorded.whole:
                del answers[id]

    async def cancel(self, ids: Sequence[str], *, kill: bool = False) -> None:
        """End jobs. SLURM itself sends TERM, and KILL after its ``KillWait``.

        ``scancel`` reports nothing of jobs that it does not know or that have ended. Its KILL reaches all steps, but
        on 22.05.8 it is not sent before ``KillWait`` either.
        """
        for chunk in _chunks(_numbers(ids), _ON_A_LINE):
            if kill:
                await self._scancel("--full", "--signal=KILL", *chunk)
            await self._scancel(*chunk)

    async def _scancel(self, *args: str) -> None:
        answer = await self._run("scancel", *args)
        if answer.code != 0 and not states.is_over(answer.words):
            raise Unreachable(answer.words)

    def end_in_output(self, output: str) -> tuple[Ending, str] | None:
        """Return what slurmstepd wrote about a job's end."""
        return states.end_in_output(output)

    async def partitions(self) -> Sequence[Partition]:
        """List partitions, with the sums over their nodes."""
        rows = await self._told("scontrol", "-o", "show", "partition")
        nodes = await self._told("scontrol", "-o", "show", "node")
        return await asyncio.to_thread(parse.partitions, rows, nodes)

    async def jobs(self) -> Sequence[ClusterJob]:
        """List the jobs that have not ended, of all users as far as SLURM shows them; a waiting array is one."""
        text = await self._told("squeue", "-h", "-t", "all", "-o", parse.JOBS)
        return await asyncio.to_thread(parse.jobs, text)

    async def close(self) -> None:
        """Let go of everything, which is nothing: each command has ended with its call."""

    async def _queue(self, *args: str) -> parse.Read:
        # "-a": hidden partitions too
        text = await self._told("squeue", "-a", "-h", "-r", "-t", "all", "-u", _account(), *args, "-o", parse.QUEUE)
        return await asyncio.to_thread(parse.queue, text)

    async def _accounting(self, *args: str) -> parse.Read:
        """Ask the accounting; where there is none, it is not asked again for a while."""
        if time.monotonic() < self._no_accounting_until:
            return parse.Read()
        answer = await self._run("sacct", "-n", "-P", "-X", "-o", parse.ACCOUNTING, *args)
        if answer.code == 0:
            return await asyncio.to_thread(parse.accounting, answer.stdout)
        if "accounting storage is disabled" in answer.words:
            self._no_accounting_until = time.monotonic() + _ASK_AGAIN
            return parse.Read()
        raise Unreachable(answer.words)

    async def _told(self, *argv: str) -> str:
        answer = await self._run(*argv)
        if answer.code != 0:
            raise Unreachable(answer.words)
        return answer.stdout

    async def _run(self, *argv: str, deadline: float | None = None) -> command.Answer:
        return await command.run(argv, self._env, deadline or self._deadline)


def _account() -> str:
    """Return this account's number: its name in the environment may be another's."""
    return str(os.getuid())


def _numbers(ids: Sequence[str]) -> list[str]:
    """Leave out what is no id of SLURM's: it must not become an option of a command."""
    return [id for id in dict.fromkeys(ids) if re.fullmatch(r"[0-9]{1,10}", id)]


def _chunks(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _pattern(path: Path) -> str:
    """Write a path for ``--output``: ``%`` starts a pattern there, unless a backslash switches patterns off."""
    text = str(path)
    return text.replace("\\", "\\\\") if "\\" in text else text.replace("%", "%%")


async def _all(calls: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Wait for all calls; if one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
