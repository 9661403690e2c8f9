"""OTLP as JSON (opentelemetry-proto, `ExportTraceServiceRequest`), in every shape in which tools write it.

Keys may be camelCase or snake_case, `scopeSpans` may be the older `instrumentationLibrarySpans`, enumerations may be numbers or
names, 64-bit numbers may be strings, ids may be hex or base64, and attributes may be a plain JSON map.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prela_stream.errors import CodecError
from prela_stream.otel.files.times import moment_of, time_of
from prela_stream.otel.ids import id_of
from prela_stream.otel.spans import ForeignEvent, ForeignLink, ForeignSpan, Rejected, SpanKind, StatusCode
from prela_stream.otel.values import as_float, as_int

_KINDS: Final[tuple[SpanKind, ...]] = ("internal", "internal", "server", "client", "producer", "consumer")
_STATUSES: Final[tuple[StatusCode, ...]] = ("unset", "ok", "error")
_HAS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_MAX_DEPTH: Final = 64
_KINDS_OF_VALUE: Final = frozenset(
    f"{kind}{end}"
    for kind in ("string", "bool", "int", "double", "bytes", "array", "kvlist")
    for end in ("Value", "_value")
)
_BATCHES: Final = (
    *("resourceSpans", "resource_spans", "batches", "trace", "traces", "result", "data", "request", "body"),
    *("tracesData", "traces_data"),
)
_SCOPES: Final = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "instrumentation_library_spans")


def recognised(document: Any) -> bool:
    """Whether a document is OTLP JSON of any shape."""
    return next(_requests(document, "$", 0), None) is not None


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The spans of a request, of a list of requests, of an answer of Tempo's API, or spans without a request around them."""
    for place, batch in _requests(document, "$", 0):
        if any(isinstance(batch.get(key), list) for key in _SCOPES):
            yield from _resource_spans(batch, place)
            continue
        resource = batch.get("resource")
        scope = batch.get("scope") or batch.get("instrumentationScope") or {}
        try:
            yield span_of(
                batch,
                attributes_of(resource.get("attributes")) if isinstance(resource, Mapping) else {},
                scope if isinstance(scope, Mapping) else {},
            )
        except CodecError as error:
            yield Rejected(place=place, reason=str(error))


def _is_span(document: Any) -> bool:
    """Whether a document is a span without a request around it. Spans of Jaeger and Zipkin name their ids otherwise."""
    return (
        isinstance(document, Mapping)
        and ("traceId" in document or "trace_id" in document)
        and ("spanId" in document or "span_id" in document)
        and "operationName" not in document  # Jaeger's api_v2
    )


