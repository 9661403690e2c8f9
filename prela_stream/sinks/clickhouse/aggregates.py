"""Counts, histograms, sessions and statistics of the traces that a query selects, in ClickHouse."""

from array import array
from typing import Final, Literal

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.calls import KINDS
from prela_stream.sinks.clickhouse.conditions import Where, where_of
from prela_stream.sinks.clickhouse.questions import Questions
from prela_stream.sinks.estimates import Calls, grouped_totals, statistic_row
from prela_stream.sinks.query import (
    Bar,
    DecidedTotals,
    Histograms,
    SessionRow,
    StatisticKey,
    Statistics,
    TraceQuery,
    TraceStatus,
)
from prela_stream.sinks.trace_rows import STATUSES, bar_start, duration_bar

MOST_TRACES: Final = 50_000
"""Statistics use at most so many traces, the newest."""
_listed: Final = msgspec.msgpack.Decoder(dict[str, tuple[str, ...]])


def _source(query: TraceQuery, where: Where) -> str:
    return f"FROM {{db}}.{'decisions' if query.dropped else 'traces'} FINAL WHERE {where.test}"


def count(ask: Questions, query: TraceQuery, at_most: int) -> int:
    """How many traces match, at most `at_most`."""
    if at_most < 0:
        msg = f"at_most: expected 0 or more, got {at_most}"
        raise ConfigurationError(msg)
    where = where_of(query)
    if where is None:
        return 0
    ((found,),) = ask(f"SELECT count() {_source(query, where)}", where.values)
    return min(int(found), at_most)


