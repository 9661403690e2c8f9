"""The trace list: filters in the URL, two histograms, sorted pages."""

import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from prela_stream.sinks.query import TraceRow
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
    async with pages_of(request).reading() as reader:
        rows = await reader.list_traces(wanted.query, sort=wanted.sort, limit=ROWS + 1, after=wanted.after)
        totals = await reader.totals()
    more = len(rows) > ROWS
    rows = rows[:ROWS]
    return page(
        request,
        "list_body.html" if is_partial(request) else "list.html",
        rows=rows,
        wanted=wanted,
        values=wanted.values,
        now=now,
        totals=totals,
        next_after=rows[-1].cursor if more else "",
        longest=max((row.duration_ns for row in rows), default=0),
        periods=_PERIODS,
        sorts=[(name, _SORT_NAMES[name]) for name in SORTS],
        columns=columns_of(rows),
        chips=_chips(wanted),
    )


async def histograms(request: Request) -> Response:
    """`/histograms`: the charts above the list, which are loaded after it: over a million traces they take longer."""
    wanted = read_parameters(request.query_params.multi_items(), time.time_ns())
    async with pages_of(request).reading() as reader:
        found = await reader.histograms(wanted.query, bars=_BARS)
    span_ns = (found.time[-1].high - found.time[0].low) if found.time else 0
    return page(
        request,
        "histograms.html",
        matching=found.traces,
        time_chart=charts.chart(found.time, lambda ns: _written(ns, span_ns)),
        duration_chart=charts.chart(found.duration, formats.duration),
    )


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
