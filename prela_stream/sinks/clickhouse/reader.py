"""Reads the ClickHouse store; see `TraceReader`."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import anyio
import anyio.to_thread
import msgspec

from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import decode_resource, decode_span
from prela_stream.errors import CodecError, ConfigurationError
from prela_stream.model.decision import Decision
from prela_stream.model.span import PENDING, SPAN_STATUSES, SPAN_TYPES, Resource, SpanData
from prela_stream.sinks.briefs import light_span
from prela_stream.sinks.clickhouse import aggregates
from prela_stream.sinks.clickhouse.conditions import SORTS, add_below, cursor_of, where_of
from prela_stream.sinks.clickhouse.options import ClickhouseOptions
from prela_stream.sinks.clickhouse.questions import Questions
from prela_stream.sinks.clickhouse.schema import Connection
from prela_stream.sinks.clickhouse.sink import stored_spans
from prela_stream.sinks.query import (
    DecidedTotals,
    Histograms,
    LightSpan,
    SessionRow,
    SortKey,
    StatisticKey,
    Statistics,
    StoredTrace,
    TraceOutline,
    TraceQuery,
    TraceRow,
)
from prela_stream.sinks.trace_ids import id_range, only_id
from prela_stream.sinks.trace_rows import STATUSES, SpanRow, primary, row_of_decision

T = TypeVar("T")

_COLUMNS: Final = (
    "trace_id, root_name, service, start_ns, duration_ns, spans, errors, input_tokens, output_tokens, cost_usd, kept_because, "
    "weight, trigger, complete, stored, status, policy, listed"
)
_NAMES: Final = _COLUMNS.split(", ")
_listed: Final = msgspec.msgpack.Decoder(dict[str, tuple[str, ...]])


class ClickhouseReader:
    """Reads what `ClickhouseSink` writes. Any number of tasks may use it at once; their questions are asked in turn.

    Args:
        options: The server and the database. Nothing is opened before the first question.
    """

    def __init__(self, options: ClickhouseOptions) -> None:
        self._connection = Connection(options, create=False)
        self._ask_one = Questions(self._connection, options.query_s)
        self._lock = anyio.Lock()

    async def list_traces(
        self,
        where: TraceQuery,
        *,
        sort: SortKey = "newest",
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
    ) -> list[TraceRow]:
        """Traces that match, sorted; at most `limit` after skipping `offset`, below the cursor `after`."""
        return await self._ask(lambda ask: _list(ask, where, sort, limit, offset, after))

    async def count(self, where: TraceQuery, *, at_most: int = 10_000) -> int:
        """How many traces match, counted up to `at_most`."""
        return await self._ask(lambda ask: aggregates.count(ask, where, at_most))

    async def histograms(self, where: TraceQuery, *, bars: int = 60) -> Histograms:
        """The traces that match, over time and over latency."""
        return await self._ask(lambda ask: aggregates.histograms(ask, where, bars))

    async def sessions(self, where: TraceQuery, *, limit: int = 100, after: str | None = None) -> list[SessionRow]:
        """Sessions with a trace that matches, the most recent first."""
        return await self._ask(lambda ask: aggregates.sessions(ask, where, limit, after))

    async def statistics(self, where: TraceQuery, by: StatisticKey, *, limit: int = 100) -> Statistics:
        """The calls by model or tool."""
        return await self._ask(lambda ask: aggregates.statistics(ask, where, by, limit))

    async def decided_totals(
        self, by: Literal["service", "policy"], *, since_ns: int | None = None, until_ns: int | None = None
    ) -> list[DecidedTotals]:
        """Exact sums over all decided traces."""
        return await self._ask(lambda ask: aggregates.decided_totals(ask, by, since_ns, until_ns))

    async def get(self, trace_id: str) -> StoredTrace | None:
        """One kept trace by its id or a prefix; spans are ordered by start."""
        return await self._ask(lambda ask: _get(ask, trace_id))

    async def outline(self, trace_id: str) -> TraceOutline | None:
        """One trace without the bodies of its spans, by its id or a prefix."""
        return await self._ask(lambda ask: self._outline(ask, trace_id))

    async def span(self, trace_id: str, span_id: str) -> SpanData | None:
        """One span with everything."""
        found = await self._ask(lambda ask: _bodies(ask, trace_id, span_id))
        return found[0] if found else None

    async def decision(self, trace_id: str) -> Decision | None:
        """The decision on a trace by its id or a prefix; of several, the one that holds for the trace."""
        return await self._ask(lambda ask: _decision(ask, trace_id))

    async def tail(self, after: int, *, limit: int = 100) -> list[TraceRow]:
        """Traces stored or extended after mark `after`, oldest first."""
        query = f"SELECT {_COLUMNS} FROM {{db}}.traces FINAL WHERE stored > %(after)s ORDER BY stored LIMIT %(limit)s"  # noqa: S608 - constants; values are bound
        values: dict[str, object] = {"after": after, "limit": limit}
        return await self._ask(lambda ask: [_row(row) for row in ask(query, values, ("listed",))])

    async def newest_mark(self) -> int:
        """The mark of the last change; 0 if nothing is stored."""
        found = await self._ask(lambda ask: ask("SELECT max(stored) FROM {db}.traces", {}))
        return int(found[0][0])

    async def totals(self) -> dict[str, int]:
        """Counts of what is stored: `traces`, `spans`, `decisions`, `kept`, `dropped`."""
        query = """
            SELECT (SELECT count() FROM {db}.traces FINAL), (SELECT count() FROM {db}.spans FINAL),
            (SELECT countIf(kept) FROM {db}.decisions FINAL), (SELECT countIf(NOT kept) FROM {db}.decisions FINAL)
        """
        ((traces, spans, kept, dropped),) = await self._ask(lambda ask: ask(query, {}))
        return {"traces": traces, "spans": spans, "decisions": kept + dropped, "kept": kept, "dropped": dropped}

    async def aclose(self) -> None:
        """Disconnect."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await anyio.to_thread.run_sync(self._connection.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(self, question: Callable[[Questions], T]) -> T:
        async with self._lock:
            return await anyio.to_thread.run_sync(question, self._ask_one)

    def _outline(self, ask: Questions, prefix: str) -> TraceOutline | None:
        found = _kept(ask, prefix)
        if found is not None:
            row, decision = found
            spans = [_light(one) for _, one in stored_spans(self._connection, (row.trace_id,))]
            return TraceOutline(row=row, decision=decision, spans=spans)
        only = _decision(ask, prefix)
        return None if only is None else TraceOutline(row=row_of_decision(only), decision=only, spans=[])