def histograms(ask: Questions, query: TraceQuery, bars: int) -> Histograms:
    """The traces of a query over time and over latency."""
    if not 1 <= bars <= 1_000:
        msg = f"bars: expected 1 to 1,000, got {bars}"
        raise ConfigurationError(msg)
    where = where_of(query)
    none = Histograms(time=[], duration=[], traces=0)
    if where is None:
        return none
    source = _source(query, where)
    low, high = query.since_ns, query.until_ns
    if low is None or high is None:
        ((matching, first, last),) = ask(f"SELECT count(), min(start_ns), max(start_ns) {source}", where.values)
        if not matching:
            return none
        low = first if low is None else low
        high = max(last + 1 if high is None else high, low + 1)
    width = max(-(-(high - low) // bars), 1)
    length = "duration_ns" if query.dropped else "duration_bar"
    text = f"SELECT intDiv(start_ns - %(low)s, %(width)s) AS at, {length} AS length, status, count() {source} GROUP BY 1, 2, 3"
    by_time: dict[int, dict[TraceStatus, int]] = {}
    by_duration: dict[int, dict[TraceStatus, int]] = {}
    for at, duration, status, traces in ask(text, {**where.values, "low": low, "width": width}):
        bar = duration_bar(duration) if query.dropped else duration
        for found, key in ((by_time, at), (by_duration, bar)):
            counts = found.setdefault(key, {})
            counts[STATUSES[status]] = counts.get(STATUSES[status], 0) + traces
    return Histograms(
        time=[
            Bar(low=low + at * width, high=low + (at + 1) * width, counts=by_time.get(at, {}))
            for at in range(-(-(high - low) // width))
        ],
        duration=[
            Bar(low=bar_start(bar), high=bar_start(bar + 1), counts=by_duration.get(bar, {}))
            for bar in range(min(by_duration, default=0), max(by_duration, default=-1) + 1)
        ],
        traces=sum(sum(counts.values()) for counts in by_time.values()),
    )


def sessions(ask: Questions, query: TraceQuery, limit: int, after: str | None) -> list[SessionRow]:
    """The sessions of a query, the most recent first."""
    where = where_of(query)
    if where is None or query.dropped:
        return []
    values, below = dict(where.values), ""
    if after is not None:
        kind, _, rest = after.partition(":")
        start, _, session = rest.partition(":")
        if kind != "session" or not start.lstrip("-").isdecimal():
            msg = f"after: expected the cursor of a row of sessions, got {after!r}"
            raise ConfigurationError(msg)
        below, values = (
            "HAVING (last, session) < (%(start)s, %(session)s)",
            {**values, "start": int(start), "session": session},
        )
    text = (
        f"SELECT session, max(start_ns) AS last {_source(query, where)} AND session <> '' GROUP BY session {below}"
        " ORDER BY last DESC, session DESC LIMIT %(limit)s"
    )
    found = dict(ask(text, {**values, "limit": limit}))
    if not found:
        return []
    sums = """
        SELECT session, count(), sum(spans), countIf(errors > 0), sum(input_tokens), sum(output_tokens),
        sumOrNull(cost_usd), min(start_ns), max(start_ns), groupArray(20)(hex(listed)) FROM
        (SELECT * FROM {db}.traces FINAL WHERE session IN %(sessions)s ORDER BY start_ns DESC) GROUP BY session
    """
    rows = {row[0]: row for row in ask(sums, {"sessions": tuple(found)})}
    return [_session(rows[session], last) for session, last in found.items()]


def _session(row: tuple[object, ...], newest: int) -> SessionRow:
    session, traces, spans, errors, input_tokens, output_tokens, cost, first, last, bodies = row
    listed = [_listed.decode(bytes.fromhex(one)) for one in bodies]  # type: ignore[attr-defined]  # an array
    users = [user for one in listed for user in one.get("user", ())]
    return msgspec.convert(
        {
            "session": session,
            "user": users[0] if users else None,
            "first_ns": first,
            "last_ns": last,
            "traces": traces,
            "spans": spans,
            "errors": errors,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cost_usd": cost,
            "services": sorted({service for one in listed for service in one.get("service", ())}),
            "cursor": f"session:{newest}:{session}",
        },
        SessionRow,
    )


def statistics(ask: Questions, query: TraceQuery, by: StatisticKey, limit: int) -> Statistics:
    """The calls of the traces of a query, by model or by tool."""
    if by not in KINDS:
        msg = f"by: expected one of {', '.join(KINDS)}, got {by!r}"
        raise ConfigurationError(msg)
    kept = msgspec.structs.replace(query, dropped=False)
    where = where_of(kept)
    if where is None:
        return Statistics(rows=[], traces=0, matching=0, exact=False)
    source = _source(kept, where)
    matching = count(ask, kept, 1 << 62)
    used = f"SELECT trace_id, weight, start_ns {source} ORDER BY start_ns DESC, trace_id DESC LIMIT {MOST_TRACES}"
    ((traces, most, least, first),) = ask(
        f"SELECT count(), max(weight), min(weight), min(start_ns) FROM ({used})",  # noqa: S608 - constants; values are bound
        where.values,
    )
    text = f"""
        SELECT call_name, any(weight), count(), countIf(status = %(failed)s), sum(input_tokens), sum(output_tokens),
        count(cost_usd), sum(ifNull(cost_usd, 0)), groupArray(512)((end_ns - start_ns) / 1e6)
        FROM (SELECT * FROM {{db}}.spans FINAL WHERE call = %(kind)s) AS one INNER JOIN ({used}) AS used USING (trace_id)
        GROUP BY trace_id, call_name
    """  # noqa: S608 - constants; values are bound
    groups: dict[str, Calls] = {}
    for name, weight, *sums, durations in ask(text, {**where.values, "kind": by, "failed": 2}):
        groups.setdefault(name, Calls()).add(weight, sums, array("f", durations))
    rows = [statistic_row(name, group) for name, group in groups.items() if group.stored]
    rows.sort(key=lambda row: (-row.calls.value, row.name))
    within = TraceQuery(
        dropped=True, since_ns=first if query.since_ns is None else query.since_ns, until_ns=query.until_ns
    )
    certain = bool(traces) and most == 1 == least
    return Statistics(rows=rows[:limit], traces=traces, matching=matching, exact=certain and count(ask, within, 1) == 0)


def decided_totals(
    ask: Questions, by: Literal["service", "policy"], since_ns: int | None, until_ns: int | None
) -> list[DecidedTotals]:
    """Exact sums over all decisions, by service or by policy."""
    if by not in {"service", "policy"}:
        msg = f"by: expected service or policy, got {by!r}"
        raise ConfigurationError(msg)
    where = Where()
    for test, value in (("start_ns >= {}", since_ns), ("start_ns < {}", until_ns)):
        if value is not None:
            where.add(test, value)
    text = f"""
        SELECT {by}, kept, count(), sum(spans), countIf(status = {STATUSES.index("error")}), sum(input_tokens),
        sum(output_tokens), sumOrNull(cost_usd) FROM {{db}}.decisions FINAL WHERE {where.test} GROUP BY {by}, kept
    """  # noqa: S608 - constants; values are bound
    return grouped_totals(ask(text, where.values))
