"""Topics that are deleted and created again under consumers, producers and writers: all of them continue with the new ones."""

import logging
from typing import Any

import anyio
import pytest

from prela_stream import telemetry
from prela_stream.errors import TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Consumer, LogRecord, Record, TopicPartition, TopicSpec
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_harness import DEADLINE, reading, send, take, values

pytestmark = pytest.mark.kafka
RECOVERY_S = 15.0
"""5 s are promised; this machine may be busy."""


@pytest.fixture
async def partition(transport: KafkaTransport, kafka_prefix: str) -> TopicPartition:
    """The partition of a topic with one."""
    name = f"{kafka_prefix}.topic"
    await transport.create_topics([TopicSpec(name=name, partitions=1)])
    return TopicPartition(name, 0)


async def delete(transport: KafkaTransport, admin: Any, topic: str) -> None:
    """Delete a topic, and wait until that is done."""
    await admin.delete_topics([topic])
    with anyio.fail_after(DEADLINE):
        while topic in await transport.topics():
            await anyio.sleep(0.05)


async def create(transport: KafkaTransport, topic: str, *contents: bytes) -> None:
    """Create a topic again, with these records, through other clients."""
    async with KafkaTransport(transport._options) as other:
        await other.create_topics([TopicSpec(name=topic, partitions=1)])
        await send(await other.producer(), TopicPartition(topic, 0), *contents)


async def poll_on(consumer: Consumer) -> list[LogRecord]:
    """Poll as a service does: an error is retried, and what is assigned is resumed."""
    try:
        poll = await consumer.poll(timeout=0.2)
    except TransportError:
        await anyio.sleep(0.1)
        return []
    consumer.resume(*poll.assigned)
    return list(poll.records)


@pytest.mark.parametrize("gap", [0, 20], ids=["at once", "after a while"])
@pytest.mark.parametrize("count", [2, 9], ids=["shorter", "longer"])
@pytest.mark.parametrize("group", [None, "group"])
async def test_a_consumer_reads_the_new_topic_from_its_beginning(
    transport: KafkaTransport, admin: Any, partition: TopicPartition, group: str | None, count: int, gap: int
) -> None:
    """It had read 5 records of the former topic; the new one has fewer or more."""
    await send(await transport.producer(), partition, b"1", b"2", b"3", b"4", b"5")
    name = None if group is None else f"{partition.topic}.{group}"
    consumer = await reading(transport, partition.topic, group=name)
    await take(consumer, 5)
    if group is not None:
        await consumer.commit({partition: Committed(offset=5)})
    before = telemetry.KAFKA_TOPICS_RECREATED.value()
    await delete(transport, admin, partition.topic)
    for _ in range(gap):
        assert await poll_on(consumer) == []
    expected = [b"new %d" % number for number in range(count)]
    await create(transport, partition.topic, *expected)
    found: list[LogRecord] = []
    with anyio.fail_after(RECOVERY_S):
        while len(found) < count:
            found += await poll_on(consumer)
    assert values(found) == expected
    assert telemetry.KAFKA_TOPICS_RECREATED.value() == before + 1


async def test_a_missing_topic_is_logged_once(
    transport: KafkaTransport, admin: Any, partition: TopicPartition, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = await reading(transport, partition.topic, group=f"{partition.topic}.group")
    await delete(transport, admin, partition.topic)
    with caplog.at_level(logging.WARNING, "prela_stream"):
        for _ in range(30):
            await poll_on(consumer)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("prela_stream")]
    assert len(lines) == 1, lines
    assert f"{partition.topic} do" in lines[0]


async def test_a_producer_continues_with_the_new_topic(
    transport: KafkaTransport, admin: Any, partition: TopicPartition
) -> None:
    """Its sequence numbers are those of the former topic: the broker may refuse the first batch."""
    producer = await transport.producer()
    for _ in range(3):
        await send(producer, partition, b"old")
    await delete(transport, admin, partition.topic)
    await create(transport, partition.topic, b"first")
    with anyio.fail_after(RECOVERY_S):
        while True:
            try:
                assert await send(producer, partition, b"second") >= 1
                break
            except TransportError:
                await anyio.sleep(0.1)


async def test_a_writer_or_its_successor_commits_to_the_new_topic(
    transport: KafkaTransport, admin: Any, partition: TopicPartition, kafka_prefix: str
) -> None:
    group = f"{kafka_prefix}.workers"
    writer = await transport.writer(group, partition)
    assert await writer.commit([(partition, Record(value=b"old"))], 1) is CommitOutcome.COMMITTED
    await delete(transport, admin, partition.topic)
    await create(transport, partition.topic, b"first")
    with anyio.fail_after(RECOVERY_S):
        while True:
            try:
                outcome = await writer.commit([(partition, Record(value=b"new"))], 1)
                if outcome is CommitOutcome.COMMITTED:
                    break
                writer = await transport.writer(group, partition)
            except TransportError:
                await anyio.sleep(0.1)
                writer = await transport.writer(group, partition)
    found = await transport.committed(group, partition)
    assert found is not None
    assert found.offset == 1


async def test_a_static_member_keeps_its_partitions_over_a_restart(
    transport: KafkaTransport, kafka_prefix: str
) -> None:
    """The other member is not rebalanced when it stops, nor when it starts again."""
    topic, group = f"{kafka_prefix}.static", f"{kafka_prefix}.group"
    await transport.create_topics([TopicSpec(name=topic, partitions=4)])
    bootstrap = transport._options.bootstrap

    def options(name: str) -> KafkaOptions:
        return KafkaOptions(bootstrap=bootstrap, group_instance_id=name, session_timeout_ms=30_000)

    async with KafkaTransport(options("one")) as stays:
        first = await stays.consumer([topic], group=group)
        with anyio.fail_after(DEADLINE):
            while len(first.assignment()) < 4:
                await poll_on(first)
        async with KafkaTransport(options("two")) as stops:
            second = await stops.consumer([topic], group=group)
            with anyio.fail_after(DEADLINE):
                while (len(first.assignment()), len(second.assignment())) != (2, 2):
                    await poll_on(first)
                    await poll_on(second)
            mine, others = first.assignment(), second.assignment()
        rebalances = 0
        async with KafkaTransport(options("two")) as starts:
            again = await starts.consumer([topic], group=group)
            with anyio.fail_after(DEADLINE):
                while again.assignment() != others:
                    rebalances += bool((await first.poll(timeout=0.1)).revoked)
                    await poll_on(again)
        assert (first.assignment(), rebalances) == (mine, 0)
