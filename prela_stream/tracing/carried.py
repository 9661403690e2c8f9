"""Spans that were pickled: in the process that unpickles one, it is the remote parent of new spans, and changes nothing.

Copies in the same process are the span itself: see `SpanView.__copy__`.
"""

import copyreg
from typing import Any, Final

from prela_stream.model.span import REMOTE_PARENT
from prela_stream.tracing.children import CLOSED
from prela_stream.tracing.context import SpanContext, TraceContext
from prela_stream.tracing.span import Span
from prela_stream.tracing.unsampled import InnerSpan, UnsampledSpan

_COPIED: Final = (
    "_id",
    "_parent_id",
    "_flags",
    "_type",
    "_name",
    "_status",
    "_start_ns",
    "_began",
    "_announce_pending",
)


class CarriedSpan(Span):
    """A span of another process. It has ended here, and its children are local roots, because no process counts them."""

    __slots__ = ()

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded."""
        return self._trace.sampled is not False

    def _count_child(self) -> int:
        return REMOTE_PARENT

    def _count_inject(self) -> int | None:
        return None


def unpickled(context: TraceContext, fields: tuple[Any, ...], output: Any, tracer: Any) -> CarriedSpan:
    """The span in the process that unpickles it."""
    span = CarriedSpan()
    for name, value in zip(_COPIED, fields, strict=True):
        setattr(span, name, value)
    span._trace, span._tracer, span._output = context, tracer, output
    span._final, span._attributes = {}, CLOSED
    span._more = span._children = None
    span._duration_ns = 0
    return span


def reduced(span: Span) -> tuple[Any, ...]:
    """What `pickle` stores of a span."""
    fields = tuple(getattr(span, name) for name in _COPIED)
    return _restored, (SpanContext(span), fields, span._tracer)


def _restored(context: TraceContext, fields: tuple[Any, ...], tracer: Any) -> CarriedSpan:
    return unpickled(context, fields, tracer._output, tracer)


def register_pickling() -> None:
    """Have `pickle` use the functions above for every kind of span."""
    for kind in (Span, CarriedSpan, UnsampledSpan, InnerSpan):
        copyreg.pickle(kind, reduced)
