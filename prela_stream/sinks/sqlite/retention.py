"""Deletes old traces from the SQLite store, a few at a time, with everything that belongs to them."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from prela_stream.sinks.sqlite.transactions import StoreCounts, transaction


def used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes of the store that hold data. The file does not shrink; its free pages are used again."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def purge(connection: sqlite3.Connection, before_ms: int, *, limit: int) -> int:
    """Delete up to `limit` traces and 50 times as many dropped ones that were decided before `before_ms`.

    The time of the decision counts, so that traces that were imported from a file are kept as long as others.

    Returns how many traces were deleted, dropped ones divided by 50. If it is less than `limit`, no older one is left.
    """
    with transaction(connection):
        old = [trace for trace in _oldest(connection, limit) if trace[3] < before_ms]
        aged = _aged_decisions(connection, before_ms, limit * 50)
        _delete(connection, old, aged)
    return max(len(old), len(aged) // 50)


def purge_oldest(connection: sqlite3.Connection, *, limit: int) -> int:
    """Delete a twentieth of the traces, the oldest, but at most `limit`, and dropped ones that are as old.

    Returns how many were deleted.
    """
    with transaction(connection):
        (stored,) = connection.execute("SELECT value FROM counters WHERE name = 'traces'").fetchone()
        limit = min(limit, stored // 20 + 1)
        old = _oldest(connection, limit)
        before_ms = old[-1][3] + 1 if len(old) == limit else 1 << 62
        aged = _aged_decisions(connection, before_ms, limit * 50)
        _delete(connection, old, aged)
    return len(old) + len(aged)


def _oldest(connection: sqlite3.Connection, limit: int) -> list[tuple[Any, ...]]:
    """The traces that were stored first. Their ids are in this order."""
    query = "SELECT id, trace_id, spans, decided_at_ms FROM traces ORDER BY id LIMIT ?"
    return connection.execute(query, (limit,)).fetchall()


def _aged_decisions(connection: sqlite3.Connection, before_ms: int, limit: int) -> list[tuple[Any, ...]]:
    """Decisions without spans that were made before."""
    query = (
        "SELECT trace_id, decision_id, kept FROM decisions WHERE decided_at_ms < ? AND NOT has_spans"
        " ORDER BY decided_at_ms LIMIT ?"
    )
    return connection.execute(query, (before_ms, limit)).fetchall()


def _delete(
    connection: sqlite3.Connection, traces: Sequence[tuple[Any, ...]], decisions: Sequence[tuple[Any, ...]]
) -> None:
    keys = [(trace[0],) for trace in traces]
    late = "SELECT document FROM late_documents WHERE trace = ?"
    documents = [found for key in keys for found in connection.execute(late, key)]
    connection.executemany("DELETE FROM late_text WHERE rowid = ?", documents)
    for table, column in (
        ("spans", "trace"), ("calls", "trace"), ("late_documents", "trace"), ("trace_text", "rowid"),
        ("trace_labels", "rowid"), ("traces", "id"),
    ):  # fmt: skip
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", keys)  # noqa: S608 - constants
    (first,) = connection.execute("SELECT min(id) FROM traces").fetchone()
    unused = "DELETE FROM resources WHERE last_trace < ?"  # no later trace, so no stored one, has a span of these
    connection.execute(unused, (1 << 62 if first is None else first,))
    gone = list(decisions)
    own = "SELECT trace_id, decision_id, kept FROM decisions WHERE trace_id = ?"
    for trace in traces:
        gone.extend(connection.execute(own, (trace[1],)))
    counters = StoreCounts(connection)
    for trace_id, decision_id, kept in set(gone):
        connection.execute("DELETE FROM decisions WHERE trace_id = ? AND decision_id = ?", (trace_id, decision_id))
        counters.add("kept" if kept else "dropped", -1)
    counters.add("traces", -len(traces))
    counters.add("spans", -sum(trace[2] for trace in traces))
    counters.save(connection)
