"""Histograms, sessions and statistics of the traces that a query selects."""

import sqlite3
from typing import Any, Final

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.calls import KINDS, unpacked
from prela_stream.sinks.estimates import Calls, statistic_row
from prela_stream.sinks.query import (
    Bar,
    Histograms,
    SessionRow,
    StatisticKey,
    Statistics,
    TraceQuery,
    TraceStatus,
)
from prela_stream.sinks.sqlite.conditions import conditions_of
from prela_stream.sinks.sqlite.dropped import where_dropped
from prela_stream.sinks.sqlite.list_query import Selection, list_traces, select
from prela_stream.sinks.sqlite.rollups import SLOT_NS
from prela_stream.sinks.trace_rows import STATUSES, bar_start, duration_bar

MOST_TRACES: Final = 20_000
"""Statistics use at most so many traces, the newest."""
_SESSION_TRACES: Final = 10_000
"""The most traces that are read to find the sessions of one page."""
_listed: Final = msgspec.msgpack.Decoder(dict[str, tuple[str, ...]])


def selection_of(connection: sqlite3.Connection, where: TraceQuery) -> Selection | None:
    """The traces of a query, kept or dropped; None if none can match."""
    if where.dropped:
        dropped = where_dropped(where)
        if dropped is None:
            return None
        test, values = dropped
        return Selection(source="decisions INDEXED BY decisions_newest", test=test, values=tuple(values))
    conditions = conditions_of(connection, where)
    return None if conditions is None else select(connection, conditions)


def count(connection: sqlite3.Connection, where: TraceQuery, at_most: int) -> int:
    """How many traces match, at most `at_most`."""
    if at_most < 0:
        msg = f"at_most: expected 0 or more, got {at_most}"
        raise ConfigurationError(msg)
    chosen = selection_of(connection, where)
    if chosen is None:
        return 0
    query = f"SELECT count(*) FROM (SELECT 1 FROM {chosen.source} WHERE {chosen.test} LIMIT ?)"  # noqa: S608 - constants; values are bound
    (found,) = connection.execute(query, (*chosen.values, min(at_most, 1 << 62))).fetchone()
    return int(found)


