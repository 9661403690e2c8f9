"""One part of a message in the shape of OpenTelemetry's GenAI conventions, from the shape of any provider or framework.

The conventions (`gen-ai-input-messages.json`) have parts of the types `text`, `reasoning`, `tool_call`, `tool_call_response`,
`uri` and `blob`. A part of another type passes through unchanged.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prela_stream.otel.values import as_map, parsed

Part = dict[str, Any]

_TEXT_TYPES: Final = frozenset({"text", "input_text", "output_text", "refusal", "summary_text"})
_RESULT_TYPES: Final = ("text", "json", "content", "error-text", "error-json")
_KNOWN: Final = frozenset({"text", "reasoning", "tool_call", "tool_call_response", "uri", "blob", "file"})


def text_part(content: str) -> Part:
    """A text."""
    return {"type": "text", "content": content}


def call_part(name: Any, arguments: Any, call_id: Any) -> Part:
    """A request of the model to call a tool."""
    part: Part = {"type": "tool_call", "name": name, "arguments": parsed(arguments)}
    return {**part, "id": call_id} if call_id else part


def response_part(response: Any, call_id: Any, name: Any = None) -> Part:
    """The result of a tool."""
    part: Part = {"type": "tool_call_response", "response": parsed(response)}
    if call_id:
        part["id"] = call_id
    return {**part, "name": name} if name else part


def parts_of(content: Any) -> list[Part]:
    """The parts of a message's content: a text, a block, or a list of both."""
    found = parsed(content)
    if found is None or found == "":
        return []
    if found is not content and not _is_content(found):
        return [text_part(content)]  # an answer in JSON
    if isinstance(found, str):
        return [text_part(found)]
    if isinstance(found, Mapping):
        return [part_of(found)]
    if isinstance(found, list):
        return [text_part(one) if isinstance(one, str) else part_of(one) for one in found if one not in (None, "")]
    return [text_part(str(found))]


def _is_content(found: Any) -> bool:
    """Whether JSON in a text is the content of a message, and not its text."""
    blocks = found if isinstance(found, list) else [found]
    return bool(blocks) and all(isinstance(one, Mapping) and _is_block(one) for one in blocks)


def _is_block(one: Mapping[str, Any]) -> bool:
    kind = one.get("type") or one.get("block_type")
    if isinstance(kind, str):
        return kind in _KNOWN or kind in _BY_TYPE or kind.endswith("Content")
    if _unwrapped(one) is not None or ("name" in one and ("arguments" in one or "args" in one)):
        return True
    key = next((key for key, _ in _BY_KEY if key in one), None)
    return key is not None and (key not in ("text", "content") or len(one) == 1)


def part_of(block: Any) -> Part:
    """One block of a message."""
    if not isinstance(block, Mapping):
        return {"type": "text", "content": str(block)}
    if (inner := _unwrapped(block)) is not None:
        return part_of(inner)
    kind = block.get("type") or block.get("block_type") or block.get("part_kind")
    if isinstance(kind, str):
        if "type" in block and kind in _KNOWN and ("content" in block or kind not in ("text", "reasoning")):
            return _known(block, kind)
        if (convert := _BY_TYPE.get(kind.lower())) is not None:
            return convert(block)
        if kind.endswith(".TextReasoningContent"):  # of .NET
            return _reasoning(as_map(block.get("content")))
    for key, by_key in _BY_KEY:
        if key in block:
            return by_key(block)
    if isinstance(block.get("name"), str) and any(key in block for key in ("arguments", "args")):
        return _call(block)
    return {"type": "unknown", **block}


def _known(block: Mapping[str, Any], kind: str) -> Part:
    if kind in ("tool_call", "tool_call_response"):
        decoded = {key: parsed(block[key]) for key in ("arguments", "response") if isinstance(block.get(key), str)}
        return {**block, **decoded}
    return dict(block)


