"""PBS: OpenPBS and PBS Professional. Commands are qsub, qstat, qselect, qdel and pbsnodes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import (
    ClusterJob,
    ClusterJobStatus,
    Partition,
    SamePaths,
    Submission,
    SubmitRefused,
    Unreachable,
)
from edbjobs_server.executors.schedulers.command import Answer, run
from edbjobs_server.executors.schedulers.pbs import directives, parse, tables

# Each command takes a reserved port of this host, which stays taken for about a minute (OpenPBS 23.06, measured:
# 360 calls left 292 of them). So one query is for all jobs, and few jobs are looked at one by one.
MAX_LOOKS = 32
_LOOKS_AT_ONCE = 4
_MAX_IDS = 100  # of one command line
_ID = re.compile(r"^\d{1,18}(?:\[\])?\.[A-Za-z0-9_.-]+$", re.MULTILINE | re.ASCII)
# After these it is unknown whether the server accepted the job. Other texts are the server's or a site's refusal.
_UNCERTAIN = re.compile(
    r"connect|unknown host|timed? ?out|end of file|protocol|premature|broken pipe|communication|no reply|"
    r"pbsconf error|munge|system error|internal error",
    re.IGNORECASE,
)
_GONE = re.compile(r"Unknown Job Id|Job has finished|Request invalid for (?:finished|state of) job")
_NO_HISTORY = "not configured to maintain job history"


class Pbs(SamePaths):
    """PBS by its commands.

    The run's comment cannot be given to it (see `directives`); a job is found by its name.

    Parameters
    ----------
    env : mapping of str to str
        Environment of the commands but ``qsub``.
    deadline : float, default: 30
        Seconds each command may take.
    """

    name = "pbs"
    template = "pbs.sh.j2"

    def __init__(self, env: Mapping[str, str], deadline: float = 30.0) -> None:
        self._env = env
        self._deadline = deadline
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def probe(self) -> str:
        """Ask whether the server answers; gives its version."""
        answer = await self._json("Server", "qstat", "-B", "-f", "-F", "json")
        return str(answer.get("pbs_version", ""))

    def directives(self, allocation: Allocation) -> Sequence[str]:
        """Write what is asked for.

        Raises
        ------
        Refused
            INVALID_JOB, by field.
        """
        return directives.directives_of(allocation)

    def submit_command(self, submission: Submission) -> Sequence[str]:
        """Return the command that submits.

        It is run in the folder of the output, which it names without that folder: qsub refuses blanks and letters
        beyond ASCII in the value of ``-o``, not in the folder it is run in (recorded). The output comes while the
        job runs, written to its place by the node (``-k oed``); ``-f`` leaves no process of qsub behind.
        """
        return ["qsub", "-f", "-j", "oe", "-k", "oed", "-o", submission.output.name, str(submission.script)]

    async def submit(self, submission: Submission) -> str:
        """Hand a run over.

        Raises
        ------
        SubmitRefused
            PBS refused it.
        Unreachable
            It is not known whether it did.
        """
        answer = await run(
            self.submit_command(submission), submission.env, self._deadline, cwd=submission.output.parent
        )
        match = _ID.search(answer.stdout)
        if match is not None:
            return match[0]
        if answer.code == 0 or _UNCERTAIN.search(answer.stderr):
            raise Unreachable(answer.words)
        raise SubmitRefused(answer.words.partition("\nusage: ")[0])

    async def find(self, name: str) -> Sequence[ClusterJobStatus]:
        """Find the jobs of a name; without job history, those that have ended are not among them."""
        answer = await self._run("qselect", "-x", "-N", name)
        if _NO_HISTORY in answer.stderr:
            answer = await self._run("qselect", "-N", name)
        if answer.code != 0 or answer.stderr.strip():
            raise Unreachable(answer.words)
        ids = _ID.findall(answer.stdout)
        if len(ids) != len(answer.stdout.split()):
            raise Unreachable(f"qselect answered {answer.stdout[:200]!r}")
        if not ids:
            return []
        seen = await self.look(ids[:MAX_LOOKS])
        if len(seen) < len(ids):
            raise Unreachable(f"PBS reports only {len(seen)} of the {len(ids)} jobs named {name}")
        return [status for status in seen.values() if status is not None and status.name == name]

    async def poll(self) -> Mapping[str, ClusterJobStatus]:
        """See all jobs that have not ended, other users' included."""
        return await asyncio.to_thread(parse.statuses, await self._live())

    async def look(self, ids: Sequence[str]) -> Mapping[str, ClusterJobStatus | None]:
        """See some jobs closely, at most `MAX_LOOKS` of them.

        They are asked for one by one: for several in JSON, some releases report only the first (openpbs issue 2672).
        """
        wanted = list(dict.fromkeys(ids))[:MAX_LOOKS]
        results = await asyncio.gather(*(self._look(name) for name in wanted), return_exceptions=True)
        found: dict[str, ClusterJobStatus | None] = {}
        trouble: Unreachable | None = None
        for name, result in zip(wanted, results, strict=True):
            if isinstance(result, Unreachable):
                trouble = result
            elif isinstance(result, BaseException):
                raise result
            else:
                found[name] = result
        if trouble is not None and not found:
            raise trouble
        return found

    async def _look(self, name: str) -> ClusterJobStatus | None:
        async with self._looks:
            full = ["qstat", "-x", "-f"]
            answer = await self._run(*full, "-F", "json", name)
            if _NO_HISTORY in answer.stderr:
                full.remove("-x")
                answer = await self._run(*full, "-F", "json", name)
            if "Unknown Job Id" in answer.stderr:
                return None
            document = parse.document(answer.stdout)
            if answer.code == 0 and document is None:
                answer = await self._run(*full, name)
        jobs = parse.plain(answer.stdout) if document is None else parse.entries(document, "Jobs")
        status = parse.statuses(jobs).get(name)
        if answer.code != 0 or status is None:
            raise Unreachable(f"qstat reports nothing of {name}: {answer.words[:200]}")
        return status

    async def cancel(self, ids: Sequence[str], *, kill: bool = False) -> None:
        """End jobs; `kill` has the server forget those whose node does not do it."""
        for first in range(0, len(ids), _MAX_IDS):
            answer = await self._run("qdel", *(["-W", "force"] if kill else []), *ids[first : first + _MAX_IDS])
            bad = [line for line in answer.stderr.splitlines() if line.strip() and not _GONE.search(line)]
            if answer.code != 0 and (bad or not answer.stderr.strip()):
                raise Unreachable("\n".join(bad) or answer.words)

    def end_in_output(self, output: str) -> tuple[Ending, str] | None:
        """Return what PBS wrote into a job's output about its end."""
        return parse.end_in_output(output)

    async def partitions(self) -> Sequence[Partition]:
        """List queues, with the sums of the nodes that serve them."""
        queues, nodes, server = await asyncio.gather(
            self._json("Queue", "qstat", "-Q", "-f", "-F", "json"),
            self._json("nodes", "pbsnodes", "-a", "-F", "json"),
            self._json("Server", "qstat", "-B", "-f", "-F", "json"),
        )
        servers = parse.entries(server, "Server").values()
        default = next((str(record["default_queue"]) for record in servers if "default_queue" in record), "")
        return tables.partitions(parse.entries(queues, "Queue"), parse.entries(nodes, "nodes"), default)

    async def jobs(self) -> Sequence[ClusterJob]:
        """List the jobs that have not ended, of all users."""
        live = await self._live()
        return await asyncio.to_thread(lambda: [parse.cluster_job(*item) for item in live.items()])

    async def close(self) -> None:
        """Nothing is kept."""

    async def _live(self) -> Mapping[str, parse.Record]:
        answer = await self._run("qstat", "-f", "-F", "json")
        document = await asyncio.to_thread(parse.document, answer.stdout)
        if answer.code == 0 and document is None:
            answer = await self._run("qstat", "-f")
        # An empty cluster and an unreachable server give the same document: only code and error text differ.
        if answer.code != 0 or (answer.stderr.strip() and "Jobs" not in (document or {})):
            raise Unreachable(answer.words)
        if document is not None:
            return parse.entries(document, "Jobs")
        return await asyncio.to_thread(parse.plain, answer.stdout)

    async def _json(self, kind: str, *argv: str) -> parse.Record:
        answer = await self._run(*argv)
        document = await asyncio.to_thread(parse.document, answer.stdout)
        if answer.code != 0 or document is None or kind not in document:
            raise Unreachable(answer.words)
        return document

    async def _run(self, *argv: str) -> Answer:
        return await run(argv, self._env, self._deadline)
