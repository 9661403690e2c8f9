"""Inserts many rows with one statement.

Each start of a statement that has indexes and triggers to change costs as much as the row. And with each step Python's lock is
released and requested again: while another thread prepares the next rows, a request waits for up to `sys.getswitchinterval()`.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import Final

_MOST_VALUES: Final = 8_192
"""Values of one statement; SQLite allows 32,766."""
_MOST_ROWS: Final = 1_024
_FEW_ROWS: Final = 32
"""To compile a statement with many rows, or to fill it with NULL, would cost more than to insert so few one by one."""


def insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert rows with as few statements as possible.

    Args:
        connection: With an open transaction.
        into: `INSERT INTO table (columns)`. It is no input of a user.
        rows: All of one width.

    Returns:
        How many rows were inserted: `INSERT OR IGNORE` may skip some.
    """
    inserted, at = 0, 0
    while len(rows) - at >= _FEW_ROWS:
        query, most = _many(into, len(rows[0]))
        part = rows[at : at + most]
        padding = repeat(None, (most - len(part)) * len(rows[0]))
        inserted += connection.execute(query, (*chain.from_iterable(part), *padding, len(part))).rowcount
        at += most
    if at < len(rows):
        query = f"{into} VALUES ({', '.join('?' * len(rows[0]))})"
        inserted += connection.executemany(query, rows[at:]).rowcount
    return inserted


@lru_cache(maxsize=64)
def _many(into: str, width: int) -> tuple[str, int]:
    """A statement with places for many rows, of which the last value limits the number; and how many they are."""
    most = min(_MOST_ROWS, _MOST_VALUES // width)
    row = f"({', '.join('?' * width)})"
    return f"{into} SELECT * FROM (VALUES {', '.join(repeat(row, most))}) LIMIT ?", most  # noqa: S608 - constants
