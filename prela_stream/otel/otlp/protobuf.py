"""The spans of an OTLP request in protobuf. A mistake inside of a span costs this span only."""

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from prela_stream.errors import CodecError
from prela_stream.otel.ids import id_of
from prela_stream.otel.otlp import schema
from prela_stream.otel.otlp.attributes import attributes_of
from prela_stream.otel.otlp.limits import SMALL, check_parts, check_protobuf, check_span
from prela_stream.otel.spans import ForeignEvent, ForeignLink, ForeignSpan, Rejected, SpanKind, StatusCode

_KINDS: Final[tuple[SpanKind, ...]] = ("internal", "internal", "server", "client", "producer", "consumer")
_STATUSES: Final[tuple[StatusCode, ...]] = ("unset", "ok", "error")
_HAS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_NO_ID: Final = bytes(8)
_NO_TRACE_ID: Final = bytes(16)


def read(data: bytes) -> Iterator[ForeignSpan | Rejected]:
    """The spans of an `ExportTraceServiceRequest` or `TracesData`. Raises CodecError at once if the bytes are neither."""
    check_protobuf(data)
    is_large = len(data) > SMALL
    try:
        request = (schema.LargeRequest if is_large else schema.Request).FromString(data)
    except DecodeError as error:
        msg = f"the body is no ExportTraceServiceRequest of OTLP in protobuf: expected its {len(data):,} bytes to be one message"
        raise CodecError(msg) from error
    return _spans(request, is_large=is_large)


def _spans(request: Any, *, is_large: bool) -> Iterator[ForeignSpan | Rejected]:
    for number, group in enumerate(request.resource_spans):
        resource: Any = _inside(_resource, group.resource)
        for key in ("scope_spans", "instrumentation_library_spans"):
            for at, part in enumerate(getattr(group, key)):
                scope: Any = _inside(_scope, part.scope)
                problem = next((one for one in (resource, scope) if isinstance(one, CodecError)), None)
                for index, span in enumerate(part.spans):
                    try:
                        if problem is not None:
                            raise problem
                        yield _span(_parsed(span) if is_large else span, resource, scope[0], scope[1])
                    except (CodecError, DecodeError) as error:
                        place = f"resource_spans[{number}].{key}[{at}].spans[{index}]"
                        yield Rejected(place=place, reason=_reason(error))


def _parsed(span: bytes) -> Any:
    check_span(span)
    try:
        return schema.Span.FromString(span)
    except DecodeError as error:
        msg = "it is no Span message of OTLP"
        raise CodecError(msg) from error


def _inside(read_part: Any, raw: bytes) -> Any:
    """What `read_part` returns, or the CodecError that it raises: each span below the part is rejected with it."""
    try:
        return read_part(raw)
    except (CodecError, DecodeError) as error:
        return CodecError(f"its resource or scope cannot be read: {_reason(error)}")


def _reason(error: CodecError | DecodeError) -> str:
    return str(error) if isinstance(error, CodecError) else "an event, a link or the status is no message of OTLP"


def _resource(raw: bytes) -> dict[str, Any]:
    return attributes_of(schema.Resource.FromString(raw).attributes) if raw else {}


def _scope(raw: bytes) -> tuple[str, str]:
    if not raw:
        return "", ""
    scope = schema.Scope.FromString(raw)
    return _text(scope.name), _text(scope.version)


def _span(span: Any, resource: dict[str, Any], scope_name: str, scope_version: str) -> ForeignSpan:
    trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
    if len(trace_id) != 16 or trace_id == _NO_TRACE_ID:
        trace_id = _other_id(trace_id, 16, "trace id")
    if len(span_id) != 8 or span_id == _NO_ID:
        span_id = _other_id(span_id, 8, "span id")
    if len(parent) != 8 or parent == _NO_ID:
        parent = _other_id(parent, 8, "parent span id") if any(parent) else None
    kind, flags, trace_state = span.kind, span.flags, span.trace_state
    status: StatusCode = "unset"
    message = None
    if raw := span.status:
        found = schema.Status.FromString(raw)
        status = _STATUSES[found.code] if 0 <= found.code < len(_STATUSES) else "unset"
        message = _text(found.message) or None
    events, links = span.events, span.links
    if events:
        check_parts(events, "events")
    if links:
        check_parts(links, "links")
    return ForeignSpan(  # in the order of its fields
        trace_id,
        span_id,
        parent,
        _text(span.name),
        _KINDS[kind] if 0 <= kind < len(_KINDS) else "internal",
        span.start_time_unix_nano,
        span.end_time_unix_nano or None,
        status,
        message,
        attributes_of(span.attributes),
        [_event(one) for one in events] if events else [],
        [link for one in links if (link := _link(one)) is not None] if links else [],
        resource,
        scope_name,
        scope_version,
        _text(trace_state) if trace_state else "",
        bool(flags & _IS_REMOTE) if flags & _HAS_REMOTE else None,
    )


def _other_id(found: bytes, size: int, what: str) -> bytes:
    """An id that is not raw bytes of the right length. Hand-made exporters send the text form; raises CodecError for others."""
    if len(found) > size and found.isascii():
        return id_of(found.decode(), size, what)
    if not found:
        msg = f"it has no {what}: expected {size} bytes"
        raise CodecError(msg)
    return id_of(found, size, what)


def _event(raw: bytes) -> ForeignEvent:
    event = schema.Event.FromString(raw)
    return ForeignEvent(
        name=_text(event.name), time_ns=event.time_unix_nano, attributes=attributes_of(event.attributes)
    )


def _link(raw: bytes) -> ForeignLink | None:
    """A link; None if its ids are wrong, as they would be of no use."""
    link = schema.Link.FromString(raw)
    if len(link.trace_id) != 16 or len(link.span_id) != 8:
        return None
    return ForeignLink(trace_id=link.trace_id, span_id=link.span_id, attributes=attributes_of(link.attributes))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")
