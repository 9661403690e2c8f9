"""Live tail: traces as they are stored, as server-sent events, with filters."""

import time
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import Final

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from prela_stream.errors import PrelaError
from prela_stream.sinks.query import TraceQuery, TraceRow
from prela_stream.web.list_page import columns_of
from prela_stream.web.parameters import read_parameters
from prela_stream.web.rendering import page, render
from prela_stream.web.state import Pages, pages_of

_EVERY_S: Final = 0.5
_ROWS: Final = 100
_FIRST: Final = 25
_KEEP_ALIVE_S: Final = 15.0
FILTERS: Final = ("service", "name", "status", "policy", "min")
"""Parameters that a live tail understands: those that a row can be tested with."""


async def live(request: Request) -> Response:
    """`/live`: the page, with the last traces."""
    now = time.time_ns()
    wanted = read_parameters(request.query_params.multi_items(), now)
    async with pages_of(request).reading() as reader:
        mark = await reader.newest_mark()
        rows = await reader.list_traces(wanted.query, limit=_FIRST)
    return page(
        request,
        "live.html",
        rows=rows,
        now=now,
        values=wanted.values,
        wanted=wanted,
        mark=mark,
        longest=max((row.duration_ns for row in rows), default=0),
        columns=columns_of(rows) | {"service", "tokens"},
    )


async def running(request: Request) -> Response:
    """`/live/running`: the traces that are not decided yet, a part of the page."""
    source = pages_of(request).pipeline
    found = None if source is None else await source.running()
    now = time.time_ns()
    starts = [one.start_ns for one in found or () if one.start_ns]
    return page(
        request,
        "running.html",
        running=found,
        now=now,
        span_ns=max((now - start for start in starts), default=0) or 1,
    )


async def events(request: Request) -> Response:
    """`/live/events`: each trace that is stored or extended from now on, as a row of the table."""
    wanted = read_parameters(request.query_params.multi_items(), time.time_ns())
    given = request.headers.get("last-event-id") or request.query_params.get("mark", "")
    mark = int(given) if given.isascii() and given.isdecimal() and len(given) < 19 else None
    columns = frozenset(request.query_params.get("columns", "").split(",")[:10])
    stream = _stream(pages_of(request), wanted.query, mark, columns)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _stream(pages: Pages, query: TraceQuery, mark: int | None, columns: frozenset[str]) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    written = time.monotonic()
    while not pages.stopping.is_set():
        rows: list[TraceRow] = []
        try:
            async with pages.reading() as reader:
                newest = await reader.newest_mark()
                if mark is None:
                    mark = newest
                elif newest < mark:
                    mark = 0  # the store was deleted and created again
                rows = await reader.tail(mark, limit=_ROWS)
        except PrelaError:  # it is logged once; the store may be created again
            pass
        for row in rows:
            mark = row.stored
            if matches(row, query):
                yield _event(row, columns)
                written = time.monotonic()
        if time.monotonic() - written > _KEEP_ALIVE_S:
            yield ": alive\n\n"
            written = time.monotonic()
        if len(rows) < _ROWS:
            with anyio.move_on_after(_EVERY_S):
                await pages.stopping.wait()


def matches(row: TraceRow, query: TraceQuery) -> bool:
    """Whether a row fulfils the conditions of `FILTERS`."""
    return (
        (query.service is None or query.service in (row.service, *row.services))
        and (query.name is None or fnmatchcase(row.root_name, query.name))
        and (query.policy is None or query.policy == row.policy)
        and (query.status is None or query.status == row.status)
        and (query.errors is None or query.errors == (row.errors > 0))
        and (query.min_duration_ms is None or row.duration_ns >= query.min_duration_ms * 1e6)
    )


def _event(row: TraceRow, columns: frozenset[str]) -> str:
    html = render("list_row.html", row=row, now=time.time_ns(), longest=0, columns=columns, is_new=True)
    data = msgspec.json.encode({"html": html, "id": row.trace_id}).decode()
    return f"id: {row.stored}\ndata: {data}\n\n"