def _list(
    ask: Questions, query: TraceQuery, sort: SortKey, limit: int, offset: int, after: str | None
) -> list[TraceRow]:
    if sort not in SORTS:
        msg = f"sort: expected one of {', '.join(SORTS)}, got {sort!r}"
        raise ConfigurationError(msg)
    if limit < 0 or offset < 0:
        msg = f"limit and offset: expected 0 or more, got limit {limit} and offset {offset}"
        raise ConfigurationError(msg)
    where = where_of(query)
    if where is None:
        return []
    if after is not None:
        add_below(where, sort, after)
    column, direction = SORTS[sort]
    columns, table = ("body", "decisions") if query.dropped else (_COLUMNS, "traces")
    text = (
        f"SELECT {columns} FROM {{db}}.{table} FINAL WHERE {where.test}"  # noqa: S608 - constants; values are bound
        f" ORDER BY {column} {direction} NULLS LAST, trace_id {direction} LIMIT %(limit)s OFFSET %(offset)s"
    )
    values = {**where.values, "limit": min(limit, 1 << 62), "offset": min(offset, 1 << 62)}
    rows = ask(text, values, ("listed", "body"))
    if not query.dropped:
        return [_row(row, sort) for row in rows]
    found = [row_of_decision(decode_decisions(body)[0]) for (body,) in rows]
    return [msgspec.structs.replace(row, cursor=cursor_of(sort, _value(row, sort), row.trace_id)) for row in found]


