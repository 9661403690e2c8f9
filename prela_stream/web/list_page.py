"""The trace list: filters in the URL, two histograms, sorted pages."""

import time
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import Response

from prela_stream.sinks.query import Histograms, TraceRow
from prela_stream.views import formats
from prela_stream.web import charts, times
from prela_stream.web.parameters import SORTS, ListParameters, read_parameters
from prela_stream.web.rendering import is_partial, page
from prela_stream.web.state import pages_of

ROWS: Final = 50
"""Rows of one page."""
_BARS: Final = 60
_PERIODS: Final = (("15m", "15 min"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days"), ("", "all"))
_SORT_NAMES: Final = {
    "newest": "newest",
    "oldest": "oldest",
    "slowest": "slowest",
    "costliest": "highest cost",
    "most_tokens": "most tokens",
    "most_spans": "most spans",
}


async def traces(request: Request) -> Response:
    """`/`: the list."""
    now = time.time_ns()
    wanted = read_parameters(request.query_params.multi_items(), now)
    rows: list[TraceRow] = []
    found: list[Histograms] = []
    totals: dict[str, int] = {}
    async with pages_of(request).reading() as reader:

        async def read_rows() -> None:
            rows.extend(await reader.list_traces(wanted.query, sort=wanted.sort, limit=ROWS + 1, after=wanted.after))

        async def read_histograms() -> None:
            found.append(await reader.histograms(wanted.query, bars=_BARS))

        async def read_totals() -> None:
            totals.update(await reader.totals())

        await _all(read_rows, read_histograms, read_totals)
    more = len(rows) > ROWS
    rows = rows[:ROWS]
    histograms = found[0]
    span_ns = (histograms.time[-1].high - histograms.time[0].low) if histograms.time else 0
    return page(
        request,
        "list_body.html" if is_partial(request) else "list.html",
        rows=rows,
        wanted=wanted,
        values=wanted.values,
        now=now,
        totals=totals,
        matching=histograms.traces,
        next_after=rows[-1].cursor if more else "",
        time_chart=charts.chart(histograms.time, lambda ns: _written(ns, span_ns)),
        duration_chart=charts.chart(histograms.duration, formats.duration),
        longest=max((row.duration_ns for row in rows), default=0),
        periods=_PERIODS,
        sorts=[(name, _SORT_NAMES[name]) for name in SORTS],
        columns=columns_of(rows),
        chips=_chips(wanted),
    )


async def _all(*questions: object) -> None:
    async with anyio.create_task_group() as tasks:
        for question in questions:
            tasks.start_soon(question)  # type: ignore[arg-type]


def _written(time_ns: int, span_ns: int) -> str:
    """A moment of the chart: the date only where the chart is longer than a day."""
    return times.moment(time_ns) if span_ns > 86_400_000_000_000 else times.clock(time_ns)


def columns_of(rows: list[TraceRow]) -> frozenset[str]:
    """The columns that have a value in some row; the others are not shown."""
    tests = {
        "service": any(row.service for row in rows),
        "model": any(row.models for row in rows),
        "tokens": any(row.input_tokens or row.output_tokens for row in rows),
        "cost": any(row.cost_usd is not None for row in rows),
        "session": any(row.session for row in rows),
        "weight": any(row.weight != 1 for row in rows),
    }
    return frozenset(name for name, is_used in tests.items() if is_used)


def _chips(wanted: ListParameters) -> list[tuple[str, str, dict[str, str]]]:
    """Each condition, and the parameters of the list without it."""
    return [(name, value, wanted.but(**{name: None})) for name, value in wanted.conditions]
