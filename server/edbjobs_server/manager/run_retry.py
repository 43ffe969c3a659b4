"""Repetition of a run's steps: a growing delay, a reason that users can read, one log line for each cause."""

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
        Shows the reason to users.
    uid : str
        Of the run's job.
    name : str
        Names run and job in the log.
    patience : RetryState
        Of the job: what was logged of one try is not logged again at the next.
    on_delay : callable
        Called when a step is delayed: nobody should wait for it.
    """

    def __init__(self, core: Planner, uid: str, name: str, patience: RetryState, on_delay: Callable[[], None]) -> None:
        self._core = core
        self._uid = uid
        self._name = name
        self._patience = patience
        self._on_delay = on_delay
        self._nudge = asyncio.Event()

    def nudge(self) -> None:
        """End the present delay."""
        self._nudge.set()

    async def until_done(
        self,
        step: Callable[[], Awaitable[T]],
        what: str,
        give_up: Callable[[str], T | None] = lambda _: None,
    ) -> T:
        """Repeat a step until it returns.

        Parameters
        ----------
        step : callable
            Must be safe to repeat.
        what : str
            What its failure means, for users.
        give_up : callable, optional
            Takes what the error of a failure says; what it returns, unless None, is the result.
        """
        delays = Backoff()
        while True:
            self._nudge.clear()
            try:
                result = await step()
            except Exception as error:
                text = self.explain(what, error)
                instead = give_up(words_of(error))
                if instead is not None:
                    self.clear()
                    return instead
                await self.pause(delays, text, error)
            else:
                if delays.count:
                    self.clear()
                return result

    async def pause(self, delays: Backoff, text: str, error: Exception) -> None:
        """Show why a step is repeated, and wait for the next delay or a nudge."""
        reason, delay = waiting_of(error, delays)
        self.show(reason, f"{text}; tried again after {delay:g} s")
        self._on_delay()
        try:
            async with timeout(delay):
                await self._nudge.wait()
        except (asyncio.TimeoutError, TimeoutError):
            return

    def show(self, reason: Waiting, text: str) -> None:
        """Show users why the run is not followed as it should be."""
        self._core.set_trouble(self._uid, Block(reason, text))

    def clear(self) -> None:
        """Show that nothing is wrong any more."""
        self._core.set_trouble(self._uid, None)
        self._patience.logged = ""

    def explain(self, what: str, error: Exception) -> str:
        """Return what went wrong as a sentence, and log it once for each cause."""
        text = f"{what}: {words_of(error)}"
        if text != self._patience.logged:
            self._patience.logged = text
            expected = isinstance(error, Refused | OSError)
            log.warning("%s: %s", self._name, text, exc_info=None if expected else error)
        return text


def words_of(error: Exception) -> str:
    """Return what an error says to users; one that nobody expects is called a fault of edbjobs."""
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
    return Waiting.BACK_OFF, delay
