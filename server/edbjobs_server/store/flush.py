"""Writes what a commit changed, in as few statements as it can.

Each statement gives the interpreter's lock away and has to get it back from a busy event loop, which costs far
more than the statement. So rows are written many at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache

from edbjobs_server.store.queries import QUERIES

# 32 rows of 19 columns stay below 999 parameters, the bound of older SQLite.
_MOST_ROWS = 32


def write_rows(connection: sqlite3.Connection, query: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run a named ``INSERT … VALUES (?, …)`` for many rows."""
    for start in range(0, len(rows), _MOST_ROWS):
        part = rows[start : start + _MOST_ROWS]
        connection.execute(_repeated(query, len(part)), [value for row in part for value in row])


def select_in(connection: sqlite3.Connection, query: str, values: Iterable[object]) -> Iterable[tuple[object, ...]]:
    """Run a named ``SELECT … IN (?)`` for many values."""
    wanted = list(values)
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        # Padded to few sizes, so that the statement is found in the cache.
        part += part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))
        yield from connection.execute(_padded(query, len(part)), part).fetchall()


@cache
def _repeated(query: str, size: int) -> str:
    text = QUERIES[query]
    head, values, tail = text.partition("VALUES ")
    row, close, rest = tail.partition(")")
    return head + values + ", ".join([row + close] * size) + rest


@cache
def _padded(query: str, size: int) -> str:
    return QUERIES[query].replace("(?)", f"({', '.join('?' * size)})")
