"""Span types and the operations of OpenTelemetry's GenAI conventions: one mapping, and what other tracers call the same."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from prela_stream.model.semconv import OPERATION_NAME
from prela_stream.model.span import SpanType

OPERATIONS: Final[Mapping[SpanType, str]] = MappingProxyType(
    {
        SpanType.AGENT: "invoke_agent",
        SpanType.LLM: "chat",
        SpanType.TOOL: "execute_tool",
        SpanType.RETRIEVAL: "retrieval",
        SpanType.EMBEDDING: "embeddings",
    }
)
"""What `gen_ai.operation.name` we write for a type; CUSTOM has none."""
_TYPES: Final[Mapping[str, SpanType]] = {
    **{operation: span_type for span_type, operation in OPERATIONS.items()},
    "create_agent": SpanType.AGENT,
    "generate_content": SpanType.LLM,
    "text_completion": SpanType.LLM,
    "invoke_workflow": SpanType.CUSTOM,
    "plan": SpanType.CUSTOM,
    "memory": SpanType.CUSTOM,
}
_OPENINFERENCE: Final[Mapping[str, SpanType]] = {
    "AGENT": SpanType.AGENT,
    "LLM": SpanType.LLM,
    "TOOL": SpanType.TOOL,
    "RETRIEVER": SpanType.RETRIEVAL,
    "RERANKER": SpanType.RETRIEVAL,
    "EMBEDDING": SpanType.EMBEDDING,
}


def span_type_of(attributes: Mapping[str, Any]) -> SpanType | None:
    """What kind of work the attributes of any tracer say it is; None where they say nothing.

    The operation's name goes first (never the span's name: vendors choose it as they like), then MCP and OpenInference.
    """
    operation = attributes.get(OPERATION_NAME)
    if isinstance(operation, str) and operation in _TYPES:
        return _TYPES[operation]
    if attributes.get("mcp.method.name") == "tools/call":
        return SpanType.TOOL
    kind = attributes.get("openinference.span.kind")
    return _OPENINFERENCE.get(kind.upper(), SpanType.CUSTOM) if isinstance(kind, str) else None
