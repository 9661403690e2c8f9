"""The counts that the SQLite store keeps of itself, so that nobody has to count a million rows."""

import sqlite3


class Counters:
    """The counts that the store keeps of itself, changed within one transaction."""

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
        """Write them back, within the transaction in which they were read."""
        connection.executemany(
            "UPDATE counters SET value = ? WHERE name = ?", [(v, k) for k, v in self._values.items()]
        )
