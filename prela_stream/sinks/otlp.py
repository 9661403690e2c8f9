"""The OTLP sink: sends kept traces over OTLP/HTTP to a Collector, Tempo, Jaeger, Langfuse, Phoenix or Honeycomb."""

import gzip
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import httpx2
import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from prela_stream.addresses import is_url
from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.otel.otlp.encode import Marked, encode_request
from prela_stream.otel.otlp.schema import RpcStatus
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.otlp_spans import divided, marked, reject
from prela_stream.text import show
from prela_stream.transport.base import TopicPartition
from prela_stream.validation import bounded

_TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
_REFUSED: Final = frozenset({401, 403, 404, 405})
"""Nothing is wrong with the spans: an operator has to correct the address or the credentials, and the sink waits for that."""
_LONGEST_WAIT_S: Final = 60.0
_SHOWN: Final = 300
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class OtlpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the OTLP sink."""

    endpoint: str = "http://127.0.0.1:4318/v1/traces"
    """The whole URL, with the path of traces. Credentials belong into the headers."""
    headers_variable: str = "OTEL_EXPORTER_OTLP_HEADERS"
    """The environment variable with the headers: `name=value,name=value` with percent-encoded values. Each destination may have
    another one. Values are never shown."""
    compression: Literal["gzip", "none"] = "gzip"
    """The encoding of request bodies."""
    convention: Literal["genai", "openinference"] = "genai"
    """The names of attributes: OpenTelemetry's GenAI conventions v0.1.0, or OpenInference for Phoenix."""
    sample_rate_attribute: str = ""
    """A further attribute that gets the weight as an integer, such as `SampleRate` for Honeycomb. Empty: none."""
    request_bytes: Annotated[int, bounded(10_000, 64 << 20)] = 4 << 20
    """A request has about so many bytes of spans before compression. A trace is in one request, unless it is larger."""
    timeout_s: Annotated[float, bounded(0.1, 300)] = 10.0
    """How long one request may take."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with an option beyond its type."""
        url = urlsplit(self.endpoint) if is_url(self.endpoint) else None
        if url is None:
            yield "endpoint", f"expected a URL such as http://127.0.0.1:4318/v1/traces, got {show(self.endpoint)}"
        elif url.username is not None or url.password is not None:
            yield (
                "endpoint",
                f"the URL has credentials: write them into the variable {self.headers_variable} as a header",
            )
        if not _VARIABLE.fullmatch(self.headers_variable):
            yield "headers_variable", f"expected the name of an environment variable, got {show(self.headers_variable)}"


