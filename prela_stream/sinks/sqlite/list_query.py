"""The query of a trace list: a page of a million traces takes milliseconds, with any filter and any sort.

If one condition leaves few traces, these are fetched and sorted. If none does, the query walks the index of the sort until the
page is full. Each of these indexes covers the filters, so the walk does not read the table. SQLite cannot choose between the two,
because it does not know how many traces have a value. So the matches of each condition are counted up to a bound first. Words and
labels are read as a stream instead; see `matching`.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.query import SortKey, TraceQuery, TraceRow
from prela_stream.sinks.sqlite.conditions import Condition, conditions_of, int64
from prela_stream.sinks.sqlite.matching import Stream, newest
from prela_stream.sinks.trace_rows import STATUSES

FEW: Final = 10_000
"""The most traces that are fetched and sorted, which takes about 30 ms."""

ROW_COLUMNS: Final = (
    "id, trace_id, root_name, service, start_ns, duration_ns, spans, errors, input_tokens, output_tokens, cost_usd, "
    "kept_because, weight, trigger, complete, stored, status, policy, listed"
)
SORTS: Final[dict[SortKey, tuple[str, Literal["ASC", "DESC"], str]]] = {
    "newest": ("start_ns", "DESC", "traces_newest"),
    "oldest": ("start_ns", "ASC", "traces_newest"),
    "slowest": ("duration_ns", "DESC", "traces_slowest"),
    "costliest": ("cost_usd", "DESC", "traces_costliest"),
    "most_tokens": ("tokens", "DESC", "traces_most_tokens"),
    "most_spans": ("spans", "DESC", "traces_most_spans"),
}

_ROW_NAMES: Final = ROW_COLUMNS.split(", ")
_INT64: Final = (1 << 63) - 1
_listed: Final = msgspec.msgpack.Decoder(dict[str, tuple[str, ...]])


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The traces that match, as the rest of an SQL query."""

    source: str
    """After FROM."""
    test: str
    """After WHERE."""
    values: tuple[str | int | float, ...]


def list_traces(
    connection: sqlite3.Connection, where: TraceQuery, sort: SortKey, limit: int, offset: int, after: str | None
) -> list[TraceRow]:
    """The page of kept traces; raises ConfigurationError for a wrong sort, limit, offset or cursor."""
    check_page(sort, limit, offset)
    conditions = conditions_of(connection, where)
    if conditions is None:
        return []
    below = None if after is None else _below(sort, after)
    matching = [one for one in conditions if one.match]
    plain = [one for one in conditions if not one.match]
    if matching and _narrowest(connection, plain) is None:
        if sort == "newest":
            found = newest(connection, matching, [*plain, *([below] if below else [])], min(limit + offset, _INT64))
            if found is not None:
                return _rows_of(connection, found[offset:], sort)
        else:
            ids = Stream(connection, matching).take(FEW + 1)
            if len(ids) <= FEW:
                conditions = [
                    Condition(test="id IN (SELECT value FROM json_each(?))", values=(json.dumps(ids),)),
                    *plain,
                ]
                return _page(connection, _joined("traces NOT INDEXED", conditions), sort, limit, offset, below)
    return _page(connection, select(connection, conditions, SORTS[sort][2]), sort, limit, offset, below)


def _page(
    connection: sqlite3.Connection, chosen: Selection, sort: SortKey, limit: int, offset: int, below: Condition | None
) -> list[TraceRow]:
    column, direction, _ = SORTS[sort]
    order = f"{column} {direction}, id {direction}"
    test = chosen.test if below is None else f"({chosen.test}) AND {below.test}"
    values = chosen.values if below is None else chosen.values + below.values
    page = f"SELECT id FROM {chosen.source} WHERE {test} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608 - constants; values are bound
    query = f"SELECT {ROW_COLUMNS} FROM traces WHERE id IN ({page}) ORDER BY {order}"  # noqa: S608 - constants; values are bound
    bounds = (min(limit, _INT64), min(offset, _INT64))
    return [row_of(row, sort) for row in connection.execute(query, (*values, *bounds))]


def _rows_of(connection: sqlite3.Connection, ids: Sequence[int], sort: SortKey) -> list[TraceRow]:
    """The rows of these traces, in this order."""
    query = f"SELECT {ROW_COLUMNS} FROM traces WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants; values are bound
    rows = {row[0]: row for row in connection.execute(query, (json.dumps(ids),))}
    return [row_of(rows[one], sort) for one in ids]


