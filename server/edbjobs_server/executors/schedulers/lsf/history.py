"""The long forms of LSF: ``bjobs -l`` and ``bhist -l``, folded at 80 columns, read for how a job went."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from edbjobs_server.executors.schedulers.lsf.parse import PHASES, Job, moment

_FOLD = "\n" + " " * 21
_JOB = re.compile(r"^Job <(?P<id>\d{1,18})>, ", re.MULTILINE | re.ASCII)
_NAME = re.compile(r"Job Name <([^>]*)>, User <")
_USER = re.compile(r"User <([^<>]*)>")
_STATE = re.compile(r"Status <([A-Z]+)>, Queue <([^>]*)>")
_EVENT = re.compile(r"^([A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d): (.*)$", re.MULTILINE | re.ASCII)
_LIMIT = re.compile(r"^ RUNLIMIT *\n *(\d+(?:\.\d+)?) min", re.MULTILINE | re.ASCII)
_PENDING = re.compile(r"^ (?:PENDING|SUSPENDING) REASONS:\n((?: .+\n)+)", re.MULTILINE)
_STARTED = re.compile(r"(?:\[\d+\] )?(?:[Ss]tarted|[Dd]ispatched)\b.*?<")
_HOST = re.compile(r"<([^<>]*)>")
_CODE = re.compile(r"Exited with exit code (\d{1,9})", re.ASCII)
_BY_SIGNAL = re.compile(r"Exited by signal (\d{1,3})", re.ASCII)
_SIGNAL = re.compile(r"Signal <\w+> requested by (?:user or administrator )?<([^>]*)>")
_TERM = re.compile(r"TERM_[A-Z_]+\b[^;.]*")
_SIGNAL_BASE = 128


@dataclass(slots=True)
class _Course:
    """How a job went, event by event."""

    submit: float | None = None
    start: float | None = None
    finish: float | None = None
    hosts: tuple[str, ...] = ()
    end: str = ""
    code: int | None = None
    term: str = ""
    asked: str = ""

    def take(self, when: float | None, text: str) -> None:
        if text.startswith("Submitted from host"):
            self.submit = when
        elif _STARTED.match(text):
            self.start = when
            places = text.partition(", Exec")[0]
            names = (name.partition("*")[2] or name for name in _HOST.findall(places))
            self.hosts = tuple(dict.fromkeys(name for name in names if name))
        elif "requeue" in text.lower() or text.startswith("Pending:"):
            self.start, self.finish, self.code, self.hosts = None, None, None, ()
            self.end = self.term = self.asked = ""
        elif text.startswith("Done successfully"):
            self.end, self.finish, self.code = "DONE", when, None
        elif text.startswith("Signal <") and not self.end:
            asker = _SIGNAL.match(text)
            self.asked = asker[1] if asker is not None else self.asked
        elif text.startswith(("Exited", "Completed <exit>", "Termination request issued; Exited")):
            self._exit(when, text)

    def _exit(self, when: float | None, text: str) -> None:
        self.end, self.finish = "EXIT", self.finish or when
        code, signal, term = _CODE.search(text), _BY_SIGNAL.search(text), _TERM.search(text)
        if code is not None:
            self.code = int(code[1])
        elif signal is not None:
            self.code = _SIGNAL_BASE + int(signal[1])
        if term is not None:
            self.term = term[0].strip()


def jobs(text: str, now: float) -> dict[str, Job]:
    """Read jobs, by id. A job's state is the reported one, else ``DONE`` or ``EXIT`` after such an event.

    One with neither a reported end nor a state is left out, as is an answer that stops in the middle of
    a job.
    """
    found = {}
    for ident, block in _blocks(text.replace(_FOLD, "")):
        job = _job(ident, block, now)
        if job is not None:
            found[ident] = job
    return found


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    pieces = _JOB.split(text)
    yield from zip(pieces[1::2], pieces[2::2], strict=True)


def _job(ident: str, block: str, now: float) -> Job | None:
    head, _, rest = block.partition("\n")
    # What follows the events proves that they are complete.
    if "SCHEDULING PARAMETERS:" not in rest and "Summary of time in seconds" not in rest:
        return None
    course = _Course()
    for event in _EVENT.finditer(rest):
        course.take(moment(event[1], now), event[2])
    name, user, state, limit, waits = (
        _NAME.match(head),
        _USER.search(head),
        _STATE.search(head),
        _LIMIT.search(rest),
        _PENDING.search(rest),
    )
    told = state[1] if state is not None else course.end
    if told not in PHASES:
        return None
    return Job(
        id=ident,
        name=name[1] if name is not None else "",
        state=told,
        user=user[1] if user is not None else "",
        queue=state[2] if state is not None else "",
        hosts=course.hosts,
        submit=course.submit,
        start=course.start,
        finish=course.finish,
        code=course.code,
        reason=" ".join(waits[1].split()) if waits is not None else "",
        term=course.term,
        asked=course.asked,
        limit=float(limit[1]) * 60 if limit is not None else 0.0,
    )
