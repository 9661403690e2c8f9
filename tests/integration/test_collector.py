"""A real Collector at both ends: what it receives from the sinks, and what it writes to a topic that we read.

`make test-collector` runs this. It builds the Collector of deploy/collector, which needs Go and some minutes.
"""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from deploy.collector.__main__ import build
from prela_stream.app import create_topics, open_transport
from prela_stream.config import load_settings
from prela_stream.transport.base import TopicSpec
from tests.integration.test_otlp_from_topic import everything_read
from tests.integration.test_otlp_service import record, variables
from tests.support.kafka_log import KafkaLog
from tests.support.metrics import free_address
from tests.support.otlp import spans_of
from tests.support.processes import DEADLINE, Service
from tests.support.running_pipeline import services

pytestmark = [pytest.mark.collector, pytest.mark.kafka, pytest.mark.timeout(1_200)]

KILLS = int(os.environ.get("PRELA_TEST_KILLS", "20"))
PARTITIONS = 3
SPANS_A_ROUND = 400

CONFIGURATION = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "{otlp}"}}}}}}
  kafka:
    brokers: ["{kafka}"]
    group_id: {topic_in}-collector
    initial_offset: earliest
    traces: {{topics: ["{topic_in}"], encoding: otlp_proto}}
exporters:
  file/http: {{path: "{folder}/http.jsonl"}}
  file/topic: {{path: "{folder}/topic.jsonl"}}
  kafka:
    brokers: ["{kafka}"]
    traces: {{topic: "{topic_out}", encoding: otlp_proto}}
    producer: {{required_acks: -1}}
service:
  pipelines:
    traces/http: {{receivers: [otlp], exporters: [{http_exporter}]}}
    traces/topic: {{receivers: [kafka], exporters: [file/topic]}}
  telemetry: {{metrics: {{level: none}}}}
"""


@pytest.fixture(scope="module")
def collector_binary() -> Path:
    return build()


@asynccontextmanager
async def collector(
    binary: Path, folder: Path, *, kafka: str, topic_in: str, topic_out: str, http_exporter: str
) -> AsyncIterator[str]:
    """A running Collector; the address of its OTLP receiver."""
    otlp = free_address()
    configuration = folder / "collector.yaml"
    configuration.write_text(
        CONFIGURATION.format(
            otlp=otlp, kafka=kafka, topic_in=topic_in, topic_out=topic_out, folder=folder, http_exporter=http_exporter
        )
    )
    log = folder / "collector.log"
    with log.open("wb") as output:
        process = await anyio.to_thread.run_sync(
            lambda: subprocess.Popen([binary, "--config", configuration], stdout=output, stderr=output)
        )
    try:
        with anyio.fail_after(DEADLINE):
            while "Everything is ready" not in log.read_text():
                assert process.poll() is None, log.read_text()
                await anyio.sleep(0.02)
        yield otlp
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def spans_in(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each span of a file of the fileexporter, with its attributes as Python values."""
    for line in path.read_text().split("\n")[:-1] if path.exists() else ():  # the last one may not be whole yet
        for group in json.loads(line)["resourceSpans"]:
            for scope in group["scopeSpans"]:
                for span in scope["spans"]:
                    yield span, {one["key"]: plain(one["value"]) for one in span.get("attributes", [])}


def plain(value: dict[str, Any]) -> Any:
    """An attribute value of OTLP JSON as a Python value."""
    ((kind, content),) = value.items()
    match kind:
        case "intValue":
            return int(content)
        case "arrayValue":
            return tuple(plain(one) for one in content.get("values", []))
    return content


def assert_equal(recorded: ReadableSpan, span: dict[str, Any], attributes: dict[str, Any]) -> None:
    context, parent = recorded.get_span_context(), recorded.parent
    assert context is not None
    assert span["traceId"] == f"{context.trace_id:032x}"
    assert span.get("parentSpanId", "") == ("" if parent is None else f"{parent.span_id:016x}")
    assert span["name"] == recorded.name
    assert (int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])) == (recorded.start_time, recorded.end_time)
    assert span["kind"] == recorded.kind.value + 1
    assert span.get("status", {}).get("code", 0) == recorded.status.status_code.value
    given = dict(recorded.attributes or {})
    assert {key: attributes[key] for key in given} == given
    assert attributes["prela.weight"] == 1
    assert span["traceState"] == "ot=th:0"
    events = [(event.name, event.timestamp) for event in recorded.events]
    assert [(event["name"], int(event["timeUnixNano"])) for event in span.get("events", [])] == events
    links = [f"{link.context.span_id:016x}" for link in recorded.links]
    assert [link["spanId"] for link in span.get("links", [])] == links


