"""Places of a span that hold content, and the general forms of such a place."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from prela_stream.otel.messages import Message, messages_of
from prela_stream.otel.parts import text_part
from prela_stream.otel.spans import ForeignEvent
from prela_stream.otel.values import is_below, json_text, nested, parsed, undotted


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A value, and what it was made of."""

    value: Any
    keys: frozenset[str] = frozenset()
    """Attributes that are consumed."""
    prefixes: tuple[str, ...] = ()
    """All attributes of flattened lists below these are consumed."""
    events: frozenset[str] = frozenset()
    """Events of these names are consumed."""


Read = Callable[[Mapping[str, Any], Sequence[ForeignEvent]], Found | None]


class Source(msgspec.Struct, frozen=True):
    """A place that may hold content, and where that is, so that a span without it is not searched."""

    read: Read
    keys: frozenset[str] = frozenset()
    prefix: str = ""
    """All attributes below it."""
    in_events: bool = False

    def may_be_in(self, keys: Collection[str], *, events: bool) -> bool:
        """Whether a span with attributes of these keys, and with or without events, can have something here."""
        return (
            (self.in_events and events)
            or any(key in self.keys for key in keys)
            or (self.prefix != "" and any(is_below(key, self.prefix) for key in keys))
        )


def first(sources: Iterable[Source], attributes: Mapping[str, Any], events: Sequence[ForeignEvent]) -> Found | None:
    """The first source that has something."""
    for source in sources:
        if (found := source.read(attributes, events)) is not None:
            return found
    return None


def listed(prefix: str, role: str) -> Source:
    """A list as one attribute, whose members may have dots in their keys: as `flattened`, before the members were flattened."""

    def source(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
        value = parsed(attributes.get(prefix))
        messages = messages_of(undotted(value), role) if isinstance(value, list) else []
        return Found(value=messages, keys=frozenset({prefix})) if messages else None

    return Source(source, keys=frozenset({prefix}))


def attribute(key: str, role: str) -> Source:
    def source(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
        value = attributes.get(key)
        messages = messages_of(value, role) if value else []
        return Found(value=messages, keys=frozenset({key})) if messages else None

    return Source(source, keys=frozenset({key}))


def structured(key: str, role: str = "assistant") -> Source:
    """As `attribute`; a structured answer, which is JSON without the shape of a message, is the text of one."""

    def source(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
        value = attributes.get(key)
        messages = messages_or_text(value, role) if value else []
        return Found(value=messages, keys=frozenset({key})) if messages else None

    return Source(source, keys=frozenset({key}))


def messages_or_text(value: Any, role: str) -> list[Message]:
    """The messages of a value. JSON without the shape of messages is the text of one."""
    if found := messages_of(value, role):
        return found
    decoded = parsed(value)
    if not decoded or not isinstance(decoded, Mapping | list) or "messages" in decoded:
        return []
    return [{"role": role, "parts": [text_part(value if isinstance(value, str) else json_text(value))]}]


def flattened(prefix: str, role: str) -> Source:
    def source(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
        messages = messages_of(nested(attributes, prefix), role)
        return Found(value=messages, prefixes=(prefix,)) if messages else None

    return Source(source, prefix=prefix)


def in_event(event_name: str, key: str, role: str) -> Source:
    def source(_: Mapping[str, Any], events: Sequence[ForeignEvent]) -> Found | None:
        for event in events:
            if event.name == event_name and (messages := messages_of(event.attributes.get(key), role)):
                return Found(value=messages)
        return None

    return Source(source, in_events=True)
