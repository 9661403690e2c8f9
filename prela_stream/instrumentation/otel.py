"""One tree with a program's OpenTelemetry spans: where one is current, ours hang below it, and theirs hang below ours.

Opt-in: `join_opentelemetry()`. Nothing here imports OpenTelemetry; it is joined when the program imports it. No span is copied:
each library exports its own, with the other's ids as parents. A span of ours below one of theirs is a local root, since nobody
counts it: its trace is complete without the spans that OpenTelemetry exports elsewhere.

How: OpenTelemetry keeps its current span in a runtime context. Ours stands before it, notes with each context that is attached
which of our positions was current then, and so knows which of the two is nearer.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.instrumentation.import_hook import forget, when_imported
from prela_stream.propagation import tracestate
from prela_stream.propagation.tracestate import TraceState
from prela_stream.propagation.w3c import extract
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.current import current, join_other_tracer
from prela_stream.tracing.parent import Parent
from prela_stream.tracing.span import Span

_MODULE: Final = "opentelemetry.context"
_PARENT: Final = "prela_stream.parent"
_RANDOM: Final = 2
_guard: Final = guard("instrumentation.otel")


class _JoinedContext:
    """A runtime context of OpenTelemetry that shows our current span where it is nearer than theirs.

    Args:
        inner: The one that was there, which goes on holding what is attached.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def attach(self, context: Mapping[str, Any]) -> Any:
        """As `inner.attach`; the position of this moment goes with it."""
        return self.inner.attach(_context_of({**context, _PARENT: current()}))

    def get_current(self) -> Any:
        """As `inner.get_current`, with our span in it if that is nearer."""
        context = self.inner.get_current()
        with _guard:
            position = current()
            if position is not None and position is not context.get(_PARENT):
                span = _shown(position)
                return context if span is None else _trace_api().set_span_in_context(span, context)
        return context

    def detach(self, token: Any) -> None:
        """As `inner.detach`."""
        self.inner.detach(token)


def join_opentelemetry() -> None:
    """Join the two from now on, or from the moment on at which the program imports OpenTelemetry. Safe to call twice."""
    when_imported(_MODULE, _join)


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
    inner = module._RUNTIME_CONTEXT  # an AttributeError is told by the import hook's guard
    if not isinstance(inner, _JoinedContext):
        module._RUNTIME_CONTEXT = _JoinedContext(inner)  # type: ignore[attr-defined]  # it has just been read
    join_other_tracer(_nearer)


def _nearer(position: Parent | None) -> Parent | None:
    """The parent of a new span of ours: our own position, or what OpenTelemetry has current if that is nearer."""
    with _guard:
        context = sys.modules[_MODULE]._RUNTIME_CONTEXT.inner.get_current()
        if position is not None and position is not context.get(_PARENT):
            return position
        span = _trace_api().get_current_span(context)
        shown = getattr(span, "position", None)
        if isinstance(shown, Parent):
            return shown  # our own, carried here by OpenTelemetry
        theirs = span.get_span_context()
        if theirs.is_valid:
            return _remote(theirs, position)
    return position


def _remote(theirs: Any, position: Parent | None) -> TraceContext | None:
    """The context of a span of theirs, as if it had come in headers."""
    parent = f"00-{theirs.trace_id:032x}-{theirs.span_id:016x}-{int(theirs.trace_flags):02x}"
    context = extract({"traceparent": parent, "tracestate": theirs.trace_state.to_header()})
    ours = position._trace if isinstance(position, Span) else position
    if context is not None and isinstance(ours, TraceContext) and ours.trace_id == context.trace_id:
        context._baggage = ours._baggage
    return context


def _shown(position: Parent) -> Any:
    """A span of OpenTelemetry that stands for ours and records nothing; None for a trace that has no span yet."""
    trace = position._trace if isinstance(position, Span) else position
    span_id = position._id if isinstance(position, Span) else getattr(position, "raw_span_id", None)
    if span_id is None or not isinstance(trace, TraceContext):
        return None
    api = _trace_api()
    state = TraceState(trace.tracestate, trace.threshold if trace.sampled else None, trace.randomness)
    context = api.SpanContext(
        trace_id=int.from_bytes(trace.raw_trace_id),
        span_id=int.from_bytes(span_id),
        is_remote=not isinstance(position, Span),
        trace_flags=api.TraceFlags(int(bool(trace.sampled)) | (_RANDOM if trace.random else 0)),
        trace_state=api.TraceState.from_header([tracestate.render(state)]),
    )
    span = api.NonRecordingSpan(context)
    span.position = position
    return span


def _trace_api() -> Any:
    import opentelemetry.trace  # imported by whoever made or asked for a context; later than the context, hence here

    return opentelemetry.trace


def _context_of(values: dict[str, Any]) -> Any:
    from opentelemetry.context.context import Context

    return Context(values)
