"""The context of a trace, and the ways to carry it: attach it, wrap a function in it, give it to an executor's threads.

What is current is one immutable value (`sdk.current`), never a stack: a task or thread that starts with a copy of it can only
replace its own, so siblings under `asyncio.gather` are children of one parent and never of each other.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from types import MappingProxyType
from typing import Any, Final, ParamSpec, TypeVar, cast

from prela_stream.errors import guard
from prela_stream.model.ids import SPAN_ID_BYTES, TRACE_ID_BYTES
from prela_stream.tracing.current import current, enter, leave
from prela_stream.tracing.ids import id_of, new_trace_id
from prela_stream.tracing.parent import Parent, Scope, set_raw

P = ParamSpec("P")
R = TypeVar("R")

_NO_BAGGAGE: Final[Mapping[str, str]] = MappingProxyType({})


class TraceContext(Parent):
    """What all spans of one trace share in this process, and where the trace comes from.

    Args:
        trace_id: 32 hex digits or a UUID; any other text is hashed to an id; None: a new random one.
        sampled: False: spans are propagated, but not recorded. None: the tracer's sampler decides at the first span.
        baggage: Entries that travel with the trace.
        span_id: The parent of the first spans here, 16 hex digits, when it lives in another process.
    """

    # Defaults of the class, not slots: a root sets its trace id alone, and pays for nothing that it does not have.
    raw_trace_id: bytes
    raw_span_id: bytes | None = None
    sampled: bool | None = True
    threshold: int | None = None
    """Rejection threshold of the head sampling that happened, 56 bits."""
    randomness: int | None = None
    """Explicit randomness (`ot=rv`), 56 bits; None: the trace id's last 56 bits."""
    inject_ordinal: int | None = None
    """Which context of the remote parent this is; None: its process does not count them."""
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
        """A read-only view of the entries that travel with the trace."""
        return self._baggage

    def get_baggage(self, key: str) -> str | None:
        """The baggage entry of this key, None if there is none."""
        with guard("TraceContext.get_baggage"):
            return self._baggage.get(key)
        return None

    def set_baggage(self, key: str, value: str) -> None:
        """Set an entry for all spans of this trace in this process; what was injected before does not change."""
        with guard("TraceContext.set_baggage"):
            self._baggage = MappingProxyType({**self._baggage, str(key): str(value)})

    def clear_baggage(self) -> None:
        """Drop every entry."""
        self._baggage = _NO_BAGGAGE

    def __repr__(self) -> str:
        return f"TraceContext(trace_id={self.trace_id!r}, span_id={self.span_id!r}, sampled={self.sampled!r})"


@contextmanager
def attach(position: Parent | None, *, scope: Scope = None) -> Iterator[None]:
    """Make a span or a trace context current for the block; None: the next span starts a new trace.

    A span is not ended by this. Use it where work continues that began elsewhere: a callback, a consumer, another thread.

    Args:
        position: What is to be current.
        scope: As of `Tracer.span`.
    """
    given: object = position
    if not (given is None or isinstance(given, Parent)):
        position = current()
        with guard("attach"):
            msg = f"attach() takes a Span, a TraceContext or None, got {given!r}; nothing was attached"
            raise TypeError(msg)
    entered = enter(position, sys._getframe(), scope)
    try:
        yield
    finally:
        leave(position, entered)


@contextmanager
def new_trace_context(
    trace_id: str | None = None,
    sampled: bool | None = True,
    baggage: Mapping[str, str] | None = None,
    *,
    scope: Scope = None,
) -> Iterator[TraceContext]:
    """Start a new trace for the block, whatever is current; its spans without a parent are the roots of that trace."""
    context = TraceContext(trace_id=trace_id, sampled=sampled, baggage=baggage)
    with attach(context, scope=scope):
        yield context


def context_here() -> Context:
    """A copy of the context variables for code that runs elsewhere or later, with the position of this moment."""
    context = copy_context()
    context.run(set_raw, current())
    return context


def wrap(function: Callable[P, R]) -> Callable[P, R]:
    """Bind a function to the context of this moment, so that it can run in another thread as part of this trace.

    All context variables are carried. The result may be called many times, also at the same time from several threads.
    """
    context = context_here()
    if inspect.iscoroutinefunction(function):
        position = current()

        @functools.wraps(function)
        async def in_trace(*args: P.args, **kwargs: P.kwargs) -> Any:
            with attach(position):  # a coroutine runs in its task's context: only our own variable can be carried
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", in_trace)

    @functools.wraps(function)
    def in_context(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)  # a context cannot be entered twice at once: a copy a call

    return in_context


class ContextThreadPoolExecutor(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose functions run in a copy of the context of `submit()` or `map()`."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As `ThreadPoolExecutor.submit`; also used by `map`."""
        context = context_here()
        return super().submit(lambda: context.run(fn, *args, **kwargs))
