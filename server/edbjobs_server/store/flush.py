"""Writes the changes of a commit in as few statements as possible.

Each statement gives the interpreter's lock away and has to get it back from a busy event loop, which costs far
more than the statement. So rows are written many at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from edbjobs_server.store.queries import QUERIES

# 30 rows of 33 columns stay below 999 parameters, the bound of older SQLite.
_MOST_ROWS = 30

Statement = tuple[str, "Sequence[object]"]


def run(connection: sqlite3.Connection, statements: Sequence[Statement]) -> None:
    """Run statements in one transaction: that which is open, or one of their own."""
    if len(statements) == 1 or connection.in_transaction:  # a statement alone is a transaction
        for text, values in statements:
            connection.execute(text, values)
        return
    if statements:
        connection.execute("BEGIN IMMEDIATE")
        for text, values in statements:
            connection.execute(text, values)
        connection.execute("COMMIT")


def insert(query: str, rows: Sequence[tuple[object, ...]]) -> Iterator[Statement]:
    """Make statements of a named ``INSERT … VALUES (?, …)`` for many rows."""
    for start in range(0, len(rows), _MOST_ROWS):
        part = rows[start : start + _MOST_ROWS]
        yield _repeated(query, len(part)), [value for row in part for value in row]


def with_many(query: str, values: Iterable[object]) -> Iterator[Statement]:
    """Make statements of a named ``… IN (?)`` for many values."""
    items = list(values)
    for start in range(0, len(items), 500):
        part = items[start : start + 500]
        # Padded to few sizes, so that the statement is found in the cache.
        part += part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))
        yield _padded(query, len(part)), part


def select_in(connection: sqlite3.Connection, query: str, values: Iterable[object]) -> Iterable[tuple[object, ...]]:
    """Run a named ``SELECT … IN (?)`` for many values."""
    for text, part in with_many(query, values):
        yield from connection.execute(text, part).fetchall()


@cache
def _repeated(query: str, size: int) -> str:
    text = QUERIES[query]
    head, values, tail = text.partition("VALUES ")
    row, close, rest = tail.partition(")")
    return head + values + ", ".join([row + close] * size) + rest


@cache
def _padded(query: str, size: int) -> str:
    return QUERIES[query].replace("(?)", f"({', '.join('?' * size)})")
