"""Two groups of workers read one prefix. In `decisions` an open transaction of one hides later commits of the other."""

import logging

import anyio
import pytest
from aiokafka import AIOKafkaProducer

from prela_stream.transport.base import TopicPartition
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.options import KafkaOptions, TopicOptions
from prela_stream.transport.topics import topic_specs
from prela_stream.worker import restore
from tests.support.workers import (
    DEADLINE,
    WHOLE_ONLY,
    checkpoint,
    decided,
    make_worker,
    running,
    send_items,
    whole_trace,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def test_a_takeover_reads_the_decisions_behind_an_open_transaction_of_another_group(
    kafka: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restore, "_REPORT_S", 0.1)
    caplog.set_level(logging.WARNING, "prela_stream.worker")
    topics = TopicOptions(prefix=kafka_prefix, partitions=1)
    spans = TopicPartition(topics.spans, 0)
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,))) as transport:
        await transport.create_topics(topic_specs(topics))

        async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{kafka_prefix}-other") as other:
            await other.begin_transaction()
            await other.send_and_wait(topics.decisions, b"of another group", partition=0)
            async with running(make_worker(transport, topics=topics, assembly=WHOLE_ONLY)):
                await send_items(transport, whole_trace(1)[:1], spans)  # open, so that a takeover replays what follows
                await send_items(transport, whole_trace(2), spans)
                with anyio.fail_after(DEADLINE):
                    while (await checkpoint(transport, 2, spans)).counters.kept < 3:
                        await anyio.sleep(0.01)
            caplog.clear()
            async with anyio.create_task_group() as tasks:
                ready = anyio.Event()
                tasks.start_soon(make_worker(transport, topics=topics, assembly=WHOLE_ONLY).run, ready.set)
                with anyio.fail_after(DEADLINE):
                    while not any(topics.decisions in record.getMessage() for record in caplog.records):
                        await anyio.sleep(0.01)
                    assert not ready.is_set()
                    await other.abort_transaction()
                    await ready.wait()
                await send_items(transport, whole_trace(3), spans)
                found = await decided(transport, 2, topics)
                tasks.cancel_scope.cancel()
    assert [one.trace_id[-1] for one in found] == [2, 3], "a trace was decided twice"
