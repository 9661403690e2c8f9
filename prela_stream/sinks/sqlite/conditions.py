"""The conditions of a query: their tests on a row of `traces`, and the indexes that find their rows.

All labels of a query are one condition, because the full-text index intersects their lists.
"""

import json
import sqlite3
from typing import Final

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.briefs import wanted_tokens
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite.names import names_that_match
from prela_stream.sinks.sqlite.search import match_terms
from prela_stream.sinks.sqlite.words import late_matches
from prela_stream.sinks.trace_rows import LABEL_CHARS, STATUSES

_INT64: Final = (1 << 63) - 1
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


def label(text: str) -> str:
    """A text of a user as it is stored in an index."""
    return text.encode("utf-8", "replace").decode()[:LABEL_CHARS]


def int64(value: int) -> int:
    """Within the 64 bits with a sign of SQLite."""
    return min(max(value, -_INT64), _INT64)


def _ns(milliseconds: float) -> int:
    return int64(round(min(max(milliseconds, 0.0), 1e12) * 1e6))
