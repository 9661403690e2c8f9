"""What people, models and tools wrote in one span: messages, tool calls and results, from the attributes of any convention."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from prela_stream.model import semconv
from prela_stream.model.plain import safe_text
from prela_stream.model.span import SpanData, SpanType
from prela_stream.otel import content as places
from prela_stream.otel.messages import messages_of
from prela_stream.otel.parts import parts_of
from prela_stream.otel.sources import first
from prela_stream.otel.spans import ForeignEvent
from prela_stream.otel.values import parsed

PartKind = Literal["text", "reasoning", "tool_call", "tool_result", "media", "data"]

_KINDS: Final[Mapping[str, PartKind]] = {
    "text": "text",
    "reasoning": "reasoning",
    "tool_call": "tool_call",
    "server_tool_call": "tool_call",
    "tool_call_response": "tool_result",
    "server_tool_call_response": "tool_result",
    "uri": "media",
    "blob": "media",
    "file": "media",
}
_INPUTS: Final = (semconv.FUNCTION_ARGUMENTS, "function.arguments", "input.value", "traceloop.entity.input", "input")
_OUTPUTS: Final = (semconv.FUNCTION_RESULT, "function.result", "output.value", "traceloop.entity.output", "output")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a message."""

    kind: PartKind
    text: str = ""
    """The text; for a call its arguments, for a result the result: plain text, or JSON. For media what is known of it."""
    is_json: bool = False
    """`text` is a JSON document in one line."""
    name: str = ""
    """Of the tool."""
    call_id: str = ""
    """Joins a tool call and its result; may be empty."""
    failed: bool = False
    """The tool reported an error."""
    modality: str = ""
    """Of media: image, audio, document, …"""
    mime_type: str = ""
    size: int | None = None
    """Of media: its bytes, if known."""
    uri: str = ""
    """Of media that is somewhere else."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation with a model."""

    role: str
    """system, user, assistant, tool, or what the tracer wrote."""
    parts: tuple[Part, ...]
    name: str = ""
    finish_reason: str = ""


class SpanContent(msgspec.Struct, frozen=True, kw_only=True):
    """What was written in one span. All empty if content is not recorded."""

    system: tuple[Part, ...] = ()
    """System instructions outside of the messages."""
    input: tuple[Message, ...] = ()
    output: tuple[Message, ...] = ()
    arguments: Part | None = None
    """What a tool, a retrieval or a function was given."""
    result: Part | None = None
    """What a tool, a retrieval or a function returned."""

    def __bool__(self) -> bool:
        return bool(self.system or self.input or self.output or self.arguments or self.result)


def content_of(span: SpanData) -> SpanContent:
    """The content of a span. Never raises: what has no known shape is shown as JSON."""
    own = span.attributes
    events = [
        ForeignEvent(name=event.name, time_ns=event.time_ns, attributes=event.attributes) for event in span.events
    ]
    is_call = span.span_type is SpanType.LLM
    found_in = first((*places.INPUTS, *(places.PLAIN_INPUTS if is_call else ())), own, events)
    found_out = first((*places.OUTPUTS, *(places.PLAIN_OUTPUTS if is_call else ())), own, events)
    instructions = places.system_instructions(own)
    system = _system_prompt(own) if instructions is None else _parts(instructions.value)
    inputs = () if found_in is None else _messages(found_in.value, "user")
    outputs = () if found_out is None else _messages(found_out.value, "assistant")
    if is_call or inputs or outputs:
        return SpanContent(system=system, input=inputs, output=outputs)
    return SpanContent(system=system, arguments=_given(own), result=_returned(own))


def _given(own: Mapping[str, Any]) -> Part | None:
    keys = (semconv.TOOL_CALL_ARGUMENTS, semconv.RETRIEVAL_QUERY)
    value = next((found for key in keys if (found := semconv.read(own, key)) is not None), None)
    if value is None:
        value = next((own[key] for key in _INPUTS if own.get(key) is not None), None)
    return None if value is None else _value("tool_call", value, semconv.read(own, semconv.TOOL_NAME), own)


def _returned(own: Mapping[str, Any]) -> Part | None:
    keys = (semconv.TOOL_CALL_RESULT, semconv.RETRIEVAL_DOCUMENTS)
    value = next((found for key in keys if (found := semconv.read(own, key)) is not None), None)
    if value is None:
        value = next((own[key] for key in _OUTPUTS if own.get(key) is not None), None)
    return None if value is None else _value("tool_result", value, semconv.read(own, semconv.TOOL_NAME), own)


