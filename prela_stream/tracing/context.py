"""The context of a trace, and how to make it current.

The current span is one immutable value (`current`), never a stack. A task or thread that starts with a copy of the value can only
replace its copy, so siblings under `asyncio.gather` are children of one parent and never of each other.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Self

from prela_stream.errors import guard
from prela_stream.model.ids import SPAN_ID_BYTES, TRACE_ID_BYTES
from prela_stream.model.plain import safe_text
from prela_stream.steps import Block
from prela_stream.tracing.current import current, enter, leave
from prela_stream.tracing.ids import id_of, new_trace_id
from prela_stream.tracing.parent import Parent, Scope

_NO_BAGGAGE: Final[Mapping[str, str]] = MappingProxyType({})


class TraceContext(Parent):
    """The data that all spans of one trace share in this process, and the remote parent of the first ones.

    Args:
        trace_id: 32 hex digits or a UUID; any other text is hashed to an id; None: a new random id.
        sampled: False: spans are propagated, but not recorded. None: the tracer's sampler decides at the first span.
        baggage: Entries that are propagated with the trace.
        span_id: The parent of the first spans in this process, 16 hex digits, if it is in another process.
    """

    # Defaults of the class, not slots: a root sets only its trace id.
    raw_trace_id: bytes
    raw_span_id: bytes | None = None
    sampled: bool | None = True
    threshold: int | None = None
    """Rejection threshold of the head sampling, 56 bits; None: it did not happen."""
    randomness: int | None = None
    """Explicit randomness (`ot=rv`), 56 bits; None: the trace id's last 56 bits."""
    inject_ordinal: int | None = None
    """The number of this context among those that the remote parent injected; None: its process does not count them."""
    random: bool = True
    """Whether the trace id's last 56 bits are known to be random (W3C level 2)."""
    tracestate: tuple[tuple[str, str], ...] = ()
    """Members of other vendors, and the rest of `ot`, in order."""
    _baggage: Mapping[str, str] = _NO_BAGGAGE

    def __init__(
        self,
        trace_id: str | None = None,
        sampled: bool | None = True,
        baggage: Mapping[str, str] | None = None,
        *,
        span_id: str | None = None,
    ) -> None:
        self.raw_trace_id = new_trace_id() if trace_id is None else id_of(trace_id, TRACE_ID_BYTES)
        self.raw_span_id = None if span_id is None else id_of(span_id, SPAN_ID_BYTES)
        self.sampled = sampled if sampled is None else sampled is not False
        self.random = trace_id is None
        if baggage is not None:
            with guard("TraceContext.baggage"):
                self._baggage = MappingProxyType({str(key): str(value) for key, value in baggage.items()})

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return self.raw_trace_id.hex()

    @property
    def span_id(self) -> str | None:
        """The parent in another process, 16 lower-case hex digits; None for a trace that begins here."""
        return None if self.raw_span_id is None else self.raw_span_id.hex()

    @property
    def baggage(self) -> Mapping[str, str]:
        """A read-only view of the entries that are propagated with the trace."""
        return self._baggage

    def get_baggage(self, key: str) -> str | None:
        """The baggage entry of this key, None if there is none."""
        with guard("TraceContext.get_baggage"):
            return self._baggage.get(key)
        return None

    def set_baggage(self, key: str, value: str) -> None:
        """Set an entry for all spans of this trace in this process. Contexts that were injected before do not change."""
        with guard("TraceContext.set_baggage"):
            self._baggage = MappingProxyType({**self._baggage, str(key): str(value)})

    def clear_baggage(self) -> None:
        """Drop every entry."""
        self._baggage = _NO_BAGGAGE

    def __reduce__(self) -> tuple[Any, ...]:
        return TraceContext._restored, ({**self.__dict__, "_baggage": dict(self._baggage)},)

    @staticmethod
    def _restored(state: dict[str, Any]) -> "TraceContext":
        context: TraceContext = object.__new__(TraceContext)
        context.__dict__.update(state, _baggage=MappingProxyType(state["_baggage"]))
        return context

    def __repr__(self) -> str:
        return f"TraceContext(trace_id={self.trace_id!r}, span_id={self.span_id!r}, sampled={self.sampled!r})"


class SpanContext(TraceContext):
    """The context of a trace with one span in it: as a parent, it is that span. It shares all data with the trace.

    In a process that unpickles it, it is a TraceContext with the span as the remote parent.
    """

    __slots__ = ("span",)

    def __init__(self, span: Any) -> None:
        self.span = span
        self.__dict__ = span._trace.__dict__

    @property
    def raw_span_id(self) -> bytes | None:  # type: ignore[override]  # the trace may have another one
        """The span's id, 8 raw bytes."""
        span_id: bytes = self.span._id
        return span_id

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpanContext) and other.span is self.span

    def __hash__(self) -> int:
        return hash(self.span)

    def __reduce__(self) -> tuple[Any, ...]:
        function, (state,) = super().__reduce__()
        return function, ({**state, "raw_span_id": self.span._id, "inject_ordinal": None},)


def parent_of(given: Any) -> Any:
    """The span, if what is given is the context of one."""
    return given.span if type(given) is SpanContext else given


def attach(parent: Parent | None, *, scope: Scope = None) -> Block[None]:
    """Make a span or a trace context current for the block; None: the next span starts a new trace.

    The block does not end the span. Use it where work continues that started elsewhere: a callback, a consumer, another thread.
    As a decorator, it does so for each call of a function.

    Args:
        parent: The span or trace context.
        scope: See `Tracer.span`.
    """
    return Block(partial(attached, parent, scope=scope))


@contextmanager
def attached(parent: Parent | None, *, scope: Scope = None) -> Iterator[None]:
    """As `attach`, with less overhead."""
    given: object = parent
    parent = parent_of(parent)
    if not (given is None or issubclass(type(given), Parent)):  # not `isinstance`, which a mock passes
        parent = current()
        with guard("attach"):
            msg = f"attach() takes a Span, a TraceContext or None, got {safe_text(given)}; nothing was attached"
            raise TypeError(msg)
    entered = enter(parent, sys._getframe(), scope)
    try:
        yield
    finally:
        leave(parent, entered)


def new_trace_context(
    trace_id: str | None = None,
    sampled: bool | None = True,
    baggage: Mapping[str, str] | None = None,
    *,
    scope: Scope = None,
) -> Block[TraceContext]:
    """Start a new trace for the block, even inside another one. Spans without a parent are the roots of that trace.

    As a decorator, it starts a trace for each call of a function.
    """
    return Block(partial(_new_trace_context, trace_id, sampled, baggage, scope))


@contextmanager
def _new_trace_context(
    trace_id: str | None, sampled: bool | None, baggage: Mapping[str, str] | None, scope: Scope
) -> Iterator[TraceContext]:
    context = TraceContext(trace_id=trace_id, sampled=sampled, baggage=baggage)
    with attached(context, scope=scope):
        yield context