def histograms(connection: sqlite3.Connection, where: TraceQuery, bars: int) -> Histograms:
    """The traces of a query over time and over latency."""
    if not 1 <= bars <= 1_000:
        msg = f"bars: expected 1 to 1,000, got {bars}"
        raise ConfigurationError(msg)
    chosen = selection_of(connection, where)
    if chosen is None:
        return Histograms(time=[], duration=[], traces=0)
    source = f"FROM {chosen.source} WHERE {chosen.test}"
    low, high = where.since_ns, where.until_ns
    if low is None or high is None:
        span = f"SELECT (SELECT min(start_ns) {source}), (SELECT max(start_ns) {source})"  # each reads one end of the index
        first, last = connection.execute(span, (*chosen.values, *chosen.values)).fetchone()
        if first is None:
            return Histograms(time=[], duration=[], traces=0)
        low = first if low is None else low
        high = max(last + 1 if high is None else high, low + 1)
    width = max(-(-(high - low) // bars), 1)
    length = "duration_ns" if where.dropped else "duration_bar"
    query = f"SELECT (start_ns - ?) / ?, {length}, status, count(*) {source} GROUP BY 1, 2, 3"
    if width > SLOT_NS and msgspec.structs.replace(where, status=None, errors=None) == TraceQuery():
        low -= low % SLOT_NS
        width = -(-(high - low) // (bars * SLOT_NS)) * SLOT_NS
        query = f"""
            SELECT (slot * {SLOT_NS} - ?) / ?, duration_bar, status, sum(traces) FROM trace_slots WHERE {chosen.test}
            GROUP BY 1, 2, 3
        """  # noqa: S608 - constants; values are bound
    by_time: dict[int, dict[TraceStatus, int]] = {}
    by_duration: dict[int, dict[TraceStatus, int]] = {}
    for at, duration, status, traces in connection.execute(query, (low, width, *chosen.values)):
        bar = duration_bar(duration) if where.dropped else duration
        for found, key in ((by_time, at), (by_duration, bar)):
            counts = found.setdefault(key, {})
            counts[STATUSES[status]] = counts.get(STATUSES[status], 0) + traces
    last_bar = max(by_time, default=-1)
    return Histograms(
        time=[
            Bar(low=low + at * width, high=low + (at + 1) * width, counts=by_time.get(at, {}))
            for at in range(max(last_bar + 1, -(-(high - low) // width)))
        ],
        duration=[
            Bar(low=bar_start(bar), high=bar_start(bar + 1), counts=by_duration.get(bar, {}))
            for bar in range(min(by_duration, default=0), max(by_duration, default=-1) + 1)
        ],
        traces=sum(sum(counts.values()) for counts in by_time.values()),
    )


def sessions(connection: sqlite3.Connection, where: TraceQuery, limit: int, after: str | None) -> list[SessionRow]:
    """The sessions of a query, the most recent first."""
    found: list[SessionRow] = []
    seen: set[str] = set()
    read = 0
    while len(found) < limit and read < _SESSION_TRACES:
        rows = list_traces(connection, where, "newest", 500, 0, after)
        for row in rows:
            after = row.cursor
            if row.session is None or row.session in seen or len(found) == limit:
                continue
            seen.add(row.session)
            newest = msgspec.structs.replace(where, session=row.session)
            if list_traces(connection, newest, "newest", 1, 0, None)[0].trace_id == row.trace_id:
                found.append(_session(connection, row.session, row.cursor))
        read += len(rows)
        if len(rows) < 500:
            break
    return found


def _session(connection: sqlite3.Connection, session: str, cursor: str) -> SessionRow:
    query = """
        SELECT count(*), sum(spans), sum(errors > 0), sum(input_tokens), sum(output_tokens), sum(cost_usd), min(start_ns),
        max(start_ns) FROM traces INDEXED BY traces_session WHERE session = ?
    """
    traces, spans, errors, input_tokens, output_tokens, cost, first, last = connection.execute(
        query, (session,)
    ).fetchone()
    newest = "SELECT listed FROM traces INDEXED BY traces_session WHERE session = ? ORDER BY start_ns DESC LIMIT 20"
    listed = [_listed.decode(one) for (one,) in connection.execute(newest, (session,))]
    users = [user for one in listed for user in one.get("user", ())]
    return SessionRow(
        session=session,
        user=users[0] if users else None,
        first_ns=first,
        last_ns=last,
        traces=traces,
        spans=spans,
        errors=errors,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=cost,
        services=tuple(sorted({service for one in listed for service in one.get("service", ())})),
        cursor=cursor,
    )


def statistics(connection: sqlite3.Connection, where: TraceQuery, by: StatisticKey, limit: int) -> Statistics:
    """The calls of the traces of a query, by model or by tool."""
    if by not in KINDS:
        msg = f"by: expected one of {', '.join(KINDS)}, got {by!r}"
        raise ConfigurationError(msg)
    kept = msgspec.structs.replace(where, dropped=False)
    chosen = selection_of(connection, kept)
    if chosen is None:
        return Statistics(rows=[], traces=0, matching=0, exact=False)
    matching = count(connection, kept, 1 << 62)
    used = f"SELECT id FROM {chosen.source} WHERE {chosen.test} ORDER BY start_ns DESC, id DESC LIMIT {MOST_TRACES}"  # noqa: S608 - constants; values are bound
    weights = f"SELECT count(*), max(weight), min(weight), min(start_ns) FROM traces WHERE id IN ({used})"  # noqa: S608 - constants; values are bound
    traces, most, least, first = connection.execute(weights, chosen.values).fetchone()
    query = f"""
        SELECT name, weight, calls, calls.errors, calls.input_tokens, calls.output_tokens, priced, calls.cost_usd, durations
        FROM ({used}) AS used CROSS JOIN calls ON calls.trace = used.id AND kind = ? CROSS JOIN traces ON traces.id = used.id
    """  # noqa: S608 - constants; values are bound
    groups: dict[str, Calls] = {}
    for name, weight, *sums, durations in connection.execute(query, (*chosen.values, KINDS.index(by))):
        group = groups.get(name)
        if group is None:
            group = groups[name] = Calls()
        group.add(weight, sums, unpacked(durations))
    rows = [statistic_row(name, group) for name, group in groups.items() if group.stored]
    rows.sort(key=lambda row: (-row.calls.value, row.name))
    return Statistics(
        rows=rows[:limit],
        traces=traces,
        matching=matching,
        exact=bool(traces) and most == 1 == least and not _any_dropped(connection, where, first),
    )


def _any_dropped(connection: sqlite3.Connection, where: TraceQuery, first_ns: Any) -> bool:
    """Whether a trace was dropped in the time of the statistics: of a dropped trace it is unknown whether it has such calls."""
    within = TraceQuery(
        dropped=True, since_ns=first_ns if where.since_ns is None else where.since_ns, until_ns=where.until_ns
    )
    return count(connection, within, 1) > 0
