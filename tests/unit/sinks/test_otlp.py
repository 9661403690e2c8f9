"""The OTLP sink against a real HTTP server: what is sent, and what each answer leads to."""

import logging
from collections.abc import Iterator
from typing import Any, Self

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from prela_stream import telemetry
from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.otel.otlp.schema import RpcStatus
from prela_stream.sinks.otlp import OtlpOptions, OtlpSink
from prela_stream.sinks.settings import read_sinks
from tests.support.kept import batch, decision, fragment, span, whole
from tests.support.otlp_server import OtlpServer, attributes_of, otlp_server


@pytest.fixture
def server() -> Iterator[OtlpServer]:
    with otlp_server() as found:
        yield found


class Sink:
    """A sink whose clock and environment belong to the test."""

    def __init__(self, server: OtlpServer, **options: Any) -> None:
        self.now_s = 100.0
        self.environment = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20secret, x-scope-orgid=team"}
        options = {"endpoint": server.endpoint, **options}
        self.sink = OtlpSink(OtlpOptions(**options), environment=self.environment.get, clock=lambda: self.now_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sink.aclose()


def ids(server: OtlpServer) -> list[str]:
    return [found.span_id.hex() for _, _, found in server.spans()]


async def test_headers_come_from_the_environment(server: OtlpServer) -> None:
    async with Sink(server) as one:
        await one.sink.write(batch(whole(1)))
    (sent,) = server.headers
    assert (sent["authorization"], sent["x-scope-orgid"]) == ("Bearer secret", "team")
    assert (sent["content-encoding"], sent["content-type"]) == ("gzip", "application/x-protobuf")


async def test_wrong_headers_are_named_and_not_shown(server: OtlpServer) -> None:
    async with Sink(server) as one:
        one.environment["OTEL_EXPORTER_OTLP_HEADERS"] = "Bearer secret"
        with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS is no list of headers") as raised:
            await one.sink.write(batch(whole(1)))
    assert "secret" not in str(raised.value)


async def test_weight_threshold_and_late_spans(server: OtlpServer) -> None:
    """A Collector reads `ot=th`: 1 - 0x8 / 0x10 is the probability of 0.5 of the decision."""
    late = fragment(decision(1), [span(1, 5)], late=True, fragment=9)
    async with Sink(server, sample_rate_attribute="SampleRate") as one:
        await one.sink.write(batch(fragment(decision(1), [span(1, 0, randomness=(1 << 56) - 1)]), late))
    first, second = (found for _, _, found in server.spans())
    assert first.trace_state == "ot=th:8;rv:ffffffffffffff"
    assert second.trace_state == "ot=th:8"
    assert attributes_of(first)["prela.weight"] == 2.0
    assert attributes_of(first)["SampleRate"] == 2
    assert attributes_of(first)["prela.reason"] == "duration over 10 s"
    assert ("prela.late" in attributes_of(first), attributes_of(second)["prela.late"]) == (False, True)


async def test_a_trace_that_was_decided_twice_has_no_threshold(server: OtlpServer) -> None:
    async with Sink(server) as one:
        await one.sink.write(batch(fragment(decision(1, weight=0.0, repeated=True), [span(1)])))
    ((_, _, found),) = server.spans()
    assert (found.trace_state, attributes_of(found)["prela.weight"]) == ("", 0.0)


async def test_requests_have_whole_traces_and_a_large_trace_is_divided(server: OtlpServer) -> None:
    large = [span(3, index, attributes={"text": "x" * 4_000}) for index in range(10)]
    async with Sink(server, request_bytes=10_000) as one:
        await one.sink.write(batch(whole(1), whole(2), fragment(decision(3), large), whole(4)))
    found = [
        {
            one.trace_id.hex()[:4]
            for group in request.resource_spans
            for scope in group.scope_spans
            for one in scope.spans
        }
        for request in server.requests
    ]
    assert found[0] == {"0001", "0002"}
    assert found[1:-1] == [{"0003"}] * 5
    assert found[-1] == {"0004"}
    assert len(ids(server)) == 16


async def test_a_pause_that_the_destination_asks_for_is_kept(server: OtlpServer) -> None:
    server.answer = lambda _: (429, {"retry-after": "7"}, b"")
    made = batch(whole(1))
    async with Sink(server) as one:
        with pytest.raises(SinkError, match="HTTP 429"):
            await one.sink.write(made)
        server.answer = lambda _: (200, {}, b"")
        one.now_s += 6.9
        with pytest.raises(SinkError, match="asked for a pause"):
            await one.sink.write(made)
        assert len(server.headers) == 1
        one.now_s += 0.2
        await one.sink.write(made)
    assert len(ids(server)) == 2


async def test_what_was_accepted_of_a_batch_is_not_sent_again(server: OtlpServer) -> None:
    def second_fails(request: ExportTraceServiceRequest) -> tuple[int, dict[str, str], bytes]:
        return (503, {}, b"") if len(server.requests) == 1 else (200, {}, b"")

    server.answer = second_fails
    made = batch(
        *(fragment(decision(number), [span(number, attributes={"text": "x" * 8_000})]) for number in (1, 2, 3))
    )
    async with Sink(server, request_bytes=10_000) as one:
        with pytest.raises(SinkError):
            await one.sink.write(made)
        server.answer = lambda _: (200, {}, b"")
        await one.sink.write(made)
    assert [found.trace_id.hex()[:4] for _, _, found in server.spans()] == ["0001", "0002", "0003"]


async def test_one_span_that_is_refused_costs_this_span_only(
    server: OtlpServer, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses_a_tool(request: ExportTraceServiceRequest) -> tuple[int, dict[str, str], bytes]:
        names = [one.name for group in request.resource_spans for scope in group.scope_spans for one in scope.spans]
        message = RpcStatus(code=3, message="no span may be named tool 3").SerializeToString()
        return (400, {}, message) if "tool 3" in names else (200, {}, b"")

    server.answer = refuses_a_tool
    with caplog.at_level(logging.WARNING):
        async with Sink(server) as one:
            await one.sink.write(batch(fragment(decision(1), [span(1, index) for index in range(7)])))
    assert sorted(ids(server)) == sorted(span(1, index).span_id for index in (0, 1, 2, 4, 5, 6))
    assert telemetry.SINK_REJECTED_SPANS.value(server.endpoint) == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert "HTTP 400" in line
    assert "no span may be named tool 3" in line


async def test_a_partial_success_is_counted(server: OtlpServer) -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 2
    response.partial_success.error_message = "too old"
    server.answer = lambda _: (200, {}, response.SerializeToString())
    async with Sink(server) as one:
        await one.sink.write(batch(whole(1)))
    assert telemetry.SINK_REJECTED_SPANS.value(server.endpoint) == 2


@pytest.mark.parametrize("status", [301, 401, 403, 404])
async def test_a_wrong_address_or_token_is_waited_for(server: OtlpServer, status: int) -> None:
    """Nothing is wrong with the spans, so none is given up. New headers are read with the next attempt."""
    server.answer = lambda _: (status, {}, b"")
    made = batch(whole(1))
    async with Sink(server) as one:
        with pytest.raises(SinkError, match=f"HTTP {status}. Check endpoint and the headers in OTEL_EXPORTER"):
            await one.sink.write(made)
        one.environment["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=new"
        server.answer = lambda _: (200, {}, b"")
        await one.sink.write(made)
    assert server.headers[-1]["authorization"] == "new"
    assert len(ids(server)) == 2


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ({"endpoint": "ftp://x/v1/traces"}, "expected a URL such as http://127.0.0.1:4318/v1/traces, got"),
        ({"endpoint": "http://x:99999/"}, "expected a URL such as"),
        ({"endpoint": "http://user:secret@x/v1/traces"}, "the URL has credentials"),
        ({"headers_variable": "a b"}, "expected the name of an environment variable"),
        ({"convention": "other"}, "expected"),
        ({"timeout_s": 0}, "expected"),
    ],
)
def test_wrong_settings(table: dict[str, Any], mistake: str) -> None:
    found = read_sinks([{"type": "otlp", **table}], ".prela")
    ((path, problem),) = found.mistakes
    assert path == f"sink[0].{next(iter(table))}"
    assert mistake in problem
    assert "secret" not in problem
