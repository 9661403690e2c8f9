"""Converts arguments of the application to what a span holds. Called off the hot path, under `errors.guard()`."""

import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from prela_stream.errors import HostCall, guard
from prela_stream.model.plain import is_secret, safe_text
from prela_stream.model.semconv import ERROR_MESSAGE, ERROR_STACKTRACE, ERROR_TYPE
from prela_stream.model.span import SPAN_STATUS_CODES, SPAN_TYPE_CODES, SpanStatus, SpanType

_CUSTOM: Final = SPAN_TYPE_CODES[SpanType.CUSTOM]
_error_call: Final = HostCall()
_TEXT: Final = guard("the text of an argument")


def text_of(value: object) -> str:
    """A plain str: strings unchanged (also of subclasses and enums), any other value as its `safe_text`; never raises."""
    if type(value) is str:
        return value
    kind = type(value)  # not `isinstance`: a mock or a proxy claims another class
    return str.__str__(value) if issubclass(kind, str) and not is_secret(value) else safe_text(value)


key_of: Final = text_of


def attributes_of(attributes: object) -> dict[str, Any]:
    """A new dict with text keys from a mapping or anything that `dict()` takes; empty, with the error counted, otherwise."""
    with guard("span attributes"):
        return {text_of(key): value for key, value in dict(attributes).items()}  # type: ignore[call-overload]  # may raise
    return {}


def copy_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """As `attributes_of`, faster for a dict with text keys."""
    if type(attributes) is dict:
        try:
            return dict(**attributes)  # in C; raises TypeError for a key that is not text
        except TypeError:
            pass
    return attributes_of(attributes)


def event_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes of an event or a link; empty for None."""
    return {} if attributes is None else attributes_of(attributes)


def type_code(span_type: object) -> int:
    """The wire code of a span type, in any case of letters; CUSTOM, with the error counted, for any other value."""
    with guard("span type"):
        written = getattr(span_type, "value", span_type)
        return SPAN_TYPE_CODES[SpanType(str(written).upper())]
    return _CUSTOM


def status_code(status: object) -> int:
    """The wire code of a status, in any case of letters; raises ValueError for any other value."""
    written = getattr(status, "value", status)
    return SPAN_STATUS_CODES[SpanStatus(str(written).upper())]


def nanoseconds(moment: object) -> int:
    """The ns since the epoch of a datetime (a naive one is local time, as in Python) or an int; raises TypeError."""
    if isinstance(moment, datetime):
        since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    if isinstance(moment, int) and not isinstance(moment, bool) and 0 <= moment < 1 << 63:
        return int(moment)
    msg = f"a time is a datetime or an int of ns since the epoch, got {safe_text(moment)}; the call has no effect"
    raise TypeError(msg)


def is_failure(error: BaseException) -> bool:
    """Whether an exception is an error. A cancellation, an interrupt, an exit and a generator's close are not.

    A group is an error if any exception in it is one.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(is_failure(part) for part in error.exceptions)
    return isinstance(error, Exception)


def is_ordinary_exit(error: BaseException) -> bool:
    """Whether an exception ends work in an ordinary way: a generator is closed, or the program exits with code 0.

    A group is ordinary if all exceptions in it are.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_ordinary_exit(part) for part in error.exceptions)
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and error.code in (None, 0))


def message_of(error: BaseException) -> str:
    """The text of an exception, whatever its own methods do; the name of its type if that text is empty."""
    with _TEXT, _error_call as nested:
        if nested:
            return f"<{type(error).__name__}: not read inside of another error>"
        return str(error) or type(error).__name__
    return f"<{type(error).__name__}: it has no text form>"


def describe_error(error: object, *, with_stack: bool) -> dict[str, Any]:
    """`error.type`, `error.message` and, with `with_stack`, `error.stacktrace`, even if the exception's methods raise."""
    if not isinstance(error, BaseException):
        msg = f"record_exception() takes an exception, got {safe_text(error)}; the call has no effect"
        raise TypeError(msg)
    described: dict[str, Any] = {ERROR_TYPE: type(error).__name__, ERROR_MESSAGE: message_of(error)}
    if with_stack:
        with _TEXT, _error_call as nested:
            if nested:
                return described
            described[ERROR_STACKTRACE] = "".join(traceback.format_exception(error))
    return described
