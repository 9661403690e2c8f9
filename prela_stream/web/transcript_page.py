"""The conversation of a whole trace, the trace as plain text, and its export."""

from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from prela_stream.model.tree import SpanTree
from prela_stream.sinks.documents import decision_document, span_document
from prela_stream.sinks.query import StoredTrace
from prela_stream.text import visible
from prela_stream.views.text_form import trace_text
from prela_stream.views.transcript import Entry, transcript_of
from prela_stream.web.rendering import page
from prela_stream.web.shown import Shown
from prela_stream.web.span_page import ShownMessage, shown_message
from prela_stream.web.state import pages_of, trace_id_of
from prela_stream.web.trace_page import head_values

_ENTRIES: Final = 150
"""Entries of one page: each of them is rendered."""


class ShownEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a transcript, rendered."""

    entry: Entry
    message: ShownMessage | None = None
    arguments: Shown | None = None
    result: Shown | None = None


async def transcript(request: Request) -> Response:
    """`/traces/ID/transcript`."""
    stored = await _stored(request)
    found = transcript_of(SpanTree(stored.spans))
    begin = _number(request.query_params.get("from", "0"))
    entries = [_shown(entry) for entry in found.entries[begin : begin + _ENTRIES]]
    end = begin + len(entries)
    return page(
        request,
        "transcript.html",
        **head_values(stored.row, stored.decision, SpanTree(stored.spans), here="transcript"),
        transcript=found,
        entries=entries,
        begin=begin,
        total=len(found.entries),
        following=end if end < len(found.entries) else None,
    )


async def plain(request: Request) -> Response:
    """`/traces/ID/text`: the whole trace as text, for people and for models."""
    stored = await _stored(request)
    return PlainTextResponse(visible(trace_text(stored.spans, stored.decision)))


async def export(request: Request) -> Response:
    """`/traces/ID/export`: the trace with its decision as one JSON document."""
    stored = await _stored(request)
    document: dict[str, Any] = {
        "row": stored.row,
        "decision": decision_document(stored.decision),
        "spans": [span_document(span) for span in stored.spans],
    }
    name = f"trace-{stored.row.trace_id}.json"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(msgspec.json.encode(document), media_type="application/json", headers=headers)


async def _stored(request: Request) -> StoredTrace:
    async with pages_of(request).reading() as reader:
        found = await reader.get(trace_id_of(request))
    if found is None:
        raise HTTPException(404, "the spans of this trace are not stored")
    return found


def _shown(entry: Entry) -> ShownEntry:
    return ShownEntry(
        entry=entry,
        message=None if entry.message is None else shown_message(entry.message, "markdown", is_answer=entry.is_answer),
        arguments=None if entry.arguments is None else Shown.of(entry.arguments, "markdown"),
        result=None if entry.result is None else Shown.of(entry.result, "markdown"),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
