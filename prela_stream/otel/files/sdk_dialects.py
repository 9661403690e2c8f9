"""Spans of SDKs and tools with other names than Python's `to_json()`: converted to those, for `sdk_spans`.

Three dialects: Go's `stdouttrace`, JavaScript's `ConsoleSpanExporter`, and the spans of Phoenix.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.otel.values import maps_in

_GO_KINDS: Final = ("internal", "internal", "server", "client", "producer", "consumer")
_NESTED: Final = frozenset(
    {
        *("llm", "openinference", "input", "output", "tool", "tool_call", "retrieval", "reranker", "embedding"),
        *("document", "session", "user", "agent", "exception", "prompt"),
    }
)
"""First words of OpenInference's names. Phoenix nests attributes at their dots."""


def as_usual(span: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The span with the names of Python's SDK; None if it is of no dialect."""
    if isinstance(span.get("SpanContext"), Mapping):
        return _go(span)
    if "context.trace_id" in span and "context.span_id" in span:
        return _table(span)
    if isinstance(span.get("context"), Mapping) and isinstance(span.get("span_kind"), str):
        return _phoenix(span)
    if _is_console(span):
        return _console(span)
    return None


def _go(span: Mapping[str, Any]) -> Mapping[str, Any]:
    parent = _go_context(span.get("Parent"))
    kind = span.get("SpanKind")
    status = span.get("Status")
    scope = span.get("InstrumentationScope") or span.get("InstrumentationLibrary")
    return {
        "name": span.get("Name"),
        "context": _go_context(span["SpanContext"]),
        "parent": None if not str(parent.get("span_id") or "").strip("0") else parent,
        "kind": _GO_KINDS[kind] if isinstance(kind, int) and 0 <= kind < len(_GO_KINDS) else kind,
        "start_time": span.get("StartTime"),
        "end_time": span.get("EndTime"),
        "status": {"code": status.get("Code"), "description": status.get("Description")}
        if isinstance(status, Mapping)
        else None,
        "attributes": _go_attributes(span.get("Attributes")),
        "events": [
            {"name": one.get("Name"), "timestamp": one.get("Time"), "attributes": _go_attributes(one.get("Attributes"))}
            for one in maps_in(span.get("Events"))
        ],
        "links": [
            {"context": _go_context(one.get("SpanContext")), "attributes": _go_attributes(one.get("Attributes"))}
            for one in maps_in(span.get("Links"))
        ],
        "resource": {"attributes": _go_attributes(span.get("Resource"))},
        "instrumentation_scope": {"name": scope.get("Name"), "version": scope.get("Version")}
        if isinstance(scope, Mapping)
        else None,
    }


def _go_context(context: Any) -> dict[str, Any]:
    source = context if isinstance(context, Mapping) else {}
    return {"trace_id": source.get("TraceID"), "span_id": source.get("SpanID"), "is_remote": source.get("Remote")}


def _go_attributes(attributes: Any) -> dict[str, Any]:
    found = {}
    for one in maps_in(attributes):
        value = one.get("Value")
        found[str(one.get("Key"))] = value.get("Value") if isinstance(value, Mapping) and "Value" in value else value
    return found


def _is_console(span: Mapping[str, Any]) -> bool:
    """Zipkin's spans have these names too, and tags instead of attributes."""
    return all(key in span for key in ("traceId", "id", "name")) and isinstance(span.get("attributes"), Mapping)


def _console(span: Mapping[str, Any]) -> Mapping[str, Any]:
    start, duration = span.get("timestamp"), span.get("duration")
    times = {}
    if isinstance(start, int | float) and not isinstance(start, bool):
        times["start_time"] = round(start * 1000)
        if isinstance(duration, int | float) and not isinstance(duration, bool):
            times["end_time"] = round(start * 1000) + round(duration * 1000)
    parent = span.get("parentSpanContext") or span.get("parentId") or span.get("parentSpanId")
    context = {"trace_id": span["traceId"], "span_id": span["id"]}
    return {**span, **times, "context": context, "parent": parent, "parentSpanContext": None, "parentSpanId": None}


def _table(span: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of a table of Phoenix, whose columns have the names of the attributes: `attributes.llm.model_name`."""
    prefix = "attributes."
    found = {key.removeprefix(prefix): value for key, value in span.items() if key.startswith(prefix)}
    rest = {key: value for key, value in span.items() if not key.startswith((prefix, "context."))}
    context = {"trace_id": span["context.trace_id"], "span_id": span["context.span_id"]}
    given = {key: value for key, value in found.items() if value is not None}
    return _phoenix({"span_kind": "UNKNOWN", **rest, "context": context, "attributes": given})


def _phoenix(span: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = span.get("attributes")
    found = dict(_flattened(attributes)) if isinstance(attributes, Mapping) else {}
    found.setdefault("openinference.span.kind", span["span_kind"])
    status = {"code": span.get("status_code"), "description": span.get("status_message")}
    return {**span, "attributes": found, "status": status}


def _flattened(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in attributes.items():
        if key in _NESTED and isinstance(value, Mapping):
            yield from _below(key, value)
        else:
            yield key, value


def _below(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values below a name. A list of maps has the numbers of its members in the names, any other list is a value."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _below(f"{prefix}.{key}", one)
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        for index, one in enumerate(value):
            yield from _below(f"{prefix}.{index}", one)
    else:
        yield prefix, value