def _requests(document: Any, place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each object with resource spans, or span without one around it, and where it is."""
    if depth > 6:
        return
    if isinstance(document, list):
        bare = any(map(_is_span, document))
        for index, one in enumerate(document):
            if bare:
                yield f"{place}[{index}]", one if isinstance(one, Mapping) else {}
            else:
                yield from _requests(one, f"{place}[{index}]", depth + 1)
    elif isinstance(document, Mapping):
        if _is_span(document) or any(isinstance(document.get(key), list) for key in _SCOPES):
            yield place, document
        elif isinstance(spans := document.get("spans"), list) and any(map(_is_span, spans)):
            around = {key: document[key] for key in ("scope", "resource") if key in document}
            for index, one in enumerate(spans):
                yield f"{place}.spans[{index}]", {**around, **one} if isinstance(one, Mapping) else {}
        else:
            yield from _below(document, place, depth)


def _below(document: Mapping[str, Any], place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key in _BATCHES:
        if isinstance(inner := document.get(key), list | Mapping):
            yield from _requests(inner, f"{place}.{key}", depth + 1)


def _resource_spans(batch: Mapping[str, Any], place: str) -> Iterator[ForeignSpan | Rejected]:
    resource = batch.get("resource")
    attributes = attributes_of(resource.get("attributes")) if isinstance(resource, Mapping) else {}
    for key in _SCOPES:
        groups = batch.get(key)
        for number, group in enumerate(groups if isinstance(groups, list) else ()):
            if not isinstance(group, Mapping):
                reason = f"expected an object, found {type(group).__name__}"
                yield Rejected(place=f"{place}.{key}[{number}]", reason=reason)
                continue
            scope = (
                group.get("scope") or group.get("instrumentationLibrary") or group.get("instrumentation_library") or {}
            )
            spans = group.get("spans")
            for index, span in enumerate(spans if isinstance(spans, list) else ()):
                where = f"{place}.{key}[{number}].spans[{index}]"
                try:
                    yield span_of(span, attributes, scope if isinstance(scope, Mapping) else {})
                except CodecError as error:
                    yield Rejected(place=where, reason=str(error))


def span_of(span: Any, resource: dict[str, Any], scope: Mapping[str, Any]) -> ForeignSpan:
    """One span of OTLP JSON; raises CodecError with the reason if it is none."""
    if not isinstance(span, Mapping):
        msg = f"expected a span as an object, found {type(span).__name__}"
        raise CodecError(msg)
    parent = _get(span, "parentSpanId", "parent_span_id")
    start = _time(span, ("startTimeUnixNano", "start_time_unix_nano"), ("startTime", "start_time"))
    end = _time(span, ("endTimeUnixNano", "end_time_unix_nano"), ("endTime", "end_time"))
    flags = as_int(span.get("flags")) or 0
    status = span.get("status")
    code, message = (status.get("code"), status.get("message")) if isinstance(status, Mapping) else (status, None)
    return ForeignSpan(
        trace_id=id_of(_get(span, "traceId", "trace_id"), 16, "trace id"),
        span_id=id_of(_get(span, "spanId", "span_id"), 8, "span id"),
        parent_span_id=None if _is_empty(parent) else id_of(parent, 8, "parent span id"),
        name=span["name"] if isinstance(span.get("name"), str) else "",
        kind=_kind(span.get("kind")),
        start_ns=start or 0,
        end_ns=end or None,
        status=_status(code),
        status_message=message if isinstance(message, str) and message else None,
        attributes=attributes_of(span.get("attributes")),
        events=[_event(one) for one in _list(span.get("events")) if isinstance(one, Mapping)],
        links=[
            link for one in _list(span.get("links")) if isinstance(one, Mapping) and (link := _link(one)) is not None
        ],
        resource=resource,
        scope_name=scope["name"] if isinstance(scope.get("name"), str) else "",
        scope_version=scope["version"] if isinstance(scope.get("version"), str) else "",
        trace_state=state if isinstance(state := _get(span, "traceState", "trace_state"), str) else "",
        remote_parent=bool(flags & _IS_REMOTE) if flags & _HAS_REMOTE else None,
    )


def _time(span: Mapping[str, Any], names: Sequence[str], others: Sequence[str]) -> int | None:
    exact = time_of(_get(span, *names))
    return moment_of(_get(span, *others)) if exact is None else exact


def attributes_of(attributes: Any) -> dict[str, Any]:
    """A list of `{key, value}`, or a plain map as some exporters write it."""
    if isinstance(attributes, Mapping):
        return {str(key): value_of(value) for key, value in attributes.items()}
    found: dict[str, Any] = {}
    for one in _list(attributes):
        if isinstance(one, Mapping) and isinstance(one.get("key"), str):
            found[one["key"]] = value_of(one.get("value"))
    return found


def value_of(value: Any, depth: int = 0) -> Any:
    """An `AnyValue`; a plain JSON value stays as it is."""
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return value
    if len(value) != 1:
        # some encoders write all kinds, with null for those that are not set
        given = {key: one for key, one in value.items() if one is not None and key in _KINDS_OF_VALUE}
        if len(given) != 1 or any(key not in _KINDS_OF_VALUE and key != "$case" for key in value):
            return dict(value) if value else None
        value = given
    ((kind, inner),) = value.items()
    match kind:
        case "stringValue" | "string_value" | "boolValue" | "bool_value":
            return inner
        case "intValue" | "int_value":
            whole = as_int(inner)
            return _negative(inner) if whole is None else whole
        case "doubleValue" | "double_value":
            number = as_float(inner)
            return inner if number is None else number
        case "bytesValue" | "bytes_value":
            return _bytes(inner)
        case "arrayValue" | "array_value":
            values = inner.get("values") if isinstance(inner, Mapping) else inner
            return [value_of(one, depth + 1) for one in _list(values)]
        case "kvlistValue" | "kvlist_value":
            values = inner.get("values") if isinstance(inner, Mapping) else inner
            return {
                str(one["key"]): value_of(one.get("value"), depth + 1)
                for one in _list(values)
                if isinstance(one, Mapping) and "key" in one
            }
    return _of_structures(inner, depth) if kind in ("Value", "value") else dict(value)


def _of_structures(value: Any, depth: int) -> Any:
    """The structures of Go and TypeScript as JSON: `{"Value": {"StringValue": …}}`, `{"value": {"$case": …}}`."""
    if not isinstance(value, Mapping):
        return value
    return value_of({str(key)[:1].lower() + str(key)[1:]: one for key, one in value.items()}, depth + 1)


def _negative(value: Any) -> Any:
    whole = as_int(value[1:]) if isinstance(value, str) and value.startswith("-") else None
    return value if whole is None else -whole


def _bytes(value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return value


def _event(event: Mapping[str, Any]) -> ForeignEvent:
    time_ns = as_int(_get(event, "timeUnixNano", "time_unix_nano"))
    name = event.get("name")
    return ForeignEvent(
        name=name if isinstance(name, str) else "",
        time_ns=max(time_ns or 0, 0),
        attributes=attributes_of(event.get("attributes")),
    )


def _link(link: Mapping[str, Any]) -> ForeignLink | None:
    try:
        return ForeignLink(
            trace_id=id_of(_get(link, "traceId", "trace_id"), 16, "trace id"),
            span_id=id_of(_get(link, "spanId", "span_id"), 8, "span id"),
            attributes=attributes_of(link.get("attributes")),
        )
    except CodecError:
        return None


def _kind(kind: Any) -> SpanKind:
    if isinstance(kind, int) and not isinstance(kind, bool) and 0 <= kind < len(_KINDS):
        return _KINDS[kind]
    name = str(kind).lower().removeprefix("span_kind_")
    return next((one for one in _KINDS if one == name), "internal")


def _status(code: Any) -> StatusCode:
    if isinstance(code, int) and not isinstance(code, bool) and 0 <= code < len(_STATUSES):
        return _STATUSES[code]
    name = str(code).lower().removeprefix("status_code_")
    return next((one for one in _STATUSES if one == name), "unset")


def _is_empty(parent: Any) -> bool:
    return parent in (None, "", 0) or (isinstance(parent, str) and not parent.strip("0"))


def _get(source: Mapping[str, Any], *keys: str) -> Any:
    return next((source[key] for key in keys if key in source), None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
