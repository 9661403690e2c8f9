"""Spans of kept traces as OTLP in protobuf: the reverse of `otel.otlp.protobuf`.

Attributes have the names of OpenTelemetry's GenAI conventions v0.1.0, or those of OpenInference. A value that is a map, or a list
with maps in it, becomes JSON text, as the conventions allow, because many backends cannot store it otherwise.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from prela_stream import _version
from prela_stream.model import semconv
from prela_stream.model.decision import Decision, format_threshold
from prela_stream.model.ids import RANDOMNESS_BITS
from prela_stream.model.plain import plain
from prela_stream.model.span import OPERATION_NAMES, REMOTE_PARENT, Resource, SpanData, SpanStatus, SpanType
from prela_stream.otel.items import SCOPE_NAME, SCOPE_VERSION, SPAN_KIND, STATUS_CODE
from prela_stream.otel.openinference import to_openinference
from prela_stream.otel.values import json_text

Form = Literal["genai", "openinference"]

WEIGHT: Final = "prela.weight"
"""The number of traces that this one represents."""
POLICY: Final = "prela.policy"
REASON: Final = "prela.reason"
LATE: Final = "prela.late"
"""The span arrived after the decision on its trace."""
STATUS: Final = "prela.status"
"""`PENDING` or `CANCELLED`, which OTLP does not have."""
REVISION: Final = "prela.revision"
"""Of a span that is reported several times. The highest one counts; absent for 0."""

_KINDS: Final = {"server": 2, "client": 3, "producer": 4, "consumer": 5}
_INTERNAL: Final = 1
_CLIENT: Final = 3
_SAMPLED: Final = 0x1
_HAS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_NOT_SENT: Final = frozenset({SPAN_KIND, STATUS_CODE, SCOPE_NAME, SCOPE_VERSION})
_SCOPE: Final = "prela_stream"
_MAX_INT: Final = (1 << 63) - 1


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What is written on every span of a kept trace."""

    attributes: dict[str, Any]
    threshold: int | None
    """Rejection threshold for `ot=th`; None if the trace has no probability that can be used as a weight."""


Marked = tuple[SpanData, Marks]


def marks_of(decision: Decision, *, late: bool, sample_rate: str = "") -> Marks:
    """The marks of a decision.

    Args:
        decision: Why the trace was kept.
        late: Whether the spans arrived after the decision.
        sample_rate: The name of a further attribute with the weight as an integer; empty for none.
    """
    attributes: dict[str, Any] = {WEIGHT: decision.weight, POLICY: decision.policy, REASON: decision.reason}
    if late:
        attributes[LATE] = True
    if sample_rate:
        attributes[sample_rate] = max(1, round(decision.weight))
    return Marks(attributes=attributes, threshold=decision.threshold if decision.weight else None)


def encode_request(spans: Iterable[Marked], form: Form = "genai") -> bytes:
    """An `ExportTraceServiceRequest` with these spans, by resource and scope. It is a `TracesData` as well."""
    request = ExportTraceServiceRequest()
    groups: dict[int, Any] = {}
    scopes: dict[tuple[int, str, str], Any] = {}
    for span, marks in spans:
        at = id(span.resource)
        if (group := groups.get(at)) is None:
            group = groups[at] = request.resource_spans.add()
            group.resource.attributes.extend(_pairs(resource_attributes(span.resource)))
        name, version = span.attributes.get(SCOPE_NAME, _SCOPE), span.attributes.get(SCOPE_VERSION, "")
        if (scope := scopes.get((at, str(name), str(version)))) is None:
            scope = scopes[at, str(name), str(version)] = group.scope_spans.add()
            scope.scope.name, scope.scope.version = str(name), str(version) or _version.__version__
        _fill(scope.spans.add(), span, marks, form)
    return request.SerializeToString()


def resource_attributes(resource: Resource) -> dict[str, Any]:
    """The attributes of a resource, with OpenTelemetry's names."""
    known: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(resource, attributes={}))
    return {**resource.attributes, **known}


def _fill(target: trace_pb2.Span, span: SpanData, marks: Marks, form: Form) -> None:
    target.trace_id = bytes.fromhex(span.trace_id)
    target.span_id = bytes.fromhex(span.span_id)
    target.flags = _SAMPLED
    if span.parent_span_id is not None:
        target.parent_span_id = bytes.fromhex(span.parent_span_id)
        target.flags |= _HAS_REMOTE | (_IS_REMOTE if span.flags & REMOTE_PARENT else 0)
    target.name = _text(span.name)
    target.kind = _kind(span)
    target.trace_state = trace_state(marks.threshold, span.randomness)
    target.start_time_unix_nano = span.start_ns
    target.end_time_unix_nano = span.start_ns if span.end_ns is None else span.end_ns
    attributes = span_attributes(span, marks, form)
    target.attributes.extend(_pairs(attributes))
    if span.status is SpanStatus.ERROR:
        target.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        target.status.message = _text(span.status_message or attributes.get(semconv.ERROR_MESSAGE) or "")
    elif span.attributes.get(STATUS_CODE) == "OK":
        target.status.code = trace_pb2.Status.STATUS_CODE_OK
    for event in span.events:
        made = target.events.add(name=_text(event.name), time_unix_nano=event.time_ns)
        made.attributes.extend(_pairs(event.attributes))
    for link in span.links:
        added = target.links.add(trace_id=link.trace_id, span_id=link.span_id)
        added.attributes.extend(_pairs(link.attributes))


def span_attributes(span: SpanData, marks: Marks, form: Form) -> dict[str, Any]:
    """All attributes of a span, with the names of `form`."""
    found = semconv.to_genai({key: value for key, value in span.attributes.items() if key not in _NOT_SENT})
    if (operation := OPERATION_NAMES.get(span.span_type)) is not None:
        found.setdefault(semconv.OPERATION_NAME, operation)
    if span.status in (SpanStatus.PENDING, SpanStatus.CANCELLED):
        found[STATUS] = span.status.value
    if span.revision:
        found[REVISION] = span.revision
    if form == "openinference":
        found = to_openinference(span.span_type, found)
    return found | marks.attributes


def trace_state(threshold: int | None, randomness: int | None) -> str:
    """`ot=th:…;rv:…`, with what is known; empty if nothing is."""
    parts = [] if threshold is None else [f"th:{format_threshold(threshold)}"]
    if randomness is not None:
        parts.append(f"rv:{randomness:0{RANDOMNESS_BITS // 4}x}")
    return f"ot={';'.join(parts)}" if parts else ""


def _kind(span: SpanData) -> Any:
    default = _CLIENT if span.span_type in (SpanType.LLM, SpanType.EMBEDDING) else _INTERNAL
    return _KINDS.get(str(span.attributes.get(SPAN_KIND)), default)


def _pairs(attributes: Mapping[Any, Any]) -> list[KeyValue]:
    return [
        KeyValue(key=_text(key if isinstance(key, str) else str(plain(key))), value=_value(value))
        for key, value in attributes.items()
    ]


def _value(value: Any) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=_text(value))
        case bool():
            return AnyValue(bool_value=value)
        case int() if -_MAX_INT - 1 <= value <= _MAX_INT:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case None:
            return AnyValue()
        case list() | tuple() if all(isinstance(one, str | int | float | bytes) for one in value):
            made = AnyValue()
            made.array_value.values.extend(map(_value, value))
            return made
    return AnyValue(string_value=json_text(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
