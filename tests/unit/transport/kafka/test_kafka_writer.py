"""Producers and writers on Kafka: limits of batches, open transactions, fences."""

import anyio
import pytest
from aiokafka.structs import TopicPartition as TheirPartition

from prela_stream.errors import FencedError, OutcomeUnknownError, TooLargeError
from prela_stream.transport.base import CommitOutcome, Record, TopicPartition
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.kafka.client.sender import Sender
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_harness import DEADLINE, everything, reading, send, take, values
from tests.unit.transport.kafka.conftest import make

pytestmark = pytest.mark.kafka


async def test_a_batch_beyond_the_topics_limit_is_refused_whole_and_the_producer_lives_on(
    kafka: str, partition: TopicPartition
) -> None:
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,), compression="none")) as transport:
        await make(transport, partition, max_record_bytes=10_000)
        producer = await transport.producer()
        await send(producer, partition, b"first")
        with pytest.raises(
            TooLargeError, match=r"50,000 bytes.*more than the topic accepts.*nothing was written"
        ) as caught:
            await send(producer, partition, *([b"x" * 10_000] * 5))
        assert not isinstance(caught.value, OutcomeUnknownError)
        await send(producer, partition, b"second")
        assert [values(part) for part in await everything(transport, partition)] == [[b"first", b"second"]]


async def test_records_that_shrink_go_in_one_batch_whatever_their_sum(
    transport: KafkaTransport, partition: TopicPartition
) -> None:
    await make(transport, partition, max_record_bytes=10_000)
    await send(await transport.producer(), partition, *([b"x" * 10_000] * 50))
    [found] = await everything(transport, partition)
    assert [len(record.value or b"") for record in found] == [10_000] * 50


async def test_a_header_that_does_not_fit_aborts_the_commit(
    transport: KafkaTransport, partition: TopicPartition, caplog: pytest.LogCaptureFixture
) -> None:
    await make(transport, partition, max_record_bytes=1_000)
    writer = await transport.writer("edge", partition)
    noise = bytes(index * index % 251 ^ index >> 8 & 255 for index in range(60_000))
    both = [(partition, Record(value=b"fits")), (partition, Record(value=b"fits", headers=(("large", noise),)))]
    assert await writer.commit(both, 1) is CommitOutcome.ABORTED
    assert "MessageSizeTooLarge" in caplog.text
    with pytest.raises(FencedError, match="ended aborted"):
        await writer.commit([], 1)
    again = await transport.writer("edge", partition)
    assert again.committed is None
    assert await everything(transport, partition) == [[]]


async def test_an_open_transaction_of_a_dead_process_ends_when_its_writer_is_opened(
    transport: KafkaTransport, kafka: str, partition: TopicPartition
) -> None:
    await make(transport, partition)
    dead = Sender(KafkaOptions(bootstrap=(kafka,)), f"edge-{partition.topic}-0")
    await dead.start("a test")
    await dead.kafka.begin_transaction()
    await (await dead.append(partition, [Record(value=b"open")]))
    await dead.kafka.send_offsets_to_transaction({TheirPartition(partition.topic, 0): (1, "")}, "edge")
    await dead.aclose()  # without ending the transaction
    await send(await transport.producer(), partition, b"behind it")
    consumer = await reading(transport, partition.topic)
    assert (await consumer.poll(timeout=0.5)).records == ()
    assert await consumer.end_offset(partition) == 0
    assert await transport.committed("edge", partition) is None
    assert (await transport.writer("edge", partition)).committed is None
    assert values(await take(consumer, 1)) == [b"behind it"]


async def test_a_cancelled_commit_leaves_no_transaction_open(
    transport: KafkaTransport, partition: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prela_stream.transport.kafka.writer._ABORT_S", DEADLINE)  # also with a broker that stalls
    await make(transport, partition)
    cancelled = turn = 0
    while turn < 12 or cancelled < 4:
        writer = await transport.writer("edge", partition)
        with anyio.move_on_after(turn % 12 * 0.001) as scope:
            await writer.commit([(partition, Record(value=b"x"))], turn)
        cancelled += scope.cancelled_caught
        last = await send(await transport.producer(), partition, b"after")
        consumer = await transport.consumer([partition.topic])
        with anyio.fail_after(30):  # an open transaction would hold the end back for a minute
            while await consumer.end_offset(partition) <= last:
                await anyio.sleep(0.01)
        await consumer.aclose()
        turn += 1


@pytest.mark.timeout(300)  # its openings take turns, which a busy machine makes long
async def test_two_writers_that_fence_each_other_in_turn_never_write_twice(
    transport: KafkaTransport, partition: TopicPartition
) -> None:
    await make(transport, partition)
    written: list[bytes] = []

    async def worker(name: bytes) -> None:
        while len(written) < 40:
            writer = await transport.writer("edge", partition)
            offset = writer.committed.offset if writer.committed else 0
            for number in range(offset, offset + 7):
                value = b"%s:%d" % (name, number)
                try:
                    outcome = await writer.commit([(partition, Record(value=value))] * 3, number + 1)
                except FencedError:
                    break
                if outcome is not CommitOutcome.COMMITTED:
                    break
                written.append(value)
            await writer.aclose()

    async with anyio.create_task_group() as tasks:
        for name in (b"a", b"b", b"c"):
            tasks.start_soon(worker, name)
    await transport.writer("edge", partition)  # what was committed last can be seen now
    [found] = await everything(transport, partition)
    seen = values(found)
    assert set(written) <= set(seen)
    assert [int((value or b"").partition(b":")[2]) for value in seen[::3]] == list(range(len(seen) // 3))
    assert seen[::3] == seen[1::3] == seen[2::3]
    assert len({(value or b"")[:1] for value in seen}) > 1, "one of them did all the work: none was fenced"
