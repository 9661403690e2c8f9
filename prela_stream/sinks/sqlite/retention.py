"""Deletes old traces from the SQLite store, a few at a time, with everything that belongs to them."""

import sqlite3

from prela_stream.sinks.sqlite.schema import StoreCounts, transaction


def purge(connection: sqlite3.Connection, before_ns: int, *, limit: int) -> int:
    """Delete up to `limit` traces that began before `before_ns`, and decisions of that age.

    Returns the number of deleted traces. If it is less than `limit`, no older one is left.
    """
    with transaction(connection):
        counters = StoreCounts(connection)
        old = connection.execute(
            "SELECT id, trace_id, spans FROM traces WHERE start_ns < ? ORDER BY start_ns LIMIT ?", (before_ns, limit)
        ).fetchall()
        keys = [(trace,) for trace, _, _ in old]
        connection.executemany("DELETE FROM spans WHERE trace = ?", keys)
        connection.executemany("DELETE FROM trace_text WHERE rowid = ?", keys)
        connection.executemany("DELETE FROM traces WHERE id = ?", keys)
        aged = (
            "SELECT trace_id, decision_id, kept FROM decisions WHERE decided_at_ms < ? AND NOT has_spans"
            " ORDER BY decided_at_ms LIMIT ?"
        )
        gone = connection.execute(aged, (before_ns // 1_000_000, limit * 50)).fetchall()
        for _, trace_id, _ in old:
            own = connection.execute(
                "SELECT trace_id, decision_id, kept FROM decisions WHERE trace_id = ?", (trace_id,)
            )
            gone.extend(own.fetchall())
        for trace_id, decision_id, kept in set(gone):
            connection.execute("DELETE FROM decisions WHERE trace_id = ? AND decision_id = ?", (trace_id, decision_id))
            counters.add("kept" if kept else "dropped", -1)
        counters.add("traces", -len(old))
        counters.add("spans", -sum(spans for _, _, spans in old))
        counters.save(connection)
    return len(old)
