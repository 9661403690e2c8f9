"""Session and user ids that every span of a block has, in any task or thread that inherits the context.

They have a separate context variable, so a block can be outside a trace, inside a span, or around many traces. They are sent
to other processes only on request: a header with a user id would reach every host that is called.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, NamedTuple

from prela_stream.model.semconv import CONVERSATION_ID, USER_ID
from prela_stream.steps import Block
from prela_stream.tracing.coerce import attributes_of, text_of

SESSION_ENTRY: Final = "session.id"
USER_ENTRY: Final = "user.id"
_FROM_BAGGAGE: Final = {SESSION_ENTRY: CONVERSATION_ID, USER_ENTRY: USER_ID}


class Carried(NamedTuple):
    """What the spans of a block have in common."""

    attributes: Mapping[str, Any]
    baggage: Mapping[str, str]
    """Entries that are sent to other processes."""


CARRIED: Final[ContextVar[Carried | None]] = ContextVar("prela_stream_carried", default=None)
get_carried: Final = CARRIED.get
ids_used: Final[list[bool]] = []
"""Not empty once this process has had a session, or a trace with session ids; spans check this first."""


def session(
    session_id: str | None = None,
    *,
    user_id: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    propagate: bool = False,
) -> Block[None]:
    """Give every span that starts in the block a session id, a user id and other attributes.

    Attributes of the span itself have priority. Blocks nest: an inner block adds to the outer one and has priority over it. As a
    decorator, it opens a block for each call of a function.

    Args:
        session_id: The conversation; becomes `gen_ai.conversation.id`.
        user_id: Becomes `user.id`.
        attributes: Further attributes, of any value.
        propagate: Send both ids to other processes as W3C baggage. Every host that is called can read them.
    """
    return Block(partial(_session, session_id, user_id, attributes, propagate))


@contextmanager
def _session(
    session_id: str | None, user_id: str | None, attributes: Mapping[str, Any] | None, propagate: bool
) -> Iterator[None]:
    before = get_carried() or Carried({}, {})
    ids = {
        key: text_of(value) for key, value in ((SESSION_ENTRY, session_id), (USER_ENTRY, user_id)) if value is not None
    }
    carried = Carried(
        {**before.attributes, **_named(ids), **({} if attributes is None else attributes_of(attributes))},
        {**before.baggage, **ids} if propagate is True else before.baggage,
    )
    previous = get_carried()
    if not ids_used:
        ids_used.append(True)
    CARRIED.set(carried)
    try:
        yield
    finally:
        if get_carried() is carried:  # otherwise it is left in another context, which has nothing to restore
            CARRIED.set(previous)


def note_baggage(baggage: Mapping[str, str]) -> None:
    """Check the baggage of a trace whose first span in this process starts now."""
    if not ids_used and not _FROM_BAGGAGE.keys().isdisjoint(baggage):
        ids_used.append(True)


def carried_attributes(trace_baggage: Mapping[str, str]) -> dict[str, Any]:
    """The attributes of a span that starts now from the blocks around it and from the baggage of its trace."""
    carried = get_carried()
    ids = {key: trace_baggage[key] for key in _FROM_BAGGAGE if key in trace_baggage}
    return _named(ids) if carried is None else {**_named(ids), **carried.attributes}


def outgoing_baggage(trace_baggage: Mapping[str, str]) -> Mapping[str, str]:
    """The baggage to send: that of the trace, with the ids of the blocks around that are propagated."""
    carried = get_carried()
    return {**trace_baggage, **carried.baggage} if carried is not None and carried.baggage else trace_baggage


def _named(ids: Mapping[str, str]) -> dict[str, Any]:
    return {_FROM_BAGGAGE[key]: value for key, value in ids.items()}
