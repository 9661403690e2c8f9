"""One trace: its tree and waterfall, why it was kept or dropped, and the detail of a chosen span."""

from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from prela_stream.model.decision import Decision
from prela_stream.model.tree import SpanTree
from prela_stream.sinks.query import LightSpan, TraceOutline, TraceRow
from prela_stream.web.drawing import rows_html
from prela_stream.web.rendering import link, page
from prela_stream.web.rows import Waterfall, waterfall
from prela_stream.web.state import pages_of, trace_id_of
from prela_stream.web.timescale import Tick

_TRIGGERS: Final = {
    "complete": "every counted span was received",
    "remote_wait": "only work in other processes did not answer",
    "root_wait": "the root ended, and nothing new arrived",
    "idle": "nothing new arrived, and no root ended",
    "lost": "the heartbeats of an open span stopped",
    "max_age": "the trace was open for the longest time that is allowed",
    "max_spans": "the trace has the most spans that are allowed",
    "max_bytes": "the trace has the most bytes that are allowed",
    "memory": "the worker reached its limit of memory",
}
_LABEL: Final = 11.0
"""Percent of the axis that the length of a wait needs."""
_MANY: Final = 400
"""From so many rows on the page is denser, and rows outside of the window are not laid out."""
_FIRST_ROWS: Final = 150
"""Rows of a page with `_MANY` that are in the page itself. The script loads the others at once: they delay nothing."""


async def trace(request: Request) -> Response:
    """`/traces/ID`: the trace, or the decision of a dropped one."""
    outline = await _outline(request)
    if outline is None and "wait" in request.query_params:
        return page(
            request,
            "error.html",
            status=404,
            title="Not decided yet",
            text="The spans of this trace are in the log. A worker decides it when it is complete or idle.",
            waiting=True,
        )
    if outline is None:
        raise HTTPException(
            404,
            "The store has no such trace. It may not be decided yet, or retention has deleted it, or its id is another.",
        )
    # in a thread: thousands of rows must not delay what else runs on this event loop
    return await anyio.to_thread.run_sync(_page, request, outline)


async def rows(request: Request) -> Response:
    """`/traces/ID/rows`: the rows that a page with many of them leaves out, one a line."""
    outline = await _outline(request)
    if outline is None:
        raise HTTPException(404, "the store has no such trace")
    return await anyio.to_thread.run_sync(_rest, request, outline)


async def _outline(request: Request) -> TraceOutline | None:
    async with pages_of(request).reading() as reader:
        return await reader.outline(trace_id_of(request))


def _drawn(request: Request, tree: SpanTree[LightSpan]) -> Waterfall:
    """The waterfall as the parameters of the URL want it."""
    cut = {"cut": True, "full": False}.get(request.query_params.get("waits", ""))
    return waterfall(tree, logical=request.query_params.get("view") == "logical", cut=cut)


def _rest(request: Request, outline: TraceOutline) -> Response:
    drawn = _drawn(request, SpanTree(outline.spans))
    return HTMLResponse(rows_html(drawn.rows[_FIRST_ROWS:], outline.row.trace_id, request.query_params.get("span", "")))


def _page(request: Request, outline: TraceOutline) -> Response:
    asked = request.query_params
    tree: SpanTree[LightSpan] = SpanTree(outline.spans)
    drawn = _drawn(request, tree) if outline.spans else None
    chosen = asked.get("span", "")
    if not any(span.span_id == chosen for span in outline.spans):
        chosen = ""
    found = [] if drawn is None else drawn.rows
    many = len(found) > _MANY
    is_part = many and "all" not in asked
    path = f"/traces/{outline.row.trace_id}"
    same = {name: asked.get(name, "") for name in ("view", "waits", "span")}
    return page(
        request,
        "trace.html",
        **head_values(outline.row, outline.decision, tree),
        drawn=drawn,
        rows=rows_html(found[:_FIRST_ROWS] if is_part else found, outline.row.trace_id, chosen),
        rest=link(f"{path}/rows", same) if is_part else "",
        everything=link(path, {**same, "all": "1"}),
        row_count=len(found),
        axis=[] if drawn is None else _axis(drawn),
        bands=[] if drawn is None else _bands(drawn),
        chosen=chosen,
        logical=asked.get("view") == "logical",
        many=many,
    )


def _bands(drawn: Waterfall) -> list[tuple[float, int]]:
    """The middle of each wait that is drawn as a narrow band, in percent of the axis, and its length in ns."""
    at = drawn.scale.at
    return [(round((at(one.start_ns) + at(one.end_ns)) / 2, 2), one.length_ns) for one in drawn.scale.cut]


def _axis(drawn: Waterfall) -> list[Tick]:
    """The marks of the axis that are not where the length of a wait is written."""
    middles = [middle for middle, _ in _bands(drawn)]
    return [tick for tick in drawn.scale.ticks(5) if all(abs(tick.at + 2 - middle) > _LABEL for middle in middles)]


def head_values(row: TraceRow, decision: Decision, tree: SpanTree[Any], here: str = "") -> dict[str, Any]:
    """What the head of every view of a trace needs."""
    return {
        "row": row,
        "decision": decision,
        "span_count": len(tree),
        "roots": len(tree.roots),
        "orphans": len(tree.orphans),
        "services": list(row.services),
        "trigger_meaning": trigger_meaning,
        "here": here,
    }


def trigger_meaning(trigger: str) -> str:
    """Why a trace was decided at that moment, in words."""
    return _TRIGGERS.get(trigger, "")
