"""Maps the JSON of the Messages API to the attributes of OpenTelemetry's GenAI conventions. Pure.

Requests and answers are read as plain JSON data and never through the client's models. So the same code serves whole answers,
streams and raw bodies, and a field that this version does not know costs only itself. Sources: the `client-inference` page and
the JSON schemas of `semantic-conventions-genai`; for names outside them, the tracer that is built into anthropic 2.x.
"""

from collections.abc import Mapping
from typing import Any, Final

from prela_stream.instrumentation.anthropic.stream import MessageStream, failure_of
from prela_stream.instrumentation.provider import Failure, StreamState
from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.otel.finish_reasons import normalise_finish_reason
from prela_stream.privacy.media import decoded_size, without_media

COUNTED_TOKENS: Final = "anthropic.message.count_tokens.input_tokens"
"""The answer of `count_tokens`. Not a usage, because nothing was generated or billed."""
_REQUEST_KEYS: Final = {
    "model": semconv.REQUEST_MODEL,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "top_k": semconv.REQUEST_TOP_K,
    "service_tier": "anthropic.request.service_tier",
}
_USAGE_KEYS: Final = {
    "cache_read_input_tokens": semconv.CACHE_READ_TOKENS,
    "cache_creation_input_tokens": semconv.CACHE_WRITE_TOKENS,
    "output_tokens": semconv.OUTPUT_TOKENS,
}
_INPUT_KEYS: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_CACHE_LIFETIMES: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


class CreateMessage:
    """`POST /v1/messages`: as `Operation`."""

    name = "chat"
    span_type = SpanType.LLM
    price_flavor: str | None = "default"

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {semconv.OPERATION_NAME: "chat", **request_attributes(body)}

    def request_content(self, body: object) -> dict[str, Any]:
        """As `Operation.request_content`."""
        return content_attributes(body)

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
        """As `Operation.response_attributes`."""
        return response_attributes(answer, content=content)

    def response_failure(self, answer: Mapping[str, Any]) -> Failure | None:
        """As `Operation.response_failure`."""
        return failure_of(answer)

    def stream_state(self, *, content: bool) -> StreamState:
        """As `Operation.stream_state`."""
        return MessageStream(content=content)


