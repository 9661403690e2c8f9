"""The errors of the project, and `guard()`: the only place that swallows an exception.

Telemetry must never break its host program. The work of the SDK in it runs under `guard()`, which logs the first error of each
kind, counts every one, and continues. With `PRELA_STRICT=1` (for tests) it lets the error out.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from prela_stream import telemetry
from prela_stream.text import visible, without_user_info

Owner = TypeVar("Owner")
Given = TypeVar("Given")
Result = TypeVar("Result")


class HostCall:
    """A call of the application's code by this package: a log handler, `redact`, a sampler, an exporter, `repr()` of a value.

    That code may use this package, which then would call it again, without end. Use as `with call as nested: …`; `nested` is
    True inside of another such call of this thread. Then do not call. Count before you call, so that the second call finds it.
    """

    __slots__ = ("_active",)

    def __init__(self) -> None:
        self._active = threading.local()

    def __enter__(self) -> bool:
        depth: int = getattr(self._active, "depth", 0)
        self._active.depth = depth + 1
        return depth > 0

    def __exit__(self, *_: object) -> None:
        self._active.depth -= 1


class _HostLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs in the process of the application: never inside of another call of it, and no error of a handler is raised."""

    _call = HostCall()

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """As `Logger.log`."""
        with guard("log"), self._call as nested:
            if not nested:
                super().log(level, msg, *args, stacklevel=kwargs.pop("stacklevel", 1) + 1, **kwargs)


logger: Final = _HostLogger(logging.getLogger("prela_stream"))
"""The log of this package in the process of an agent."""
_MOST_WARNINGS: Final = 1_000
_warned: Final[set[str]] = set()


def warn_once(text: str) -> None:
    """Log a warning, unless this process has logged the same text before."""
    if text not in _warned and len(_warned) < _MOST_WARNINGS:
        _warned.add(text)
        logger.warning("prela_stream: %s", visible(text))


class PrelaError(Exception):
    """Base of every error that this package raises on purpose. Its text has no invisible characters and no keys in URLs."""

    def __str__(self) -> str:
        return visible(without_user_info(super().__str__()))


class ConfigurationError(PrelaError, ValueError):
    """A setting, a file or an argument is wrong. The text has what was expected, what was found and what to do."""


class SpanEndedError(PrelaError):
    """A span was changed after its end. Raised under `PRELA_STRICT=1`; counted and logged once otherwise."""


class CodecError(PrelaError, ValueError):
    """Bytes do not follow the wire format. The text has the format, the offset and what was found."""


class TransportError(PrelaError):
    """The transport failed, and nothing of the request took effect. A retry is safe."""


class OutcomeUnknownError(TransportError):
    """The transport did not answer: the records may or may not be stored."""


class FencedError(TransportError):
    """Another writer has taken over the partition; this writer can write nothing more."""


class UnknownTopicError(TransportError):
    """The topic does not exist. `prela-stream topics create` creates topics; a request never does."""


class TooLargeError(TransportError):
    """A record, or the batch with it, is larger than its topic accepts. A retry of the same fails again."""


class SinkError(PrelaError):
    """A sink did not write a batch, and nothing of it was stored. The batch may be written again. Or: a store cannot be read."""


class QueryTimeoutError(SinkError):
    """A query of a store took longer than `query_s` and was stopped."""


@contextmanager
def ungrouped(kind: type[Exception]) -> Iterator[None]:
    """Raise the first error of `kind` without its group, if a task group ends with only such errors; other groups pass.

    `except*` does not do that everywhere: in CPython 3.11.2 what its clause raises comes out in a group once more.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        found, others = group.split(kind)
        if found is None or others is not None:
            raise
        error: Exception = found
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def strict() -> bool:
    """Whether errors are let out: `PRELA_STRICT` is set to anything but an empty string or 0."""
    return os.environ.get("PRELA_STRICT", "") not in ("", "0")


class guard:  # noqa: N801 - used like the context managers of contextlib
    """Keep an error of this package out of the application: log the first of its kind, count it, continue.

    Use as `with guard("span.end"): …`; an instance holds no state and may be shared and re-entered. Exceptions that are not
    `Exception` (cancellation, interrupts) always pass.
    """

    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if error is None or not isinstance(error, Exception) or strict():
            return False
        name = type(error).__name__
        is_first = not telemetry.SWALLOWED.value(self.where, name)
        telemetry.SWALLOWED.add(1, self.where, name)  # before the log call, whose handlers may come here again
        if is_first:
            logger.warning(
                "prela_stream: %s failed and was skipped; the application is not affected. Further errors of this kind "
                "are counted in prela_swallowed_errors_total and not logged.",
                self.where,
                exc_info=error,
            )
        return True


def guarded(where: str) -> Callable[[Callable[[Owner, Given], Result]], Callable[[Owner, Given], Result | None]]:
    """`guard` for a method with one argument that is called for every span; returns None if an error was swallowed.

    `with guard(…)` costs 0.2 µs, and this a tenth of it: without an error it is one more call.
    """
    keeper = guard(where)

    def decorate(function: Callable[[Owner, Given], Result]) -> Callable[[Owner, Given], Result | None]:
        def contained(owner: Owner, given: Given) -> Result | None:
            try:
                return function(owner, given)
            except Exception as error:
                if not keeper.__exit__(type(error), error, error.__traceback__):
                    raise
                return None

        return contained

    return decorate
