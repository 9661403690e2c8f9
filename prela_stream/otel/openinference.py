"""GenAI attributes in the names of OpenInference, for backends such as Phoenix.

Source: OpenInference's semantic conventions (spec/semantic_conventions.md). Attributes without a counterpart keep their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.otel.values import json_text

_KIND: Final = "openinference.span.kind"
_KINDS: Final[Mapping[SpanType, str]] = {
    SpanType.AGENT: "AGENT",
    SpanType.LLM: "LLM",
    SpanType.TOOL: "TOOL",
    SpanType.RETRIEVAL: "RETRIEVER",
    SpanType.EMBEDDING: "EMBEDDING",
    SpanType.CUSTOM: "CHAIN",
}
_NAMES: Final[Mapping[str, str]] = {
    semconv.PROVIDER_NAME: "llm.provider",
    semconv.INPUT_TOKENS: "llm.token_count.prompt",
    semconv.OUTPUT_TOKENS: "llm.token_count.completion",
    semconv.CACHE_READ_TOKENS: "llm.token_count.prompt_details.cache_read",
    semconv.CACHE_WRITE_TOKENS: "llm.token_count.prompt_details.cache_write",
    semconv.REASONING_TOKENS: "llm.token_count.completion_details.reasoning",
    semconv.COST_USD: "llm.cost.total",
    semconv.CONVERSATION_ID: "session.id",
    semconv.AGENT_NAME: "agent.name",
    semconv.TOOL_NAME: "tool.name",
    semconv.TOOL_DESCRIPTION: "tool.description",
    semconv.TOOL_CALL_ID: "tool.id",
}
_PARAMETERS: Final[Mapping[str, str]] = {
    semconv.REQUEST_MAX_TOKENS: "max_tokens",
    semconv.REQUEST_TEMPERATURE: "temperature",
    semconv.REQUEST_TOP_P: "top_p",
    semconv.REQUEST_TOP_K: "top_k",
    semconv.REQUEST_STOP_SEQUENCES: "stop",
    semconv.REQUEST_STREAM: "stream",
    semconv.REQUEST_SEED: "seed",
    semconv.REQUEST_FREQUENCY_PENALTY: "frequency_penalty",
    semconv.REQUEST_PRESENCE_PENALTY: "presence_penalty",
}
_JSON: Final = "application/json"


def to_openinference(span_type: SpanType, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a span with OpenInference's names. `attributes` have canonical names (`semconv.to_genai`)."""
    rest = dict(attributes)
    found: dict[str, Any] = {_KIND: _KINDS[span_type]}
    rest.pop(semconv.OPERATION_NAME, None)
    for name, other in _NAMES.items():
        if (value := rest.pop(name, None)) is not None:
            found[other] = value
    _model(span_type, rest, found)
    prompt, completion = found.get("llm.token_count.prompt"), found.get("llm.token_count.completion")
    if isinstance(prompt, int) and isinstance(completion, int):
        found["llm.token_count.total"] = prompt + completion
    given = {short: rest.pop(name) for name, short in _PARAMETERS.items() if name in rest}
    if given:
        found["llm.invocation_parameters"] = _text(given)
    reasons = rest.get(semconv.FINISH_REASONS)
    if isinstance(reasons, Sequence) and not isinstance(reasons, str) and len(reasons) == 1:
        found["llm.finish_reason"] = rest.pop(semconv.FINISH_REASONS)[0]
    _content(span_type, rest, found)
    return {**rest, **found}


def _model(span_type: SpanType, rest: dict[str, Any], found: dict[str, Any]) -> None:
    asked, answered = rest.pop(semconv.REQUEST_MODEL, None), rest.pop(semconv.RESPONSE_MODEL, None)
    if span_type is SpanType.EMBEDDING:
        found["embedding.model_name"] = asked or answered
        return
    if asked is not None or answered is not None:
        found["llm.model_name"] = asked or answered
    if answered is not None and asked not in (None, answered):
        found["llm.response.model_name"] = answered


