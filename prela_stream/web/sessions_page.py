"""Sessions: conversations of several traces, in sum and as a thread."""

import time
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from prela_stream.model.span import SpanData
from prela_stream.model.tree import SpanTree
from prela_stream.sinks.query import TraceQuery, TraceRow
from prela_stream.views.content import Message
from prela_stream.views.transcript import transcript_of
from prela_stream.web.parameters import read_parameters
from prela_stream.web.rendering import page
from prela_stream.web.shown import Shown
from prela_stream.web.state import pages_of

_SESSIONS: Final = 50
_TURNS: Final = 20
_LONGEST: Final = 500


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One trace of a session: what was asked, and what came of it."""

    row: TraceRow
    question: Shown | None
    answer: Shown | None
    model_calls: int


async def sessions(request: Request) -> Response:
    """`/sessions`: the most recent ones."""
    now = time.time_ns()
    wanted = read_parameters(request.query_params.multi_items(), now)
    async with pages_of(request).reading() as reader:
        rows = await reader.sessions(wanted.query, limit=_SESSIONS + 1, after=wanted.after)
    return page(
        request,
        "sessions.html",
        rows=rows[:_SESSIONS],
        wanted=wanted,
        values=wanted.values,
        now=now,
        next_after=rows[_SESSIONS - 1].cursor if len(rows) > _SESSIONS else "",
    )


async def session(request: Request) -> Response:
    """`/sessions/view?id=…`: the traces of one session, the oldest first."""
    name = request.query_params.get("id", "")[:_LONGEST]
    after = request.query_params.get("after") or None
    turns: list[Turn] = []
    async with pages_of(request).reading() as reader:
        query = TraceQuery(session=name)
        rows = await reader.list_traces(query, sort="oldest", limit=_TURNS + 1, after=after)
        if not rows:
            raise HTTPException(404, "no kept trace has this session")
        for row in rows[:_TURNS]:
            stored = await reader.get(row.trace_id)
            if stored is not None:
                turns.append(_turn(row, SpanTree(stored.spans)))
        sums = await reader.sessions(query, limit=1)
    return page(
        request,
        "session.html",
        name=name,
        turns=turns,
        sums=sums[0] if sums else None,
        now=time.time_ns(),
        next_after=rows[_TURNS - 1].cursor if len(rows) > _TURNS else "",
    )


def _turn(row: TraceRow, tree: SpanTree[SpanData]) -> Turn:
    """The last message of the user that the first model call got, and the last answer."""
    found = transcript_of(tree)
    messages = [entry for entry in found.entries if entry.message is not None]
    asked = [entry.message for entry in messages if entry.message is not None and entry.message.role == "user"]
    answers = [entry.message for entry in messages if entry.message is not None and entry.is_answer]
    return Turn(
        row=row,
        question=_text(asked[:1]),
        answer=_text(answers[-1:]),
        model_calls=found.model_calls,
    )


def _text(messages: list[Message]) -> Shown | None:
    parts = [part for message in messages for part in message.parts if part.kind == "text" and part.text]
    return Shown.of(parts[-1], "markdown") if parts else None
