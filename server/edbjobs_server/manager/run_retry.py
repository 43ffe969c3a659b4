"""Repetition of a run's steps, with a growing delay, a reason for users, and one log line for each cause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edbjobs_server.core.admission import Block
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.states import Waiting
from edbjobs_server.manager.run_context import RetryState
from edbjobs_server.util.backoff import Backoff
from edbjobs_server.util.files import text_of
from edbjobs_server.util.timeouts import timeout

T = TypeVar("T")

log = logging.getLogger(__name__)

STORE_SECONDS = 5.0  # longest delay between attempts to write to the store


class Retry:
    """Repeats the steps of one run.

    Parameters
    ----------
    core : Planner
        Takes the reason that users see.
    uid : str
        Identifier of the run's job.
    name : str
        Run and job, for log lines.
    state : RetryState
        State of the job: an error that was logged for one try is not logged again for the next.
    on_delay : callable
        Called when a step is delayed: others should not wait for it.
    """

    def __init__(self, core: Planner, uid: str, name: str, state: RetryState, on_delay: Callable[[], None]) -> None:
        self._core = core
        self._uid = uid
        self._name = name
        self._state = state
        self._on_delay = on_delay
        self._due = asyncio.Event()

    def retry_now(self) -> None:
        """End the current delay."""
        self._due.set()

    async def until_done(
        self,
        step: Callable[[], Awaitable[T]],
        what: str,
        give_up: Callable[[str], T | None] = lambda _: None,
        reason: Waiting | None = None,
    ) -> T:
        """Repeat a step until it returns.

        Parameters
        ----------
        step : callable
            Must be safe to repeat.
        what : str
            Description of its failure, for users.
        give_up : callable, optional
            Takes the error text of a failure; a value other than None becomes the result.
        reason : Waiting, optional
            Shown while it is repeated. Default: what follows from the error.
        """
        delays = Backoff()
        while True:
            self._due.clear()
            try:
                result = await step()
            except Exception as error:
                text = self.explain(what, error)
                instead = give_up(error_text(error))
                if instead is not None:
                    self.clear()
                    return instead
                await self.pause(delays, text, error, reason)
            else:
                if delays.count:
                    self.clear()
                return result

    async def pause(self, delays: Backoff, text: str, error: Exception, reason: Waiting | None = None) -> None:
        """Show why a step is repeated, and wait for the next delay or `retry_now`."""
        found, delay = waiting_of(error, delays)
        self.show(reason or found, f"{text}; tried again after {delay:g} s")
        self._on_delay()
        try:
            async with timeout(delay):
                await self._due.wait()
        except (asyncio.TimeoutError, TimeoutError):
            return

    def show(self, reason: Waiting, text: str) -> None:
        """Set the reason that users see."""
        self._core.set_trouble(self._uid, Block(reason, text))

    def clear(self) -> None:
        """Clear the reason that users see."""
        self._core.set_trouble(self._uid, None)
        self._state.logged = ""

    def explain(self, what: str, error: Exception) -> str:
        """Return the failure as a sentence, and log it once for each cause."""
        text = f"{what}: {error_text(error)}"
        if text != self._state.logged:
            self._state.logged = text
            expected = isinstance(error, Refused | OSError)
            log.warning("%s: %s", self._name, text, exc_info=None if expected else error)
        return text


def error_text(error: Exception) -> str:
    """Return the text of an error for users; an unexpected one is marked as a fault of edbjobs."""
    if isinstance(error, Refused):
        return error.message
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename is not None else ""
        return f"{text_of(error)}{where}"
    return f"{type(error).__name__}: {error} (a fault of edbjobs, see its log)"


def waiting_of(error: Exception, delays: Backoff) -> tuple[Waiting, float]:
    """Return the waiting reason and the delay, in seconds, that follow from a failure."""
    delay = delays.next()
    if isinstance(error, Refused) and error.reason in ("STORE_UNAVAILABLE", "OVERLOADED"):
        return Waiting.STORE_UNAVAILABLE, min(delay, STORE_SECONDS)
    if isinstance(error, Refused) and error.reason == "PATH_UNREACHABLE":
        return Waiting.PATH_UNREACHABLE, delay
    return Waiting.BACK_OFF, delay
