"""Two traces side by side: their figures, and which spans were added, removed or changed."""

import time
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from prela_stream.sinks.query import StoredTrace, TraceQuery, TraceRow
from prela_stream.sinks.reader import TraceReader
from prela_stream.views.comparison import compare
from prela_stream.web.rendering import page
from prela_stream.web.state import checked_trace_id, pages_of

_CANDIDATES: Final = 25
_ROWS: Final = 3_000


async def diff(request: Request) -> Response:
    """`/diff?a=ID&b=ID`; without `b` a list of traces to compare with."""
    asked = request.query_params
    candidates: list[TraceRow] = []
    async with pages_of(request).reading() as reader:
        before = await _stored(reader, asked.get("a", ""))
        after = await _stored(reader, asked["b"]) if asked.get("b") else None
        if after is None:
            query = TraceQuery(name=_exactly(before.row.root_name))
            rows = await reader.list_traces(query, limit=_CANDIDATES + 1)
            candidates = [row for row in rows if row.trace_id != before.row.trace_id][:_CANDIDATES]
    found = None if after is None else compare(before.spans, after.spans)
    return page(
        request,
        "diff.html",
        before=before.row,
        after=None if after is None else after.row,
        found=found,
        spans=[] if found is None else found.spans[:_ROWS],
        more=0 if found is None else max(0, len(found.spans) - _ROWS),
        counts={} if found is None else {kind: sum(one.change == kind for one in found.spans) for kind in _KINDS},
        only_changes=asked.get("only") == "changes",
        candidates=candidates,
        now=time.time_ns(),
    )


_KINDS: Final = ("same", "changed", "added", "removed")


async def _stored(reader: TraceReader, text: str) -> StoredTrace:
    trace_id = checked_trace_id(text.strip().lower())
    found = await reader.get(trace_id)
    if found is None:
        raise HTTPException(404, f"the spans of trace {trace_id} are not stored")
    return found


def _exactly(name: str) -> str:
    """A name in which `*` and `?` match any character, and so themselves."""
    return name.replace("*", "?")