def _row(values: tuple[Any, ...], sort: SortKey = "newest") -> TraceRow:
    named = dict(zip(_NAMES, values, strict=True))
    listed = _listed.decode(named.pop("listed"))
    named["complete"] = bool(named["complete"])
    named["status"] = STATUSES[named["status"]]
    row = TraceRow(
        **named,
        services=listed.get("service", ()),
        models=listed.get("model", ()),
        tools=listed.get("tool", ()),
        error_types=listed.get("error_type", ()),
        session=next(iter(listed.get("session", ())), None),
        user=next(iter(listed.get("user", ())), None),
    )
    return msgspec.structs.replace(row, cursor=cursor_of(sort, _value(row, sort), row.trace_id))


def _value(row: TraceRow, sort: SortKey) -> float | None:
    column = SORTS[sort][0]
    found: float | None = row.input_tokens + row.output_tokens if column == "tokens" else getattr(row, column)
    return found


def _kept(ask: Questions, prefix: str) -> tuple[TraceRow, Decision] | None:
    trace_id = _one_id(ask, "traces", prefix)
    if trace_id is None:
        return None
    query = f"SELECT decisions[1], {_COLUMNS} FROM {{db}}.traces FINAL WHERE trace_id = %(id)s"  # noqa: S608 - constants; values are bound
    ((body, *row),) = ask(query, {"id": trace_id}, ("decisions[1]", "listed", "arrayElement(decisions, 1)"))
    return _row(tuple(row)), decode_decisions(body)[0]


def _get(ask: Questions, prefix: str) -> StoredTrace | None:
    found = _kept(ask, prefix)
    if found is None:
        return None
    spans = sorted(_bodies(ask, found[0].trace_id), key=lambda one: (one.start_ns, one.span_id))
    return StoredTrace(row=found[0], decision=found[1], spans=spans)


def _bodies(ask: Questions, trace_id: str, span_id: str | None = None) -> list[SpanData]:
    """The spans of a trace with everything, or one of them."""
    query = "SELECT resource, item FROM {db}.span_bodies FINAL WHERE trace_id = %(trace)s"
    query += "" if span_id is None else " AND span_id = %(span)s"
    resources: dict[bytes, Resource] = {}
    spans = []
    for body, item in ask(query, {"trace": trace_id, "span": span_id}, ("resource", "item")):
        if body not in resources:
            resources[body] = _resource(body)
        spans.append(decode_span(item, resources[body]))
    return spans


def _resource(body: bytes) -> Resource:
    try:
        return decode_resource(body)
    except CodecError:
        return Resource()  # the spans of a process stay readable if its resource is not


def _light(row: SpanRow) -> LightSpan:
    return light_span(
        row.brief,
        span_id=row.span_id.hex(),
        parent_span_id=None if row.parent_id is None else row.parent_id.hex(),
        name=row.name,
        span_type=SPAN_TYPES[row.span_type],
        status=SPAN_STATUSES[row.status],
        start_ns=row.start_ns,
        duration_ns=None if row.status == PENDING else row.end_ns - row.start_ns,
    )


def _decision(ask: Questions, prefix: str) -> Decision | None:
    trace_id = _one_id(ask, "decisions", prefix)
    if trace_id is None:
        return None
    bodies = ask("SELECT body FROM {db}.decisions FINAL WHERE trace_id = %(id)s", {"id": trace_id}, ("body",))
    return primary(decode_decisions(body)[0] for (body,) in bodies)[0]


def _one_id(ask: Questions, table: str, prefix: str) -> str | None:
    low, high = id_range(prefix)
    query = f"SELECT DISTINCT trace_id FROM {{db}}.{table} WHERE trace_id BETWEEN %(low)s AND %(high)s LIMIT 2"  # noqa: S608 - constants; values are bound
    rows = ask(query, {"low": low.hex(), "high": high.hex()})
    found = only_id([bytes.fromhex(one) for (one,) in rows], prefix)
    return None if found is None else found.hex()