def _content(span_type: SpanType, rest: dict[str, Any], found: dict[str, Any]) -> None:
    found.update(_conversation("input", _with_system(rest), rest))
    found.update(_conversation("output", rest.pop(semconv.OUTPUT_MESSAGES, None), rest))
    tools = rest.pop(semconv.TOOL_DEFINITIONS, None)
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        found[f"llm.tools.{number}.tool.json_schema"] = _text(tool)
    if span_type is SpanType.TOOL:
        for name, key in ((semconv.TOOL_CALL_ARGUMENTS, "input"), (semconv.TOOL_CALL_RESULT, "output")):
            if (value := rest.pop(name, None)) is not None:
                found[f"{key}.value"] = _text(value)
                found[f"{key}.mime_type"] = "text/plain" if isinstance(value, str) else _JSON
    if (query := rest.pop(semconv.RETRIEVAL_QUERY, None)) is not None:
        found["input.value"] = _text(query)
    if isinstance(documents := rest.get(semconv.RETRIEVAL_DOCUMENTS), list):
        del rest[semconv.RETRIEVAL_DOCUMENTS]
        for number, document in enumerate(documents):
            found.update(_document(f"retrieval.documents.{number}.document", document))


def _with_system(rest: dict[str, Any]) -> Any:
    """The input messages. OpenInference has the system prompt as their first one."""
    messages = rest.pop(semconv.INPUT_MESSAGES, None)
    instructions = rest.pop(semconv.SYSTEM_INSTRUCTIONS, None)
    if instructions is None:
        return messages
    system = {"role": "system", "parts": instructions if isinstance(instructions, list) else [instructions]}
    return [system, *messages] if isinstance(messages, list) else [system]


def _conversation(side: str, messages: Any, rest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if messages is None:
        return
    yield from _messages(f"llm.{side}_messages", messages)
    if f"{side}.value" not in rest:
        yield f"{side}.value", _text(messages)
        yield f"{side}.mime_type", _JSON


def _messages(prefix: str, messages: Any) -> Iterator[tuple[str, Any]]:
    for number, message in enumerate(messages if isinstance(messages, list) else [messages]):
        at = f"{prefix}.{number}.message"
        if not isinstance(message, Mapping):
            yield f"{at}.content", _text(message)
            continue
        parts = message.get("parts", message.get("content", []))
        parts = parts if isinstance(parts, list) else [parts]
        answers = [part for part in parts if isinstance(part, Mapping) and part.get("type") == "tool_call_response"]
        yield f"{at}.role", "tool" if answers else str(message.get("role", ""))
        texts = [text for part in parts if (text := _text_of(part)) is not None]
        if texts:
            yield f"{at}.content", "\n".join(texts)
        calls = [part for part in parts if isinstance(part, Mapping) and part.get("type") == "tool_call"]
        for index, call in enumerate(calls):
            start = f"{at}.tool_calls.{index}.tool_call"
            yield f"{start}.id", str(call.get("id", ""))
            yield f"{start}.function.name", str(call.get("name", ""))
            yield f"{start}.function.arguments", _text(call.get("arguments", {}))
        if answers:
            yield f"{at}.tool_call_id", str(answers[0].get("id", ""))


def _text_of(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return _text(part)
    match part.get("type"):
        case "text" | "reasoning":
            return _text(part.get("content", part.get("text", "")))
        case "tool_call":
            return None
        case "tool_call_response":
            return _text(part.get("response", part.get("result", "")))
    return _text(part)


def _document(at: str, document: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(document, Mapping):
        yield f"{at}.content", _text(document)
        return
    for key in ("id", "score", "content"):
        if (value := document.get(key)) is not None:
            yield f"{at}.{key}", value if isinstance(value, str | int | float) else _text(value)
    rest = {key: value for key, value in document.items() if key not in ("id", "score", "content")}
    if rest:
        yield f"{at}.metadata", _text(rest)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)
