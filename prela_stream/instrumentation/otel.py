"""Joins this SDK with OpenTelemetry: the spans of both form one tree. The nearer current span is the parent of a new span.

Opt-in with `join_opentelemetry()`. Nothing here imports OpenTelemetry; the join takes effect when the program imports it. No
span is copied: each library exports its spans, with ids of the other's spans as parents. `otel_bridge` also records the
spans of OpenTelemetry with this SDK and counts them as children. Without it, a span of this SDK below one of OpenTelemetry is a
local root, and its trace is complete without what OpenTelemetry exports.

OpenTelemetry keeps its current span in a runtime context. A wrapper of it notes, with each context that is attached, which parent
was current in this SDK. So it is known which of the two is nearer.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.instrumentation.import_hook import forget, is_importing, when_imported
from prela_stream.propagation import tracestate
from prela_stream.propagation.tracestate import TraceState
from prela_stream.propagation.w3c import extract
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.current import current, join_other_tracer
from prela_stream.tracing.parent import Parent
from prela_stream.tracing.span import Span

_MODULE: Final = "opentelemetry.context"
_TRACE_MODULE: Final = "opentelemetry.trace"
_SPANS: Final = "prela_stream.instrumentation.otel_spans"
"""Imported by the bridge; without it, no span of OpenTelemetry is known here."""
_PARENT: Final = "prela_stream.parent"
_RANDOM: Final = 2
_guard: Final = guard("instrumentation.otel")


class _JoinedContext:
    """A runtime context of OpenTelemetry that has the current span of this SDK if that is nearer.

    Args:
        inner: The original runtime context, which still holds what is attached.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def attach(self, context: Mapping[str, Any]) -> Any:
        """As `inner.attach`, together with the current parent of this SDK."""
        return self.inner.attach(_context_of({**context, _PARENT: current()}))

    def get_current(self) -> Any:
        """As `inner.get_current`, with the current span of this SDK if that is nearer."""
        context = self.inner.get_current()
        with _guard:
            parent = current()
            if parent is not None and not _is_noted(parent, context):
                span = _otel_span_of(parent)
                return context if span is None else _trace_api().set_span_in_context(span, context)
        return context

    def detach(self, token: Any) -> None:
        """As `inner.detach`."""
        self.inner.detach(token)


def join_opentelemetry() -> None:
    """Join the two now, or when the program imports OpenTelemetry. Safe to call twice."""
    when_imported(_MODULE, _join)


def is_joined() -> bool:
    """Whether the two are joined now."""
    return isinstance(getattr(sys.modules.get(_MODULE), "_RUNTIME_CONTEXT", None), _JoinedContext)


def leave_opentelemetry() -> None:
    """Undo `join_opentelemetry`."""
    forget(_MODULE)
    join_other_tracer(None)
    module = sys.modules.get(_MODULE)
    joined = getattr(module, "_RUNTIME_CONTEXT", None)
    if isinstance(joined, _JoinedContext):
        module._RUNTIME_CONTEXT = joined.inner  # type: ignore[union-attr]  # it has the attribute


def _join() -> None:
    module = sys.modules[_MODULE]
    inner = module._RUNTIME_CONTEXT  # the import hook logs an AttributeError
    if not isinstance(inner, _JoinedContext):
        module._RUNTIME_CONTEXT = _JoinedContext(inner)  # type: ignore[attr-defined]  # it has just been read
    join_other_tracer(_nearer)


def _nearer(parent: Parent | None) -> Parent | None:
    """The parent of a new span of this SDK: `parent`, or the current span of OpenTelemetry if that is nearer."""
    if _TRACE_MODULE not in sys.modules or is_importing(_TRACE_MODULE):
        return parent  # OpenTelemetry can have no current span yet
    with _guard:
        context = sys.modules[_MODULE]._RUNTIME_CONTEXT.inner.get_current()
        if parent is not None and not _is_noted(parent, context):
            return parent
        span = _trace_api().get_current_span(context)
        carried = getattr(span, "prela_parent", None)
        if isinstance(carried, Parent):
            return carried  # a span of this SDK, which OpenTelemetry carried to this context
        span_context = span.get_span_context()
        if span_context.is_valid:
            spans = sys.modules.get(_SPANS)
            return (spans and spans.parent_of(span_context)) or _trace_context_of(span_context, parent)
    return parent


def _is_noted(parent: Parent, context: Mapping[str, Any]) -> bool:
    """Whether `parent` was current when the context was attached. After a fork, the context of a span is current for the span."""
    noted = context.get(_PARENT)
    return noted is parent or (isinstance(noted, Span) and getattr(parent, "raw_span_id", None) == noted._id)


def _trace_context_of(span_context: Any, parent: Parent | None) -> TraceContext | None:
    """The context of a span of OpenTelemetry, as `extract` would give it for headers."""
    traceparent = f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{int(span_context.trace_flags):02x}"
    context = extract({"traceparent": traceparent, "tracestate": span_context.trace_state.to_header()})
    trace = parent._trace if isinstance(parent, Span) else parent
    if context is not None and isinstance(trace, TraceContext) and trace.trace_id == context.trace_id:
        context._baggage = trace._baggage
    return context


def _otel_span_of(parent: Parent) -> Any:
    """A span of OpenTelemetry with the ids of `parent`, which records nothing; None for a trace that has no span yet."""
    trace = parent._trace if isinstance(parent, Span) else parent
    span_id = parent._id if isinstance(parent, Span) else getattr(parent, "raw_span_id", None)
    if span_id is None or not isinstance(trace, TraceContext):
        return None
    api = _trace_api()
    state = TraceState(trace.tracestate, trace.threshold if trace.sampled else None, trace.randomness)
    context = api.SpanContext(
        trace_id=int.from_bytes(trace.raw_trace_id),
        span_id=int.from_bytes(span_id),
        is_remote=not isinstance(parent, Span),
        trace_flags=api.TraceFlags(int(bool(trace.sampled)) | (_RANDOM if trace.random else 0)),
        trace_state=api.TraceState.from_header([tracestate.render(state)]),
    )
    span = api.NonRecordingSpan(context)
    span.prela_parent = parent
    if spans := sys.modules.get(_SPANS):
        spans.note(parent, context)
    return span


def _trace_api() -> Any:
    import opentelemetry.trace  # here, because opentelemetry.context is imported before opentelemetry.trace

    return opentelemetry.trace


def _context_of(values: dict[str, Any]) -> Any:
    return sys.modules[_MODULE].Context(values)
