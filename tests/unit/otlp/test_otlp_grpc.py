"""OTLP/gRPC on a real socket and a real log: what is answered, and what is stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from prela_stream import telemetry
from prela_stream.errors import ConfigurationError, TransportError
from tests.support.metrics import free_address
from tests.support.otlp import Running, receiving, request, settings_for
from tests.support.unreachable import Unreachable
from tests.support.workers import local_log

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Client:
    """Sends bytes as a request."""

    def __init__(self, running: Running, channel: Any) -> None:
        self.running = running
        self._export = channel.unary_unary(EXPORT)

    async def __call__(self, body: bytes, token: str = "", **more: Any) -> bytes:
        metadata = (("authorization", token),) if token else ()
        answer: bytes = await self._export(body, metadata=metadata, wait_for_ready=True, **more)
        return answer

    async def refused(self, body: bytes, **more: Any) -> tuple[str, str]:
        """Code and message of a request that is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self(body, **more)
        return caught.value.code().name, caught.value.details() or ""


@asynccontextmanager
async def client(folder: Path, transport: Any = None, **otlp: Any) -> AsyncIterator[Client]:
    address = free_address()
    async with receiving(folder, transport, grpc_listen=address, **otlp) as running:
        options = (("grpc.max_send_message_length", -1),)
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            yield Client(running, channel)


async def test_a_request_is_answered_once_its_spans_are_in_the_log(tmp_path: Path) -> None:
    before = telemetry.metrics().value("prela_otlp_spans_total", entry="grpc")
    async with client(tmp_path) as send:
        assert await send(request({"name": "one"}).SerializeToString()) == b""
        assert await send(request({"name": "two"}).SerializeToString(), compression=grpc.Compression.Gzip) == b""
        mixed = request({"name": "three"}, {"trace_id": b"x"}).SerializeToString()
        partial = ExportTraceServiceResponse.FromString(await send(mixed)).partial_success
        assert partial.rejected_spans == 1
        assert "trace id" in partial.error_message
        assert sorted(span.name for span in await send.running.spans()) == ["one", "three", "two"]
    assert telemetry.metrics().value("prela_otlp_spans_total", entry="grpc") == before + 3


async def test_what_is_refused_has_a_sentence_and_the_next_request_is_served(tmp_path: Path) -> None:
    async with client(tmp_path, max_body_bytes=100_000) as send:
        code, message = await send.refused(b"garbage")
        assert code == "INVALID_ARGUMENT"
        assert "ExportTraceServiceRequest" in message
        code, message = await send.refused(request({"span_id": bytes(8)}).SerializeToString())
        assert code == "INVALID_ARGUMENT"
        assert "1 of 1 spans were rejected" in message
        large = request({"attributes": {"a": "x" * 100_000}}).SerializeToString()
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):  # the second is a bomb
            code, message = await send.refused(large, compression=compression)
            assert code == "RESOURCE_EXHAUSTED"
            assert "100000" in message
        assert await send(b"") == b""
        assert await send.running.spans() == []


async def test_the_token(tmp_path: Path) -> None:
    async with client(tmp_path, token="s3cret") as send:
        assert (await send.refused(b""))[0] == "UNAUTHENTICATED"
        assert (await send.refused(b"", token="Bearer other"))[0] == "UNAUTHENTICATED"
        assert await send(b"", token="Bearer s3cret") == b""


async def test_a_log_that_fails_asks_to_send_again(tmp_path: Path) -> None:
    body = request({}).SerializeToString()
    async with local_log(tmp_path, settings_for(tmp_path).topics) as log:
        failing = Unreachable(log)
        failing.failure = TransportError("the disk is full")
        async with client(tmp_path, failing) as send:
            code, message = await send.refused(body)
            assert code == "UNAVAILABLE"
            assert "the disk is full" in message
            failing.failure = None
            failing.open.set()
            assert await send(body) == b""


async def test_an_address_in_use(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with receiving(tmp_path, grpc_listen=free_address()) as running:
        taken = running.settings.otlp.grpc_listen
        with pytest.RaisesGroup(pytest.RaisesExc(ConfigurationError, match="otlp.grpc_listen"), flatten_subgroups=True):
            async with receiving(tmp_path / "other", grpc_listen=taken):
                pass
