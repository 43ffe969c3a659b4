"""Forgetting what is old enough: bounded commands, to be run until nothing is left to do.

Ages are measured by `Transaction.age_time`, not by the clock of the system, which may be set wrongly for a while.
"""

from __future__ import annotations

from collections.abc import Sequence

from edbjobs_server.core.job import Job
from edbjobs_server.store.transaction import Transaction

REQUEST_SECONDS = 7 * 86_400.0
MAX_REQUESTS = 1_000_000  # about 150 MB
_ENDLESS = float("inf")


def expire(
    tx: Transaction, max_age: float | None = None, max_number: int | None = None, batch_size: int = 200
) -> list[Job]:
    """Remove the records of jobs that ended long ago; each removal is an event.

    Parameters
    ----------
    tx : Transaction
        Of a command.
    max_age : float, optional
        Seconds that an ended job stays on record; default: indefinitely.
    max_number : int, optional
        Ended jobs that stay on record; the oldest ends go first. Default: all.
    batch_size : int, default: 200
        Most jobs to remove.

    Returns
    -------
    list of Job
        What was removed, for the caller to remove their run folders; empty: nothing is left to do.
    """
    before = tx.age_time() - max_age if max_age is not None else -_ENDLESS
    old = tx.ended_before(before, batch_size)
    if max_number is not None and len(old) < batch_size:
        surplus = min(batch_size, tx.count_ended() - max_number)
        if surplus > len(old):
            old = tx.ended_before(_ENDLESS, surplus)
    detail = "removed from the record: its time is over"
    return [tx.delete(job, detail=detail) for job in old]


def cut_events(
    tx: Transaction, max_age: float | None = None, max_number: int | None = None, batch_size: int = 5_000
) -> int:
    """Cut the log of events from its beginning.

    Parameters
    ----------
    tx : Transaction
        Of a command.
    max_age : float, optional
        Seconds that an event stays in the log; default: indefinitely.
    max_number : int, optional
        Events that stay in the log; default: all.
    batch_size : int, default: 5000
        Most events to cut.

    Returns
    -------
    int
        Number of events that were cut; 0: nothing is left to do.
    """
    before = tx.age_time() - max_age if max_age is not None else -_ENDLESS
    surplus = tx.revision - max_number if max_number is not None else 0
    cut = _prefix(tx.oldest_events(batch_size), before, surplus)
    if cut:
        tx.cut_events(cut[-1])
    return len(cut)


def forget_requests(tx: Transaction, max_number: int = MAX_REQUESTS, batch_size: int = 5_000) -> int:
    """Forget request ids older than a week, or of other than the newest jobs.

    Parameters
    ----------
    tx : Transaction
        Of a command.
    max_number : int, default: 1000000
        Newest jobs whose requests are remembered.
    batch_size : int, default: 5000
        Most requests to forget.

    Returns
    -------
    int
        Number of those that were forgotten; 0: nothing is left to do.
    """
    surplus = tx.last_seq - max_number
    old = _prefix(tx.oldest_requests(batch_size), tx.age_time() - REQUEST_SECONDS, surplus)
    if old:
        tx.forget_requests(old[-1])
    return len(old)


def _prefix(rows: Sequence[tuple[int, float]], before: float, upto: int) -> list[int]:
    """Take numbers from the beginning that are old enough or low enough, without a gap."""
    taken = []
    for number, time in rows:
        if time >= before and number > upto:
            break
        taken.append(number)
    return taken
