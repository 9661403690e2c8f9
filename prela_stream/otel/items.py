"""Foreign spans as items of the `spans` topic, and as `SpanData`."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from prela_stream.codec.spans import decode_span, encode_fields, encode_item
from prela_stream.model import semconv
from prela_stream.model.ot_member import read_odds
from prela_stream.model.plain import is_plain, plain
from prela_stream.model.span import (
    AFTER_END,
    BY_PROCESSOR,
    COUNTED,
    NOT_COUNTED,
    REMOTE_PARENT,
    SPAN_STATUS_CODES,
    SPAN_TYPE_CODES,
    ItemKind,
    Resource,
    SpanData,
    SpanStatus,
)
from prela_stream.otel.normaliser import normalise
from prela_stream.otel.spans import ForeignSpan

SPAN_KIND: Final = "otel.span.kind"
"""`server`, `client`, `producer` or `consumer`; absent for an internal span."""
STATUS_CODE: Final = "otel.status_code"
"""`OK` if the program set that status explicitly; else absent."""
SCOPE_NAME: Final = "otel.scope.name"
SCOPE_VERSION: Final = "otel.scope.version"
CHILDREN: Final = "prela.children"
"""Written by the counting processor (docs/opentelemetry.md): children that started before their parent, this span, ended."""
COUNTED_BY_PARENT: Final = "prela.counted"
"""Written by the counting processor: whether the number of the parent includes this span. Absent without a local parent."""

_SPAN: Final = int(ItemKind.SPAN)
_REMOTE_CHILD: Final = NOT_COUNTED | REMOTE_PARENT
_MOST_NS: Final = (1 << 62) - 1
_RESOURCE: Final[Mapping[str, str]] = {
    semconv.SERVICE_NAME: "service_name",
    "telemetry.sdk.version": "sdk_version",
    "host.name": "host",
    semconv.SERVICE_INSTANCE_ID: "instance_id",
}


class Counts(msgspec.Struct, frozen=True, gc=False):
    """What is known of the place of a foreign span in its trace. The fields are those of `ItemHead` and `SpanHead`.

    As for `ForeignSpan`, only code that runs for every span leaves out the names.
    """

    parent_span_id: bytes | None
    flags: int
    child_count: int | None
    inject_count: int | None
    inject_ordinal: int | None = None
    randomness: int | None = None
    threshold: int | None = None


def encode_foreign(
    span: ForeignSpan, counts: Counts | None = None, more: Mapping[str, Any] | None = None, *, cancelled: bool = False
) -> bytes:
    """The item of a foreign span.

    Args:
        span: The span.
        counts: What this process counted; None: what the attributes of the counting processor contain. Without either, the
            trace is decided by quiet time.
        more: Further attributes; those of the span have priority.
        cancelled: The span did not end: its tracer or its process did.
    """
    found = normalise(span)
    attributes = {**more, **found.attributes} if more else found.attributes
    if counts is None or CHILDREN in attributes:
        given = _counts(span, attributes)
        counts = counts or given
    if span.kind != "internal":
        attributes.setdefault(SPAN_KIND, span.kind)
    if span.status == "ok":
        attributes.setdefault(STATUS_CODE, "OK")
    if span.scope_name:
        attributes.setdefault(SCOPE_NAME, span.scope_name)
    if span.scope_version:
        attributes.setdefault(SCOPE_VERSION, span.scope_version)
    start, end = min(span.start_ns, _MOST_NS), span.end_ns
    fields = (
        _SPAN,
        span.trace_id,
        span.span_id,
        counts.parent_span_id,
        counts.flags,
        SPAN_STATUS_CODES[SpanStatus.CANCELLED if cancelled else found.status],
        0,
        counts.child_count,
        counts.inject_count,
        counts.inject_ordinal,
        SPAN_TYPE_CODES[found.span_type],
        start,
        None if end is None else 0 if end < start else min(end - start, _MOST_NS),
        span.name,
        counts.randomness,
        counts.threshold,
        attributes,
        found.events,
        span.links,
        found.status_message,
    )
    if not (found.events or span.links) and is_plain(attributes):
        with suppress(ValueError, OverflowError, TypeError):  # lone surrogates, numbers beyond 64 bits
            return encode_fields(fields)
    return _encode_slowly(fields)


def _encode_slowly(fields: tuple[Any, ...]) -> bytes:
    """The item of fields with values that MessagePack may refuse."""
    *head, name, randomness, threshold, attributes, events, links, message = fields
    return encode_item(
        *head,
        plain(name),
        randomness,
        threshold,
        plain(attributes),
        [(plain(event.name), min(event.time_ns, _MOST_NS), plain(event.attributes)) for event in events],
        [(link.trace_id, link.span_id, plain(link.attributes)) for link in links],
        None if message is None else plain(message),
    )


def _counts(span: ForeignSpan, attributes: dict[str, Any]) -> Counts:
    """What the span itself contains: `ot` of its tracestate, and the counting processor's attributes, which are taken out."""
    if not span.trace_state and CHILDREN not in attributes and COUNTED_BY_PARENT not in attributes:
        parent = span.parent_span_id
        return Counts(parent, _REMOTE_CHILD if span.remote_parent and parent is not None else NOT_COUNTED, None, None)
    children, counted = attributes.pop(CHILDREN, None), attributes.pop(COUNTED_BY_PARENT, None)
    is_counted = type(children) is int and 0 <= children < 1 << 31
    flags = BY_PROCESSOR if is_counted else NOT_COUNTED
    if span.parent_span_id is not None:
        if counted is True:
            flags |= COUNTED
        elif counted is False:
            flags |= AFTER_END
        elif span.remote_parent or (is_counted and span.remote_parent is None):
            flags |= REMOTE_PARENT  # the processor marks every span with a local parent
    threshold, randomness = read_odds(span.trace_state) if span.trace_state else (None, None)
    return Counts(
        parent_span_id=span.parent_span_id,
        flags=flags,
        child_count=children if is_counted else None,
        inject_count=None,
        randomness=randomness,
        threshold=threshold,
    )


def resource_of(attributes: Mapping[str, Any]) -> Resource:
    """The resource of a foreign process."""
    known = {field: attributes[key] for key, field in _RESOURCE.items() if isinstance(attributes.get(key), str)}
    pid = attributes.get("process.pid")
    rest = {key: value for key, value in attributes.items() if _RESOURCE.get(key) not in known and key != "process.pid"}
    if isinstance(pid, int) and not isinstance(pid, bool) and 0 <= pid < 1 << 31:
        known["pid"] = pid
    elif pid is not None:
        rest["process.pid"] = pid
    return msgspec.convert(
        {**{_NAMES[key]: value for key, value in known.items()}, "attributes": plain(rest)}, Resource
    )


_NAMES: Final = {field.name: field.encode_name for field in msgspec.structs.fields(Resource)}


def span_data_of(span: ForeignSpan) -> SpanData:
    """A foreign span as it will be stored."""
    return decode_span(encode_foreign(span), resource_of(span.resource))
