"""What a poll returns and holds of compressed data: its limit counts uncompressed bytes."""

from collections.abc import AsyncIterator

import anyio
import pytest

from prela_stream.transport.base import Record, TopicPartition, TopicSpec
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.kafka.consumer import _AT_ONCE, KafkaConsumer
from prela_stream.transport.options import POLL_BYTES, KafkaOptions
from tests.contracts.transport_harness import DEADLINE, assigned

pytestmark = pytest.mark.kafka
SIZE = 100_000
COUNT = 200


@pytest.fixture
async def transport(kafka: str) -> AsyncIterator[KafkaTransport]:
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,), connect_timeout_ms=60_000)) as opened:
        yield opened


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