class OtlpSink:
    """Sends kept traces in OTLP/HTTP requests. At least once, with stable ids.

    After a crash or a lost answer the spans of the last batch may be sent again, with the same trace and span ids. A span that
    was open at the decision is sent with `prela.status` PENDING, and again when it has ended. Spans that the destination refuses
    for good are counted, logged and left out.

    Args:
        options: Where and how. Nothing is opened before the first write.
        environment: Where the headers are read.
        clock: Monotonic seconds.
    """

    wants_decisions = False

    def __init__(
        self,
        options: OtlpOptions,
        *,
        environment: Callable[[str], str | None] = os.environ.get,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._environment = environment
        self._clock = clock
        self._client: httpx2.AsyncClient | None = None
        self._not_before_s = 0.0
        self._progress: tuple[TopicPartition, int, int] | None = None
        self._requests_done = 0

    async def write(self, batch: SinkBatch) -> None:
        """Send the spans of the batch, and return when the destination has accepted or refused each of them."""
        if not batch.traces:
            return
        if (wait_s := self._not_before_s - self._clock()) > 0:
            msg = f"{self._options.endpoint} asked for a pause of {wait_s:.0f} s more"
            raise SinkError(msg)
        client = self._open()
        key = (batch.source, batch.next_offset, len(batch.traces))
        if key != self._progress:
            self._progress, self._requests_done = key, 0
        for number, spans in enumerate(
            divided(marked(batch.traces, self._options.sample_rate_attribute), self._options.request_bytes)
        ):
            if number >= self._requests_done:
                await self._send(client, spans)
                self._requests_done = number + 1
        self._progress = None

    async def stored_offset(self, source: TopicPartition) -> int | None:  # noqa: ARG002 - of the interface
        """None: offsets are those of the consumer group."""
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            headers = self._headers()
            self._client = httpx2.AsyncClient(headers=headers, timeout=self._options.timeout_s, follow_redirects=False)
        return self._client

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/x-protobuf", "user-agent": "prela-stream"}
        if self._options.compression == "gzip":
            headers["content-encoding"] = "gzip"
        name = self._options.headers_variable
        for pair in filter(None, map(str.strip, (self._environment(name) or "").split(","))):
            key, equals, value = pair.partition("=")
            if not equals or not key.strip() or any(c in "\r\n" for c in unquote(value)):
                msg = f"{name} is no list of headers: expected name=value,name=value with percent-encoded values"
                raise ConfigurationError(msg)
            headers[key.strip().lower()] = unquote(value.strip())
        return headers

    async def _send(self, client: httpx2.AsyncClient, spans: Sequence[Marked]) -> None:
        """Send the spans. If the destination refuses the request for its content, send its halves."""
        body = await anyio.to_thread.run_sync(self._body, spans)
        try:
            answer = await client.post(self._options.endpoint, content=body)
        except (httpx2.HTTPError, OSError) as error:
            msg = f"{self._options.endpoint} did not answer ({type(error).__name__}: {error}). Check that it runs"
            raise SinkError(msg) from error
        if answer.status_code < 300:
            self._accepted(answer)
        elif answer.status_code in _TRANSIENT:
            self._pause(answer)
            raise SinkError(self._refusal(answer) + ". The request is repeated")
        elif answer.status_code in _REFUSED or 300 <= answer.status_code < 400:
            await self.aclose()  # so that the next attempt reads the headers again
            msg = f"{self._refusal(answer)}. Check endpoint and the headers in {self._options.headers_variable}"
            raise SinkError(msg)
        elif len(spans) > 1:
            for half in (spans[: len(spans) // 2], spans[len(spans) // 2 :]):
                await self._send(client, half)
        else:
            reject(self._options.endpoint, 1, f"{self._refusal(answer)}. The span {spans[0][0].span_id} is left out")

    def _body(self, spans: Sequence[Marked]) -> bytes:
        data = encode_request(spans, self._options.convention)
        return gzip.compress(data, 5, mtime=0) if self._options.compression == "gzip" else data

    def _accepted(self, answer: httpx2.Response) -> None:
        try:
            partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
        except DecodeError:  # some destinations answer with JSON or text whatever the request was
            return
        if partial.rejected_spans > 0:
            what = show(partial.error_message[:_SHOWN])
            reject(
                self._options.endpoint,
                partial.rejected_spans,
                f"{self._options.endpoint} rejected spans of a request: {what}",
            )

    def _pause(self, answer: httpx2.Response) -> None:
        wait_s = _retry_after_s(answer.headers.get("retry-after", ""))
        self._not_before_s = self._clock() + min(wait_s, _LONGEST_WAIT_S)

    def _refusal(self, answer: httpx2.Response) -> str:
        text = answer.text if "text" in answer.headers.get("content-type", "") or answer.content[:1] == b"{" else ""
        if not text:
            try:
                text = str(RpcStatus.FromString(answer.content).message)
            except DecodeError:
                text = ""
        reason = f": {show(text[:_SHOWN])}" if text.strip() else ""
        return f"{self._options.endpoint} answered with HTTP {answer.status_code}{reason}"


def _retry_after_s(text: str) -> float:
    """The seconds of a `Retry-After` header, which is a number or a date; 0 if it is neither."""
    if text.strip().isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, moment.timestamp() - time.time())
