"""Consumers on Kafka: markers of transactions, offsets without records, rebalances, and the bytes of a poll."""

import logging
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition as TheirPartition

from prela_stream.errors import TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Consumer, Record, TopicPartition, TopicSpec
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.kafka.consumer import _AT_ONCE, KafkaConsumer
from prela_stream.transport.options import POLL_BYTES, KafkaOptions
from tests.contracts.transport_harness import DEADLINE, assigned, everything, reading, send, take, values
from tests.unit.transport.kafka.conftest import make

pytestmark = pytest.mark.kafka
SIZE = 100_000
COUNT = 200


@pytest.mark.parametrize("small", [0, 50])
async def test_a_poll_counts_uncompressed_bytes(transport: KafkaTransport, kafka_prefix: str, small: int) -> None:
    """20 MB of zeros are a few kilobytes compressed, so one fetch brings all of them. Small records before hide their size."""
    partition = TopicPartition(f"{kafka_prefix}.topic", 0)
    await transport.create_topics([TopicSpec(name=partition.topic, partitions=1)])
    records = [Record(value=b"small")] * small + [Record(value=bytes(SIZE))] * COUNT
    await (await transport.producer()).send(partition, records)
    consumer: KafkaConsumer = await transport.consumer([partition.topic])
    await assigned(consumer)
    polls: list[int] = []
    held: list[int] = []
    offsets: list[int] = []
    with anyio.fail_after(DEADLINE):
        while len(offsets) < len(records):
            poll = await consumer.poll()
            polls.append(sum(len(record.value or b"") for record in poll.records))
            waiting = consumer._assigned[partition].waiting
            held.append(sum(len(record.value or b"") for record in waiting))
            offsets += [record.offset for record in poll.records]
    assert offsets == list(range(len(records)))
    assert max(polls) <= POLL_BYTES
    assert max(held) <= _AT_ONCE * SIZE
    assert len([size for size in polls if size]) >= SIZE * COUNT // POLL_BYTES, "the limit was never reached"


async def test_a_record_larger_than_the_limit_is_returned_alone(transport: KafkaTransport, kafka_prefix: str) -> None:
    partition = TopicPartition(f"{kafka_prefix}.topic", 0)
    await transport.create_topics([TopicSpec(name=partition.topic, partitions=1)])
    await (await transport.producer()).send(partition, [Record(value=bytes(SIZE))] * 3)
    consumer = await transport.consumer([partition.topic])
    await assigned(consumer)
    found: list[int] = []
    with anyio.fail_after(DEADLINE):
        while sum(found) < 3:
            found.append(len((await consumer.poll(max_bytes=SIZE // 2)).records))
    assert set(found) <= {0, 1}


async def test_a_reader_reaches_the_end_behind_marks_and_aborted_records(
    transport: KafkaTransport, kafka: str, partition: TopicPartition
) -> None:
    await make(transport, partition)
    writer = await transport.writer("edge", partition)
    assert await writer.commit([(partition, Record(value=b"kept"))], 1) is CommitOutcome.COMMITTED
    for number in range(3):
        async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{partition.topic}-{number}") as other:
            await other.begin_transaction()
            await (await other.send(partition.topic, b"aborted", partition=0))
            await other.abort_transaction()
    consumer = await reading(transport, partition.topic)
    with anyio.fail_after(DEADLINE):
        while (
            await consumer.end_offset(partition) < 8
        ):  # one record and three aborted ones, each with the mark of its end
            await anyio.sleep(0.02)
    [found] = await everything(transport, partition)
    assert values(found) == [b"kept"]
    assert values(await take(consumer, 1)) == [b"kept"]
    await consumer.seek(partition, 2)
    with anyio.fail_after(DEADLINE):
        while await consumer.position(partition) < 8:
            assert (await consumer.poll()).records == ()


async def test_a_poll_does_not_wait_where_only_marks_are_left(
    transport: KafkaTransport, partition: TopicPartition
) -> None:
    await make(transport, partition)
    writer = await transport.writer("edge", partition)
    await writer.commit([(partition, Record(value=b"x"))], 1)
    consumer = await reading(transport, partition.topic)
    await consumer.seek(partition, 1)  # the mark
    with anyio.fail_after(DEADLINE):
        assert (await consumer.poll(timeout=600)).records == ()
    assert await consumer.position(partition) == 2


async def test_records_larger_than_a_fetch_and_a_large_commit(kafka: str, partition: TopicPartition) -> None:
    options = KafkaOptions(bootstrap=(kafka,), partition_fetch_bytes=50_000, fetch_bytes=100_000, compression="none")
    async with KafkaTransport(options) as transport:
        await make(transport, partition, max_record_bytes=3_000_000)
        last = await send(await transport.producer(), partition, b"x" * 3_000_000)
        writer = await transport.writer("edge", partition)
        large = [bytes([number % 256]) * 30_000 for number in range(200)]
        assert await writer.commit([(partition, Record(value=value)) for value in large], 1) is CommitOutcome.COMMITTED
        consumer = await reading(transport, partition.topic)
        found = await take(consumer, 201)
    assert (len(found[0].value or b""), last) == (3_000_000, 0)
    assert values(found[1:]) == large


async def test_offsets_before_the_first_kept_record_and_beyond_the_end(
    transport: KafkaTransport, partition: TopicPartition, admin: Any
) -> None:
    await make(transport, partition)
    producer = await transport.producer()
    await send(producer, partition, *(b"%d" % number for number in range(10)))
    member = await reading(transport, partition.topic, group=partition.topic)
    await member.commit({partition: Committed(offset=2)})
    await member.aclose()
    await admin.delete_records({TheirPartition(partition.topic, 0): RecordsToDelete(before_offset=5)})
    consumer = await reading(transport, partition.topic)
    assert await consumer.beginning_offset(partition) == 5
    await consumer.seek(partition, 1)
    assert values(await take(consumer, 5)) == [b"5", b"6", b"7", b"8", b"9"]
    await consumer.seek(partition, 12)
    assert (await consumer.poll(timeout=0.5)).records == ()
    assert await consumer.position(partition) == 12
    await send(producer, partition, b"10", b"11", b"12")
    assert values(await take(consumer, 1)) == [b"12"]
    again = await reading(transport, partition.topic, group=partition.topic)
    assert values(await take(again, 8))[0] == b"5"


async def test_a_member_that_comes_is_noticed_long_before_a_session_is_over(
    kafka: str, partition: TopicPartition
) -> None:
    """Those who have partitions learn of it with the answer to a heartbeat; until then the new one waits."""
    slow = KafkaOptions(bootstrap=(kafka,), session_timeout_ms=300_000, rebalance_timeout_ms=300_000)
    async with KafkaTransport(slow) as transport:
        await transport.create_topics([TopicSpec(name=partition.topic, partitions=2)])
        first = await transport.consumer([partition.topic], group=partition.topic)
        await assigned(first, 2)
        second = await transport.consumer([partition.topic], group=partition.topic)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_poll_for_ever, first)
            with anyio.fail_after(DEADLINE):
                await assigned(second, 1)
            tasks.cancel_scope.cancel()


async def _poll_for_ever(consumer: Consumer) -> None:
    while True:
        await consumer.poll(timeout=1.0)


async def test_a_group_that_a_broker_refuses_says_why(kafka: str, partition: TopicPartition) -> None:
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,), session_timeout_ms=100)) as transport:
        await make(transport, partition)
        consumer = await transport.consumer([partition.topic], group="edge")
        with pytest.raises(TransportError, match="InvalidSessionTimeout"):
            await assigned(consumer)


