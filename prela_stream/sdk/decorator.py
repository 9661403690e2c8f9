"""`@trace`: a span around each call of a function, or around each run of a generator."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, TypeVar, cast, overload

from prela_stream.model.span import SpanType
from prela_stream.sdk.coerce import attributes_of, text_of
from prela_stream.sdk.context import attach
from prela_stream.sdk.span import Span
from prela_stream.sdk.tracer import Tracer, get_tracer

F = TypeVar("F", bound=Callable[..., Any])


@overload
def trace(name: F) -> F: ...
@overload
def trace(
    name: str | None = None,
    span_type: SpanType = SpanType.CUSTOM,
    attributes: Mapping[str, Any] | None = None,
    tracer: Tracer | None = None,
) -> Callable[[F], F]: ...
def trace(
    name: Any = None,
    span_type: SpanType = SpanType.CUSTOM,
    attributes: Mapping[str, Any] | None = None,
    tracer: Tracer | None = None,
) -> Any:
    """Trace a function: `@trace`, or `@trace("name", span_type=…)`. For sync and async functions and generators.

    A generator's span is open from its first step to its last, and current only while its own code runs, never in the loop
    that consumes it. The span is CANCELLED if the consumer stops early.

    Args:
        name: The span's name; the function's own if None.
        span_type: What kind of work it is.
        attributes: Initial ones of each span.
        tracer: Whose spans; the global tracer if None.
    """
    if callable(name) and not isinstance(name, str):
        return _traced(name, None, span_type, attributes, tracer)

    def decorate(function: Any) -> Any:
        return _traced(function, name, span_type, attributes, tracer) if callable(function) else function

    return decorate


def _traced(function: F, name: Any, span_type: SpanType, attributes: Any, tracer: Tracer | None) -> F:
    title = text_of(getattr(function, "__name__", type(function).__name__) if name is None else name)
    initial = {
        "function.name": getattr(function, "__name__", title),
        "function.module": getattr(function, "__module__", None),
        **({} if attributes is None else attributes_of(attributes)),
    }

    def begin() -> Span:
        return (tracer or get_tracer()).span(title, span_type, initial)

    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(function):

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _run_async(function(*args, **kwargs), begin)

    elif inspect.isgeneratorfunction(function):

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _run(function(*args, **kwargs), begin)

    elif inspect.iscoroutinefunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return await function(*args, **kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return function(*args, **kwargs)

    return cast("F", functools.wraps(function)(wrapper))


def _run(inner: Generator[Any, Any, Any], begin: Callable[[], Span]) -> Generator[Any, Any, Any]:
    """`yield from inner`, with a span that is current while `inner` runs and not while its consumer does."""
    span = begin()
    step: Callable[[], Any] = lambda: next(inner)  # noqa: E731 - what to do next changes with each round
    try:
        while True:
            with attach(span):
                try:
                    value = step()
                except StopIteration as end:
                    return end.value
            try:
                sent = yield value
            except GeneratorExit:
                with attach(span):
                    inner.close()
                raise
            except BaseException as error:  # noqa: BLE001 - not swallowed: thrown into the generator
                step = functools.partial(inner.throw, error)
            else:
                step = functools.partial(inner.send, sent)
    except BaseException as error:
        span.record_exception(error)
        raise
    finally:
        span.end()


async def _run_async(inner: AsyncGenerator[Any, Any], begin: Callable[[], Span]) -> AsyncGenerator[Any, Any]:
    """As `_run`, for an async generator."""
    span = begin()
    step: Callable[[], Any] = functools.partial(inner.asend, None)
    try:
        while True:
            with attach(span):
                try:
                    value = await step()
                except StopAsyncIteration:
                    return
            try:
                sent = yield value
            except GeneratorExit:
                with attach(span):
                    await inner.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - not swallowed: thrown into the generator
                step = functools.partial(inner.athrow, error)
            else:
                step = functools.partial(inner.asend, sent)
    except BaseException as error:
        span.record_exception(error)
        raise
    finally:
        span.end()
