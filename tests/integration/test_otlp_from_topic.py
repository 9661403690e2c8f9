"""`prela-stream otlp --from-topic` on a real Kafka, killed again and again: no span is lost, and none is there twice.

`PRELA_TEST_KILLS=20` kills it 20 times.
"""

import os
import random
import signal
from collections import Counter
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from prela_stream.app import create_topics, open_transport
from prela_stream.config import load_settings
from prela_stream.transport.base import Producer, Record, TopicPartition, TopicSpec, Transport
from tests.support.kafka_log import KafkaLog
from tests.support.otlp import json_request, request, spans_of
from tests.support.processes import DEADLINE, STOP_S, Service

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("PRELA_TEST_KILLS", "2"))
PARTITIONS = 3
ROUNDS = 12
"""Batches of records between two kills."""


class Source:
    """Produces requests with spans that have not been sent before, as a Collector does: several spans of several traces."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._random = random.Random(9)
        self.sent: set[str] = set()
        self.bad = 0

    async def produce(self) -> None:
        """Append a batch of requests to each partition."""
        for partition in range(PARTITIONS):
            records = [Record(value=self._request(), key=b"k") for _ in range(20)]
            await self._producer.send(TopicPartition(self._topic, partition), records)

    def _request(self) -> bytes:
        kind = self._random.random()
        if kind < 0.05:
            self.bad += 1
            return b"garbage"
        ids = [(self._random.randbytes(16), self._random.randbytes(8)) for _ in range(self._random.randrange(1, 30))]
        self.sent.update(span_id.hex() for _, span_id in ids)
        if kind < 0.5:
            return json_request(*({"traceId": trace.hex(), "spanId": span.hex()} for trace, span in ids))
        return request(*({"trace_id": trace, "span_id": span} for trace, span in ids)).SerializeToString()


class Kill:
    """Kills a service once it has appended something, while its topic still grows."""

    def __init__(self, service: Service, source: Source, log: KafkaLog, topic: str) -> None:
        self._service = service
        self._source = source
        self._log = log
        self._topic = topic
        self._produced = False
        self.in_the_middle = False

    async def run(self) -> None:
        await self._service.wait_for_output("otlp is ready")
        before = len(await self._log.records(self._topic, PARTITIONS))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._produce)
            with anyio.fail_after(DEADLINE):
                while len(await self._log.records(self._topic, PARTITIONS)) <= before:
                    await anyio.sleep(0.01)
            self.in_the_middle = not self._produced
            self._service.process.send_signal(signal.SIGKILL)
            await anyio.to_thread.run_sync(self._service.process.wait)

    async def _produce(self) -> None:
        for _ in range(ROUNDS):
            await self._source.produce()
        self._produced = True


async def test_killed_again_and_again_every_span_is_there_once(kafka: str, kafka_prefix: str, tmp_path: Path) -> None:
    topic = f"{kafka_prefix}-otlp_spans"
    env = {
        "PRELA_KAFKA_BOOTSTRAP": kafka,
        "PRELA_TOPICS_PREFIX": kafka_prefix,
        "PRELA_TOPICS_PARTITIONS": str(PARTITIONS),
        "PRELA_KAFKA_SESSION_TIMEOUT_MS": "6000",
    }
    settings = load_settings(env=env)
    await create_topics(settings)
    command = ("otlp", "--from-topic", topic)
    async with open_transport(settings) as transport, KafkaLog(kafka) as log:
        await transport.create_topics([TopicSpec(name=topic, partitions=PARTITIONS)])
        async with await transport.producer() as producer:
            source = Source(producer, topic)
            in_the_middle = 0
            for number in range(KILLS):
                service = Service(*command, log=tmp_path / f"{number}.log", env=env)
                try:
                    kill = Kill(service, source, log, settings.topics.spans)
                    await kill.run()
                    in_the_middle += kill.in_the_middle
                finally:
                    service.kill()
            await source.produce()
        service = Service(*command, log=tmp_path / "last.log", env=env)
        try:
            await everything_read(transport, f"{kafka_prefix}.otlp", topic)
            assert await service.stop(STOP_S) == 0, service.output()
        finally:
            service.kill()
        values = [record.value or b"" for record in await log.records(settings.topics.spans, PARTITIONS)]
        letters = await log.records(settings.topics.dlq, 1)
    found = Counter(span.span_id for value in values for span in spans_of(value))
    assert set(found) == source.sent
    assert set(found.values()) == {1}
    assert len(letters) == source.bad > 0
    assert in_the_middle > 0


async def everything_read(transport: Transport, group: str, topic: str) -> None:
    """Wait until the group has committed the end of the source."""
    async with await transport.consumer([topic]) as consumer:
        parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        while not consumer.assignment():
            await consumer.poll(timeout=0.1)
        with anyio.fail_after(2 * DEADLINE):
            for part in parts:
                end = await consumer.end_offset(part)
                while (found := await transport.committed(group, part)) is None or found.offset < end:
                    await anyio.sleep(0.05)
