"""Asks the database of a reader, with its time limit."""

from typing import Any

from prela_stream.sinks.clickhouse.schema import Connection


class Questions:
    """Runs queries.

    Args:
        connection: Opened with the first query.
        seconds: The most time of one query.
    """

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds

    def __call__(self, text: str, values: dict[str, object], binary: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; see `Connection.query`. `traces_` and `words_` are the tables without replaced rows."""
        self._connection.open()
        full = text.replace("FROM traces_", "FROM {db}.traces FINAL").replace("FROM words_", "FROM {db}.trace_words")
        return self._connection.query(full, values, binary, self._seconds)