async def test_every_kept_span_arrives_in_a_collector(
    kafka: str, kafka_prefix: str, tmp_path: Path, collector_binary: Path
) -> None:
    """opentelemetry-sdk → otlp → Kafka → worker → the sinks otlp and kafka-otlp → a Collector, which writes files."""
    topic = f"{kafka_prefix}-otlp_spans"
    env = {
        **variables(tmp_path),
        "PRELA_KAFKA_BOOTSTRAP": kafka,
        "PRELA_TOPICS_PREFIX": kafka_prefix,
        "PRELA_TOPICS_PARTITIONS": "3",
    }
    await create_topics(load_settings(env=env))
    async with open_transport(load_settings(env=env)) as transport:
        await transport.create_topics([TopicSpec(name=topic, partitions=PARTITIONS)])
    async with collector(
        collector_binary, tmp_path, kafka=kafka, topic_in=topic, topic_out=f"{topic}-out", http_exporter="file/http"
    ) as address:
        env["PRELA_SINK"] = json.dumps(
            [
                {"type": "otlp", "endpoint": f"http://{address}/v1/traces"},
                {"type": "kafka-otlp", "topic": topic},
            ]
        )
        async with services(tmp_path, env, "otlp", "worker", "sink"):
            exporter = OTLPSpanExporter(f"http://{env['PRELA_OTLP_LISTEN']}/v1/traces")
            recorded = {}
            for one in await anyio.to_thread.run_sync(record, exporter):
                context = one.get_span_context()
                assert context is not None
                recorded[f"{context.span_id:016x}"] = one
            for name in ("http.jsonl", "topic.jsonl"):
                with anyio.fail_after(DEADLINE):
                    while {span["spanId"] for span, _ in spans_in(tmp_path / name)} != recorded.keys():
                        await anyio.sleep(0.1)
    for name in ("http.jsonl", "topic.jsonl"):
        found = list(spans_in(tmp_path / name))
        assert len(found) == len(recorded), "a span was written twice"
        for span, attributes in found:
            assert_equal(recorded[span["spanId"]], span, attributes)


async def test_the_topic_of_a_collector_is_read_once_over_many_crashes(
    kafka: str, kafka_prefix: str, tmp_path: Path, collector_binary: Path
) -> None:
    """opentelemetry-sdk → a Collector → kafkaexporter → `otlp --from-topic`, killed again and again."""
    topic = f"{kafka_prefix}-otlp_spans"
    env = {
        "PRELA_KAFKA_BOOTSTRAP": kafka,
        "PRELA_TOPICS_PREFIX": kafka_prefix,
        "PRELA_TOPICS_PARTITIONS": str(PARTITIONS),
        "PRELA_KAFKA_SESSION_TIMEOUT_MS": "6000",
        "PRELA_OTLP_LISTEN": "",
    }
    settings = load_settings(env=env)
    await create_topics(settings)
    command = ("otlp", "--from-topic", topic)
    sent: set[str] = set()
    async with open_transport(settings) as transport, KafkaLog(kafka) as log:
        specs = [TopicSpec(name=name, partitions=PARTITIONS) for name in (topic, f"{topic}-in")]
        await transport.create_topics(specs)
        async with collector(
            collector_binary, tmp_path, kafka=kafka, topic_in=f"{topic}-in", topic_out=topic, http_exporter="kafka"
        ) as address:
            for number in range(KILLS):
                service = Service(*command, log=tmp_path / f"{number}.log", env=env)
                try:
                    await service.wait_for_output("otlp is ready")
                    before = len(await log.records(settings.topics.spans, PARTITIONS))
                    sent |= await anyio.to_thread.run_sync(send, address)
                    with anyio.fail_after(DEADLINE):
                        while len(await log.records(settings.topics.spans, PARTITIONS)) <= before:
                            await anyio.sleep(0.01)
                finally:
                    service.kill()
        service = Service(*command, log=tmp_path / "last.log", env=env)
        try:
            await everything_read(transport, f"{kafka_prefix}.otlp", topic)
        finally:
            service.kill()
        values = [record.value or b"" for record in await log.records(settings.topics.spans, PARTITIONS)]
        letters = await log.records(settings.topics.dlq, 1)
    found = Counter(span.span_id for value in values for span in spans_of(value))
    assert set(found) == sent
    assert set(found.values()) == {1}
    assert letters == []
    assert len(sent) == KILLS * SPANS_A_ROUND


def send(address: str) -> set[str]:
    """Spans that a Collector has acknowledged; their ids."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"http://{address}/v1/traces"), max_export_batch_size=50)
    )
    tracer = provider.get_tracer("lib")
    ids: set[str] = set()
    for _ in range(SPANS_A_ROUND // 4):
        with tracer.start_as_current_span("agent") as root:
            spans = [root, *(tracer.start_span("step") for _ in range(3))]
            for span in spans[1:]:
                span.end()
        ids.update(f"{span.get_span_context().span_id:016x}" for span in spans)
    provider.shutdown()
    return ids
