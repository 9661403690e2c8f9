"""A span of another tracer, before its attributes are normalised. Every reader of a foreign format returns this one type."""

from typing import Any, Literal

import msgspec

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
StatusCode = Literal["unset", "ok", "error"]


class ForeignEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event of a foreign span."""

    name: str
    time_ns: int
    """ns since the epoch."""
    attributes: dict[str, Any] = {}


class ForeignLink(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A link of a foreign span."""

    trace_id: bytes
    span_id: bytes
    attributes: dict[str, Any] = {}


class ForeignSpan(msgspec.Struct, frozen=True, gc=False):
    """A span as another tracer recorded it. Name its fields, except where every span is made: by position is twice as fast."""

    trace_id: bytes
    """16 bytes."""
    span_id: bytes
    """8 bytes."""
    parent_span_id: bytes | None = None
    name: str = ""
    kind: SpanKind = "internal"
    start_ns: int = 0
    """ns since the epoch; 0 if the format has no start for it."""
    end_ns: int | None = None
    """None for a span that has not ended."""
    status: StatusCode = "unset"
    status_message: str | None = None
    attributes: dict[str, Any] = {}
    events: list[ForeignEvent] = []
    links: list[ForeignLink] = []
    resource: dict[str, Any] = {}
    scope_name: str = ""
    scope_version: str = ""
    trace_state: str = ""
    remote_parent: bool | None = None
    """Whether the parent belongs to another process; None if the format does not record it."""


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an input that is no span."""

    place: str
    """Where it is in the input, for example `line 3` or `resourceSpans[0].scopeSpans[1].spans[7]`."""
    reason: str
