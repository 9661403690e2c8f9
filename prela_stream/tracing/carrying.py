"""Ways to carry the context to code that runs elsewhere or later: a wrapped function, the threads of an executor."""

import functools
import inspect
import types
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar

from prela_stream.steps import Call, async_generator_function, generator_function, generator_kind
from prela_stream.tracing.context import attach
from prela_stream.tracing.current import current
from prela_stream.tracing.following import ParentCall, follow
from prela_stream.tracing.parent import Parent, set_raw

P = ParamSpec("P")
R = TypeVar("R")


def context_here() -> Context:
    """A copy of the context variables for code that runs elsewhere or later, with the span that is current now."""
    context = copy_context()
    context.run(set_raw, current())
    return context


def wrap(function: Callable[P, R]) -> Callable[P, R]:
    """Bind a function to the current context, so that it can run in another thread as part of this trace.

    The result is of the same kind: an async function, a generator function and so on. It can be called many times, also at the
    same time from several threads. All context variables are carried; to async functions and async generators, which run in the
    context of their task, only the current span.
    """
    context, parent = context_here(), current()
    wrapper: Any
    if inspect.iscoroutinefunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with attach(parent):
                return await function(*args, **kwargs)

    elif inspect.isasyncgenfunction(function):
        wrapper = async_generator_function(lambda args, kwargs: (function(*args, **kwargs), ParentCall(parent)))
    elif inspect.isgeneratorfunction(function):

        def start(args: Any, kwargs: Any) -> tuple[Any, Call]:
            return _Inside(context.copy(), function, args, kwargs), ParentCall(parent)

        wrapper = generator_kind(generator_function(start), function)
    else:
        wrapper = _plain(context, parent, function)
    functools.update_wrapper(wrapper, function)
    return wrapper  # type: ignore[no-any-return]  # it takes and returns what `function` does


def _plain(context: Context, parent: Parent | None, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = context.copy().run(
            function, *args, **kwargs
        )  # a copy per call: a context cannot be entered twice at once
        if isinstance(result, types.CoroutineType | types.GeneratorType | types.AsyncGeneratorType):
            return follow(result, ParentCall(parent))
        return result

    return wrapper


class _Inside:
    """A generator whose code runs in a context."""

    def __init__(self, context: Context, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._run = context.run
        self._generator = self._run(function, *args, **kwargs)

    def __next__(self) -> Any:
        return self._run(next, self._generator)

    def send(self, value: Any) -> Any:
        return self._run(self._generator.send, value)

    def throw(self, error: BaseException) -> Any:
        return self._run(self._generator.throw, error)

    def close(self) -> None:
        self._run(self._generator.close)


class ContextThreadPoolExecutor(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose functions run in a copy of the context of `submit()` or `map()`."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As `ThreadPoolExecutor.submit`; `map` uses it, too."""
        context = context_here()
        return super().submit(lambda: context.run(fn, *args, **kwargs))
