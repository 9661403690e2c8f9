"""Lists dropped traces, of which the store has only the decision, and sums all decisions."""

import sqlite3
from typing import Any, Final, Literal

import msgspec

from prela_stream.codec.decisions import decode_decisions
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.briefs import wanted_tokens
from prela_stream.sinks.estimates import grouped_totals
from prela_stream.sinks.query import DecidedTotals, SortKey, TraceQuery, TraceRow
from prela_stream.sinks.sqlite.conditions import int64, label, plain_conditions
from prela_stream.sinks.sqlite.list_query import SORTS, check_page, cursor_of, read_cursor
from prela_stream.sinks.sqlite.rollups import decided_sums
from prela_stream.sinks.trace_rows import row_of_decision

# A trace that was dropped and then kept, because an error arrived late or because it was decided again, is a kept one.
_ONLY: Final = "kept = 0 AND NOT EXISTS (SELECT 1 FROM traces WHERE traces.trace_id = decisions.trace_id)"


def list_dropped(
    connection: sqlite3.Connection, where: TraceQuery, sort: SortKey, limit: int, offset: int, after: str | None
) -> list[TraceRow]:
    """The page of dropped traces; as `list_traces`."""
    check_page(sort, limit, offset)
    chosen = where_dropped(where)
    if chosen is None:
        return []
    test, values = chosen
    column, direction, _ = SORTS[sort]
    if after is not None:
        value, identity = read_cursor(sort, after)
        sign = ">" if direction == "ASC" else "<"
        key: list[Any] = [value, _trace_id(identity, after)]
        if value is None:
            test, key = f"{test} AND {column} IS NULL AND trace_id {sign} ?", key[1:]
        else:
            below = f"({column}, trace_id) {sign} (?, ?)"
            test += f" AND ({below} OR {column} IS NULL)" if column == "cost_usd" else f" AND {below}"
        values += key
    query = (
        f"SELECT {column}, body FROM decisions INDEXED BY decisions_newest WHERE {test}"  # noqa: S608 - constants; values are bound
        f" ORDER BY {column} {direction}, trace_id {direction} LIMIT ? OFFSET ?"
    )
    rows = connection.execute(query, (*values, int64(limit), int64(offset)))
    found = [(value, row_of_decision(decode_decisions(body)[0])) for value, body in rows]
    return [msgspec.structs.replace(row, cursor=cursor_of(sort, value, row.trace_id)) for value, row in found]


def where_dropped(where: TraceQuery) -> tuple[str, list[Any]] | None:
    """The test on a row of `decisions`, with its values; None if no dropped trace can match."""
    known = TraceQuery(service=where.service)
    if wanted_tokens(where) != wanted_tokens(known) or (where.text is not None and where.text.strip()):
        return None
    tests, values = [_ONLY], list[Any]()
    if where.service is not None:
        tests.append("service = ?")
        values.append(label(where.service))
    if where.name is not None:
        tests.append("matches(?, root_name)")
        values.append(label(where.name))
    for one in plain_conditions(where):
        tests.append(one.test)
        values += one.values
    return " AND ".join(tests), values


def decided_totals(
    connection: sqlite3.Connection, by: Literal["service", "policy"], since_ns: int | None, until_ns: int | None
) -> list[DecidedTotals]:
    """Exact sums over all decisions, by service or by policy."""
    if by not in {"service", "policy"}:
        msg = f"by: expected service or policy, got {by!r}"
        raise ConfigurationError(msg)
    since = int64(-(1 << 63) if since_ns is None else since_ns)
    until = int64(1 << 63 if until_ns is None else until_ns)
    return grouped_totals(decided_sums(connection, by, since, until))


def _trace_id(text: str, cursor: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        msg = f"after: expected the cursor of a row of dropped traces, got {cursor!r}"
        raise ConfigurationError(msg) from None
