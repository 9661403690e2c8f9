"""The detail of one span, which is loaded when the span is opened: messages, tool call and result, attributes, events, links."""

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from prela_stream.model.span import SpanData
from prela_stream.sinks.documents import span_document
from prela_stream.text import visible
from prela_stream.views.content import Message, Part, SpanContent, content_of
from prela_stream.views.facts import facts_of
from prela_stream.web.rendering import is_partial, page
from prela_stream.web.shown import FORMS, Shown, shown_json
from prela_stream.web.state import pages_of, span_id_of, trace_id_of

_RAW_HEADERS: Final = {"content-disposition": "inline"}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message, with the result of the tool that it called beside it."""

    part: Part
    shown: Shown
    result: Shown | None = None
    result_failed: bool = False


class ShownMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it is shown."""

    role: str
    name: str
    finish_reason: str
    steps: tuple[Step, ...]
    is_answer: bool = False


async def span(request: Request) -> Response:
    """`/traces/ID/spans/ID`: a part of the trace page, or a page that can be linked."""
    found = await _find(request)
    form = request.query_params.get("as", "markdown")
    form = form if form in FORMS else "markdown"
    return page(request, "span.html" if is_partial(request) else "span_full.html", **span_values(found, form))


async def raw(request: Request) -> Response:
    """`/traces/ID/spans/ID/raw`: the span as JSON, for programs and for copying."""
    found = await _find(request)
    text = msgspec.json.format(msgspec.json.encode(span_document(found)), indent=2).decode()
    return PlainTextResponse(visible(text), headers=_RAW_HEADERS)


async def _find(request: Request) -> SpanData:
    trace_id, span_id = trace_id_of(request), span_id_of(request)
    async with pages_of(request).reading() as reader:
        found = await reader.span(trace_id, span_id)
    if found is None:
        raise HTTPException(404, f"trace {trace_id} has no span {span_id}")
    return found


def span_values(found: SpanData, form: str) -> dict[str, Any]:
    """What the template of a span needs."""
    content = content_of(found)
    history, current = conversation(content, form)
    return {
        "span": found,
        "facts": facts_of(found),
        "form": form,
        "forms": FORMS,
        "history": history,
        "messages": current,
        "arguments": None if content.arguments is None else Shown.of(content.arguments, form),
        "result": None if content.result is None else Shown.of(content.result, form),
        "attributes": [(key, shown_json(value)) for key, value in sorted(found.attributes.items())],
        "events": [
            (
                event,
                event.time_ns - found.start_ns,
                [(key, shown_json(value)) for key, value in event.attributes.items()],
            )
            for event in found.events
        ],
        "links": [
            (
                link.trace_id.hex(),
                link.span_id.hex(),
                [(key, shown_json(value)) for key, value in link.attributes.items()],
            )
            for link in found.links
        ],
        "resource": list(_resource(found)),
    }


def _resource(found: SpanData) -> Iterator[tuple[str, Any]]:
    resource = msgspec.to_builtins(found.resource)
    own = resource.pop("attributes", {})
    for key, value in itertools.chain(resource.items(), own.items()):
        yield key, shown_json(value)


def conversation(content: SpanContent, form: str) -> tuple[list[ShownMessage], list[ShownMessage]]:
    """The messages of a model call: what earlier calls sent already, and what is new with the answer.

    The history ends with the last message of the model in the input. A tool's result is beside its call.
    """
    incoming = list(content.input)
    if content.system:
        incoming.insert(0, Message(role="system", parts=content.system))
    results = {
        part.call_id: part
        for message in incoming
        for part in message.parts
        if part.kind == "tool_result" and part.call_id
    }
    called = {
        part.call_id for message in incoming for part in message.parts if part.kind == "tool_call" and part.call_id
    }
    last = max((at for at, message in enumerate(incoming) if message.role == "assistant"), default=0)
    shown = [shown_message(message, form, results, called) for message in incoming]
    history = [one for one in shown[:last] if one.steps]
    new = [one for one in shown[last:] if one.steps]
    new += [shown_message(message, form, results, is_answer=True) for message in content.output]
    return history, new


def shown_message(
    message: Message,
    form: str,
    results: Mapping[str, Part] | None = None,
    called: Collection[str] = (),
    *,
    is_answer: bool = False,
) -> ShownMessage:
    """A message, rendered.

    Args:
        message: The message.
        form: One of `FORMS`.
        results: Results of tools by the id of their call, to be shown beside the calls.
        called: Ids of the calls in this conversation. Their results are beside them and not shown again.
        is_answer: Whether the model answered with it.
    """
    steps: list[Step] = []
    for part in message.parts:
        if part.kind == "tool_result" and part.call_id in called:
            continue  # it is beside its call
        answer = (results or {}).get(part.call_id) if part.kind == "tool_call" else None
        steps.append(
            Step(
                part=part,
                shown=Shown.of(part, form),
                result=None if answer is None else Shown.of(answer, form),
                result_failed=answer is not None and answer.failed,
            )
        )
    return ShownMessage(
        role=message.role,
        name=message.name,
        finish_reason=message.finish_reason,
        steps=tuple(steps),
        is_answer=is_answer,
    )
