"""`@trace`: a span around each call of a function, or around each run of a generator."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, TypeVar, cast, overload

from prela_stream.errors import guard
from prela_stream.model.plain import plain, safe_text
from prela_stream.model.semconv import FUNCTION_ARGUMENTS, FUNCTION_RESULT, TOOL_CALL_ARGUMENTS, TOOL_CALL_RESULT
from prela_stream.model.span import SPAN_TYPE_CODES, SpanType
from prela_stream.tracing.coerce import attributes_of, text_of, type_code
from prela_stream.tracing.context import attach
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer, get_tracer

F = TypeVar("F", bound=Callable[..., Any])


@overload
def trace(name: F) -> F: ...
@overload
def trace(
    name: str | None = None,
    span_type: SpanType = SpanType.CUSTOM,
    attributes: Mapping[str, Any] | None = None,
    tracer: Tracer | None = None,
    *,
    capture_arguments: bool = False,
    capture_result: bool = False,
) -> Callable[[F], F]: ...
def trace(
    name: Any = None,
    span_type: SpanType = SpanType.CUSTOM,
    attributes: Mapping[str, Any] | None = None,
    tracer: Tracer | None = None,
    *,
    capture_arguments: bool = False,
    capture_result: bool = False,
) -> Any:
    """Trace a function: `@trace`, or `@trace("name", span_type=…)`. For sync and async functions, methods and generators.

    A generator's span is open from its first step to its last, and current only while its own code runs, never in the loop
    that consumes it. The span is CANCELLED if the consumer stops early.

    Args:
        name: The span's name; the function's own if None.
        span_type: What kind of work it is.
        attributes: Initial ones of each span.
        tracer: Whose spans; the global tracer if None.
        capture_arguments: Record the arguments as they are at the call, by parameter name, without `self` and `cls`: as
            `prela.function.arguments`, for a TOOL as `gen_ai.tool.call.arguments`.
        capture_result: Record what is returned (not what a generator yields): as `prela.function.result`, for a TOOL as
            `gen_ai.tool.call.result`.

    May stand above or below `@classmethod` and `@staticmethod`. A class is returned as it is: trace its methods.
    """

    def decorate(function: Any) -> Any:
        title = None if function is name else name
        return _decorated(function, _Plan(title, span_type, attributes, tracer, capture_arguments, capture_result))

    direct = isinstance(name, classmethod | staticmethod) or (callable(name) and not isinstance(name, str))
    return decorate(name) if direct else decorate


def _decorated(function: Any, plan: "_Plan") -> Any:
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_decorated(function.__func__, plan))
    with guard("trace"):
        if inspect.isclass(function) or not callable(function):
            msg = f"@trace takes a function, got {function!r}; it is not traced"
            raise TypeError(msg)
        return _traced(function, plan.of(function))
    return function


def _checked(tracer: object) -> Tracer | None:
    if tracer is None or isinstance(tracer, Tracer):
        return tracer
    with guard("trace"):
        msg = f"@trace(tracer=…) takes a Tracer, got {safe_text(tracer)}; the global one is used"
        raise TypeError(msg)
    return None


class _Plan:
    """What the spans of one function are like."""

    def __init__(
        self, name: Any, span_type: SpanType, attributes: Any, tracer: Tracer | None, arguments: bool, result: bool
    ) -> None:
        self._name, self._type, self._initial, self._tracer = name, span_type, attributes, _checked(tracer)
        self._arguments, self.captures_result = arguments is True, result is True
        self._signature: inspect.Signature | None = None
        self._title = ""
        tool = SPAN_TYPE_CODES[SpanType.TOOL] == (
            type_code(span_type) if self._arguments or self.captures_result else None
        )
        self._arguments_key = TOOL_CALL_ARGUMENTS if tool else FUNCTION_ARGUMENTS
        self._result_key = TOOL_CALL_RESULT if tool else FUNCTION_RESULT

    def of(self, function: Any) -> "_Plan":
        """The plan for a function."""
        own = getattr(function, "__name__", type(function).__name__)
        self._title = text_of(own if self._name is None else self._name)
        self._initial = {
            "function.name": getattr(function, "__name__", self._title),
            "function.module": getattr(function, "__module__", None),
            **({} if self._initial is None else attributes_of(self._initial)),
        }
        if self._arguments:
            with guard("trace.signature"):  # some functions written in C have none
                self._signature = inspect.signature(function)
        return self

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Span:
        """The span of a call."""
        span = (self._tracer or get_tracer()).span(self._title, self._type, self._initial)
        if self._signature is not None and span.sampled:
            with guard("trace.arguments"):
                span.set_attribute(self._arguments_key, _by_name(self._signature, args, kwargs))
        return span

    def finish(self, span: Span, result: Any) -> Any:
        """The result, recorded if asked for."""
        if self.captures_result and span.sampled:
            with guard("trace.result"):
                span.set_attribute(self._result_key, plain(result))
        return result


def _by_name(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A copy of the arguments, so that what the function does to them does not show; all of them unnamed if they do not fit."""
    try:
        named = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError:  # the call itself is about to say so
        return {"args": plain(args), "kwargs": plain(kwargs)}
    first = next(iter(signature.parameters), None)
    if first in ("self", "cls"):
        named.pop(first, None)
    return {key: plain(value) for key, value in named.items()}


def _traced(function: F, plan: _Plan) -> F:
    kind: Any = (
        function if inspect.isroutine(function) or isinstance(function, functools.partial) else type(function).__call__
    )
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(kind):

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _run_async(function(*args, **kwargs), lambda: plan.begin(args, kwargs))

    elif inspect.isgeneratorfunction(kind):

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _run(function(*args, **kwargs), lambda: plan.begin(args, kwargs), plan)

    elif inspect.iscoroutinefunction(kind):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with plan.begin(args, kwargs) as span:
                return plan.finish(span, await function(*args, **kwargs))

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with plan.begin(args, kwargs) as span:
                return plan.finish(span, function(*args, **kwargs))

    return cast("F", functools.wraps(function)(wrapper))


def _run(inner: Generator[Any, Any, Any], begin: Callable[[], Span], plan: _Plan) -> Generator[Any, Any, Any]:
    """`yield from inner`, with a span that is current while `inner` runs and not while its consumer does."""
    span = begin()
    step: Callable[[], Any] = lambda: next(inner)  # noqa: E731 - what to do next changes with each round
    try:
        while True:
            with attach(span, scope="caller"):
                try:
                    value = step()
                except StopIteration as end:
                    return plan.finish(span, end.value)
            try:
                sent = yield value
            except GeneratorExit:
                with attach(span, scope="caller"):
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
            with attach(span, scope="caller"):
                try:
                    value = await step()
                except StopAsyncIteration:
                    return
            try:
                sent = yield value
            except GeneratorExit:
                with attach(span, scope="caller"):
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
