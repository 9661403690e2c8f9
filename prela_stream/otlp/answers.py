"""The bodies of answers, in the encoding of their request (opentelemetry-proto 1.9.0, docs/specification.md)."""

from typing import Final

import msgspec

from prela_stream.otel.otlp.requests import Encoding
from prela_stream.otlp.receiver import Taken

CONTENT_TYPES: Final[dict[Encoding, str]] = {"protobuf": "application/x-protobuf", "json": "application/json"}
_RPC_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 415: 3, 421: 3, 429: 8, 500: 13, 503: 14}
"""The code of `google.rpc.Status` for each status of HTTP."""


def success(taken: Taken, encoding: Encoding) -> bytes:
    """An `ExportTraceServiceResponse`. It is empty if every span was accepted."""
    if encoding == "json":
        partial = {"rejectedSpans": str(taken.rejected), "errorMessage": taken.message}
        return msgspec.json.encode({"partialSuccess": partial} if taken.rejected else {})
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    response = ExportTraceServiceResponse()
    if taken.rejected:
        response.partial_success.rejected_spans = taken.rejected
        response.partial_success.error_message = taken.message
    return response.SerializeToString()


def failure(status: int, message: str, encoding: Encoding) -> bytes:
    """A `google.rpc.Status`."""
    code = _RPC_CODES.get(status, 2)
    if encoding == "json":
        return msgspec.json.encode({"code": code, "message": message})
    from prela_stream.otel.otlp.schema import RpcStatus

    encoded: bytes = RpcStatus(code=code, message=message).SerializeToString()
    return encoded
