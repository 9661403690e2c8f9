"""A call lasts as long as the object that it returns: a coroutine, a generator, an awaitable, a future or an async iterator.

While the code of such an object runs, the parent of its call is current. While its consumer runs, it is not.
"""

import functools
import inspect
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.steps import Call, async_generator_function, generator_function
from prela_stream.tracing.context import attached
from prela_stream.tracing.parent import Parent

_SPECIAL: Final = ("__await__", "__anext__")
_GUARD: Final = guard("trace.returned_object")


class ParentCall(Call):
    """A call with a parent that is current while its code runs. A subclass ends a span.

    Args:
        parent: The span or trace context.
    """

    def __init__(self, parent: Parent | None) -> None:
        self.parent = parent

    def __del__(self) -> None:
        self.end()  # the returned object was dropped before its end

    def entered(self) -> AbstractContextManager[None]:
        """See `Call`."""
        return attached(self.parent, scope="caller")


async def _awaited(inner: Any, call: ParentCall) -> Any:
    try:
        with attached(call.parent):
            return call.finish(await inner)
    except BaseException as error:
        call.fail(error)
        raise
    finally:
        call.end()


# --- what a plain function has returned ---


def lasts(result: object) -> bool:
    """Whether a call that returned `result` goes on in it."""
    try:
        return _lasts(type(result))  # type: ignore[arg-type]  # mypy takes a class for unhashable
    except TypeError:  # a metaclass without a hash
        return False
    except Exception as error:
        if not _GUARD.__exit__(type(error), error, error.__traceback__):
            raise
        return False


@functools.lru_cache(maxsize=1024)
def _lasts(kind: type) -> bool:
    if issubclass(kind, types.GeneratorType | types.AsyncGeneratorType | types.CoroutineType):
        return True
    mock = sys.modules.get("unittest.mock")
    if mock is not None and issubclass(kind, mock.NonCallableMock):
        return False  # a mock has every method, and is rarely awaited
    return any(inspect.getattr_static(kind, name, None) is not None for name in _SPECIAL) or _is_future(kind)


def _is_future(kind: type) -> bool:
    return all(inspect.getattr_static(kind, name, None) is not None for name in ("add_done_callback", "exception"))


def follow(result: Any, call: ParentCall) -> Any:
    """The object to return instead of `result`, for which `lasts()` holds: it ends the call.

    Coroutines and generators are wrapped in one of the same kind. Any other object is returned itself, with a subclass of its
    class until the call ends.
    """
    kind: Any = type(result)
    if isinstance(result, types.AsyncGeneratorType):
        return _named(async_generator_function(lambda _args, _kwargs: (result, call))(), result)
    if isinstance(result, types.GeneratorType) and not result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return _named(generator_function(lambda _args, _kwargs: (result, call))(), result)
    if isinstance(result, types.CoroutineType | types.GeneratorType):
        return _named(_awaited(result, call), result)
    with _GUARD:
        if _is_future(kind):
            result.add_done_callback(functools.partial(_future_is_done, call))
            return result
        if kind.__flags__ & _HEAP_TYPE:
            if hasattr(result, "__dict__"):
                _set_class(result, _followed_class(kind))
                result.__dict__[_CALL] = call
            else:  # an object with slots has no room for the call: its class is for this object alone
                _set_class(result, _subclass(kind, call))
            return result
    if hasattr(kind, "__await__") and not any(hasattr(kind, name) for name in ("__aenter__", "__anext__")):
        return _awaited(result, call)
    call.end()  # an object of C code that can be more than awaited
    return result


_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class of Python code; `__class__` of other objects cannot be set
_CALL: Final = "_prela_stream_call"
_set_class: Final[Callable[[object, type], None]] = object.__dict__["__class__"].__set__


def _named(wrapper: Any, result: Any) -> Any:
    """The wrapper with the name of what it wraps, which warnings and debuggers show."""
    wrapper.__name__, wrapper.__qualname__ = result.__name__, result.__qualname__
    return wrapper


def _future_is_done(call: ParentCall, future: Any) -> None:
    with _GUARD:
        # `exception()` would mark the error as retrieved, and asyncio would no longer log that the application never did.
        error = _cancelled() if future.cancelled() else getattr(future, "_exception", None)
        if error is None:
            call.finish(future.result())
        else:
            call.fail(error)
        call.end()


def _cancelled() -> BaseException:
    import asyncio  # not loaded before: a program without asyncio has futures of threads

    return asyncio.CancelledError()


@functools.lru_cache(maxsize=256)
def _followed_class(kind: Any) -> Any:
    return _subclass(kind, None)


def _subclass(kind: Any, call: ParentCall | None) -> Any:
    """A subclass whose objects end a call when they have been awaited or iterated. Its only base keeps the memory layout."""
    members: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__slots__": (),
        "_prela_stream_class": kind,
        _CALL: call,
    }
    if hasattr(kind, "__await__"):
        members["__await__"] = _await
    if hasattr(kind, "__anext__"):
        members["__anext__"] = _anext
    for name in ("aclose", "__aexit__"):
        if inspect.iscoroutinefunction(inspect.getattr_static(kind, name, None)):
            members[name] = _closing(name)
    return type(kind)(kind.__name__, (kind,), members)


def _call_of(followed: Any) -> ParentCall | None:
    call: ParentCall | None = getattr(followed, _CALL, None)
    return call


def _release(followed: Any) -> None:
    """End the call, and give the object its class back."""
    call = _call_of(followed)
    if call is not None:
        if hasattr(followed, "__dict__"):
            followed.__dict__.pop(_CALL, None)
        _set_class(followed, type(followed)._prela_stream_class)
        call.end()


def _await(followed: Any) -> Generator[Any, Any, Any]:
    call = followed._prela_stream_call
    inner = _Awaitable(type(followed)._prela_stream_class.__await__, followed)
    try:
        return (yield from _awaited(inner, call).__await__())
    finally:
        _release(followed)


async def _anext(followed: Any) -> Any:
    call = followed._prela_stream_call
    try:
        with attached(call.parent):
            return await type(followed)._prela_stream_class.__anext__(followed)
    except StopAsyncIteration:
        _release(followed)
        raise
    except BaseException as error:
        call.fail(error)
        _release(followed)
        raise


def _closing(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def close(followed: Any, *args: Any) -> Any:
        try:
            return await getattr(type(followed)._prela_stream_class, name)(followed, *args)
        finally:
            _release(followed)

    return close


class _Awaitable:
    """The `__await__` of an object's class before."""

    def __init__(self, method: Callable[[Any], Any], target: Any) -> None:
        self._method, self._target = method, target

    def __await__(self) -> Any:
        return self._method(self._target)
