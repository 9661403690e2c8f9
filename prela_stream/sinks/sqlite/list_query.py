"""The query of a trace list: a page of a million traces takes milliseconds, with any filter and any sort.

If one condition leaves few traces, these are fetched and sorted. If none does, the query walks the index of the sort until the
page is full. Each of these indexes covers the filters, so the walk does not read the table. SQLite cannot choose between the two,
because it does not know how many traces have a value. So the matches of each condition are counted up to a bound first.

All labels of a query are one condition, because the full-text index intersects their lists.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.briefs import wanted_tokens
from prela_stream.sinks.query import SortKey, TraceQuery, TraceRow
from prela_stream.sinks.sqlite.names import names_that_match
from prela_stream.sinks.sqlite.search import match_terms
from prela_stream.sinks.sqlite.words import late_matches
from prela_stream.sinks.trace_rows import LABEL_CHARS, STATUSES

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
# `IN` makes the list of all traces with the words. `EXISTS` checks one trace, which is faster if few traces are checked, but not
# for the beginning of a word: each check would join the lists of all words that begin with it.
_IN: Final = "id IN (SELECT rowid FROM {0} WHERE {0} MATCH ?)"
_HOLDS: Final = "EXISTS (SELECT 1 FROM {0} WHERE {0} MATCH ? AND rowid = traces.id)"

_LATE: Final = "id IN (SELECT value FROM json_each(?)))"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a query: its test on a row of `traces`, and the index that finds its rows."""

    test: str
    values: tuple[str | int | float, ...]
    index: str = ""
    match: str = ""
    """For a full-text index: its table. The value is the query."""
    late: tuple[int, ...] = ()
    """Further traces, in which late spans contribute a word."""

    def tests(self, *, walk: bool) -> tuple[str, tuple[str | int | float, ...]]:
        """The test with its values; `walk` if most traces are checked by another index first."""
        if not self.match:
            return self.test, self.values
        test = (_HOLDS if walk and "*" not in str(self.values[0]) else _IN).format(self.match)
        if not self.late:
            return test, self.values
        return " OR ".join((f"({test}", _LATE)), (*self.values, json.dumps(self.late))


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
    column, direction, walk = SORTS[sort]
    chosen = select(connection, conditions, walk)
    test, values = chosen.test, list(chosen.values)
    if after is not None:
        below, last = _below(sort, column, direction, after)
        test = f"({test}) AND {below}"
        values += last
    order = f"{column} {direction}, id {direction}"
    page = f"SELECT id FROM {chosen.source} WHERE {test} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608 - constants; values are bound
    query = f"SELECT {ROW_COLUMNS} FROM traces WHERE id IN ({page}) ORDER BY {order}"  # noqa: S608 - constants; values are bound
    bounds = (min(limit, _INT64), min(offset, _INT64))
    return [row_of(row, sort) for row in connection.execute(query, (*values, *bounds))]


def check_page(sort: SortKey, limit: int, offset: int) -> None:
    """Raise ConfigurationError for a wrong sort, limit or offset."""
    if sort not in SORTS:
        msg = f"sort: expected one of {', '.join(SORTS)}, got {sort!r}"
        raise ConfigurationError(msg)
    if limit < 0 or offset < 0:
        msg = f"limit and offset: expected 0 or more, got limit {limit} and offset {offset}"
        raise ConfigurationError(msg)


def select(connection: sqlite3.Connection, conditions: Sequence[Condition], walk: str = "traces_newest") -> Selection:
    """The cheapest way to the traces that match; `walk` is the index to walk if no condition leaves few."""
    narrow = _narrowest(connection, conditions)
    tests: list[str] = []
    values: list[str | int | float] = []
    for one in conditions:
        test, own = one.tests(walk=one is not narrow)
        tests.append(test)
        values += own
    if narrow is None:
        source = f"traces INDEXED BY {walk}"
    else:
        source = f"traces INDEXED BY {narrow.index}" if narrow.index else "traces NOT INDEXED"
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


