"""The transport contract, third part: writers, who write records and an offset atomically and fence one another."""

import anyio
import pytest

from prela_stream.errors import FencedError, TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition, Writer
from tests.contracts.transport_harness import Log, assigned, everything, reading, send, take, values


def records(value: bytes, *partitions: TopicPartition) -> list[tuple[TopicPartition, Record]]:
    """One record with this value for each partition."""
    return [(partition, Record(value=value)) for partition in partitions]


class WriterContract:
    """Writer."""

    async def test_a_commit_shows_all_its_records_and_the_offset(self, log: Log) -> None:
        left, right, source = log.at("left"), log.at("right", 1), log.at("source")
        async with log.open() as transport:
            await transport.create_topics([log.spec("left"), log.spec("right", 2), log.spec("source")])
            writer = await transport.writer(log.name("group"), source)
            assert writer.committed is None
            batch = [*records(b"1", left, right), *records(b"2", left), *records(b"3", right, left)]
            assert await writer.commit(batch, 5, "état") is CommitOutcome.COMMITTED
            assert await writer.commit([], 6) is CommitOutcome.COMMITTED
            assert await writer.commit(records(b"4", right), 9, "end") is CommitOutcome.COMMITTED
            there = await everything(transport, left, right, log.at("right", 0))
            assert [values(part) for part in there] == [[b"1", b"2", b"3"], [b"1", b"3", b"4"], []]
            consumer = await reading(transport, log.name("source"), group=log.name("group"))
            assert await consumer.committed(source) == Committed(offset=9, metadata="end")
            assert (await transport.writer(log.name("group"), source)).committed == Committed(offset=9, metadata="end")
            assert (await transport.writer(log.name("another"), source)).committed is None

    async def test_a_new_writer_fences_the_former_which_can_write_nothing_any_more(self, log: Log) -> None:
        partition, source = log.at("out"), log.at("source")
        async with log.open() as transport, log.open() as elsewhere:
            await transport.create_topics([log.spec("out"), log.spec("source")])
            old = await transport.writer(log.name("group"), source)
            assert await old.commit(records(b"old", partition), 1) is CommitOutcome.COMMITTED
            new = await elsewhere.writer(log.name("group"), source)
            assert new.committed == Committed(offset=1)
            for _ in range(2):
                with pytest.raises(FencedError, match=source.topic):
                    await old.commit(records(b"zombie", partition), 2, "zombie")
            assert await new.commit(records(b"new", partition), 3, "new") is CommitOutcome.COMMITTED
            with pytest.raises(FencedError):
                await old.commit([], 4)
            assert [values(part) for part in await everything(transport, partition)] == [[b"old", b"new"]]
            consumer = await reading(transport, log.name("source"), group=log.name("group"))
            assert await consumer.committed(source) == Committed(offset=3, metadata="new")

    async def test_writers_of_other_partitions_and_groups_do_not_fence(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("source", 2)])
            writers: list[Writer] = []
            for group, partition in (("a", 0), ("a", 1), ("b", 0)):
                writers.append(await transport.writer(log.name(group), log.at("source", partition)))
            for offset, writer in enumerate(writers, 1):
                assert await writer.commit([], offset) is CommitOutcome.COMMITTED
            reopened = await transport.writer(log.name("a"), log.at("source", 1))
            assert reopened.committed == Committed(offset=2)

    async def test_what_cannot_be_written_leaves_nothing_behind_and_the_writer_alive(self, log: Log) -> None:
        partition = log.at("out")
        async with log.open() as transport:
            await transport.create_topics([log.spec("out", max_record_bytes=1_000), log.spec("source")])
            writer = await transport.writer(log.name("group"), log.at("source"))
            too_large = [*records(b"fits", partition), *records(b"x" * 1_001, partition)]
            with pytest.raises(TransportError, match=r"1,001.*1,000"):
                await writer.commit(too_large, 1)
            with pytest.raises(TransportError, match="4,000"):
                await writer.commit(records(b"fits", partition), 1, "x" * 4_001)
            assert [values(part) for part in await everything(transport, partition)] == [[]]
            assert await writer.commit(records(b"good", partition), 2, "x" * 4_000) is CommitOutcome.COMMITTED
            assert [values(part) for part in await everything(transport, partition)] == [[b"good"]]

    async def test_a_cancelled_commit_kills_the_writer_and_lands_whole_or_not_at_all(self, log: Log) -> None:
        left, right, source = log.at("left"), log.at("right"), log.at("source")
        async with log.open() as transport:
            await transport.create_topics([log.spec("left"), log.spec("right"), log.spec("source")])
            cancelled = 0
            for turn in range(30):
                writer = await transport.writer(log.name("group"), source)
                offset = writer.committed.offset if writer.committed else 0
                with anyio.move_on_after(turn * 0.0002) as scope:
                    await writer.commit(records(b"%d" % offset, left, right), offset + 1)
                if scope.cancelled_caught:
                    cancelled += 1
                    with pytest.raises(FencedError):
                        await writer.commit([], 1_000)
            last = (await transport.writer(log.name("group"), source)).committed
            expected = [b"%d" % number for number in range(last.offset if last else 0)]
            assert [values(part) for part in await everything(transport, left, right)] == [expected, expected]
            assert cancelled > 0

    async def test_a_closed_writer_writes_nothing(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("source")])
            async with await transport.writer(log.name("group"), log.at("source")) as writer:
                await writer.commit([], 1)
            with pytest.raises(FencedError):
                await writer.commit([], 2)
            assert (await transport.writer(log.name("group"), log.at("source"))).committed == Committed(offset=1)

    async def test_a_member_of_the_group_goes_on_where_the_writer_committed(self, log: Log) -> None:
        source = log.at("source")
        async with log.open() as transport:
            await transport.create_topics([log.spec("source")])
            await send(await transport.producer(), source, *(b"%d" % number for number in range(4)))
            [all_] = await everything(transport, source)
            writer = await transport.writer(log.name("group"), source)
            await writer.commit([], all_[2].offset)
            consumer = await transport.consumer([log.name("source")], group=log.name("group"))
            await assigned(consumer)
            assert values(await take(consumer, 2)) == [b"2", b"3"]

    async def test_a_reader_never_sees_half_a_commit(self, log: Log) -> None:
        left, right = log.at("left"), log.at("right")
        async with log.open() as transport, log.open() as elsewhere, anyio.create_task_group() as tasks:
            await transport.create_topics([log.spec("left"), log.spec("right"), log.spec("source")])
            writer = await transport.writer(log.name("group"), log.at("source"))
            consumer = await elsewhere.consumer([log.name("left"), log.name("right")])
            await assigned(consumer, 2)

            async def write() -> None:
                for number in range(100):
                    await writer.commit(records(b"%d" % number, left, right), number + 1)

            tasks.start_soon(write)
            count = {left: 0, right: 0}
            with anyio.fail_after(60):
                while min(count.values()) < 100:
                    poll = await consumer.poll(max_records=10_000)
                    for record in poll.records:
                        count[TopicPartition(record.topic, record.partition)] += 1
                    seen = count[left], await consumer.end_offset(right) - await consumer.beginning_offset(right)
                    assert seen[0] <= seen[1], "a Record was seen before its fellow of the same commit"
