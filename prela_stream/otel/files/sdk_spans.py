"""Spans as OpenTelemetry's SDKs print them: `ReadableSpan.to_json()` of Python and its like, `ReadableSpan` of JavaScript, and
those of the dialects in `sdk_dialects`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prela_stream.errors import CodecError
from prela_stream.otel.files.otlp_json import attributes_of
from prela_stream.otel.files.sdk_dialects import as_usual
from prela_stream.otel.files.times import moment_of
from prela_stream.otel.ids import id_of
from prela_stream.otel.spans import ForeignEvent, ForeignLink, ForeignSpan, Rejected, SpanKind, StatusCode
from prela_stream.otel.values import maps_in

_JS_KINDS: tuple[SpanKind, ...] = ("internal", "server", "client", "producer", "consumer")
_STATUSES: tuple[StatusCode, ...] = ("unset", "ok", "error")


def recognised(document: Any) -> bool:
    """Whether a document holds spans of an SDK."""
    return next(_spans(document, "$"), None) is not None


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The spans of a list, of one object, or below `spans`."""
    for place, span in _spans(document, "$"):
        try:
            yield _span(span)
        except CodecError as error:
            yield Rejected(place=place, reason=str(error))


def _spans(document: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(document, list):
        for index, one in enumerate(document):
            yield from _spans(one, f"{place}[{index}]")
    elif isinstance(document, Mapping):
        if (usual := as_usual(document)) is not None:
            yield place, usual
        elif _context(document) is not None:
            yield place, document
        elif isinstance(spans := document.get("spans"), list):
            yield from _spans(spans, f"{place}.spans")


def _context(span: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for key in ("context", "spanContext", "_spanContext"):
        found = span.get(key)
        if isinstance(found, Mapping) and ("trace_id" in found or "traceId" in found):
            return found
    return None


def _span(span: Mapping[str, Any]) -> ForeignSpan:
    context = _context(span)
    assert context is not None
    parent = _first(span, "parent_id", "parentSpanId", "parent", "parentSpanContext")
    remote = None
    if isinstance(parent, Mapping):
        remote = _first(parent, "is_remote", "isRemote")
        parent = _first(parent, "span_id", "spanId")
    status = span.get("status")
    code, message = status, None
    if isinstance(status, Mapping):
        code, message = _first(status, "status_code", "code"), _first(status, "description", "message")
    resource = span.get("resource")
    scope = _first(span, "instrumentation_scope", "instrumentationScope", "instrumentationLibrary", "scope")
    scope = scope if isinstance(scope, Mapping) else {}
    return ForeignSpan(
        trace_id=id_of(_first(context, "trace_id", "traceId"), 16, "trace id"),
        span_id=id_of(_first(context, "span_id", "spanId"), 8, "span id"),
        parent_span_id=None if parent in (None, "", 0) else id_of(parent, 8, "parent span id"),
        name=str(span.get("name", "")),
        kind=_kind(span.get("kind")),
        start_ns=moment_of(_first(span, "start_time", "startTime")) or 0,
        end_ns=moment_of(_first(span, "end_time", "endTime")),
        status=_status(code),
        status_message=message if isinstance(message, str) and message else None,
        attributes=attributes_of(span.get("attributes")),
        events=[
            ForeignEvent(
                name=str(one.get("name", "")),
                time_ns=moment_of(_first(one, "timestamp", "time")) or 0,
                attributes=attributes_of(one.get("attributes")),
            )
            for one in maps_in(span.get("events"))
        ],
        links=[link for one in maps_in(span.get("links")) if (link := _link(one)) is not None],
        resource=attributes_of(resource.get("attributes", resource)) if isinstance(resource, Mapping) else {},
        scope_name=str(scope.get("name", "")),
        scope_version=str(scope.get("version") or ""),
        remote_parent=remote if isinstance(remote, bool) else None,
    )


def _link(link: Mapping[str, Any]) -> ForeignLink | None:
    context = _context(link) or link
    try:
        return ForeignLink(
            trace_id=id_of(_first(context, "trace_id", "traceId"), 16, "trace id"),
            span_id=id_of(_first(context, "span_id", "spanId"), 8, "span id"),
            attributes=attributes_of(link.get("attributes")),
        )
    except CodecError:
        return None


def _kind(kind: Any) -> SpanKind:
    if isinstance(kind, int) and not isinstance(kind, bool):
        return _JS_KINDS[kind] if 0 <= kind < len(_JS_KINDS) else "internal"
    name = str(kind).lower().rpartition(".")[2].removeprefix("span_kind_")
    return next((one for one in _JS_KINDS if one == name), "internal")


def _status(code: Any) -> StatusCode:
    if isinstance(code, int) and not isinstance(code, bool):
        return _STATUSES[code] if 0 <= code < len(_STATUSES) else "unset"
    name = str(code).lower().rpartition(".")[2].removeprefix("status_code_")
    return next((one for one in _STATUSES if one == name), "unset")


def _first(source: Mapping[str, Any], *keys: str) -> Any:
    return next((source[key] for key in keys if source.get(key) is not None), None)
