"""Real exporters of OpenTelemetry send to `prela-stream otlp`; a worker and a sink store every span with equal attributes."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, StatusCode

from prela_stream import telemetry
from prela_stream.app import create_topics, open_reader
from prela_stream.config import load_settings
from prela_stream.errors import PrelaError
from prela_stream.model.span import SpanData, SpanStatus
from tests.support.metrics import Scrape, described, fetch, free_address
from tests.support.processes import DEADLINE
from tests.support.running_pipeline import environment, services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TRACES = 5
ATTRIBUTES: dict[str, Any] = {
    "text": "grüß",
    "number": -12,
    "large": 2**62,
    "ratio": 0.25,
    "flag": False,
    "texts": ["a", "b"],
    "numbers": [1, 2],
    "http.route": "/v1/items",
}


class Recorder(SpanExporter):
    """Passes spans on and keeps them, to compare with what is stored."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Any) -> SpanExportResult:
        result = self._inner.export(spans)
        assert result is SpanExportResult.SUCCESS
        self.spans += spans
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


def record(exporter: SpanExporter) -> list[ReadableSpan]:
    """Some traces of an agent, exported one span at a time; what the SDK recorded."""
    recorder = Recorder(exporter)
    provider = TracerProvider(resource=Resource.create({"service.name": "shop", "deployment": "test"}))
    provider.add_span_processor(SimpleSpanProcessor(recorder))
    tracer = provider.get_tracer("lib", "1.2")
    for number in range(TRACES):
        with tracer.start_as_current_span(
            "invoke_agent shop", attributes={"gen_ai.operation.name": "invoke_agent"}
        ) as root:
            link = Link(root.get_span_context(), {"why": "test"})
            with tracer.start_as_current_span(
                "call", kind=SpanKind.CLIENT, attributes=ATTRIBUTES, links=[link]
            ) as span:
                span.add_event("retry", {"attempt": number})
            with contextlib.suppress(ValueError), tracer.start_as_current_span("tool") as failed:
                failed.set_attribute("gen_ai.operation.name", "execute_tool")
                raise ValueError("no such city")
    provider.shutdown()
    return recorder.spans


def variables(folder: Path) -> dict[str, str]:
    """The environment of services that keep every trace, with free addresses."""
    return {
        **environment(folder, folder / "prela"),
        "PRELA_OTLP_LISTEN": free_address(),
        "PRELA_OTLP_GRPC_LISTEN": free_address(),
        "PRELA_ASSEMBLY_OTLP_ROOT_WAIT_MS": "100",
        "PYTHONWARNINGS": "error",
    }


async def spans_in_store(env: dict[str, str], wanted: set[str]) -> dict[str, SpanData]:
    """The spans of the store by their id, once all of `wanted` are there."""
    found: dict[str, SpanData] = {}
    with anyio.fail_after(DEADLINE):
        while not wanted <= set(found):
            with contextlib.suppress(PrelaError):  # it is not created yet
                async with open_reader(load_settings(env=env)) as reader:
                    for row in await reader.tail(0, limit=1_000):
                        trace = await reader.get(row.trace_id)
                        assert trace is not None
                        assert len({span.span_id for span in trace.spans}) == len(trace.spans)
                        found |= {span.span_id: span for span in trace.spans}
            await anyio.sleep(0.05)
    return found


