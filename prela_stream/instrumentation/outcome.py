"""Chooses the status of a recorded model call from what is known about it. Pure: facts in, outcome out."""

from typing import Final, NamedTuple

from prela_stream.instrumentation.provider import Failure
from prela_stream.model.span import SpanStatus
from prela_stream.tracing.coerce import is_ordinary_exit, message_of

TRUNCATED: Final = "truncated_stream"
UNREADABLE: Final = Failure("unreadable_answer", "the answer, or a part of it, is not what the API documents")


class Facts(NamedTuple):
    """What is known when a call has ended."""

    failure: Failure | None = None
    """The provider reported it inside the answer."""
    error: BaseException | None = None
    """The exception that broke the call off."""
    last_event: str | None = None
    """Name of the event that completes a streamed answer; None if the answer is not streamed."""
    is_complete: bool = False
    """The whole answer was received."""
    was_read: bool = True
    """The body was read to its end."""
    unread_parts: int = 0
    """Parts that were not understood."""
    library_accepted: bool = True
    """The library read the same parts, and would have raised an exception for one that it cannot use."""
    is_blind: bool = False
    """Our own code failed, so what is missing may have been there."""


class Outcome(NamedTuple):
    """How a call ended."""

    status: SpanStatus
    failure: Failure | None = None
    """Type and message; None for SUCCESS."""
    closed_early: bool = False
    """The application stopped reading before the answer was complete."""


def outcome_of(facts: Facts) -> Outcome:
    """The status of a call. An answer that could not be read is no SUCCESS, and neither is one that the library refused."""
    if facts.failure is not None:
        return Outcome(SpanStatus.ERROR, facts.failure)
    error = facts.error
    if isinstance(error, Exception):
        return Outcome(SpanStatus.ERROR, Failure(error_type(error), message_of(error)))
    if facts.is_complete and (error is None or facts.last_event is not None):
        is_certain = not facts.unread_parts or facts.library_accepted
        return Outcome(SpanStatus.SUCCESS) if is_certain else Outcome(SpanStatus.ERROR, UNREADABLE)
    if error is not None and not is_ordinary_exit(error):
        return Outcome(SpanStatus.CANCELLED, Failure(type(error).__name__, type(error).__name__))
    if not facts.was_read:
        return Outcome(SpanStatus.SUCCESS, closed_early=True)
    if facts.is_blind:
        return Outcome(SpanStatus.SUCCESS)
    if facts.last_event is None or facts.unread_parts:
        return Outcome(SpanStatus.ERROR, UNREADABLE)
    message = f"the stream ended before its {facts.last_event} event, so the answer is not complete"
    return Outcome(SpanStatus.ERROR, Failure(TRUNCATED, message))


def error_type(error: BaseException) -> str:
    """The low-cardinality type of a failed call, as the tracer inside the anthropic client names it.

    The type in the API's error envelope, else the HTTP status; `client_timeout_error`, `connection_error` or `client_error`
    if the error has neither.
    """
    kind = getattr(error, "type", None)
    if isinstance(kind, str) and kind:
        return kind
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return str(status)
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"APITimeoutError", "TimeoutException"}:
        return "client_timeout_error"
    return "connection_error" if names & {"APIConnectionError", "TransportError"} else "client_error"
