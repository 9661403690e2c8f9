"""Brings the file of an earlier release to the layout of this one, in one transaction: a crash leaves the earlier layout."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import decode_head, decode_resource
from prela_stream.errors import CodecError
from prela_stream.model.span import Resource
from prela_stream.sinks.kept_trace import SpanItem
from prela_stream.sinks.span_items import read_span
from prela_stream.sinks.sqlite.rows import decision_rows, rows_of
from prela_stream.sinks.sqlite.writing import StoreWriter
from prela_stream.sinks.trace_rows import TraceChange, add_span

logger = logging.getLogger(__name__)

OLDEST: Final = 1
"""The earliest layout that can be converted."""
_BATCH: Final = 500


def convert(connection: sqlite3.Connection, path: Path, create: Callable[[], None]) -> None:
    """Convert layout 1, within a transaction of the caller.

    Args:
        connection: Of the store, for writing.
        path: Its file, for the log.
        create: Creates the tables of the present layout.
    """
    (traces,) = connection.execute("SELECT count(*) FROM traces").fetchone()
    logger.warning("converting the trace store %s with %d traces to the layout of this release", path, traces)
    indexes = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for (name,) in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    connection.execute("DROP TABLE trace_text")
    tables = ("counters", "offsets", "traces", "resources", "spans", "decisions")
    for table in tables:
        connection.execute(f"ALTER TABLE {table} RENAME TO former_{table}")
    connection.execute("CREATE INDEX former_spans_trace ON former_spans (trace)")
    create()
    connection.execute("INSERT INTO offsets SELECT * FROM former_offsets")
    writer = StoreWriter(connection, {})
    for bodies in _batches(connection.execute("SELECT body FROM former_decisions WHERE NOT has_spans")):
        writer.put_decisions(decision_rows(decode_decisions(body)[0] for (body,) in bodies))
    for changes in _batches(_changes(connection)):
        writer.add([rows_of(change) for change in changes])
    writer.save()
    for table in tables:
        connection.execute(f"DROP TABLE former_{table}")
    logger.warning("converted the trace store %s", path)


def _changes(connection: sqlite3.Connection) -> Iterator[TraceChange]:
    resources = {
        one: (body, _resource(body)) for one, body in connection.execute("SELECT id, body FROM former_resources")
    }
    rows = connection.execute("SELECT id, trace_id FROM former_traces ORDER BY stored").fetchall()
    for trace, trace_id in rows:
        change = TraceChange(trace_id=trace_id)
        query = "SELECT body FROM former_decisions WHERE trace_id = ? AND has_spans"
        for (body,) in connection.execute(query, (trace_id,)):
            decision = decode_decisions(body)[0]
            change.decisions[decision.decision_id] = decision
            change.labels.add_service(decision.summary.service)
        query = "SELECT item, resource FROM former_spans WHERE trace = ? ORDER BY start_ns, span_id"
        for item, resource in connection.execute(query, (trace,)):
            body, decoded = resources[resource]
            raw = msgspec.Raw(item)
            try:
                read = read_span(raw, trace_id, [decoded], 0)
            except CodecError:
                continue  # what could be stored can be read; a damaged row must not stop the store
            if read is not None:
                add_span(change, read[2], SpanItem(decode_head(raw), raw, msgspec.Raw(body)))
        if change.decisions:
            yield change


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _resource(body: bytes) -> Resource:
    try:
        return decode_resource(body)
    except CodecError:
        return Resource()
