"""`@trace`: a span around each call of a function, or around each run of a generator."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, overload

from prela_stream.errors import guard, warn_once
from prela_stream.model.plain import plain, safe_text
from prela_stream.model.semconv import FUNCTION_ARGUMENTS, FUNCTION_RESULT, TOOL_CALL_ARGUMENTS, TOOL_CALL_RESULT
from prela_stream.model.span import SPAN_TYPE_CODES, SpanType
from prela_stream.tracing.coerce import attributes_of, text_of, type_code
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer, get_tracer
from prela_stream.tracing.wrapping import traced

F = TypeVar("F", bound=Callable[..., Any])

_TOOL: Final = SPAN_TYPE_CODES[SpanType.TOOL]


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

    The span of a generator is open from its first step to its last. It is current only while the generator's code runs, never
    in the loop that consumes it. If a function returns a coroutine, a generator, an awaitable or an async iterator, its span ends
    with that object.

    Args:
        name: The span's name; None: the name of the function.
        span_type: The kind of work.
        attributes: Initial attributes of each span.
        tracer: The tracer; None: the global one.
        capture_arguments: Record the arguments as they are at the call, by parameter name, without `self` and `cls`: as
            `prela.function.arguments`, for a TOOL as `gen_ai.tool.call.arguments`.
        capture_result: Record the returned value (not what a generator yields): as `prela.function.result`, for a TOOL as
            `gen_ai.tool.call.result`.

    It can be used above or below `@classmethod`, `@staticmethod`, `@contextmanager` and `@asynccontextmanager`. A class, a
    property or another object that is not a function is returned unchanged, and an error is logged.
    """
    captures = _switch("capture_arguments", capture_arguments), _switch("capture_result", capture_result)
    plan = _Options(span_type, attributes, _checked(tracer), *captures)
    if name is None or isinstance(name, str):
        return lambda function: traced(function, lambda inner: _FunctionPlan(inner, name, plan), "@trace")
    return traced(name, lambda inner: _FunctionPlan(inner, None, plan), "@trace")


def _checked(tracer: object) -> Tracer | None:
    if tracer is None or isinstance(tracer, Tracer):
        return tracer
    with guard("trace"):
        msg = f"@trace(tracer=…) takes a Tracer, got {safe_text(tracer)}; the global tracer is used"
        raise TypeError(msg)
    return None


def _switch(name: str, value: object) -> bool:
    """The value of a switch that records content: off if it is not a bool."""
    if not isinstance(value, bool):
        warn_once(f"@trace({name}=…) takes True or False, got {safe_text(value)}; it has no effect")
    return value is True


class _Options:
    """The arguments of `trace` for all functions that one decorator decorates."""

    def __init__(
        self, span_type: SpanType, attributes: Any, tracer: Tracer | None, arguments: bool, result: bool
    ) -> None:
        self.span_type, self.tracer, self.captures_arguments, self.captures_result = (
            span_type,
            tracer,
            arguments,
            result,
        )
        self.attributes: dict[str, Any] = {} if attributes is None else attributes_of(attributes)
        tool = (arguments or result) and type_code(span_type) == _TOOL
        self.arguments_key = TOOL_CALL_ARGUMENTS if tool else FUNCTION_ARGUMENTS
        self.result_key = TOOL_CALL_RESULT if tool else FUNCTION_RESULT


class _FunctionPlan:
    """The spans of one function; see `wrapping.Plan`."""

    def __init__(self, function: Any, name: Any, options: _Options) -> None:
        self._options = options
        own_name = getattr(function, "__name__", type(function).__name__)
        self._name = text_of(own_name if name is None else name)
        self._attributes = {
            "function.name": getattr(function, "__name__", self._name),
            "function.module": getattr(function, "__module__", None),
            **options.attributes,
        }
        self._signature: inspect.Signature | None = None
        if options.captures_arguments:
            with guard("trace.signature"):  # some functions written in C have none
                self._signature = inspect.signature(function)

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Span:
        """Start the span of a call."""
        options = self._options
        span = (options.tracer or get_tracer()).span(self._name, options.span_type, self._attributes)
        if self._signature is not None and span.sampled:
            with guard("trace.arguments"):
                span.set_attribute(options.arguments_key, _by_name(self._signature, args, kwargs))
        return span

    def finish(self, span: Span, result: Any) -> Any:
        """Record the result, if `capture_result` is set; returns it."""
        if self._options.captures_result and span.sampled:
            with guard("trace.result"):
                span.set_attribute(self._options.result_key, plain(result))
        return result


def _by_name(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A copy of the arguments, which later changes do not affect; without names if they do not fit the signature."""
    try:
        named = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError:  # the call itself raises this next
        return {"args": plain(args), "kwargs": plain(kwargs)}
    first = next(iter(signature.parameters), None)
    if first in ("self", "cls"):
        named.pop(first, None)
    return {key: plain(value) for key, value in named.items()}
