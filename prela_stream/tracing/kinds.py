"""Span functions by kind: `agent()`, `llm()`, `tool()`, `retrieval()` and `embedding()`, beside `Tracer.span()`.

Each sets the span type and the attributes of OpenTelemetry's GenAI conventions.
"""

from collections.abc import Mapping
from typing import Any

from prela_stream.model import semconv
from prela_stream.model.span import OPERATION_NAMES, SpanType
from prela_stream.tracing.coerce import attributes_of
from prela_stream.tracing.parent import Parent
from prela_stream.tracing.setters import given
from prela_stream.tracing.span import Span
from prela_stream.tracing.templates import NAME_ATTRIBUTES, SpanMethod, Unnamed, also_decorates, decorated, is_decorated


class SpanKinds:
    """Start a span for `with`, `async with` or `end()`, or decorate a function: see `Tracer.span`.

    `attributes` have priority over the other arguments.
    """

    __slots__ = ()
    span: SpanMethod[..., Span]

    @also_decorates
    def agent(
        self,
        name: str = Unnamed("agent"),
        *,
        agent_id: str | None = None,
        description: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A run of an agent: the whole loop of model calls and tools. Heartbeats are sent while it is open."""
        known = {semconv.AGENT_ID: agent_id, semconv.AGENT_DESCRIPTION: description}
        return _start(self, name, SpanType.AGENT, known, attributes, parent)

    @also_decorates
    def llm(
        self,
        name: str = Unnamed("llm"),
        *,
        model: str | None = None,
        provider: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A model call that no instrumentation traces; `span.set_llm(…)` sets the rest after the response."""
        known = {
            semconv.PROVIDER_NAME: provider,
            semconv.REQUEST_MODEL: model,
            semconv.REQUEST_TEMPERATURE: temperature,
            semconv.REQUEST_MAX_TOKENS: max_tokens,
        }
        return _start(self, name, SpanType.LLM, known, attributes, parent)

    @also_decorates
    def tool(
        self,
        name: str = Unnamed("tool"),
        *,
        arguments: Any = None,
        call_id: str | None = None,
        description: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A tool call; `span.set_tool(result=…)` sets the result. `arguments` can be any value, best a dict."""
        known = {
            semconv.TOOL_CALL_ID: call_id,
            semconv.TOOL_DESCRIPTION: description,
            semconv.TOOL_CALL_ARGUMENTS: arguments,
        }
        return _start(self, name, SpanType.TOOL, known, attributes, parent)

    @also_decorates
    def retrieval(
        self,
        name: str = Unnamed("retrieval"),
        *,
        query: str | None = None,
        data_source: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> Span:
        """A search in a store or an index; `span.set_retrieval(documents=…)` sets the result."""
        known = {semconv.DATA_SOURCE_ID: data_source, semconv.RETRIEVAL_QUERY: query}
        return _start(self, name, SpanType.RETRIEVAL, known, attributes, parent)

    @also_decorates
    def embedding(
        self,
        name: str = Unnamed("embedding"),
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
        return _start(self, name, SpanType.EMBEDDING, known, attributes, parent)


def _start(
    tracer: SpanKinds,
    name: Any,
    span_type: SpanType,
    known: dict[str, Any],
    attributes: Mapping[str, Any] | None,
    parent: Parent | None,
) -> Span:
    found = {semconv.OPERATION_NAME: OPERATION_NAMES[span_type], **given(known)}
    if attributes is not None:
        found.update(attributes_of(attributes))
    if is_decorated(name):
        return decorated(tracer, name, span_type, found)  # type: ignore[no-any-return]  # as typed by also_decorates
    if span_type in NAME_ATTRIBUTES and type(name) is not Unnamed:
        found.setdefault(NAME_ATTRIBUTES[span_type], name)
    return tracer.span(name, span_type, found, parent=parent)
