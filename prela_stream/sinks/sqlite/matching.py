"""The traces that full-text conditions select, as a stream of ids from the newest to the oldest.

A condition may match a third of all traces. To check one trace against the index takes about 10 µs, but its list is read at less
than 1 µs for each trace. So the lists of several conditions are merged, and reading ends as soon as the page is full.
"""

import heapq
import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from prela_stream.sinks.sqlite.conditions import Condition

MOST_READ: Final = 200_000
"""The most matches that are read for one page of the newest traces; beyond, the index of the sort is walked."""
_CHUNK: Final = 200
_LARGEST_CHUNK: Final = 5_000
_LEFT: Final = "SELECT id FROM traces INDEXED BY traces_newest WHERE id < ? AND start_ns >= ? LIMIT ?"


class Stream:
    """The ids of the traces that match every full-text condition, descending.

    Args:
        connection: Of the store.
        conditions: Full-text conditions, at least one.
        low, high: The range of ids to read.
    """

    def __init__(
        self, connection: sqlite3.Connection, conditions: Sequence[Condition], low: int = 0, high: int = 1 << 62
    ) -> None:
        self.read = 0
        """How many matches of all conditions were read."""
        self._ids = self._merged([self._of(connection, one, low, high) for one in conditions])

    def take(self, most: int) -> list[int]:
        """The next ids, at most `most`."""
        return list(itertools.islice(self._ids, most))

    def _merged(self, streams: Sequence[Iterator[int]]) -> Iterator[int]:
        first, *others = streams
        heads = [next(other, -1) for other in others]
        for one in first:
            for at, other in enumerate(others):
                while heads[at] > one:
                    heads[at] = next(other, -1)
            if all(head == one for head in heads):
                yield one

    def _of(self, connection: sqlite3.Connection, one: Condition, low: int, high: int) -> Iterator[int]:
        query = f"SELECT rowid FROM {one.match} WHERE {one.match} MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC"  # noqa: S608 - constants; values are bound
        rows = iter(connection.execute(query, (*one.values, low, high)))
        late = iter(sorted((trace for trace in one.late if low <= trace <= high), reverse=True))
        last = -1
        for trace in heapq.merge((row[0] for row in rows), late, reverse=True):
            self.read += 1
            if trace != last:
                yield trace
            last = trace


def newest(
    connection: sqlite3.Connection, matching: Sequence[Condition], plain: Sequence[Condition], most: int
) -> list[int] | None:
    """The traces that match and started last, the newest first.

    Ids are in the order in which traces were stored, which is nearly that of their starts. Reading ends when no trace with a
    smaller id can be among the newest.

    Args:
        connection: Of the store.
        matching: Full-text conditions, at least one.
        plain: The other conditions.
        most: How many traces.

    Returns:
        The ids; None if more than MOST_READ matches would have to be read.
    """
    stream = Stream(connection, matching)
    best: list[tuple[int, int]] = []
    test = " AND ".join(["id IN (SELECT value FROM json_each(?))", *(one.test for one in plain)])
    values = [value for one in plain for value in one.values]
    chunk = _CHUNK
    while most:
        ids = stream.take(chunk)
        rows = connection.execute(
            f"SELECT start_ns, id FROM traces NOT INDEXED WHERE {test}",  # noqa: S608 - constants; values are bound
            (json.dumps(ids), *values),
        )
        best = heapq.nlargest(most, [*best, *rows])
        if len(ids) < chunk:
            break
        if len(best) == most:
            # Among the traces with smaller ids, only those that started later than the last of the page can be on it.
            left = connection.execute(_LEFT, (ids[-1], best[-1][0], _CHUNK)).fetchall()
            if len(left) < _CHUNK:
                return [one for _, one in heapq.nlargest(most, [*best, *_checked(connection, left, matching, plain)])]
        if stream.read > MOST_READ:
            return None
        chunk = min(2 * chunk, _LARGEST_CHUNK)
    return [one for _, one in best]


def _checked(
    connection: sqlite3.Connection,
    ids: Sequence[tuple[int]],
    matching: Sequence[Condition],
    plain: Sequence[Condition],
) -> list[tuple[int, int]]:
    """Start and id of those of a few traces that match."""
    if not ids:
        return []
    tests = ["id IN (SELECT value FROM json_each(?))", *(one.test for one in plain)]
    values: list[str | int | float] = [json.dumps([one for (one,) in ids]), *(v for one in plain for v in one.values)]
    for one in matching:
        test, own = one.tests(walk=True)
        tests.append(test)
        values += own
    query = f"SELECT start_ns, id FROM traces NOT INDEXED WHERE {' AND '.join(tests)}"  # noqa: S608 - constants; values are bound
    return connection.execute(query, values).fetchall()
