"""The sums that triggers keep are those of the rows, whatever was stored, changed and deleted."""

import random
import sqlite3
from contextlib import closing

import pytest
from msgspec.structs import replace

from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanStatus
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.retention import purge_oldest
from prela_stream.sinks.sqlite.rollups import HOUR_NS, SLOT_NS
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import NOW, SECOND, batch, decision, fragment, span

HOUR = 3_600
SUMS = {
    f"""SELECT start_ns / {SLOT_NS}, duration_bar, status, count(*) FROM traces
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""": "SELECT * FROM trace_slots ORDER BY 1, 2, 3",
    f"""SELECT start_ns / {HOUR_NS}, service, policy, kept, count(*), sum(spans), sum(status = 1), sum(input_tokens),
        sum(output_tokens), count(cost_usd), round(total(cost_usd), 6) FROM decisions
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4""": """SELECT hour, service, policy, kept, traces, spans, errors, input_tokens,
        output_tokens, priced, round(cost_usd, 6) FROM decision_hours ORDER BY 1, 2, 3, 4""",
}
"""The query of the rows, and that of their sums."""


def about(number: int, *, kept: bool = True) -> Decision:
    """A decision on a trace that started some hours after the one before."""
    base = decision(number, kept=kept, policy=f"policy {number % 2}")
    chance = random.Random(number)
    summary = {
        "start_ns": NOW + number * 5 * HOUR * SECOND + chance.randrange(HOUR * SECOND),
        "errors": int(number % 3 == 0),
    }
    if number % 4 == 0:
        summary["cost_usd"] = None  # type: ignore[assignment]  # no price is known
    return replace(base, summary=replace(base.summary, **summary))


async def fill(options: SqliteOptions, count: int = 40) -> None:
    """Traces over days, half of them with a late error, and dropped ones."""
    sink = SqliteSink(options)
    for number in range(1, count + 1):
        one = about(number)
        start = one.summary.start_ns
        await sink.write(
            batch(fragment(one, [span(number, start_ns=start)]), decisions=[about(number + 1_000, kept=False)])
        )
        if number % 2:
            late = span(number, 3, status=SpanStatus.ERROR, start_ns=start)
            await sink.write(batch(fragment(one, [late], late=True)))
    await sink.aclose()


def rows_and_sums(options: SqliteOptions) -> list[tuple[list[object], list[object]]]:
    with closing(sqlite3.connect(options.path)) as connection:
        return [
            (connection.execute(rows).fetchall(), connection.execute(sums).fetchall()) for rows, sums in SUMS.items()
        ]


async def test_sums_follow_inserts_late_spans_and_deletions(options: SqliteOptions) -> None:
    await fill(options)
    for rows, sums in rows_and_sums(options):
        assert rows == sums != []
    with closing(sqlite3.connect(options.path, isolation_level=None)) as connection:
        for _ in range(3):
            assert purge_oldest(connection, limit=7) > 0
    for rows, sums in rows_and_sums(options):
        assert rows == sums != []
    with closing(sqlite3.connect(options.path, isolation_level=None)) as connection:
        while purge_oldest(connection, limit=200):
            pass
    assert rows_and_sums(options) == [([], []), ([], [])]


async def test_histograms_over_everything_have_the_traces_of_their_ranges(options: SqliteOptions) -> None:
    await fill(options)
    async with SqliteReader(options) as reader:
        for where in (TraceQuery(), TraceQuery(status="error"), TraceQuery(errors=False)):
            found = await reader.histograms(where, bars=9)
            every = await reader.list_traces(where)
            assert 1 < len(found.time) <= 9
            assert found.traces == len(every) == sum(bar.total for bar in found.duration)
            for bar in found.time:
                rows = [row for row in every if bar.low <= row.start_ns < bar.high]
                assert {status: sum(row.status == status for row in rows) for status in bar.counts} == bar.counts
                assert len(rows) == bar.total


@pytest.mark.parametrize(
    "ends", [(None, None), (1.5, 90.25), (10.2, 10.8), (10.9, 11.1), (3.0, 9.0), (None, 50.5), (50.5, None)]
)
async def test_exact_sums_of_any_time_are_those_of_its_decisions(
    options: SqliteOptions, ends: tuple[float | None, float | None]
) -> None:
    await fill(options)
    first = NOW // HOUR_NS * HOUR_NS
    since, until = (None if end is None else first + int(end * HOUR_NS) for end in ends)
    decided = [about(number) for number in range(1, 41)] + [
        about(number + 1_000, kept=False) for number in range(1, 41)
    ]
    inside = [one for one in decided if (since or 0) <= one.summary.start_ns < (until or 1 << 63)]
    async with SqliteReader(options) as reader:
        for row in (rows := await reader.decided_totals("policy", since_ns=since, until_ns=until)):
            for totals, kept in ((row.kept, True), (row.dropped, False)):
                own = [one.summary for one in inside if one.kept == kept and one.policy == row.name]
                costs = [one.cost_usd for one in own if one.cost_usd is not None]
                assert (totals.traces, totals.errors) == (len(own), sum(bool(one.errors) for one in own))
                assert totals.input_tokens == sum(one.input_tokens for one in own)
                assert totals.cost_usd == (pytest.approx(sum(costs)) if costs else None)
        assert {row.name for row in rows} == {one.policy for one in inside}
