"""Spans by what they stand for: `agent()`, `llm()`, `tool()`, `retrieval()` and `embedding()`, beside the tracer's `span()`.

Each gives the span its type and the attributes by which every reader of OpenTelemetry's GenAI conventions knows it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from prela_stream.model import semconv
from prela_stream.model.span import OPERATION_NAMES, SpanType
from prela_stream.tracing.coerce import attributes_of
from prela_stream.tracing.parent import Parent
from prela_stream.tracing.setters import given
from prela_stream.tracing.span import Span


class _Spans(Protocol):
    """What the methods below need of a tracer."""

    def span(
        self,
        name: str,
        span_type: SpanType = SpanType.CUSTOM,
        attributes: Mapping[str, Any] | None = None,
        *,
        parent: Parent | None = None,
    ) -> Span: ...


class SpanKinds:
    """For `with` or `async with`, or to `end()` by hand, as `span()`. `attributes` win over the other arguments."""

    __slots__ = ()

    def agent(
        self: _Spans,
        name: str,
        *,
        agent_id: str | None = None,
        description: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A run of an agent: the span of the whole loop of model calls and tools. It sends heartbeats while it is open."""
        known = {
            semconv.AGENT_NAME: name,
            semconv.AGENT_ID: agent_id,
            semconv.AGENT_DESCRIPTION: description,
        }
        return self.span(name, SpanType.AGENT, _attributes(SpanType.AGENT, known, attributes), parent=parent)

    def llm(
        self: _Spans,
        name: str,
        *,
        model: str | None = None,
        provider: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A call of a model that no instrumentation traces; say the rest with `span.set_llm(…)` when the answer is there."""
        known = {
            semconv.PROVIDER_NAME: provider,
            semconv.REQUEST_MODEL: model,
            semconv.REQUEST_TEMPERATURE: temperature,
            semconv.REQUEST_MAX_TOKENS: max_tokens,
        }
        return self.span(name, SpanType.LLM, _attributes(SpanType.LLM, known, attributes), parent=parent)

    def tool(
        self: _Spans,
        name: str,
        *,
        arguments: Any = None,
        call_id: str | None = None,
        description: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A call of a tool; say its result with `span.set_tool(result=…)`. `arguments` may be any value, best a dict."""
        known = {
            semconv.TOOL_NAME: name,
            semconv.TOOL_CALL_ID: call_id,
            semconv.TOOL_DESCRIPTION: description,
            semconv.TOOL_CALL_ARGUMENTS: arguments,
        }
        return self.span(name, SpanType.TOOL, _attributes(SpanType.TOOL, known, attributes), parent=parent)

    def retrieval(
        self: _Spans,
        name: str,
        *,
        query: str | None = None,
        data_source: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A search in a store or an index; say what was found with `span.set_retrieval(documents=…)`."""
        known = {semconv.DATA_SOURCE_ID: data_source, semconv.RETRIEVAL_QUERY: query}
        return self.span(name, SpanType.RETRIEVAL, _attributes(SpanType.RETRIEVAL, known, attributes), parent=parent)

    def embedding(
        self: _Spans,
        name: str,
        *,
        model: str | None = None,
        provider: str | None = None,
        dimensions: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A call of an embedding model."""
        known = {
            semconv.PROVIDER_NAME: provider,
            semconv.REQUEST_MODEL: model,
            semconv.EMBEDDING_DIMENSIONS: dimensions,
        }
        return self.span(name, SpanType.EMBEDDING, _attributes(SpanType.EMBEDDING, known, attributes), parent=parent)


def _attributes(span_type: SpanType, known: dict[str, Any], more: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {semconv.OPERATION_NAME: OPERATION_NAMES[span_type], **given(known)}
    return found if more is None else {**found, **attributes_of(more)}
