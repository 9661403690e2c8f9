"""The fields of a live span and the properties that read them. `span.py` has what changes them."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Self

from prela_stream.model import semconv
from prela_stream.model.plain import is_scalar, name_of, refuse_unless_plain, safe_text
from prela_stream.model.span import (
    SPAN_STATUSES,
    SPAN_TYPES,
    SpanEvent,
    SpanLink,
    SpanStatus,
    SpanType,
    to_datetime,
    to_dict,
)
from prela_stream.tracing.coerce import text_of
from prela_stream.tracing.context import SpanContext, TraceContext, parent_of
from prela_stream.tracing.parent import Parent, Scope
from prela_stream.tracing.recorder import SpanOutput

_LONGEST_NAME: Final = 1_000
_LONGEST_VALUE: Final = 256
_LONGEST_LIST: Final = 16


class SpanExtras:
    """Fields that few spans have."""

    __slots__ = ("events", "links", "message")

    def __init__(self) -> None:
        self.events: list[SpanEvent] = []
        self.links: list[SpanLink] = []
        self.message: str | None = None

    def refuse_unless_plain(self) -> None:
        """Raise TypeError unless the attributes of events and links can be encoded as they are; see `model.plain`."""
        for event in self.events:
            refuse_unless_plain(event.attributes)
        for link in self.links:
            refuse_unless_plain(link.attributes)


class SpanView(Parent):
    """The fields of a span. The tracer fills them; some are unset until they are needed, because an unset slot costs nothing."""

    __slots__ = (
        "__weakref__",
        "_announce_pending",
        "_attributes",
        "_began",
        "_children",
        "_duration_ns",
        "_final",
        "_flags",
        "_frozen",
        "_id",
        "_more",
        "_name",
        "_open",
        "_output",
        "_parent_id",
        "_previous",
        "_scope",
        "_start_ns",
        "_status",
        "_trace",
        "_tracer",
        "_type",
    )
    _attributes: dict[str, Any]
    _began: int
    """Monotonic ns."""
    _children: bytearray | None
    """A byte for each child and each injected context; None: there were none so far."""
    _duration_ns: int
    """Set at the end."""
    _final: dict[str, Any]
    """The attributes; set at the end."""
    _flags: int
    _frozen: memoryview
    """Set at the end; `_children` cannot grow while this view exists."""
    _id: bytes
    _more: SpanExtras | None
    _name: str
    _open: bool
    """Deleted by the end."""
    _output: SpanOutput
    _parent_id: bytes | None
    _previous: Parent | None
    """What the context variable held before; set when the span is entered. `current.leave` needs it."""
    _announce_pending: bool | None
    """True: the START item is sent before the first child; False: it was sent; None: this span has none."""
    _scope: Scope
    """Set if it was given."""
    _start_ns: int
    _status: int
    _trace: TraceContext
    _tracer: Any
    """The tracer that has started the span."""
    _type: int

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return self._trace.raw_trace_id.hex()

    @property
    def span_id(self) -> str:
        """16 lower-case hex digits."""
        return self._id.hex()

    @property
    def parent_span_id(self) -> str | None:
        """16 lower-case hex digits; None for a root."""
        return None if self._parent_id is None else self._parent_id.hex()

    @property
    def name(self) -> str:
        """What the work is called."""
        return self._name

    @property
    def span_type(self) -> SpanType:
        """What kind of work it is."""
        return SPAN_TYPES[self._type]

    @property
    def status(self) -> SpanStatus:
        """PENDING until it is set or the span ends."""
        return SPAN_STATUSES[self._status]

    @property
    def status_message(self) -> str | None:
        """The text that was set with the status."""
        return None if self._more is None else self._more.message

    @property
    def started_at(self) -> datetime:
        """The start as an aware datetime in UTC (microseconds)."""
        return to_datetime(self._start_ns)

    @property
    def ended_at(self) -> datetime | None:
        """Start plus monotonic duration, an aware datetime in UTC; None while the span is open."""
        return to_datetime(self._start_ns + self._duration_ns) if self.is_ended else None

    @property
    def duration_ms(self) -> float | None:
        """The monotonic duration in milliseconds; None while the span is open."""
        return self._duration_ns / 1e6 if self.is_ended else None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """A read-only view; `set_attribute` changes them. After the end, notes replace large values, which were recorded."""
        return MappingProxyType(self._final if self.is_ended else self._attributes)

    def attribute(self, name: str) -> Any:
        """An attribute under any of its names, see `SpanData.attribute`."""
        return semconv.look_up(self.attributes, text_of(name), self.duration_ms)

    def to_dict(self) -> dict[str, Any]:
        """The span as it is now, as a dict; see `SpanData.to_dict`."""
        return to_dict(self)

    def _release(self) -> None:
        """Drop the content of the ended span, so that a task that outlives its request keeps ids in memory and no prompts."""
        self._final = released(self._final)
        if len(self._name) > _LONGEST_NAME:
            self._name = self._name[:_LONGEST_NAME]
        more = self._more
        if more is not None:
            more.events = [SpanEvent(one.name, one.time_ns, released(one.attributes)) for one in more.events]
            more.links = [SpanLink(one.trace_id, one.span_id, released(one.attributes)) for one in more.links]
            more.message = None if more.message is None else more.message[:_LONGEST_NAME]

    @property
    def events(self) -> tuple[SpanEvent, ...]:
        """The events so far."""
        return () if self._more is None else tuple(self._more.events)

    @property
    def is_ended(self) -> bool:
        """Whether the span has ended: `end()` was called or its block was left."""
        return hasattr(self, "_duration_ns")

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded; False if head sampling dropped it."""
        return True

    @property
    def context(self) -> TraceContext:
        """The data that all spans of the trace share in this process, baggage included. As a parent, it is this span."""
        return SpanContext(self)

    def __copy__(self) -> Self:
        return self  # a live span is one thing

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<Span {self._name!r} {self.span_type.value} {self.status.value} {self.trace_id}/{self.span_id}>"


def released(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes with a note for each value that is large or may be."""
    return {
        key: value if _is_small(value) else f"<{name_of(type(value))}: released when the span ended>"
        for key, value in attributes.items()
    }


def _is_small(value: object) -> bool:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) <= _LONGEST_VALUE  # type: ignore[arg-type]  # it has a length
    if is_scalar(kind):
        return True
    if kind is list or kind is tuple:
        parts: Any = value
        return len(parts) <= _LONGEST_LIST and all(is_scalar(type(part)) and _is_small(part) for part in parts)
    return False


def target_of(target: Any) -> tuple[bytes, bytes]:
    """The trace id and span id that a link points to; raises TypeError for anything but a span or its context."""
    target = parent_of(target)
    if issubclass(type(target), SpanView):  # not `isinstance`, which a mock passes
        return target._trace.raw_trace_id, target._id
    if issubclass(type(target), TraceContext) and target.raw_span_id is not None:
        return target.raw_trace_id, target.raw_span_id
    msg = f"a link points to a Span or to the TraceContext of one, got {safe_text(target)}; the link was not added"
    raise TypeError(msg)
