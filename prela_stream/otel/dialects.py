"""Tracers whose attributes have names of their own that mean something else elsewhere: `model`, `input_tokens`.

A marker, which only this tracer writes, shows which names they are. They get the names that the normaliser reads.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prela_stream.otel.values import as_int, as_map

_OPERATION: Final = "gen_ai.operation.name"
_CLAUDE_CODE: Final[Mapping[str, str]] = {"llm_request": "chat", "tool": "execute_tool", "interaction": "invoke_agent"}
_CLAUDE_NAMES: Final[Mapping[str, str]] = {
    "model": "gen_ai.request.model",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "stop_reason": "gen_ai.response.finish_reason",
    "ttft_ms": "llm.time_to_first_token_ms",
    "tool_name": "gen_ai.tool.name",
}
_CLAUDE_INPUT: Final = ("input_tokens", "cache_read_tokens", "cache_creation_tokens")
_HAYSTACK: Final = (
    ("Generator", "chat"),
    ("Retriever", "retrieval"),
    ("Ranker", "rerank"),
    ("Embedder", "embeddings"),
    ("Agent", "invoke_agent"),
)
"""Ends of the names of components, and what they do."""
_SPRING_NAMES: Final = {
    "spring.ai.tool.definition.name": "gen_ai.tool.name",
    "spring.ai.tool.definition.description": "gen_ai.tool.description",
    "spring.ai.tool.call.arguments": "gen_ai.tool.call.arguments",
    "spring.ai.tool.call.result": "gen_ai.tool.call.result",
    "db.vector.query.content": "gen_ai.retrieval.query.text",
    "db.vector.query.response.documents": "gen_ai.retrieval.documents",
}
_TEMPLATES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "Function: {name}": (
        "execute_tool",
        {
            "name": "gen_ai.tool.name",
            "input": "gen_ai.tool.call.arguments",
            "output": "gen_ai.tool.call.result",
        },
    ),
    "Agent run: {name!r}": ("invoke_agent", {"name": "gen_ai.agent.name"}),
}
_HAYSTACK_NAMES: Final = {"haystack.component.input": "input.value", "haystack.component.output": "output.value"}


def _claude_code(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Spans of Claude Code. Its input tokens exclude cached ones."""
    operation = _CLAUDE_CODE.get(str(attributes.get("span.type")))
    if operation is None or ("session.id" not in attributes and "model" not in attributes):
        return None
    found = {_OPERATION: operation, **attributes}
    if operation == "chat" and "gen_ai.usage.input_tokens" not in attributes:
        counts = [count for key in _CLAUDE_INPUT if (count := as_int(attributes.get(key))) is not None]
        if counts:
            found["gen_ai.usage.input_tokens"] = sum(counts)
            found.pop("input_tokens", None)
    return _renamed(found, _CLAUDE_NAMES)


def _haystack(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Components of Haystack, whose input and output are JSON."""
    kind = str(attributes["haystack.component.type"])
    operation = next((operation for end, operation in _HAYSTACK if kind.endswith(end)), None)
    if operation is None:
        return None
    return _renamed({_OPERATION: operation, **attributes}, _HAYSTACK_NAMES)


def _spring(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Tool calls and queries of Spring AI. Its operation is `framework` for both."""
    kind = str(attributes["spring.ai.kind"])
    if kind == "tool_call":
        return _renamed({**attributes, _OPERATION: "execute_tool"}, _SPRING_NAMES)
    if kind == "vector_store" and attributes.get("db.operation.name") == "query":
        return _renamed({**attributes, _OPERATION: "retrieval"}, _SPRING_NAMES)
    return None


def _logfire(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Logfire's spans of OpenAI and Anthropic before they had an operation. A stream has no usage there."""
    request = as_map(attributes.get("request_data"))
    if (
        _OPERATION in attributes
        or not isinstance(attributes.get("gen_ai.request.model"), str)
        or "model" not in request
    ):
        return None
    if "messages" in request or "prompt" in request:
        return {_OPERATION: "chat", **attributes}
    return {_OPERATION: "embeddings", **attributes} if "encoding_format" in request else None


def _logfire_agents(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Logfire's spans of OpenAI's agents, whose template shows what they are."""
    operation, names = _TEMPLATES.get(str(attributes["logfire.msg_template"]), (None, {}))
    return None if operation is None else _renamed({_OPERATION: operation, **attributes}, names)


def _renamed(attributes: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The attributes with these names replaced. A name that is there already keeps its value."""
    for key, name in names.items():
        if key in attributes and (name not in attributes or attributes[name] == attributes[key]):
            attributes[name] = attributes.pop(key)
    return attributes


DIALECTS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]]] = {
    "span.type": _claude_code,
    "haystack.component.type": _haystack,
    "spring.ai.kind": _spring,
    "request_data": _logfire,
    "logfire.msg_template": _logfire_agents,
}
"""By the marker, of which the first counts. None from one means that the attributes are not of this tracer."""