def _value(kind: PartKind, value: Any, name: Any, own: Mapping[str, Any]) -> Part:
    text, is_json = _unwrapped(value)
    call_id = semconv.read(own, semconv.TOOL_CALL_ID)
    return Part(kind=kind, text=text, is_json=is_json, name=_string(name), call_id=_string(call_id))


def _system_prompt(own: Mapping[str, Any]) -> tuple[Part, ...]:
    """The prompt in the ancestor's `llm.system`; in OpenInference that attribute is the vendor."""
    prompt = own.get("llm.system")
    if isinstance(prompt, str) and "openinference.span.kind" not in own and " " in prompt:
        return (Part(kind="text", text=prompt),)
    return ()


def _messages(found: Iterable[Any], role: str) -> tuple[Message, ...]:
    messages = (one for each in found for one in messages_of(each, role)) if isinstance(found, list) else ()
    return tuple(
        Message(
            role=_string(one.get("role")) or role,
            parts=_parts(one.get("parts")),
            name=_string(one.get("name")),
            finish_reason=_string(one.get("finish_reason")),
        )
        for one in messages
    )


def _parts(found: Any) -> tuple[Part, ...]:
    return tuple(_part(one) for one in (found if isinstance(found, list) else parts_of(found)))


def _part(raw: Any) -> Part:
    if not isinstance(raw, Mapping):
        return Part(kind="text", text=safe_text(raw))
    kind = _KINDS.get(str(raw.get("type")))
    match kind:
        case "text" | "reasoning":
            text, is_json = text_of(raw.get("content", ""))
            return Part(kind=kind, text=text, is_json=is_json)
        case "tool_call" | "tool_result":
            value = raw.get("arguments") if kind == "tool_call" else raw.get("response", raw.get("result"))
            text, is_json = _unwrapped(value)
            failed = raw.get("is_error") is True
            name, call_id = _string(raw.get("name")), _string(raw.get("id"))
            return Part(kind=kind, text=text, is_json=is_json, name=name, call_id=call_id, failed=failed)
        case "media":
            return _media(raw)
    text, _ = text_of({key: value for key, value in raw.items() if key != "type" or value != "unknown"})
    return Part(kind="data", text=text, is_json=True)


def _media(raw: Mapping[str, Any]) -> Part:
    mime_type, modality = _string(raw.get("mime_type")), _string(raw.get("modality")) or "file"
    uri = _string(raw.get("uri")) or _string(raw.get("file_id"))
    known = raw.get("size")
    size = known if isinstance(known, int) else None
    if uri.startswith("data:"):
        head, _, inline = uri.partition(",")
        mime_type, uri = mime_type or head[5:].partition(";")[0], ""
        size = _size_of(inline) if ";base64" in head else len(inline)
    elif isinstance(data := raw.get("content"), str):
        size = _size_of(data)
    elif isinstance(data, bytes):
        size = len(data)
    what = " ".join(part for part in (mime_type or modality, "" if size is None else f"{size:,} bytes", uri) if part)
    return Part(kind="media", text=what, modality=modality, mime_type=mime_type, size=size, uri=uri)


def _size_of(data: str) -> int:
    """Bytes of base64."""
    return len(data.rstrip("=")) * 3 // 4


def _unwrapped(value: Any) -> tuple[str, bool]:
    """As `text_of`; a list of text blocks, as tools of Anthropic and MCP return them, is their text."""
    found = parsed(value)
    if (
        isinstance(found, list)
        and found
        and all(isinstance(one, Mapping) and one.get("type") == "text" for one in found)
    ):
        texts = [_string(one.get("text") or one.get("content")) for one in found]
        return "\n".join(texts), False
    return text_of(found)


def text_of(value: Any) -> tuple[str, bool]:
    """A value as text, and whether that is JSON. A string that holds a JSON array or object is JSON too."""
    if value is None:
        return "", False
    found = parsed(value)
    if isinstance(found, str):
        return found, False
    try:
        return msgspec.json.encode(found).decode(), not isinstance(found, int | float)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError, UnicodeError):
        return safe_text(found), False


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
