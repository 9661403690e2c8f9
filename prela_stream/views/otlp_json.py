"""Spans as OTLP JSON, as the Collector and every OpenTelemetry tool read it (OTLP 1.9, JSON protobuf encoding). Pure."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from prela_stream.model.plain import safe_text
from prela_stream.model.span import Resource, SpanData, SpanEvent, SpanLink, SpanStatus
from prela_stream.otel.items import SCOPE_NAME, SCOPE_VERSION, SPAN_KIND, STATUS_CODE

_KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_INT64: Final = 1 << 63
_DEEPEST: Final = 32


def otlp_document(spans: Sequence[SpanData]) -> dict[str, Any]:
    """An ExportTraceServiceRequest with these spans, grouped by resource and scope. An open span has no end time."""
    groups: dict[bytes, tuple[Resource, dict[tuple[str, str], list[dict[str, Any]]]]] = {}
    for span in spans:
        key = msgspec.msgpack.encode(span.resource)
        _, scopes = groups.setdefault(key, (span.resource, {}))
        scope = (str(span.attributes.get(SCOPE_NAME, "prela_stream")), str(span.attributes.get(SCOPE_VERSION, "")))
        scopes.setdefault(scope, []).append(_span(span))
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(_resource(resource))},
                "scopeSpans": [
                    {"scope": {"name": name, "version": version}, "spans": found}
                    for (name, version), found in scopes.items()
                ],
            }
            for resource, scopes in groups.values()
        ]
    }


def _resource(resource: Resource) -> dict[str, Any]:
    known = msgspec.to_builtins(resource)
    own = known.pop("attributes", {})
    return {**own, **known}


def _span(span: SpanData) -> dict[str, Any]:
    own = {name: value for name, value in span.attributes.items() if name not in _IN_FIELDS}
    found: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": _KINDS.get(str(span.attributes.get(SPAN_KIND, "internal")), 1),
        "startTimeUnixNano": str(span.start_ns),
        "attributes": _attributes(own),
        "status": _status(span),
    }
    if span.parent_span_id is not None:
        found["parentSpanId"] = span.parent_span_id
    if span.end_ns is not None:
        found["endTimeUnixNano"] = str(span.end_ns)
    if span.threshold is not None:
        found["traceState"] = f"ot=th:{f'{span.threshold:014x}'.rstrip('0') or '0'}"
    if span.events:
        found["events"] = [_event(event) for event in span.events]
    if span.links:
        found["links"] = [_link(link) for link in span.links]
    return found


_IN_FIELDS: Final = frozenset({SPAN_KIND, STATUS_CODE, SCOPE_NAME, SCOPE_VERSION})


def _status(span: SpanData) -> dict[str, Any]:
    if span.status is SpanStatus.ERROR or span.status is SpanStatus.CANCELLED:
        return {"code": 2, **({"message": span.status_message} if span.status_message else {})}
    return {"code": 1} if span.attributes.get(STATUS_CODE) == "OK" else {}


def _event(event: SpanEvent) -> dict[str, Any]:
    return {"name": event.name, "timeUnixNano": str(event.time_ns), "attributes": _attributes(event.attributes)}


def _link(link: SpanLink) -> dict[str, Any]:
    return {"traceId": link.trace_id.hex(), "spanId": link.span_id.hex(), "attributes": _attributes(link.attributes)}


def _attributes(own: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": str(key), "value": _value(value, 0)} for key, value in own.items() if value is not None]


def _value(value: Any, depth: int) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)} if -_INT64 <= value < _INT64 else {"stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value} if math.isfinite(value) else {"stringValue": str(value)}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(one, depth + 1) for one in value]}}
    if depth < _DEEPEST and isinstance(value, Mapping):
        values = [{"key": str(key), "value": _value(one, depth + 1)} for key, one in value.items()]
        return {"kvlistValue": {"values": values}}
    return {"stringValue": safe_text(value)}