def _below(sort: str, column: str, direction: str, after: str) -> tuple[str, list[int | float]]:
    value, identity = read_cursor(sort, after)
    if not identity.lstrip("-").isdecimal():
        msg = f"after: expected the cursor of a row of kept traces, got {after!r}"
        raise ConfigurationError(msg)
    number = int64(int(identity))
    if value is None:  # the traces without a cost are the last ones
        return f"{column} IS NULL AND id < ?", [number]
    if direction == "ASC":
        return f"({column}, id) > (?, ?)", [value, number]
    test = f"({column}, id) < (?, ?)"
    return (f"({test} OR {column} IS NULL)" if column == "cost_usd" else test), [value, number]


def conditions_of(connection: sqlite3.Connection, where: TraceQuery) -> list[Condition] | None:
    """The parts of a query; None if no trace can match."""
    found: list[Condition] = []
    tokens = wanted_tokens(where)
    if tokens:
        found.append(Condition(test="", values=(" AND ".join(f'"{one}"' for one in tokens),), match="trace_labels"))
    if where.text is not None and where.text.strip():
        terms = match_terms(where.text)
        if not terms:
            return None
        late = late_matches(connection, terms)
        found.append(Condition(test="", values=(" AND ".join(terms),), match="trace_text", late=late))
    if where.name is not None:
        names = names_that_match(connection, label(where.name))
        if names is None:
            found.append(Condition(test="matches(?, root_name)", values=(label(where.name),), index="traces_root_name"))
        elif not names:
            return None
        else:
            places = ", ".join("?" * len(names))
            found.append(Condition(test=f"root_name IN ({places})", values=names, index="traces_root_name"))
    found += plain_conditions(where)
    return found


def plain_conditions(where: TraceQuery) -> list[Condition]:
    """The conditions on columns that `decisions` has too."""
    found: list[Condition] = []
    if where.policy is not None:
        found.append(Condition(test="policy = ?", values=(label(where.policy),), index="traces_policy"))
    if where.status is not None:
        if where.status not in STATUSES:
            msg = f"status: expected one of {', '.join(STATUSES)}, got {where.status!r}"
            raise ConfigurationError(msg)
        found.append(Condition(test="status = ?", values=(STATUSES.index(where.status),), index="traces_status"))
    if where.errors is not None:
        failed = STATUSES.index("error")
        test = "status = ?" if where.errors else "status <> ?"
        found.append(Condition(test=test, values=(failed,), index="traces_status" if where.errors else "traces_newest"))
    if where.since_ns is not None or where.until_ns is not None:
        since, until = where.since_ns, where.until_ns
        values = (-_INT64 if since is None else int64(since), _INT64 if until is None else int64(until))
        found.append(Condition(test="start_ns >= ? AND start_ns < ?", values=values, index="traces_newest"))
    if where.min_duration_ms is not None:
        found.append(Condition(test="duration_ns >= ?", values=(_ns(where.min_duration_ms),), index="traces_slowest"))
    if where.max_duration_ms is not None:
        found.append(Condition(test="duration_ns < ?", values=(_ns(where.max_duration_ms),), index="traces_slowest"))
    if where.min_tokens is not None:
        found.append(Condition(test="tokens >= ?", values=(int64(where.min_tokens),), index="traces_most_tokens"))
    if where.min_cost_usd is not None:
        found.append(Condition(test="cost_usd >= ?", values=(where.min_cost_usd,), index="traces_costliest"))
    return found


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


def label(text: str) -> str:
    """A text of a user as it is stored in an index."""
    return text.encode("utf-8", "replace").decode()[:LABEL_CHARS]


def int64(value: int) -> int:
    """Within the 64 bits with a sign of SQLite."""
    return min(max(value, -_INT64), _INT64)


def _ns(milliseconds: float) -> int:
    return int64(round(min(max(milliseconds, 0.0), 1e12) * 1e6))
