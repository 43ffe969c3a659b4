"""LSF: IBM Spectrum LSF, older LSF and OpenLava. Commands are bsub, bjobs, bhist, bkill, bqueues, bhosts, lshosts."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
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
from edbjobs_server.executors.schedulers.command import Answer, is_there, run
from edbjobs_server.executors.schedulers.lsf import directives, history, parse, tables
from edbjobs_server.executors.schedulers.lsf.parse import Job

_MAX_IDS = 100  # of one command line
MAX_HISTORIES = 32  # of one `look`; bhist reads files
_EVENT_FILES = "4"  # that bhist reads; the whole history of a site may be gigabytes
_SUBMITTED = re.compile(r"^Job <(\d{1,18})> is submitted to ", re.MULTILINE | re.ASCII)
_NONE = re.compile(
    r"^(?:No (?:unfinished |matching |running |pending )?job found|Job <[^<>]*> is not found)", re.MULTILINE
)
_NO_MATCH = re.compile(r"No matching job found|No job found|is not found")
_NO_OPTION = re.compile(r"(?:invalid|illegal|unrecognized|bad) option|^Usage: bjobs", re.IGNORECASE | re.MULTILINE)
_GONE = re.compile(
    r"has already finished|No matching job found|is not found|is being (?:terminated|signaled)|in progress"
)
# LSF's clients wait for a server that is away; their output meanwhile is no answer.
_AWAY = re.compile(
    r"please wait|not responding|try later|cannot connect|is down|library call|communication|time(?:d)? ?out|"
    r"still trying|not ready",
    re.IGNORECASE,
)
_BAD_OPTION = re.compile(r"(?:invalid|illegal|unrecognized|bad) option|^Usage: bsub", re.IGNORECASE | re.MULTILINE)


class Lsf(SamePaths):
    """LSF by its commands.

    Whether it has ``bjobs -o -json``, which came with 10.1.0.2, is found out with the first question; without it
    the text forms are read, which have less: `look` then asks for the long form.

    Parameters
    ----------
    env : mapping of str to str
        Environment of the commands but ``bsub``.
    deadline : float, default: 30
        Seconds each command may take; LSF's clients wait indefinitely.
    """

    name = "lsf"
    template = "lsf.sh.j2"

    def __init__(self, env: Mapping[str, str], deadline: float = 30.0) -> None:
        self._env = env
        self._deadline = deadline
        self._old: bool | None = None
        self._version: str | None = None

    async def probe(self) -> str:
        """Ask whether the batch daemon answers; gives the version, as ``lsid`` says it the first time."""
        await self._bjobs()
        if self._version is None:
            answer = await self._run("lsid")
            self._version = answer.stdout.partition("\n")[0].strip() if answer.code == 0 else ""
        return self._version

    def directives(self, allocation: Allocation) -> Sequence[str]:
        """Write what is asked for.

        Raises
        ------
        Refused
            INVALID_JOB, by field.
        """
        return directives.directives_of(allocation, old=bool(self._old))

    def submit_command(self, submission: Submission) -> Sequence[str]:
        """Return the command that submits; it reads the script for its directives.

        It is run in the folder of the output, which it names without that folder: in the value of ``-o``, ``%J`` and
        the like are replaced.
        """
        more = directives.command_options(submission.allocation, old=bool(self._old))
        return ["bsub", "-o", submission.output.name, *more]

    async def submit(self, submission: Submission) -> str:
        """Hand a run over.

        Raises
        ------
        SubmitRefused
            LSF refused it.
        Unreachable
            It is not known whether it did.
        """
        if self._old is None:
            await self._bjobs()
        argv = self.submit_command(submission)
        try:
            script = await asyncio.to_thread(submission.script.read_bytes)
        except OSError as error:
            raise SubmitRefused(f"the script cannot be read: {error}") from error
        answer = await run(argv, submission.env, self._deadline, stdin=script, cwd=submission.output.parent)
        match = _SUBMITTED.search(answer.stdout)
        if match is not None:
            return match[1]
        words = f"{answer.stdout}\n{answer.stderr}"
        refused = "Job not submitted" in words or _BAD_OPTION.search(words)
        if answer.code == 0 or not refused or _AWAY.search(answer.stderr):
            raise Unreachable(answer.words)
        raise SubmitRefused(answer.words.partition("\nUsage: ")[0])

    async def find(self, name: str) -> Sequence[ClusterJobStatus]:
        """Find the jobs of a name, in the history too if ``bjobs`` knows none: it forgets jobs after an hour or so."""
        seen = parse.statuses(await self._bjobs("-a", "-J", name))
        if not seen and is_there("bhist", self._env):
            history, _ = await self._bhist("-a", "-J", name)
            seen = {job.id: parse.settled(job) for job in history.values()}
        return [status for status in seen.values() if status.name == name]

    async def poll(self) -> Mapping[str, ClusterJobStatus]:
        """See all jobs of this account; those that ended within CLEAN_PERIOD are among them."""
        jobs = await self._bjobs("-a")
        if self._old and any(job.state == "PEND" for job in jobs):
            reasons = parse.reasons((await self._run("bjobs", "-p")).stdout)  # which the table lacks
            jobs = [replace(job, reason=reasons.get(job.id, "")) for job in jobs]
        return await asyncio.to_thread(parse.statuses, jobs)

    async def look(self, ids: Sequence[str]) -> Mapping[str, ClusterJobStatus | None]:
        """See some jobs closely: ``bjobs``, then ``bhist`` for those it knows no longer or tells no end of.

        At most `MAX_HISTORIES` of the latter are asked for at once; the others are left out.
        """
        wanted = list(dict.fromkeys(ids))
        told: list[Job] = []
        for first in range(0, len(wanted), _MAX_IDS):
            told += await self._bjobs_closely(wanted[first : first + _MAX_IDS])
        jobs = parse.undisputed(told)
        found: dict[str, ClusterJobStatus | None] = {
            name: status for name, status in parse.statuses(told).items() if not _is_vague(status)
        }
        unsure = [name for name in wanted if name not in found][:MAX_HISTORIES]
        if unsure:
            found.update(await self._from_history(unsure, jobs))
        return found

    async def _from_history(self, ids: Sequence[str], jobs: Mapping[str, Job]) -> dict[str, ClusterJobStatus | None]:
        if is_there("bhist", self._env):
            history, denied = await self._bhist(*ids)
        else:
            history, denied = {}, True
        found: dict[str, ClusterJobStatus | None] = {}
        for name in ids:
            job, past = jobs.get(name), history.get(name)
            if job is not None:
                found[name] = parse.settled(parse.merged(job, past))
            elif past is not None:
                found[name] = parse.settled(past)
            elif denied:
                found[name] = None
        return found

    async def cancel(self, ids: Sequence[str], *, kill: bool = False) -> None:
        """End jobs; `kill` has LSF drop those whose host does not end them (``-r``)."""
        for first in range(0, len(ids), _MAX_IDS):
            answer = await self._run("bkill", *(["-r"] if kill else []), *ids[first : first + _MAX_IDS])
            lines = [line for line in f"{answer.stdout}\n{answer.stderr}".splitlines() if line.strip()]
            bad = [line for line in lines if not _GONE.search(line)]
            if bad or not lines:
                raise Unreachable("\n".join(bad) or answer.words)

    def end_in_output(self, output: str) -> tuple[Ending, str] | None:
        """Return what LSF wrote into a job's output about its end."""
        return parse.end_in_output(output)

    async def partitions(self) -> Sequence[Partition]:
        """List queues, with the sums of the hosts that serve them; memory in use is not reported."""
        asked, batch, static = await asyncio.gather(
            self._run("bqueues", "-l"), self._run("bhosts", "-w"), self._run("lshosts", "-w")
        )
        queues = tables.queues(asked.stdout)
        hosts = tables.rows(batch.stdout)
        if not queues or not hosts:
            raise Unreachable((batch if queues else asked).words)
        known: Mapping[str, tuple[str, ...]] = {}
        if any(name.endswith("/") for queue in queues for name in queue.hosts or ()):
            known = tables.groups((await self._run("bmgroup", "-r", "-w")).stdout)
        return tables.partitions(queues, hosts, tables.rows(static.stdout), known)

    async def jobs(self) -> Sequence[ClusterJob]:
        """List the jobs that have not ended, of all users."""
        jobs = await self._bjobs("-u", "all")
        return await asyncio.to_thread(lambda: [parse.cluster_job(job) for job in jobs])

    async def close(self) -> None:
        """Nothing is kept."""

    async def _bjobs(self, *selection: str) -> Sequence[Job]:
        """Ask for jobs in the best form there is."""
        if not self._old:
            answer = await self._run("bjobs", *selection, "-o", parse.FIELDS, "-json")
            if not _NO_OPTION.search(answer.stderr):
                jobs = await asyncio.to_thread(_from_json, answer)
                self._old = False
                return jobs
            self._old = True
        return await asyncio.to_thread(_from_table, await self._run("bjobs", "-w", *selection))

    async def _bjobs_closely(self, ids: Sequence[str]) -> Sequence[Job]:
        if not self._old:
            jobs = await self._bjobs("-a", *ids)
            if not self._old:
                return jobs
        answer = await self._run("bjobs", "-l", *ids)
        found = list(history.jobs(answer.stdout, time.time()).values())
        if not found and not _NONE.search(answer.stderr):
            raise Unreachable(answer.words)
        return found

    async def _bhist(self, *selection: str) -> tuple[Mapping[str, Job], bool]:
        """Ask for the history of jobs; also, whether it says that it has no others."""
        answer = await self._run("bhist", "-l", "-n", _EVENT_FILES, *selection)
        found = history.jobs(answer.stdout, time.time())
        denied = bool(_NO_MATCH.search(answer.stderr)) and not _AWAY.search(answer.stderr)
        if not found and not denied:
            raise Unreachable(answer.words)
        return found, denied

    async def _run(self, *argv: str) -> Answer:
        return await run(argv, self._env, self._deadline)


def _is_vague(status: ClusterJobStatus) -> bool:
    return status.phase is Phase.ENDED and status.ending is None


def _from_json(answer: Answer) -> Sequence[Job]:
    found = parse.document(answer.stdout)
    if found is not None:
        return parse.records(found, time.time())
    return _none(answer)


def _from_table(answer: Answer) -> Sequence[Job]:
    found = parse.table(answer.stdout, time.time())
    return found if found is not None else _none(answer)


def _none(answer: Answer) -> Sequence[Job]:
    """Return no jobs, if that is what LSF reports in place of a list."""
    if _NONE.search(answer.stderr) and "{" not in answer.stdout and "JOBID" not in answer.stdout:
        return []
    raise Unreachable(answer.words)
