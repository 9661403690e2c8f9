"""Traces of Jaeger: as its UI and query API write them (`{"data": [{"traceID", "spans", "processes"}]}`, times in
microseconds), as Elasticsearch stores them, and in the JSON of its `api_v2` (ids in base64, times as text), which a Collector
writes to Kafka.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.errors import CodecError
from prela_stream.otel.files.times import duration_of, microseconds_of
from prela_stream.otel.ids import id_of
from prela_stream.otel.spans import ForeignEvent, ForeignLink, ForeignSpan, Rejected, SpanKind, StatusCode
from prela_stream.otel.values import as_float, as_int, maps_in

_KINDS: Final[tuple[SpanKind, ...]] = ("internal", "server", "client", "producer", "consumer")
_REFERENCES: Final = {"0": "CHILD_OF", "1": "FOLLOWS_FROM"}
_TYPED: Final = {"vStr": "string", "vBool": "bool", "vInt64": "int64", "vFloat64": "float64", "vBinary": "binary"}


def recognised(document: Any) -> bool:
    """Whether a document holds traces of Jaeger."""
    return next(_traces(document, "$"), None) is not None


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The spans of one trace, of a list of traces, or of an answer of the query API."""
    for place, trace in _traces(document, "$"):
        processes = trace.get("processes")
        for index, span in enumerate(trace["spans"]):
            try:
                yield _span(span, processes if isinstance(processes, Mapping) else {})
            except CodecError as error:
                yield Rejected(place=f"{place}.spans[{index}]", reason=str(error))


