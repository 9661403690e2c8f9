"""Wraps a callable so that each call has a span. The wrapper has the kind of its function.

`inspect` and frameworks treat the wrapper of a generator function as a generator function, that of an async function as an
async function, and so on. What cannot be wrapped is reported and returned unchanged.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

from prela_stream.errors import guard, logger, strict
from prela_stream.model.plain import safe_text
from prela_stream.steps import Call, async_generator_function, generator_function, generator_kind
from prela_stream.tracing.following import ParentCall, follow, lasts

_CACHE_METHODS: Final = ("cache_info", "cache_clear", "cache_parameters")


@contextmanager
def _manager() -> Iterator[None]:
    yield


@asynccontextmanager
async def _async_manager() -> AsyncIterator[None]:
    yield


_MANAGERS: Final[dict[Any, Any]] = {
    _manager.__code__: contextmanager,
    _async_manager.__code__: asynccontextmanager,
}
"""By the code of what a decorator returns. Its calls only make a generator, so the generator function inside is wrapped."""


class Plan(Protocol):
    """The spans of one function."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Start the span of a call."""

    def finish(self, span: Any, result: Any) -> Any:
        """Note the result of a call; returns it."""


class SpanCall(ParentCall):
    """A call with a span that ends with it."""

    def __init__(self, span: Any, plan: Plan) -> None:
        super().__init__(span)
        self._span, self._plan = span, plan

    def finish(self, result: Any) -> Any:
        """See `Call`."""
        return self._plan.finish(self._span, result)

    def fail(self, error: BaseException) -> None:
        """See `Call`."""
        if not self._span.is_ended:
            self._span.record_exception(error)

    def end(self) -> None:
        """See `Call`."""
        if not self._span.is_ended:
            self._span.end()


def traced(function: Any, make_plan: Callable[[Any], Plan], name: str) -> Any:
    """The wrapper of a function, or `function` itself, with an error in the log, if it cannot be wrapped.

    Args:
        function: A function or another callable, a classmethod or a staticmethod.
        make_plan: Makes the plan for the function inside.
        name: The decorator, for the error.
    """
    if isinstance(function, classmethod | staticmethod):
        inner = function.__func__
        wrapped = traced(inner, make_plan, name)
        return function if wrapped is inner else type(function)(wrapped)
    with guard("trace"):
        if (manager := _MANAGERS.get(getattr(function, "__code__", None))) is not None:
            return manager(traced(function.__wrapped__, make_plan, name))
        if inspect.isclass(function) or not callable(function):
            msg = f"{name} takes a function, got {_described(function)}; it is returned unchanged and not traced"
            if not strict():
                logger.error("prela_stream: %s", msg)  # each one: the guard logs only the first error of a kind
            raise TypeError(msg)
        return _wrapper(function, make_plan(function))
    return function


def _described(function: object) -> str:
    if inspect.isclass(function):
        return f"the class {function.__qualname__}: decorate its methods"
    if hasattr(type(function), "__get__"):
        kind = type(function).__name__
        return f"the {kind}{_name_inside(function)}: put the decorator below @{kind}"
    return safe_text(function)


def _name_inside(descriptor: Any) -> str:
    for attribute in (
        "fget",
        "func",
        "dispatcher",
    ):  # of property, of cached_property and partialmethod, of singledispatch
        name = getattr(getattr(descriptor, attribute, None), "__qualname__", None)
        if isinstance(name, str):
            return f" {name}"
    return ""


def _wrapper(function: Any, plan: Plan) -> Any:
    is_function = inspect.isroutine(function) or isinstance(function, functools.partial)
    kind: Any = function if is_function else type(function).__call__
    wrapper: Any
    if inspect.isasyncgenfunction(kind):
        wrapper = async_generator_function(_starter(function, plan))
    elif inspect.isgeneratorfunction(kind):
        wrapper = generator_kind(generator_function(_starter(function, plan)), kind)
    elif inspect.iscoroutinefunction(kind) or inspect.iscoroutinefunction(function):  # the latter for mocks
        wrapper = _coroutine_function(function, plan)
    else:
        wrapper = _plain_function(function, plan)
    functools.update_wrapper(wrapper, function)
    for name in _CACHE_METHODS:  # of functools.lru_cache, which keeps them outside of `__dict__`
        if hasattr(function, name):
            setattr(wrapper, name, getattr(function, name))
    return wrapper


def _starter(function: Any, plan: Plan) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, Call]]:
    def start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Call]:
        return function(*args, **kwargs), SpanCall(plan.begin(args, kwargs), plan)

    return start


def _coroutine_function(function: Any, plan: Plan) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        span = plan.begin(args, kwargs)
        span.__enter__()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            span.__exit__(type(error), error, error.__traceback__)
            raise
        return _ended_with(result, span, plan)

    return wrapper


def _plain_function(function: Any, plan: Plan) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        span = plan.begin(args, kwargs)
        span.__enter__()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            span.__exit__(type(error), error, error.__traceback__)
            raise
        return _ended_with(result, span, plan)

    return wrapper


def _ended_with(result: Any, span: Any, plan: Plan) -> Any:
    """What to return instead of `result`, with which the span ends: now, or with the object that was returned."""
    if lasts(result):
        span._leave()
        return follow(result, SpanCall(span, plan))
    plan.finish(span, result)
    span.__exit__(None, None, None)
    return result