def check_page(sort: SortKey, limit: int, offset: int) -> None:
    """Raise ConfigurationError for a wrong sort, limit or offset."""
    if sort not in SORTS:
        msg = f"sort: expected one of {', '.join(SORTS)}, got {sort!r}"
        raise ConfigurationError(msg)
    if limit < 0 or offset < 0:
        msg = f"limit and offset: expected 0 or more, got limit {limit} and offset {offset}"
        raise ConfigurationError(msg)


def select(connection: sqlite3.Connection, conditions: Sequence[Condition], walk: str | None = None) -> Selection:
    """The cheapest way to the traces that match.

    Args:
        connection: Of the store.
        conditions: All must hold.
        walk: The index to walk until a page is full, if no condition leaves few. None: every match is needed.
    """
    narrow = _narrowest(connection, conditions)
    if narrow is not None:
        source = f"traces INDEXED BY {narrow.index}" if narrow.index else "traces NOT INDEXED"
    else:
        source = f"traces INDEXED BY {walk or 'traces_newest'}"
    return _joined(source, conditions, [one for one in conditions if one is not narrow] if walk or narrow else ())


def _joined(source: str, conditions: Sequence[Condition], checked: Sequence[Condition] = ()) -> Selection:
    """All conditions as one test; those that are `checked` are tested on few rows."""
    tests: list[str] = []
    values: list[str | int | float] = []
    for one in conditions:
        test, own = one.tests(walk=one in checked)
        tests.append(test)
        values += own
    return Selection(source=source, test=" AND ".join(tests) or "1", values=tuple(values))


def row_of(row: Sequence[Any], sort: SortKey = "newest") -> TraceRow:
    """A TraceRow of ROW_COLUMNS."""
    named = dict(zip(_ROW_NAMES, row, strict=True))
    identity = named.pop("id")
    listed = _listed.decode(named.pop("listed"))
    named["trace_id"] = named["trace_id"].hex()
    named["complete"] = bool(named["complete"])
    named["status"] = STATUSES[named["status"]]
    key = SORTS[sort][0]
    value = named["input_tokens"] + named["output_tokens"] if key == "tokens" else named[key]
    return TraceRow(
        **named,
        services=listed.get("service", ()),
        models=listed.get("model", ()),
        tools=listed.get("tool", ()),
        error_types=listed.get("error_type", ()),
        session=next(iter(listed.get("session", ())), None),
        user=next(iter(listed.get("user", ())), None),
        cursor=cursor_of(sort, value, identity),
    )


def cursor_of(sort: str, value: float | None, identity: int | str) -> str:
    """Where a page continues."""
    return f"{sort}:{'' if value is None else repr(value)}:{identity}"


def read_cursor(sort: str, cursor: str) -> tuple[int | float | None, str]:
    """The value and the identity of the last row; raises ConfigurationError for what is no cursor of this sort."""
    kind, _, rest = cursor.partition(":")
    value, _, identity = rest.rpartition(":")
    try:
        if kind != sort or not identity or not (value or sort == "costliest"):
            raise ValueError(cursor)
        number = None if not value else float(value) if sort == "costliest" else int(value)
    except ValueError:
        msg = f"after: expected the cursor of a row that was sorted by {sort}, got {cursor!r}"
        raise ConfigurationError(msg) from None
    return number, identity


def _below(sort: SortKey, after: str) -> Condition:
    column, direction, _ = SORTS[sort]
    value, identity = read_cursor(sort, after)
    if not identity.lstrip("-").isdecimal():
        msg = f"after: expected the cursor of a row of kept traces, got {after!r}"
        raise ConfigurationError(msg)
    number = int64(int(identity))
    if value is None:  # the traces without a cost are the last ones
        return Condition(test=f"{column} IS NULL AND id < ?", values=(number,))
    if direction == "ASC":
        return Condition(test=f"({column}, id) > (?, ?)", values=(value, number))
    test = f"({column}, id) < (?, ?)"
    test = f"({test} OR {column} IS NULL)" if column == "cost_usd" else test
    return Condition(test=test, values=(value, number))


def _narrowest(connection: sqlite3.Connection, conditions: Sequence[Condition]) -> Condition | None:
    """The condition that leaves the fewest traces, if that is few."""
    least, best = FEW + 1, None
    for one in conditions:
        source = one.match or f"traces INDEXED BY {one.index}"
        test = f"{one.match} MATCH ?" if one.match else one.test
        count = f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {test} LIMIT {least})"  # noqa: S608 - constants; values are bound
        (found,) = connection.execute(count, one.values).fetchone()
        if found + len(one.late) < least:
            least, best = found + len(one.late), one
    return best