def _unwrapped(block: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What OpenInference wraps; None for a block without a wrapper."""
    for wrapper in ("message_content", "prompt", "completion"):
        if len(block) == 1 and isinstance(inner := block.get(wrapper), Mapping):
            return inner
    return None


def _text(block: Mapping[str, Any]) -> Part:
    for key in ("text", "content", "refusal"):
        if isinstance(value := block.get(key), str):
            return _reasoning(block) if block.get("thought") is True else text_part(value)  # Gemini's thoughts
        if isinstance(value, Mapping) and isinstance(value.get("value"), str):  # OpenAI Assistants
            return text_part(value["value"])
    return {"type": "unknown", **block}


def _reasoning(block: Mapping[str, Any]) -> Part:
    for key in ("thinking", "reasoning", "text", "content", "summary", "data"):
        value = block.get(key)
        if isinstance(value, str) and value:
            return {"type": "reasoning", "content": value}
        if isinstance(value, list) and value:
            return {"type": "reasoning", "content": "\n".join(_texts(value))}
    return {"type": "reasoning", "content": ""}


def _texts(blocks: list[Any]) -> list[str]:
    found = (one if isinstance(one, str) else one.get("text") if isinstance(one, Mapping) else None for one in blocks)
    return [one for one in found if isinstance(one, str)]


def _call(block: Mapping[str, Any]) -> Part:
    function = block.get("function") if isinstance(block.get("function"), Mapping) else {}
    assert isinstance(function, Mapping)
    return call_part(
        _first(block, "name", "toolName", "tool_name") or function.get("name"),
        _first(block, "input", "args", "arguments")
        if any(key in block for key in ("name", "toolName", "tool_name"))
        else function.get("arguments"),
        _first(block, "call_id", "id", "toolCallId", "tool_call_id", "toolUseId", "ref"),
    )


def _response(block: Mapping[str, Any]) -> Part:
    result = _first(block, "content", "output", "result", "response")
    if isinstance(result, Mapping) and result.get("type") in _RESULT_TYPES and "value" in result:  # Vercel AI SDK
        result = result["value"]
    return response_part(
        result,
        _first(block, "tool_use_id", "call_id", "toolCallId", "tool_call_id", "toolUseId", "id", "ref"),
        _first(block, "toolName", "tool_name", "name"),
    )


def _image(block: Mapping[str, Any]) -> Part:
    source = block.get("source") if isinstance(block.get("source"), Mapping) else block
    assert isinstance(source, Mapping)
    url = _first(block, "image_url", "url", "image") or source.get("url")
    if isinstance(url, Mapping):
        url = url.get("url") or as_nested_url(url)
    if isinstance(url, str):
        return {"type": "uri", "modality": "image", "uri": url}
    mime, data = _first(source, "media_type", "mime_type", "mediaType"), _first(source, "data", "bytes")
    return {"type": "blob", "modality": "image", "mime_type": mime, "content": data} if data else dict(block)


def as_nested_url(image: Mapping[str, Any]) -> str | None:
    """The URL of OpenInference's `image.url`, once it is nested."""
    inner = image.get("image")
    return inner.get("url") if isinstance(inner, Mapping) else None


def _first(block: Mapping[str, Any], *keys: str) -> Any:
    return next((block[key] for key in keys if block.get(key) is not None), None)


def _gemini_call(block: Mapping[str, Any]) -> Part:
    call = as_map(block.get("function_call") or block.get("functionCall"))
    return call_part(call.get("name"), _first(call, "args", "arguments"), call.get("id"))


def _gemini_response(block: Mapping[str, Any]) -> Part:
    answer = as_map(block.get("function_response") or block.get("functionResponse"))
    return response_part(answer.get("response"), answer.get("id"), answer.get("name"))


_BY_TYPE: Final[Mapping[str, Callable[[Mapping[str, Any]], Part]]] = {
    **dict.fromkeys((*_TEXT_TYPES, "user-prompt", "system-prompt", "retry-prompt"), _text),
    **dict.fromkeys(("thinking", "reasoning", "redacted_thinking", "reasoning_content"), _reasoning),
    **dict.fromkeys(
        ("tool_use", "server_tool_use", "mcp_tool_use", "tool-call", "tool_call", "function_call", "function"), _call
    ),
    **dict.fromkeys(("tool_result", "tool-result", "tool_response", "function_call_output", "tool-return"), _response),
    **dict.fromkeys(("image", "image_url", "input_image"), _image),
}
_BY_KEY: Final[tuple[tuple[str, Callable[[Mapping[str, Any]], Part]], ...]] = (
    ("tool_call", lambda block: _call(as_map(block["tool_call"]))),
    ("function_call", _gemini_call),
    ("functionCall", _gemini_call),
    ("function_response", _gemini_response),
    ("functionResponse", _gemini_response),
    ("toolUse", lambda block: _call(block["toolUse"] if isinstance(block["toolUse"], Mapping) else block)),
    ("toolInvocation", lambda block: _call(as_map(block["toolInvocation"]))),
    ("toolRequest", lambda block: _call(as_map(block["toolRequest"]))),
    ("toolResponse", lambda block: _response(as_map(block["toolResponse"]))),
    ("toolResult", lambda block: _response(block["toolResult"] if isinstance(block["toolResult"], Mapping) else block)),
    ("reasoningContent", lambda block: _reasoning(_inner(block["reasoningContent"], "reasoningText"))),
    ("tool.name", lambda block: call_part(block["tool.name"], block.get("tool.args"), None)),
    ("toolName", _call),
    ("text", _text),
    ("content", _text),
)
"""For blocks without a type: OpenInference, Gemini, Bedrock Converse, Strands, any-agent."""


def _inner(value: Any, key: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value[key] if isinstance(value.get(key), Mapping) else value
    return {"text": str(value)}