def assert_equal(recorded: ReadableSpan, stored: SpanData) -> None:
    context, parent = recorded.get_span_context(), recorded.parent
    assert context is not None
    assert stored.trace_id == f"{context.trace_id:032x}"
    assert stored.parent_span_id == (None if parent is None else f"{parent.span_id:016x}")
    assert stored.name == recorded.name
    assert (stored.start_ns, stored.end_ns) == (recorded.start_time, recorded.end_time)
    failed = recorded.status.status_code is StatusCode.ERROR
    assert stored.status is (SpanStatus.ERROR if failed else SpanStatus.SUCCESS)
    kept = {
        key: list(value) if isinstance(value, tuple) else value for key, value in (recorded.attributes or {}).items()
    }
    assert kept.items() <= stored.attributes.items()
    added = {
        "otel.scope.name",
        "otel.scope.version",
        "otel.span.kind",
        "error.type",
        "error.message",
        "error.stacktrace",
    }
    assert set(stored.attributes) - set(kept) <= added | {"gen_ai.tool.name"}
    assert [(event.name, event.time_ns) for event in stored.events] == [
        (event.name, event.timestamp) for event in recorded.events
    ]
    assert [dict(event.attributes) for event in stored.events] == [
        dict(event.attributes or {}) for event in recorded.events
    ]
    assert [(link.span_id, dict(link.attributes)) for link in stored.links] == [
        (link.context.span_id.to_bytes(8, "big"), dict(link.attributes or {})) for link in recorded.links
    ]
    assert stored.resource.service_name == "shop"
    assert stored.resource.attributes["deployment"] == "test"


async def exchanged(env: dict[str, str]) -> None:
    """Send with both exporters, and compare each span with what is stored."""
    exporters: list[Callable[[], SpanExporter]] = [
        lambda: HttpExporter(f"http://{env['PRELA_OTLP_LISTEN']}/v1/traces"),
        lambda: HttpExporter(f"http://{env['PRELA_OTLP_LISTEN']}/v1/traces", compression=Compression.Gzip),
        lambda: GrpcExporter(env["PRELA_OTLP_GRPC_LISTEN"], insecure=True),
    ]
    recorded: dict[str, ReadableSpan] = {}
    for make in exporters:
        for span in await anyio.to_thread.run_sync(lambda make=make: record(make())):  # type: ignore[misc]
            context = span.get_span_context()
            assert context is not None
            recorded[f"{context.span_id:016x}"] = span
    assert len(recorded) == len(exporters) * TRACES * 3
    stored = await spans_in_store(env, set(recorded))
    assert set(stored) == set(recorded)
    for span_id, span in recorded.items():
        assert_equal(span, stored[span_id])


async def test_real_exporters_to_the_store(tmp_path: Path) -> None:
    env = variables(tmp_path)
    async with services(tmp_path, env, "otlp", "worker", "sink") as running:
        await exchanged(env)
    assert all("Traceback" not in service.output() for service in running)


@pytest.mark.kafka
async def test_real_exporters_to_the_store_on_kafka(kafka: str, kafka_prefix: str, tmp_path: Path) -> None:
    env = {
        **variables(tmp_path),
        "PRELA_KAFKA_BOOTSTRAP": kafka,
        "PRELA_TOPICS_PREFIX": kafka_prefix,
        "PRELA_TOPICS_PARTITIONS": "3",
    }
    await create_topics(load_settings(env=env))
    async with services(tmp_path, env, "otlp", "worker", "sink"):
        await exchanged(env)


async def test_dev_receives_too_and_exposes_the_metrics(tmp_path: Path) -> None:
    env = {**variables(tmp_path), "PRELA_HTTP_LISTEN": free_address()}
    async with services(tmp_path, env, "dev"):
        with anyio.fail_after(DEADLINE):
            while (await anyio.to_thread.run_sync(fetch, env["PRELA_HTTP_LISTEN"], "/readyz"))[0] != 200:
                await anyio.sleep(0.02)
        await exchanged(env)
        _, text = await anyio.to_thread.run_sync(fetch, env["PRELA_HTTP_LISTEN"])
    scrape = Scrape.of(text)
    assert {metric.name for metric in telemetry.declared("otlp")} <= described(text)
    assert scrape.value("prela_otlp_spans_total", entry="http") == 2 * TRACES * 3
    assert scrape.value("prela_otlp_spans_total", entry="grpc") == TRACES * 3
    assert scrape.value("prela_otlp_requests_total", entry="http", status="200") == 2 * TRACES * 3
    assert scrape.value("prela_otlp_queue_bytes") == 0
