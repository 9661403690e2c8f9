"""The spans of OpenTelemetry in this process. Each has a shadow, a `Span` that counts its children and records its item.

A new span of either library finds the shadow of its parent here, so all children are counted in one way and exactly. Nothing here
imports OpenTelemetry. `otel_bridge` calls it for each start and each end.
"""

import time
import weakref
from typing import Any, Final

import msgspec

from prela_stream import telemetry
from prela_stream.instrumentation.otel_scopes import is_ignored
from prela_stream.model.span import PENDING, REMOTE_PARENT, SPAN_TYPE_CODES, SpanType
from prela_stream.otel.items import Counts, encode_foreign
from prela_stream.otel.sdk import foreign_of, resource_attributes_of
from prela_stream.privacy.encoding import sanitized
from prela_stream.propagation import tracestate
from prela_stream.tracing.carried import reduced
from prela_stream.tracing.children import CLOSED, INJECT
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.parent import Parent
from prela_stream.tracing.session import carried_attributes, ids_used
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer

_SAMPLED: Final = 1
_RANDOM: Final = 2
_SHADOW: Final = "_prela_stream"
"""Attribute of a span of the SDK. It keeps the shadow alive, because `known` is weak."""
_CUSTOM: Final = SPAN_TYPE_CODES[SpanType.CUSTOM]
_clock: Final = time.perf_counter_ns

known: Final[weakref.WeakValueDictionary[tuple[int, int], Parent]] = weakref.WeakValueDictionary()
"""What a new span has as its parent, by trace id and span id of the span that is its parent for OpenTelemetry. Weak: a span that
a program drops without an end is not kept."""


class Passed(Parent):
    """A span of OpenTelemetry that is not recorded. Its children are those of `above`."""

    __slots__ = ("__weakref__", "above")

    def __init__(self, above: Parent) -> None:
        self.above = above


class ShadowSpan(Span):
    """The shadow of an open span of OpenTelemetry's SDK."""

    __slots__ = ("_origin",)
    _origin: "weakref.ref[Any]"
    """The span of the SDK."""

    def _finish_now(self, duration: int) -> bool:
        """End before the span of the SDK does, because the process or the pipeline ends."""
        origin = self._origin()
        if origin is None:
            self._abandon()
            return False
        return self.complete(origin, duration)

    _finish = _finish_now

    def complete(self, span: Any, cancelled_after: int | None = None) -> bool:
        """Freeze the counts and record the item.

        Args:
            span: The span of the SDK.
            cancelled_after: Its duration until now, if it has not ended.

        Returns:
            False if it has ended before.
        """
        try:
            del self._open  # atomic: of two threads one gets an AttributeError
        except AttributeError:
            return False
        more, self._attributes, self._final = self._attributes, CLOSED, {}
        children, injects, started = self._children, 0, 0
        if children is not None:
            self._frozen = memoryview(children)
            injects = children.count(INJECT)
            started = len(children) - injects
        self._duration_ns = 0 if cancelled_after is None else cancelled_after
        output, trace = self._output, self._trace
        if self._announce_pending is not None and output.new_spans.pop(self, None) is None:
            output.remove(self)
        recorder = output.recorder
        if recorder is None or output.record is None:
            output.report_unrecorded(self._name)
            return True
        remote = self._flags & REMOTE_PARENT
        counts = Counts(
            parent_span_id=self._parent_id,
            flags=self._flags,
            child_count=started,
            inject_count=injects,
            inject_ordinal=trace.inject_ordinal if remote else None,
            randomness=trace.randomness,
            threshold=trace.threshold,
        )
        try:
            item = self._item(span, counts, more, cancelled_after)
        except BaseException:
            recorder.refuse(trace.raw_trace_id)
            raise
        output.record(trace.raw_trace_id, item, self._parent_id is None or remote != 0)
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)

    def _item(self, span: Any, counts: Counts, more: dict[str, Any], cancelled_after: int | None) -> bytes:
        found, cancelled = foreign_of(span), cancelled_after is not None
        if cancelled:
            message = None if self._more is None else self._more.message
            end_ns = found.start_ns + (cancelled_after or 0)
            found = msgspec.structs.replace(found, end_ns=end_ns, status_message=message)
        of_resource = resource_attributes_of(span.resource)
        item = encode_foreign(found, counts, {**of_resource, **more} if more else of_resource, cancelled=cancelled)
        output = self._output
        return sanitized(item, output.privacy, output.max_item_bytes) if len(item) > output.check_above else item