def _traces(document: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(document, list):
        for index, one in enumerate(document):
            yield from _traces(one, f"{place}[{index}]")
    elif isinstance(document, Mapping):
        if isinstance(source := document.get("_source"), Mapping):  # of Elasticsearch
            yield from _traces(source, place)
        elif isinstance(hits := document.get("hits"), list | Mapping):
            yield from _traces(hits, f"{place}.hits")
        elif "operationName" in document and _get(document, "traceID", "traceId") is not None:
            yield place, {"spans": [document]}
        elif isinstance(spans := document.get("spans"), list) and any(
            isinstance(one, Mapping) and "operationName" in one for one in spans
        ):
            yield place, document
        elif isinstance(data := document.get("data"), list):
            yield from _traces(data, f"{place}.data")


def _span(span: Any, processes: Mapping[str, Any]) -> ForeignSpan:
    if not isinstance(span, Mapping):
        msg = f"expected a span as an object, found {type(span).__name__}"
        raise CodecError(msg)
    trace_id = id_of(_get(span, "traceID", "traceId"), 16, "trace id")
    tags = _all_tags(span)
    process = (
        span.get("process") if isinstance(span.get("process"), Mapping) else processes.get(str(span.get("processID")))
    )
    resource = _all_tags(process) if isinstance(process, Mapping) else {}
    if isinstance(process, Mapping) and isinstance(service := process.get("serviceName"), str):
        resource["service.name"] = service
    parent, links = _references(span, trace_id)
    start_ns = microseconds_of(span.get("startTime")) or 0
    error, code = tags.pop("error", None), tags.pop("otel.status_code", None)
    status: StatusCode = "unset"
    if str(code).upper() == "ERROR" or error is True or (isinstance(error, str) and error.lower() == "true"):
        status = "error"
    elif str(code).upper() == "OK":
        status = "ok"
    if error not in (None, True, False, "true", "false"):  # some clients write the message there
        tags["error"] = error
        status = "error"
    description = tags.pop("otel.status_description", None)
    kind = str(tags.pop("span.kind", "internal")).lower()
    return ForeignSpan(
        trace_id=trace_id,
        span_id=id_of(_get(span, "spanID", "spanId"), 8, "span id"),
        parent_span_id=parent,
        name=str(span.get("operationName", "")),
        kind=next((one for one in _KINDS if one == kind), "internal"),
        start_ns=start_ns,
        end_ns=start_ns + duration_of(span.get("duration")),
        status=status,
        status_message=description if isinstance(description, str) and description else None,
        attributes=tags,
        events=[_event(log) for log in maps_in(span.get("logs"))],
        links=links,
        resource=resource,
        scope_name=str(tags.pop("otel.scope.name", tags.pop("otel.library.name", ""))),
        scope_version=str(tags.pop("otel.scope.version", tags.pop("otel.library.version", ""))),
        trace_state=str(tags.pop("w3c.tracestate", "")),
    )


def _references(span: Mapping[str, Any], trace_id: bytes) -> tuple[bytes | None, list[ForeignLink]]:
    """The parent is the first CHILD_OF of the same trace, else the first FOLLOWS_FROM; all others are links."""
    found: list[tuple[str, bytes, bytes]] = []
    references = span.get("references")
    for one in references if isinstance(references, list) else ():
        if isinstance(one, Mapping):
            try:
                found.append(
                    (
                        _reference_type(one.get("refType")),
                        id_of(_get(one, "traceID", "traceId"), 16, "trace id"),
                        id_of(_get(one, "spanID", "spanId"), 8, "span id"),
                    )
                )
            except CodecError:
                continue
    own = [one for one in found if one[1] == trace_id]
    chosen = next((one for one in own if one[0] == "CHILD_OF"), own[0] if own else None)
    parent = None if chosen is None else chosen[2]
    if chosen is None and span.get("parentSpanID") not in (None, "", "0"):
        parent = id_of(span["parentSpanID"], 8, "parent span id")
    links = [
        ForeignLink(trace_id=one[1], span_id=one[2], attributes={"opentracing.ref_type": one[0].lower()})
        for one in found
        if one is not chosen
    ]
    return parent, links


def _event(log: Mapping[str, Any]) -> ForeignEvent:
    fields = _tags(log.get("fields"))
    name = fields.pop("event", None) or fields.pop("message", None) or "log"
    return ForeignEvent(name=str(name), time_ns=microseconds_of(log.get("timestamp")) or 0, attributes=fields)


def _tags(tags: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in tags if isinstance(tags, list) else ():
        if isinstance(tag, Mapping) and isinstance(tag.get("key"), str):
            kind = next((key for key in _TYPED if key in tag), None)
            if kind is not None:
                found[tag["key"]] = _value(_TYPED[kind], tag[kind])
            elif "vType" in tag or "v_type" in tag:  # a value that its type has by default is left out
                kind = str(tag.get("vType", tag.get("v_type"))).lower()
                found[tag["key"]] = {"bool": False, "int64": 0, "float64": 0.0}.get(kind, "")
            else:
                found[tag["key"]] = _value(tag.get("type"), tag.get("value", ""))
    return found


def _all_tags(source: Mapping[str, Any]) -> dict[str, Any]:
    """The tags, and those that Elasticsearch stores as fields, with `@` for each dot."""
    fields = source.get("tag")
    found = {str(key).replace("@", "."): value for key, value in fields.items()} if isinstance(fields, Mapping) else {}
    return {**found, **_tags(source.get("tags"))}


def _reference_type(value: Any) -> str:
    """The default of `api_v2`, which is left out, is a child."""
    return "CHILD_OF" if value is None else _REFERENCES.get(str(value), str(value))


def _get(source: Mapping[str, Any], *keys: str) -> Any:
    return next((source[key] for key in keys if source.get(key) is not None), None)


def _value(kind: Any, value: Any) -> Any:
    """Older versions write numbers and booleans as text beside their type."""
    if isinstance(value, str) and kind in ("int64", "float64", "bool"):
        converted: Any = (
            as_int(value) if kind == "int64" else as_float(value) if kind == "float64" else value.lower() == "true"
        )
        return value if converted is None else converted
    if isinstance(value, str) and kind == "binary":
        try:
            return base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error):
            return value
    return value