class CountTokens(CreateMessage):
    """`POST /v1/messages/count_tokens`: as `Operation`. It generates nothing, and its prompt belongs to no generation."""

    name = "count_tokens"
    span_type = SpanType.CUSTOM
    price_flavor: str | None = None

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return request_attributes(body)

    def request_content(self, body: object) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.request_content`."""
        return {}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.response_attributes`."""
        counted = answer.get("input_tokens")
        return {COUNTED_TOKENS: counted} if isinstance(counted, int) else {}


def request_attributes(body: object) -> dict[str, Any]:
    """The model and the parameters of a request, without content. Reads top-level values only and iterates over none."""
    if not isinstance(body, Mapping):
        return {}
    found = {name: body[key] for key, name in _REQUEST_KEYS.items() if isinstance(body.get(key), str | int | float)}
    if isinstance(effort := _dig(body, "output_config", "effort"), str):
        found["gen_ai.request.reasoning.level"] = effort
    if isinstance(previous := _dig(body, "thread", "previous_message_id"), str):
        found["gen_ai.request.previous_response.id"] = previous  # the server holds the rest of the conversation
    if isinstance(kind := _dig(body, "thinking", "type"), str):
        found["anthropic.thinking.type"] = kind
    return found


def content_attributes(body: object) -> dict[str, Any]:
    """Prompts and tool definitions of a request body that consists of lists, dicts and scalars alone."""
    if not isinstance(body, Mapping):
        return {}
    found: dict[str, Any] = {}
    if body.get("system"):
        found[semconv.SYSTEM_INSTRUCTIONS] = _parts(body["system"])
    if isinstance(messages := body.get("messages"), list):
        found[semconv.INPUT_MESSAGES] = [
            {"role": message.get("role"), "parts": _parts(message.get("content"))}
            for message in messages
            if isinstance(message, Mapping)
        ]
    if isinstance(tools := body.get("tools"), list) and tools:
        found[semconv.TOOL_DEFINITIONS] = [_tool_definition(tool) for tool in tools if isinstance(tool, Mapping)]
    if isinstance(stops := body.get("stop_sequences"), list) and stops:
        found[semconv.REQUEST_STOP_SEQUENCES] = stops
    return found


def response_attributes(message: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
    """The attributes of a message, whole or as far as it was received.

    Args:
        message: A `message` of the API. Absent fields give no attributes: a stream that was broken off has no `stop_reason`
            and no `output_tokens`.
        content: Whether the answer itself is recorded.
    """
    found: dict[str, Any] = usage_attributes(message.get("usage"))
    for key, name in (("id", semconv.RESPONSE_ID), ("model", semconv.RESPONSE_MODEL)):
        if isinstance(message.get(key), str):
            found[name] = message[key]
    stop_reason = message.get("stop_reason")
    if isinstance(stop_reason, str):
        found[semconv.FINISH_REASONS] = [stop_reason]
    if content and message.get("content"):
        output: dict[str, Any] = {"role": "assistant", "parts": _parts(message["content"])}
        if isinstance(stop_reason, str):
            output["finish_reason"] = normalise_finish_reason(stop_reason)
        found[semconv.OUTPUT_MESSAGES] = [output]
    return found


def usage_attributes(usage: object) -> dict[str, Any]:
    """Token counts. The API's `input_tokens` exclude tokens read from and written to the cache; the attribute includes them."""
    if not isinstance(usage, Mapping):
        return {}
    found: dict[str, Any] = {name: usage[key] for key, name in _USAGE_KEYS.items() if isinstance(usage.get(key), int)}
    if isinstance(usage.get("input_tokens"), int):
        found[semconv.INPUT_TOKENS] = sum(_int(usage.get(key)) for key in _INPUT_KEYS)
    if isinstance(thinking := _dig(usage, "output_tokens_details", "thinking_tokens"), int):
        found[semconv.REASONING_TOKENS] = thinking
    for key in _CACHE_LIFETIMES:  # they are priced differently
        if isinstance(count := _dig(usage, "cache_creation", key), int):
            found[f"anthropic.usage.cache_creation.{key}"] = count
    for key in ("web_search_requests", "web_fetch_requests"):
        if isinstance(count := _dig(usage, "server_tool_use", key), int):
            found[f"anthropic.usage.server_tool_use.{key}"] = count
    if isinstance(usage.get("service_tier"), str):
        found["anthropic.response.service_tier"] = usage["service_tier"]
    iterations = usage.get("iterations")
    compactions = (
        [one for one in iterations if _dig(one, "type") == "compaction"] if isinstance(iterations, list) else []
    )
    if compactions:  # billed, and not in the sums above
        found["anthropic.usage.compaction.input_tokens"] = sum(
            _int(one.get(k)) for one in compactions for k in _INPUT_KEYS
        )
        found["anthropic.usage.compaction.output_tokens"] = sum(_int(one.get("output_tokens")) for one in compactions)
    return found


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    if not isinstance(content, list):
        return []
    return [_part(block) if isinstance(block, Mapping) else {"type": "text", "content": block} for block in content]


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    match kind:
        case "text":
            return {"type": "text", "content": block.get("text")}
        case "thinking":
            return {"type": "reasoning", "content": block.get("thinking")}
        case "tool_use" | "mcp_tool_use" | "server_tool_use":
            name = "server_tool_call" if kind == "server_tool_use" else "tool_call"
            return {"type": name, "id": block.get("id"), "name": block.get("name"), "arguments": block.get("input")}
        case "image" | "document" | "file":
            return _media(kind, block.get("source"))
        case str() if "tool_use_id" in block:
            name = "tool_call_response" if kind in ("tool_result", "mcp_tool_result") else "server_tool_call_response"
            part = {"type": name, "id": block["tool_use_id"], "response": without_media(block.get("content"))}
            return {**part, "is_error": True} if block.get("is_error") else part
    return {**without_media(block), "type": f"anthropic_{kind}"}


def _media(kind: str, source: Any) -> dict[str, Any]:
    """What a piece of media is, and its size or location; its data is not recorded."""
    if not isinstance(source, Mapping):
        return {"type": "blob", "modality": kind}
    match source.get("type"):
        case "base64":
            size = decoded_size(source.get("data"))
            return {"type": "blob", "modality": kind, "mime_type": source.get("media_type"), "size": size}
        case "url":
            return {"type": "uri", "modality": kind, "uri": source.get("url")}
        case "file":
            return {"type": "file", "modality": kind, "file_id": source.get("file_id")}
        case "text":
            return {"type": "text", "content": source.get("data")}
    return {"type": "blob", "modality": kind, "content": without_media(source)}


def _tool_definition(tool: Mapping[str, Any]) -> dict[str, Any]:
    kind = "function" if tool.get("type") in (None, "custom") else tool["type"]
    found = {"type": kind, "name": tool.get("name")}
    for key, name in (("description", "description"), ("input_schema", "parameters")):
        if key in tool:
            found[name] = tool[key]
    return found


def _dig(value: object, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
