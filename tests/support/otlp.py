"""A receiver of OTLP in the test process, requests to it, and readers of what it appended."""

import gzip
import http.client
import json
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from prela_stream import telemetry
from prela_stream.app.health import Health
from prela_stream.app.otlp import receive
from prela_stream.codec.spans import decode_batch, decode_resource, decode_span
from prela_stream.config import Settings, load_settings
from prela_stream.model.span import SpanData
from prela_stream.transport.base import Transport
from tests.support.metrics import free_address
from tests.support.processes import DEADLINE
from tests.support.workers import local_log, values

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver that accepts requests."""

    address: str
    transport: Transport
    settings: Settings

    async def post(self, body: bytes, kind: str = PROTOBUF, *, path: str = "/v1/traces", **headers: str) -> Answer:
        """Send a request; underscores in the names of headers become hyphens."""
        named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await anyio.to_thread.run_sync(send, self.address, "POST", path, named, body, abandon_on_cancel=True)

    def waiting_bytes(self) -> int:
        """What requests keep in memory."""
        return int(telemetry.metrics().value("prela_otlp_queue_bytes"))

    async def spans(self) -> list[SpanData]:
        """Every span of the log."""
        return await stored_spans(self.transport, self.settings.topics.spans)


def send(address: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


async def stored_spans(transport: Transport, topic: str) -> list[SpanData]:
    """Every span of a topic in the format of `spans`."""
    return [span for value in await values(transport, topic) for span in spans_of(value)]


def spans_of(value: bytes) -> list[SpanData]:
    """The spans of a record of `spans`, all of which can be read."""
    batch = decode_batch(value)
    assert batch.bad == []
    resource = decode_resource(batch.resource)
    return [decode_span(raw, resource) for raw in batch.raws]


def settings_for(folder: Path, **otlp: Any) -> Settings:
    """Settings with a receiver at a free address, without gRPC unless it is given."""
    chosen = {"listen": free_address(), "grpc_listen": "off", "answer_timeout_ms": int(DEADLINE * 1000), **otlp}
    return load_settings(env={}, overrides={"directory": str(folder), "topics": {"partitions": 2}, "otlp": chosen})


@asynccontextmanager
async def receiving(folder: Path, transport: Transport | None = None, **otlp: Any) -> AsyncIterator[Running]:
    """A receiver on a local log in `folder`, or on `transport`."""
    settings = settings_for(folder, **otlp)
    async with local_log(folder, settings.topics) as log, anyio.create_task_group() as tasks:
        ready = anyio.Event()
        health = Health(("otlp",), ("otlp",))
        tasks.start_soon(receive, settings, transport or log, health, ready.set)
        with anyio.fail_after(DEADLINE):
            await ready.wait()
            while health.problems(1.0):
                await anyio.sleep(0.005)
        yield Running(address=settings.otlp.listen, transport=log, settings=settings)
        tasks.cancel_scope.cancel()


def request(*spans: Mapping[str, Any], service: str = "shop") -> ExportTraceServiceRequest:
    """A request with these spans; each mapping sets fields of `Span`, and `attributes` as a plain map."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    _set(group.resource.attributes, {"service.name": service})
    scope = group.scope_spans.add()
    scope.scope.name = "lib"
    for number, fields in enumerate(spans):
        span = scope.spans.add(
            trace_id=bytes(15) + b"\1",
            span_id=(number + 1).to_bytes(8, "big"),
            name="call",
            start_time_unix_nano=1_700_000_000_000_000_000,
            end_time_unix_nano=1_700_000_001_000_000_000,
        )
        for name, value in fields.items():
            if name == "attributes":
                _set(span.attributes, value)
            else:
                setattr(span, name, value)
    return made


def _set(attributes: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        _value(attributes.add(key=key).value, value)


def _value(target: Any, value: Any) -> None:
    match value:
        case bool():
            target.bool_value = value
        case int():
            target.int_value = value
        case float():
            target.double_value = value
        case bytes():
            target.bytes_value = value
        case str():
            target.string_value = value
        case list():
            target.array_value.SetInParent()
            for one in value:
                _value(target.array_value.values.add(), one)
        case dict():
            target.kvlist_value.SetInParent()
            for key, one in value.items():
                _value(target.kvlist_value.values.add(key=key).value, one)


def json_request(*spans: Mapping[str, Any]) -> bytes:
    """A request in JSON; each mapping adds to a valid span."""
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
                    "scopeSpans": [
                        {
                            "spans": [
                                {
                                    "traceId": "00" * 15 + "01",
                                    "spanId": f"{number + 1:016x}",
                                    "name": "call",
                                    "startTimeUnixNano": "1700000000000000000",
                                    "endTimeUnixNano": "1700000001000000000",
                                    **fields,
                                }
                                for number, fields in enumerate(spans)
                            ]
                        }
                    ],
                }
            ]
        }
    ).encode()


def bomb(megabytes: int) -> bytes:
    """Gzip data that expands to so many MiB of zeros: one MiB is compressed once, and its code is repeated."""
    zeros = bytes(1 << 20)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    code = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)  # what follows does not refer to what was before
    check = 0
    for _ in range(megabytes):
        check = zlib.crc32(zeros, check)
    header = gzip.compress(b"")[:10]
    return header + code * megabytes + deflate.flush() + struct.pack("<LL", check, megabytes << 20)