async def test_closing_while_a_poll_waits_and_a_send_is_under_way(
    transport: KafkaTransport, partition: TopicPartition, caplog: pytest.LogCaptureFixture
) -> None:
    await make(transport, partition)
    caplog.set_level(logging.WARNING)
    consumer = await reading(transport, partition.topic, group=partition.topic)
    producer = await transport.producer()

    async def poll() -> None:
        while True:
            await consumer.poll(timeout=30)

    async def poll_until_closed() -> None:
        with pytest.raises(TransportError, match="closed"):
            await poll()

    async def sender() -> None:
        while True:
            await send(producer, partition, b"x")

    async def send_until_closed() -> None:
        with pytest.raises(TransportError):
            await sender()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll_until_closed)
        tasks.start_soon(send_until_closed)
        with anyio.fail_after(DEADLINE):
            while await consumer.end_offset(partition) == 0:
                await anyio.sleep(0.01)
        await producer.aclose()
        await consumer.aclose()
    assert "never retrieved" not in caplog.text


async def test_an_own_consumer_task_that_died_is_replaced_and_nothing_is_lost(
    transport: KafkaTransport, partition: TopicPartition
) -> None:
    await make(transport, partition)
    producer = await transport.producer()
    await send(producer, partition, b"a", b"b")
    alone = await reading(transport, partition.topic)
    member = await reading(transport, partition.topic, group=partition.topic)
    for consumer in (alone, member):
        assert values(await take(consumer, 2)) == [b"a", b"b"]
    await member.commit({partition: Committed(offset=2)})
    for consumer in (alone, member):
        fetcher = consumer._fetcher  # type: ignore[attr-defined]  # the contract knows of none
        fetcher._kafka._fetcher._fetch_task.cancel()
    await send(producer, partition, b"c")
    assert values(await take(alone, 1)) == [b"c"]
    revoked: set[TopicPartition] = set()
    with anyio.fail_after(DEADLINE):
        while not revoked:
            poll = await member.poll()
            revoked |= set(poll.revoked)
            member.resume(*poll.assigned)
    await assigned(member)
    assert values(await take(member, 1)) == [b"c"]
