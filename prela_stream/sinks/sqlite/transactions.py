"""Transactions of the SQLite store, and the counters that they change."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


class StoreCounts:
    """The rows of the `counters` table, read and changed within one transaction, so that no reader counts a million rows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._values: dict[str, int] = dict(connection.execute("SELECT name, value FROM counters"))

    def next(self, name: str) -> int:
        """Add one, and return the new count."""
        self._values[name] += 1
        return self._values[name]

    def add(self, name: str, amount: int) -> None:
        """Add `amount`."""
        self._values[name] += amount

    def save(self, connection: sqlite3.Connection) -> None:
        """Write the counts back, in the transaction in which they were read."""
        connection.executemany(
            "UPDATE counters SET value = ? WHERE name = ?", [(v, k) for k, v in self._values.items()]
        )


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All statements inside become visible together, or none of them."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
