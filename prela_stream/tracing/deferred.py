"""A counted child that starts later: the parent can end before it, and the trace still waits for the work."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from prela_stream.model.span import CANCELLED, COUNTED, SPAN_STATUSES, SpanType
from prela_stream.tracing.coerce import text_of
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.parent import Parent
from prela_stream.tracing.span import Span


class Deferred(Parent):
    """The result of `defer()`: a reserved child of the span that was current. Pass it to the thread, task or job that works.

    Use it once, with `with deferred.span("work"):` or as the `parent` of a span; a second span of the same Deferred is an
    ordinary child. If the work will not happen, call `cancel()`. Otherwise the worker waits for it until a timeout.
    """

    __slots__ = ("_make", "_room", "above")

    def __init__(self, above: Span | TraceContext | None, make: Callable[..., Span]) -> None:
        self.above: Span | TraceContext | None = above
        """The span that counts the child; otherwise the trace context that was current, or None."""
        self._make = make
        self._room = [above._count_child()] if isinstance(above, Span) else []

    def take(self) -> int | None:
        """The flag of the reserved child, once; None if it was taken or if no span was current."""
        try:
            return self._room.pop()  # atomic: of two threads one gets it
        except IndexError:
            return None

    def span(
        self, name: str, span_type: SpanType = SpanType.CUSTOM, attributes: Mapping[str, Any] | None = None
    ) -> Span:
        """Start the span of the deferred work; see `Tracer.span`."""
        return self._make(text_of(name), span_type, attributes, parent=self)

    def cancel(self) -> None:
        """Report that the work will not happen: an empty CANCELLED span takes its place. No effect if the work has started."""
        if self._room and self._room[0] == COUNTED:
            span = self.span("deferred work")
            span.set_status(SPAN_STATUSES[CANCELLED], "cancelled before it started")
            span.end()

    def __copy__(self) -> Self:
        return self  # the reservation is one thing

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """In the process that unpickles it, it has the reservation. Use one of the two."""
        return _restored, (self.above, list(self._room), self._make)


def _restored(above: Span | TraceContext | None, room: list[int], make: Callable[..., Span]) -> Deferred:
    deferred = Deferred(None, make)
    deferred.above, deferred._room = above, room
    return deferred
