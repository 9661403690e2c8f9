"""Code that runs inside of a block, whatever its kind: a function, a coroutine, or each step of a generator.

A generator must not leave a block open when it yields, because its consumer would run in it.
"""

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Call:
    """A call that lasts until its generator, coroutine or other object has ended. A subclass knows what to do then."""

    def entered(self) -> AbstractContextManager[Any]:
        """The block in which each step of the call runs."""
        raise NotImplementedError

    def finish(self, result: Any) -> Any:
        """The call has succeeded; returns the result for the caller."""
        return result

    def fail(self, error: BaseException) -> None:
        """The call has raised."""

    def end(self) -> None:
        """The call is over. It can be called more than once."""


Start = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, Call]]
"""Makes the inner object and its call from the arguments."""


def generator_function(start: Start) -> Callable[..., Generator[Any, Any, Any]]:
    """A generator function that runs another generator, as `yield from` does."""

    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner, call = start(args, kwargs)
        step: Callable[[], Any] = functools.partial(next, inner)
        try:
            while True:
                with call.entered():
                    try:
                        value = step()
                    except StopIteration as end:
                        return call.finish(end.value)
                try:
                    sent = yield value
                except GeneratorExit:
                    with call.entered():
                        inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - not swallowed: thrown into the generator
                    step = functools.partial(inner.throw, error)
                else:
                    step = functools.partial(inner.send, sent)
        except BaseException as error:
            call.fail(error)
            raise
        finally:
            call.end()

    return generator


def async_generator_function(start: Start) -> Callable[..., AsyncGenerator[Any, Any]]:
    """As `generator_function`, for async generators."""

    async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner, call = start(args, kwargs)
        step: Callable[[], Any] = functools.partial(inner.asend, None)
        try:
            while True:
                with call.entered():
                    try:
                        value = await step()
                    except StopAsyncIteration:
                        return
                try:
                    sent = yield value
                except GeneratorExit:
                    with call.entered():
                        await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - not swallowed: thrown into the generator
                    step = functools.partial(inner.athrow, error)
                else:
                    step = functools.partial(inner.asend, sent)
        except BaseException as error:
            call.fail(error)
            raise
        finally:
            call.end()

    return generator


def generator_kind(wrapper: Any, function: Any) -> Any:
    """The wrapper as a coroutine of `types.coroutine`, if `function` is one."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    is_coroutine = code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE
    return types.coroutine(wrapper) if is_coroutine else wrapper


class Block(Generic[T]):
    """A context manager that also decorates functions: each call, and each step of a generator, runs in a new block.

    Args:
        make: Makes the context manager of one block.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._make = make
        self._manager: AbstractContextManager[T] | None = None

    def __enter__(self) -> T:
        self._manager = self._make()
        return self._manager.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        manager, self._manager = self._manager, None
        return None if manager is None else manager.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Decorate a function; the wrapper has the kind of the function."""
        wrapper: Any
        make = self._make
        if inspect.iscoroutinefunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return await function(*args, **kwargs)

        elif inspect.isasyncgenfunction(function):
            wrapper = async_generator_function(lambda args, kwargs: (function(*args, **kwargs), _BlockCall(make)))
        elif inspect.isgeneratorfunction(function):
            steps = generator_function(lambda args, kwargs: (function(*args, **kwargs), _BlockCall(make)))
            wrapper = generator_kind(steps, function)
        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return function(*args, **kwargs)

        functools.update_wrapper(wrapper, function)
        return wrapper  # type: ignore[no-any-return]  # it takes and returns what `function` does


class _BlockCall(Call):
    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self.entered = make  # type: ignore[method-assign]  # one block for each step
