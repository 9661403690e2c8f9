"""Whose work this is: session and user ids that every span of a block carries, in whatever task or thread it runs.

They stand in a context variable of their own, so a block may be opened outside of any trace, inside of a span, or around many
traces. To another process they go only if asked to: a header with a user's id would reach every host that is called.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from prela_stream.model.semconv import CONVERSATION_ID, USER_ID
from prela_stream.sdk.coerce import attributes_of, text_of
from prela_stream.sdk.span import Span

SESSION_ENTRY: Final = "session.id"
USER_ENTRY: Final = "user.id"
_FROM_BAGGAGE: Final = {SESSION_ENTRY: CONVERSATION_ID, USER_ENTRY: USER_ID}


class Carried(NamedTuple):
    """What the spans of a block carry."""

    attributes: Mapping[str, Any]
    baggage: Mapping[str, str]
    """What goes to other processes with the trace."""


CARRIED: Final[ContextVar[Carried | None]] = ContextVar("prela_stream_carried", default=None)
get_carried: Final = CARRIED.get


@contextmanager
def session(
    session_id: str | None = None,
    *,
    user_id: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    propagate: bool = False,
) -> Iterator[None]:
    """Give every span that begins in the block a session's and a user's id, and other attributes.

    What a span is given itself wins. Blocks nest: an inner one adds to the outer one and wins over it.

    Args:
        session_id: The conversation; becomes `gen_ai.conversation.id`.
        user_id: Becomes `user.id`.
        attributes: Further ones, of any value.
        propagate: Send both ids on to other processes as W3C baggage. Their hosts, whoever they are, can read them.
    """
    before = get_carried() or Carried({}, {})
    ids = {
        key: text_of(value) for key, value in ((SESSION_ENTRY, session_id), (USER_ENTRY, user_id)) if value is not None
    }
    carried = Carried(
        {**before.attributes, **_named(ids), **({} if attributes is None else attributes_of(attributes))},
        {**before.baggage, **ids} if propagate else before.baggage,
    )
    previous = get_carried()
    CARRIED.set(carried)
    try:
        yield
    finally:
        if get_carried() is carried:  # in another context than it was entered in, there is nothing to restore
            CARRIED.set(previous)


def ids_in(baggage: Mapping[str, str]) -> dict[str, str]:
    """The entries of a trace's baggage that name a session or a user."""
    return {key: baggage[key] for key in _FROM_BAGGAGE if key in baggage}


def _named(ids: Mapping[str, str]) -> dict[str, Any]:
    return {_FROM_BAGGAGE[key]: value for key, value in ids.items()}


class EntrySpan(Span):
    """The first span here of a trace that came with session or user ids: it has them, and so has what begins in its block."""

    __slots__ = ("_carried", "_carried_before")
    _carried: Carried
    _carried_before: Carried | None

    def carry(self) -> None:
        """Take the ids from the trace's baggage."""
        ids = ids_in(self._trace.baggage)
        self._carried = Carried(_named(ids), ids)
        self._attributes = {**self._carried.attributes, **self._attributes}

    def __enter__(self) -> Self:
        self._carried_before = get_carried()
        CARRIED.set(self._carried)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if get_carried() is self._carried:
            CARRIED.set(self._carried_before)
