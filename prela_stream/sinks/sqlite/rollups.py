"""Sums that are kept up to date by triggers, so that a page over everything does not read a million rows.

`trace_slots` counts kept traces by quarter of an hour, bar of latency and status. `decision_hours` sums decisions by hour,
service and policy. Whatever inserts, changes or deletes a row of `traces` or `decisions` changes them in the same transaction.
"""

import sqlite3
from typing import Any, Final, Literal

from prela_stream.sinks.trace_rows import STATUSES

SLOT_NS: Final = 900 * 10**9
HOUR_NS: Final = 3_600 * 10**9
_ERROR: Final = STATUSES.index("error")

_COUNT: Final = f"""INSERT INTO trace_slots VALUES (new.start_ns / {SLOT_NS}, new.duration_bar, new.status, 1)
 ON CONFLICT DO UPDATE SET traces = traces + 1;"""  # noqa: S608 - constants
_UNCOUNT: Final = f"""UPDATE trace_slots SET traces = traces - 1
 WHERE slot = old.start_ns / {SLOT_NS} AND duration_bar = old.duration_bar AND status = old.status;
 DELETE FROM trace_slots
 WHERE slot = old.start_ns / {SLOT_NS} AND duration_bar = old.duration_bar AND status = old.status AND traces = 0;"""  # noqa: S608 - constants
_HOUR_OF_OLD: Final = (
    f"hour = old.start_ns / {HOUR_NS} AND service = old.service AND policy = old.policy AND kept = old.kept"
)
STATEMENTS: Final = (
    """CREATE TABLE trace_slots (
        slot INTEGER NOT NULL, duration_bar INTEGER NOT NULL, status INTEGER NOT NULL, traces INTEGER NOT NULL,
        PRIMARY KEY (slot, duration_bar, status)
    ) WITHOUT ROWID""",
    """CREATE TABLE decision_hours (
        hour INTEGER NOT NULL, service TEXT NOT NULL, policy TEXT NOT NULL, kept INTEGER NOT NULL, traces INTEGER NOT NULL,
        spans INTEGER NOT NULL, errors INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        priced INTEGER NOT NULL, cost_usd REAL NOT NULL,
        PRIMARY KEY (hour, service, policy, kept)
    ) WITHOUT ROWID""",
    f"CREATE TRIGGER traces_counted AFTER INSERT ON traces BEGIN {_COUNT} END",
    f"CREATE TRIGGER traces_uncounted AFTER DELETE ON traces BEGIN {_UNCOUNT} END",
    f"CREATE TRIGGER traces_moved AFTER UPDATE OF start_ns, duration_bar, status ON traces BEGIN {_UNCOUNT} {_COUNT} END",
    f"""CREATE TRIGGER decisions_summed AFTER INSERT ON decisions BEGIN INSERT INTO decision_hours VALUES (
        new.start_ns / {HOUR_NS}, new.service, new.policy, new.kept, 1, new.spans, new.status = {_ERROR}, new.input_tokens,
        new.output_tokens, new.cost_usd IS NOT NULL, coalesce(new.cost_usd, 0)
    ) ON CONFLICT DO UPDATE SET traces = traces + 1, spans = spans + excluded.spans, errors = errors + excluded.errors,
        input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
        priced = priced + excluded.priced, cost_usd = cost_usd + excluded.cost_usd; END""",  # noqa: S608 - constants
    f"""CREATE TRIGGER decisions_unsummed AFTER DELETE ON decisions BEGIN UPDATE decision_hours SET traces = traces - 1,
        spans = spans - old.spans, errors = errors - (old.status = {_ERROR}), input_tokens = input_tokens - old.input_tokens,
        output_tokens = output_tokens - old.output_tokens, priced = priced - (old.cost_usd IS NOT NULL),
        cost_usd = cost_usd - coalesce(old.cost_usd, 0) WHERE {_HOUR_OF_OLD};
        DELETE FROM decision_hours WHERE {_HOUR_OF_OLD} AND traces = 0; END""",  # noqa: S608 - constants
)
"""The tables and their triggers; `traces` and `decisions` exist."""


def create_rollups(connection: sqlite3.Connection) -> None:
    """Create the sums of what is stored, within a transaction."""
    for statement in STATEMENTS:
        connection.execute(statement)
    connection.execute(
        f"INSERT INTO trace_slots SELECT start_ns / {SLOT_NS}, duration_bar, status, count(*) FROM traces GROUP BY 1, 2, 3"  # noqa: S608 - constants
    )
    connection.execute(f"""
        INSERT INTO decision_hours SELECT start_ns / {HOUR_NS}, service, policy, kept, count(*), sum(spans),
        sum(status = {_ERROR}), sum(input_tokens), sum(output_tokens), count(cost_usd), total(cost_usd)
        FROM decisions GROUP BY 1, 2, 3, 4
    """)  # noqa: S608 - constants


def decided_sums(
    connection: sqlite3.Connection, by: Literal["service", "policy"], since_ns: int, until_ns: int
) -> list[tuple[Any, ...]]:
    """Name, kept, and the sums of the decisions in this time. Whole hours are summed already, and their ends are read."""
    first, last = -(-since_ns // HOUR_NS), until_ns // HOUR_NS
    if first < last:
        ranges = [(since_ns, first * HOUR_NS), (last * HOUR_NS, until_ns)]
    else:
        first = last = 0
        ranges = [(since_ns, until_ns)]
    read = f"""
        UNION ALL SELECT {by}, kept, 1, spans, status = {_ERROR}, input_tokens, output_tokens, cost_usd
        FROM decisions INDEXED BY decisions_newest WHERE start_ns >= ? AND start_ns < ?
    """  # noqa: S608 - constants; values are bound
    query = f"""
        SELECT name, kept, sum(traces), sum(spans), sum(errors), sum(input_tokens), sum(output_tokens), sum(cost) FROM (
        SELECT {by} AS name, kept, traces, spans, errors, input_tokens, output_tokens, iif(priced, cost_usd, NULL) AS cost
        FROM decision_hours WHERE hour >= ? AND hour < ? {read * len(ranges)}) GROUP BY name, kept
    """  # noqa: S608 - constants; values are bound
    values = [value for ends in ranges for value in ends]
    return connection.execute(query, (first, last, *values)).fetchall()