def start(tracer: Tracer, span: Any) -> None:
    """Give a span of the SDK its shadow, and count it as a child of its parent."""
    context, outer = span.context, span.parent
    above = _context_of(context, None) if outer is None else (parent_of(outer) or _context_of(context, outer))
    scope = span.instrumentation_scope
    if not context.trace_flags & _SAMPLED or (scope is not None and is_ignored(scope.name)):
        _keep(span, Passed(above))
        return
    threshold = above.threshold if isinstance(above, TraceContext) else None
    trace, parent_id, flags = tracer._parent_fields(above)
    if trace.sampled is False:
        telemetry.UNSAMPLED_SPANS.inc()
        _keep(span, Passed(above))
        return
    if threshold is not None:  # both head samplers kept the trace
        trace.threshold = max(threshold, trace.threshold or 0)
    shadow = ShadowSpan()
    shadow._origin = weakref.ref(span)
    shadow._output = output = tracer._output.in_scope()
    shadow._tracer, shadow._trace = tracer, trace
    shadow._parent_id, shadow._flags = parent_id, flags
    shadow._id = context.span_id.to_bytes(8)
    shadow._type, shadow._name, shadow._status = _CUSTOM, span.name, PENDING
    shadow._more = shadow._children = None
    shadow._open = True
    shadow._attributes = carried_attributes(trace._baggage) if ids_used else {}
    shadow._start_ns, shadow._began = max(span.start_time or 0, 0), _clock()
    if parent_id is None or flags & REMOTE_PARENT:
        shadow._announce_pending = True
        output.new_spans[shadow] = True
    else:
        shadow._announce_pending = None
    _keep(span, shadow)


def shadow_of(span: Any) -> ShadowSpan | None:
    """The shadow of a span of the SDK; None if it has none, because it is not recorded or started in another process."""
    context = span.context
    found = known.get((context.trace_id, context.span_id))
    return found if type(found) is ShadowSpan else None


def parent_of(context: Any) -> Parent | None:
    """The parent of a new span below the span with this context of OpenTelemetry; None if that span is not known here."""
    found = known.get((context.trace_id, context.span_id))
    if context.is_remote and not isinstance(found, TraceContext):
        return None  # it was sent to this process, so its process counted an inject or nothing
    return found.above if type(found) is Passed else found


def note(parent: Parent, context: Any) -> None:
    """Record that a context of OpenTelemetry is that of a span or trace context of this SDK."""
    if isinstance(parent, Span):
        known[context.trace_id, context.span_id] = parent
    else:
        known.setdefault((context.trace_id, context.span_id), parent)


def _keep(span: Any, parent: Parent) -> None:
    setattr(span, _SHADOW, parent)
    context = span.context
    known[context.trace_id, context.span_id] = parent


def _context_of(context: Any, outer: Any) -> TraceContext:
    """The trace of a span whose parent is not known here: there is none, or it is `outer`, for instance in another process."""
    trace: TraceContext = object.__new__(TraceContext)
    trace.raw_trace_id = context.trace_id.to_bytes(16)
    trace.random = bool(context.trace_flags & _RANDOM)
    trace.sampled = None
    if header := context.trace_state.to_header():
        state = tracestate.parse(header)
        trace.tracestate, trace.threshold, trace.randomness = state.others, state.threshold, state.randomness
    if outer is not None:
        trace.sampled = True
        trace.raw_span_id = outer.span_id.to_bytes(8)
        if header and state.parent_span_id == trace.raw_span_id:
            trace.inject_ordinal = state.ordinal
    return trace


def _forget_spans_of_parent() -> None:
    """After a fork: the parent process ends its spans. Spans of the child below them are local roots."""
    inherited = list(known.values())
    known.clear()
    for span in inherited:
        if isinstance(span, ShadowSpan):
            span._abandon()


at_fork(Step.CURRENT_SPAN, in_child=_forget_spans_of_parent)
