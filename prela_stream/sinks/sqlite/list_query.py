"""The query of a trace list: a page of a million traces takes milliseconds, with any filter and any sort.

If one condition leaves few traces, these are fetched and sorted. If none does, the query walks the index of the sort until the
page is full. Each of these indexes covers the filters, so the walk does not read the table. SQLite cannot choose between the two,
because it does not know how many traces have a value. So the matches of each condition are counted up to a bound first.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.base import SortKey, TraceFilter, TraceRow
from prela_stream.sinks.sqlite.schema import LABEL_CHARS
from prela_stream.sinks.sqlite.search import match_query

FEW: Final = 10_000
"""The most traces that are fetched and sorted, which takes about 30 ms."""

ROW_COLUMNS: Final = (
    "trace_id, root_name, service, start_ns, duration_ns, spans, errors, input_tokens, output_tokens, cost_usd, "
    "kept_because, weight, trigger, complete, stored"
)

_ROW_NAMES: Final = ROW_COLUMNS.split(", ")[1:]
# `_IS_FOUND` makes the list of all traces with the words. `_HOLDS` checks one trace, which is faster if few traces are checked,
# but not for the beginning of a word: each check would join the lists of all words that begin with it.
_IS_FOUND: Final = "id IN (SELECT rowid FROM trace_text WHERE trace_text MATCH ?)"
_HOLDS: Final = "EXISTS (SELECT 1 FROM trace_text WHERE trace_text MATCH ? AND rowid = traces.id)"
_INT64: Final = (1 << 63) - 1
_SORTS: Final[dict[SortKey, tuple[str, str, str]]] = {
    "newest": ("start_ns", "DESC", "traces_newest"),
    "oldest": ("start_ns", "ASC", "traces_newest"),
    "slowest": ("duration_ns", "DESC", "traces_slowest"),
    "costliest": ("cost_usd", "DESC", "traces_costliest"),
    "most_tokens": ("tokens", "DESC", "traces_most_tokens"),
    "most_spans": ("spans", "DESC", "traces_most_spans"),
}


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a filter: its test on a row, and the index that finds its rows."""

    test: str
    values: tuple[str | int, ...]
    index: str | None = None
    """None: the full-text index."""


def list_traces(
    connection: sqlite3.Connection, where: TraceFilter, sort: SortKey, limit: int, offset: int
) -> list[TraceRow]:
    """The page of traces; raises ConfigurationError for a wrong sort, limit or offset."""
    if sort not in _SORTS:
        msg = f"sort: expected one of {', '.join(_SORTS)}, got {sort!r}"
        raise ConfigurationError(msg)
    if limit < 0 or offset < 0:
        msg = f"limit and offset: expected 0 or more, got limit {limit} and offset {offset}"
        raise ConfigurationError(msg)
    conditions = _conditions(where)
    if conditions is None:
        return []
    column, direction, walk = _SORTS[sort]
    narrow = _narrowest(connection, conditions)
    by_text = [one for one in conditions if one.index is None]
    tests = [one.test for one in conditions if one.index is not None]
    values = [value for one in conditions if one.index is not None for value in one.values]
    if narrow is not None and narrow.index is None:
        source = "traces"
        tests.append(_IS_FOUND)
    else:
        source = f"traces INDEXED BY {walk if narrow is None else narrow.index}"
        tests += [_IS_FOUND if "*" in str(one.values[0]) else _HOLDS for one in by_text]
    values += [value for one in by_text for value in one.values]
    order = f"{column} {direction}, id {direction}"
    page = f"SELECT id FROM {source} WHERE {' AND '.join(tests) or '1'} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608 - constants; values are bound
    query = f"SELECT {ROW_COLUMNS} FROM traces WHERE id IN ({page}) ORDER BY {order}"  # noqa: S608 - constants; values are bound
    bounds = (min(limit, _INT64), min(offset, _INT64))
    return [row_of(row) for row in connection.execute(query, (*values, *bounds))]


def row_of(row: Sequence[Any]) -> TraceRow:
    """A TraceRow of ROW_COLUMNS."""
    trace_id, *values = row
    named = dict(zip(_ROW_NAMES, values, strict=True))
    return TraceRow(**{**named, "trace_id": trace_id.hex(), "complete": bool(named["complete"])})


def _conditions(where: TraceFilter) -> list[_Condition] | None:
    """The parts of a filter; None if no trace can match."""
    found: list[_Condition] = []
    if where.text is not None and where.text.strip():
        query = match_query(where.text)
        if query is None:
            return None
        found.append(_Condition(test="", values=(query,)))
    for column, text in (("service", where.service), ("root_name", where.name), ("policy", where.policy)):
        if text is not None:
            found.append(_Condition(test=f"{column} = ?", values=(_label(text),), index=f"traces_{column}"))
    if where.errors is not None:
        index = "traces_failed" if where.errors else "traces_clean"
        found.append(_Condition(test="errors > 0" if where.errors else "errors = 0", values=(), index=index))
    if where.since_ns is not None or where.until_ns is not None:
        since, until = where.since_ns, where.until_ns
        span = (-_INT64 if since is None else _int64(since), _INT64 if until is None else _int64(until))
        found.append(_Condition(test="start_ns >= ? AND start_ns < ?", values=span, index="traces_newest"))
    if where.min_duration_ms is not None:
        least = _int64(int(min(max(where.min_duration_ms, 0.0), 1e12) * 1e6))
        found.append(_Condition(test="duration_ns >= ?", values=(least,), index="traces_slowest"))
    return found


def _narrowest(connection: sqlite3.Connection, conditions: list[_Condition]) -> _Condition | None:
    """The condition that leaves the fewest traces, if that is few."""
    least, best = FEW + 1, None
    for one in conditions:
        source = "trace_text" if one.index is None else f"traces INDEXED BY {one.index}"
        test = "trace_text MATCH ?" if one.index is None else one.test
        count = f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {test} LIMIT {least})"  # noqa: S608 - constants; values are bound
        (found,) = connection.execute(count, one.values).fetchone()
        if found < least:
            least, best = found, one
    return best


def _label(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:LABEL_CHARS]


def _int64(value: int) -> int:
    return min(max(value, -_INT64), _INT64)
