"""OTLP/HTTP on a real socket and a real log: what is answered, and what is stored."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from prela_stream import telemetry
from prela_stream.errors import ConfigurationError
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.otel.otlp.schema import RpcStatus
from tests.support.otlp import JSON, PROTOBUF, bomb, json_request, receiving, request, send

TRACE = bytes(15) + b"\1"
CALL = {
    "name": "chat gpt",
    "kind": 3,
    "parent_span_id": bytes(7) + b"\x09",
    "trace_state": "vendor=1,ot=th:c;rv:0123456789abcd",
    "attributes": {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.prompt_tokens": 7,
        "ratio": 0.5,
        "flag": True,
        "raw": b"\x00\xff",
        "list": ["a", 1, [2]],
        "map": {"k": {"inner": -3}},
        "negative": -5,
        "long": "x" * 500,
        "text": "grüß",
    },
}
STORED = {
    "gen_ai.operation.name": "chat",
    "gen_ai.usage.input_tokens": 7,
    "ratio": 0.5,
    "flag": True,
    "raw": b"\x00\xff",
    "list": ["a", 1, [2]],
    "map": {"k": {"inner": -3}},
    "negative": -5,
    "long": "x" * 500,
    "text": "grüß",
    "otel.span.kind": "client",
    "otel.scope.name": "lib",
}


async def test_a_request_is_answered_once_its_spans_are_in_the_log(tmp_path: Path) -> None:
    before = telemetry.metrics().value("prela_otlp_spans_total", entry="http")
    async with receiving(tmp_path) as running:
        answer = await running.post(request(CALL).SerializeToString())
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"", PROTOBUF)
        (span,) = await running.spans()
    assert span.trace_id == TRACE.hex()
    assert span.parent_span_id == "0000000000000009"
    assert (span.name, span.span_type, span.status) == ("chat gpt", SpanType.LLM, SpanStatus.SUCCESS)
    assert (span.start_ns, span.duration_ns) == (1_700_000_000_000_000_000, 10**9)
    assert (span.threshold, span.randomness) == (0xC0000000000000, 0x0123456789ABCD)
    assert span.attributes == STORED
    assert span.resource.service_name == "shop"
    assert telemetry.metrics().value("prela_otlp_spans_total", entry="http") == before + 1


async def test_both_encodings_and_codings_store_the_same(tmp_path: Path) -> None:
    attributes = {"a": 1, "b": "two", "c": [1, 2]}
    listed = [
        {"key": "a", "value": {"intValue": "1"}},
        {"key": "b", "value": {"stringValue": "two"}},
        {"key": "c", "value": {"arrayValue": {"values": [{"intValue": 1}, {"intValue": "2"}]}}},
    ]
    protobuf = request({"attributes": attributes}).SerializeToString()
    as_map, as_list = json_request({"attributes": attributes}), json_request({"attributes": listed})
    async with receiving(tmp_path) as running:
        for body, kind in ((protobuf, PROTOBUF), (as_map, JSON), (as_list, f"{JSON}; charset=utf-8")):
            plain = await running.post(body, kind)
            squeezed = await running.post(gzip.compress(body), kind.upper(), content_encoding="gzip")
            assert (plain.status, squeezed.status) == (200, 200)
            assert plain.body == squeezed.body == (b"" if kind == PROTOBUF else b"{}")
        spans = await running.spans()
    assert len(spans) == 6
    for span in spans:
        assert attributes.items() <= span.attributes.items()
        assert span.resource.service_name == "shop"


@pytest.mark.parametrize(
    "ids",
    [
        ("5B8EFFF798038103D269B633813FC60C", "EEE19B7EC3C1B174"),
        ("5b8efff798038103d269b633813fc60c", "0xeee19b7ec3c1b174"),
        (
            base64.b64encode(bytes.fromhex("5b8efff798038103d269b633813fc60c")).decode(),
            base64.b64encode(bytes.fromhex("eee19b7ec3c1b174")).decode(),
        ),
        (int("5b8efff798038103d269b633813fc60c", 16), int("eee19b7ec3c1b174", 16)),
    ],
    ids=["upper case", "lower case", "base64", "numbers"],
)
async def test_ids_of_every_form(ids: tuple[Any, Any], tmp_path: Path) -> None:
    async with receiving(tmp_path) as running:
        answer = await running.post(json_request({"traceId": ids[0], "spanId": ids[1]}), JSON)
        assert answer.status == 200
        (span,) = await running.spans()
    assert (span.trace_id, span.span_id) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174")


async def test_bad_spans_cost_no_good_one_and_are_counted(tmp_path: Path) -> None:
    before = telemetry.metrics().value("prela_otlp_rejected_spans_total", entry="http")
    mixed = request({"name": "good"}, {"trace_id": b"short"}, {"span_id": bytes(8)}, {"name": "also good"})
    async with receiving(tmp_path) as running:
        answer = await running.post(mixed.SerializeToString())
        assert answer.status == 200
        partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
        assert partial.rejected_spans == 2
        assert "2 of 4 spans were rejected" in partial.error_message
        assert "trace id" in partial.error_message
        answer = await running.post(json_request({}, {"traceId": "zz"}), JSON)
        assert json.loads(answer.body)["partialSuccess"]["rejectedSpans"] == "1"
        assert sorted(span.name for span in await running.spans()) == ["also good", "call", "good"]
    assert telemetry.metrics().value("prela_otlp_rejected_spans_total", entry="http") == before + 3


def logs() -> bytes:
    made = ExportLogsServiceRequest()
    record = made.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1, trace_id=TRACE)
    record.body.string_value = "hello"
    return made.SerializeToString()


def measured() -> bytes:
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="requests_of_the_shop")
    metric.sum.data_points.add(as_int=3)
    return made.SerializeToString()


DEEP = b'{"resourceSpans":' + b"[" * 100_000
REFUSED: dict[str, tuple[bytes, str, dict[str, str], int, str]] = {
    "no protobuf": (b"garbage", PROTOBUF, {}, 400, "ExportTraceServiceRequest"),
    "no JSON": (b"{", JSON, {}, 400, "JSON"),
    "another document": (b'{"a": 1}', JSON, {}, 400, "resourceSpans"),
    "deep JSON": (DEEP, JSON, {}, 400, "JSON"),
    "text that is not UTF-8": (b'{"resourceSpans": "\xff"}', JSON, {}, 400, "JSON"),
    "only bad ids": (request({"trace_id": b"x"}).SerializeToString(), PROTOBUF, {}, 400, "1 of 1 spans were rejected"),
    "logs": (logs(), PROTOBUF, {}, 400, "OTLP logs"),
    "metrics": (measured(), PROTOBUF, {}, 400, "OTLP metrics"),
    "logs in JSON": (b'{"resourceLogs": []}', JSON, {}, 400, "OTLP logs"),
    "another type": (b"", "text/plain", {}, 415, "Content-Type"),
    "no type": (b"", "", {}, 415, "Content-Type"),
    "another coding": (b"", PROTOBUF, {"content_encoding": "br"}, 415, "Content-Encoding"),
    "no gzip": (b"plain", PROTOBUF, {"content_encoding": "gzip"}, 400, "gzip"),
    "half a gzip": (gzip.compress(b"x" * 99)[:-9], PROTOBUF, {"content_encoding": "gzip"}, 400, "gzip"),
    "a gzip bomb": (bomb(300), PROTOBUF, {"content_encoding": "gzip"}, 413, "20,971,520 bytes"),
    "a page of another site": (b"{}", JSON, {"host": "evil.example"}, 421, "otlp.hosts"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_has_a_sentence_and_the_next_request_is_served(
    case: tuple[bytes, str, dict[str, str], int, str], tmp_path: Path
) -> None:
    body, kind, headers, status, words = case
    async with receiving(tmp_path) as running:
        answer = await running.post(body, kind, **headers)
        assert answer.status == status
        if kind == PROTOBUF:
            assert answer.headers["content-type"] == PROTOBUF
            message = RpcStatus.FromString(answer.body).message
        else:
            message = json.loads(answer.body)["message"]
        assert words in message
        assert (await running.post(b"")).status == 200
        assert await running.spans() == []


async def test_other_paths_and_methods(tmp_path: Path) -> None:
    async with receiving(tmp_path) as running:
        for path in ("/v1/logs", "/v1/metrics", "/", "/v1/traces/x"):
            answer = await running.post(b"", path=path)
            assert answer.status == 404
            assert "/v1/traces" in RpcStatus.FromString(answer.body).message
        answer = await anyio.to_thread.run_sync(send, running.address, "GET", "/v1/traces", {"content-type": JSON}, b"")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_a_large_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with receiving(tmp_path, max_body_bytes=5_000) as running:
        assert (await running.post(bytes(5_001))).status == 413
        assert (await running.post(gzip.compress(bytes(5_001)), content_encoding="gzip")).status == 413
        fitting = request({"attributes": {"a": "x" * 4_000}}).SerializeToString()
        assert (await running.post(fitting)).status == 200


async def test_a_span_with_a_huge_attribute_is_cut_and_stored(tmp_path: Path) -> None:
    async with receiving(tmp_path) as running:
        body = request({"attributes": {"prompt": "x" * 10_000_000, "small": 1}}).SerializeToString()
        assert (await running.post(body)).status == 200
        (span,) = await running.spans()
    assert span.attributes["small"] == 1
    assert span.attributes["prela.truncated"] > 10_000_000
    assert len(span.attributes["prompt"]) < 1_000_000


async def test_the_token(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n")
    async with receiving(tmp_path, token_file=str(token_file)) as running:
        for wrong in (
            {},
            {"authorization": "Bearer other"},
            {"authorization": "Basic s3cret"},
            {"authorization": "s3cret"},
        ):
            answer = await running.post(b"", **wrong)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert b"s3cret" not in answer.body
        assert (await running.post(b"", authorization="bearer s3cret")).status == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"listen": "0.0.0.0:4318"}, "no token is set"),
        ({"listen": "example"}, "expected HOST:PORT"),
        ({"grpc_listen": "0.0.0.0:4317"}, "no token is set"),
        ({"token_file": "/no/such/file"}, "otlp.token_file"),
        ({"listen": "off"}, "no address"),
    ],
)
async def test_an_address_that_cannot_be_used(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ConfigurationError, match=words), flatten_subgroups=True):
        async with receiving(tmp_path, **options):
            pass


async def test_an_address_in_use(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with receiving(tmp_path) as running:
        with pytest.RaisesGroup(pytest.RaisesExc(ConfigurationError, match="otlp.listen"), flatten_subgroups=True):
            async with receiving(tmp_path / "other", listen=running.address):
                pass


async def test_pages_of_the_allowed_origins_may_send(tmp_path: Path) -> None:
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }

    async def preflight(address: str, origin: str) -> dict[str, str]:
        headers = {**asked, "origin": origin}
        return (await anyio.to_thread.run_sync(send, address, "OPTIONS", "/v1/traces", headers, b"")).headers

    async with receiving(tmp_path, cors_origins=["https://app.example"]) as running:
        found = await preflight(running.address, "https://app.example")
        assert found["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-origin" not in await preflight(running.address, "https://other.example")
    (tmp_path / "off").mkdir()
    async with receiving(tmp_path / "off") as running:
        assert "access-control-allow-origin" not in await preflight(running.address, "https://app.example")
