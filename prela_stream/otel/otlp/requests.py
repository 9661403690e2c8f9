"""A request of OTLP in either encoding, and what is wrong with one that has no spans."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from prela_stream.errors import CodecError
from prela_stream.otel.files import otlp_json
from prela_stream.otel.otlp.limits import check_json
from prela_stream.otel.spans import ForeignSpan, Rejected

Encoding = Literal["protobuf", "json"]

_OTHER_SIGNALS: Final[Mapping[str, str]] = {
    "resourceLogs": "logs",
    "resource_logs": "logs",
    "resourceMetrics": "metrics",
    "resource_metrics": "metrics",
    "resourceProfiles": "profiles",
    "resource_profiles": "profiles",
}


def read_request(data: bytes, encoding: Encoding) -> Iterator[ForeignSpan | Rejected]:
    """The spans of a request, and each part that is no span with its place and the reason.

    Raises:
        CodecError: At once, if the bytes are no request for traces. The message names what they are instead, if that is known.
    """
    if encoding == "json":
        return _read_json(data)
    from prela_stream.otel.otlp import protobuf

    return protobuf.read(data)


def encoding_of(data: bytes) -> Encoding:
    """The encoding of a record of Kafka, whose producer does not name it. No request in protobuf begins with a bracket."""
    return "json" if data[:1] in (b"{", b"[") else "protobuf"


def _read_json(data: bytes) -> Iterator[ForeignSpan | Rejected]:
    check_json(data)
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the body is no JSON: {error}"
        raise CodecError(msg) from error
    if isinstance(document, dict) and (
        other := next((_OTHER_SIGNALS[key] for key in document if key in _OTHER_SIGNALS), "")
    ):
        raise CodecError(wrong_signal(other))
    if not (otlp_json.recognised(document) or _is_empty(document)):
        msg = "the body is no ExportTraceServiceRequest of OTLP: expected a JSON object with resourceSpans"
        raise CodecError(msg)
    return otlp_json.read(document)


def _is_empty(document: Any) -> bool:
    """Whether a request has no spans: OTLP omits empty lists."""
    if not isinstance(document, dict):
        return False
    return not document or document.get("resourceSpans", document.get("resource_spans", 0)) in ([], None)


def wrong_signal(signal: str) -> str:
    """What is wrong with a request for another signal."""
    return f"the body has OTLP {signal}, and this address takes traces only: send them to a service that takes {signal}"


def signal_of(data: bytes) -> str:
    """`logs` or `metrics` if the bytes are such a request in protobuf; empty if they are not.

    The numbers of the outer fields are the same for all signals, so logs decode as spans without ids.
    """
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    try:
        logs = ExportLogsServiceRequest.FromString(data)
        for group in logs.resource_logs:
            for scope in group.scope_logs:
                if any(one.time_unix_nano or one.observed_time_unix_nano for one in scope.log_records):
                    return "logs"
    except DecodeError:
        pass
    try:
        metrics = ExportMetricsServiceRequest.FromString(data)
        for measured in metrics.resource_metrics:
            for part in measured.scope_metrics:
                if any(one.WhichOneof("data") for one in part.metrics):
                    return "metrics"
    except DecodeError:
        pass
    return ""
