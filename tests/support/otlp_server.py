"""A destination for OTLP/HTTP: a real HTTP server that decodes each request with OpenTelemetry's own messages."""

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Answer = tuple[int, dict[str, str], bytes]


class OtlpServer:
    """What was received, and what is answered."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        """Requests that were answered with a status below 300."""
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[ExportTraceServiceRequest], Answer] = lambda _: (200, {}, b"")
        self.endpoint = ""

    def spans(self) -> Iterator[tuple[dict[str, Any], str, Span]]:
        """Resource attributes, scope and span of every accepted span, repeats included."""
        return spans_of(self.requests)


def spans_of(requests: Iterable[ExportTraceServiceRequest]) -> Iterator[tuple[dict[str, Any], str, Span]]:
    """Resource attributes, scope and span of every span."""
    for request in requests:
        for group in request.resource_spans:
            resource = {one.key: plain_value(one.value) for one in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    yield resource, scope.scope.name, span


def attributes_of(span: Span) -> dict[str, Any]:
    """The attributes of a span as Python values."""
    return {one.key: plain_value(one.value) for one in span.attributes}


def plain_value(value: AnyValue) -> Any:
    """An attribute value as a Python value."""
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [plain_value(one) for one in value.array_value.values]
        case "kvlist_value":
            return {one.key: plain_value(one.value) for one in value.kvlist_value.values}
        case kind:
            return getattr(value, kind)


@contextmanager
def otlp_server() -> Iterator[OtlpServer]:
    """A server on a free port of 127.0.0.1, for the length of the block."""
    state = OtlpServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            status, headers, content = state.answer(request)
            state.headers.append({key.lower(): value for key, value in self.headers.items()})
            if status < 300:
                state.requests.append(request)
            self.send_response(status)
            for key, value in {"content-type": "application/x-protobuf", **headers}.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
