"""Reads one trace: whole, as an outline, one span of it, or its decision."""

import sqlite3

from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import decode_resource, decode_span
from prela_stream.errors import CodecError
from prela_stream.model.decision import Decision
from prela_stream.model.span import PENDING, SPAN_STATUSES, SPAN_TYPES, Resource, SpanData
from prela_stream.sinks.briefs import decode_brief, light_span
from prela_stream.sinks.query import LightSpan, StoredTrace, TraceOutline, TraceRow
from prela_stream.sinks.sqlite.list_query import ROW_COLUMNS, row_of
from prela_stream.sinks.trace_ids import id_range, only_id
from prela_stream.sinks.trace_rows import primary, row_of_decision


def get(connection: sqlite3.Connection, prefix: str) -> StoredTrace | None:
    """A kept trace with everything."""
    found = _kept(connection, prefix)
    if found is None:
        return None
    trace, row, decision = found
    return StoredTrace(row=row, decision=decision, spans=_spans(connection, trace))


def outline(connection: sqlite3.Connection, prefix: str) -> TraceOutline | None:
    """A kept trace without bodies, or a dropped one."""
    found = _kept(connection, prefix)
    if found is not None:
        trace, row, decision = found
        return TraceOutline(row=row, decision=decision, spans=_light_spans(connection, trace))
    decision_only = decision_of(connection, prefix)
    if decision_only is None:
        return None
    return TraceOutline(row=row_of_decision(decision_only), decision=decision_only, spans=[])


def span(connection: sqlite3.Connection, trace_id: str, span_id: str) -> SpanData | None:
    """One span with everything."""
    try:
        ids = (bytes.fromhex(trace_id), bytes.fromhex(span_id))
    except ValueError:
        return None
    query = "SELECT item, resource FROM spans WHERE trace = (SELECT id FROM traces WHERE trace_id = ?) AND span_id = ?"
    found = connection.execute(query, ids).fetchone()
    return None if found is None else decode_span(found[0], _resource(connection, found[1]))


def decision_of(connection: sqlite3.Connection, prefix: str) -> Decision | None:
    """The decision on a trace; of several, the one that holds for the trace."""
    query = "SELECT DISTINCT trace_id FROM decisions WHERE trace_id BETWEEN ? AND ? LIMIT 2"
    trace_id = only_id([one for (one,) in connection.execute(query, id_range(prefix))], prefix)
    if trace_id is None:
        return None
    bodies = connection.execute("SELECT body FROM decisions WHERE trace_id = ?", (trace_id,))
    return primary(decode_decisions(body)[0] for (body,) in bodies)[0]


def _kept(connection: sqlite3.Connection, prefix: str) -> tuple[int, TraceRow, Decision] | None:
    query = "SELECT trace_id FROM traces WHERE trace_id BETWEEN ? AND ? LIMIT 2"
    trace_id = only_id([one for (one,) in connection.execute(query, id_range(prefix))], prefix)
    if trace_id is None:
        return None
    one = f"SELECT decision_id, {ROW_COLUMNS} FROM traces WHERE trace_id = ?"  # noqa: S608 - constants; values are bound
    decision_id, *row = connection.execute(one, (trace_id,)).fetchone()
    (body,) = connection.execute(
        "SELECT body FROM decisions WHERE trace_id = ? AND decision_id = ?", (trace_id, decision_id)
    ).fetchone()
    return row[0], row_of(row), decode_decisions(body)[0]


def _spans(connection: sqlite3.Connection, trace: int) -> list[SpanData]:
    query = "SELECT item, resource FROM spans WHERE trace = ? ORDER BY start_ns, span_id"
    resources: dict[int, Resource] = {}
    spans: list[SpanData] = []
    for item, resource in connection.execute(query, (trace,)):
        if resource not in resources:
            resources[resource] = _resource(connection, resource)
        spans.append(decode_span(item, resources[resource]))
    return spans


def _light_spans(connection: sqlite3.Connection, trace: int) -> list[LightSpan]:
    query = (
        "SELECT span_id, parent_id, name, span_type, status, start_ns, end_ns, brief FROM spans WHERE trace = ?"
        " ORDER BY start_ns, span_id"
    )
    return [
        light_span(
            decode_brief(brief),
            span_id=span_id.hex(),
            parent_span_id=None if parent_id is None else parent_id.hex(),
            name=name,
            span_type=SPAN_TYPES[span_type],
            status=SPAN_STATUSES[status],
            start_ns=start_ns,
            duration_ns=None if status == PENDING else end_ns - start_ns,
        )
        for span_id, parent_id, name, span_type, status, start_ns, end_ns, brief in connection.execute(query, (trace,))
    ]


def _resource(connection: sqlite3.Connection, resource: int) -> Resource:
    found = connection.execute("SELECT body FROM resources WHERE id = ?", (resource,)).fetchone()
    try:
        return Resource() if found is None else decode_resource(found[0])
    except CodecError:
        return Resource()  # the spans of a process stay readable if its resource is not
