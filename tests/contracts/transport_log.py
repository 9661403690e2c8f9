"""The transport contract, first part: topics, appending, reading, offsets and time."""

import asyncio
import threading

import anyio
import pytest

from prela_stream.errors import FencedError, TooLargeError, TransportError, UnknownTopicError
from prela_stream.transport.base import Committed, Poll, Record, TopicPartition
from tests.contracts.transport_harness import DEADLINE, Log, assigned, everything, reading, send, take, values


class LogContract:
    """Topics, Producer and a Consumer without a group."""

    async def test_topics_are_made_once_as_specified_and_never_by_asking(self, log: Log) -> None:
        specs = [
            log.spec("plain", 3, retention_ms=3_600_000, max_record_bytes=5_000),
            log.spec("keyed", cleanup="compact"),
        ]
        async with log.open() as transport:
            with pytest.raises(UnknownTopicError):
                await transport.consumer([log.name("plain")])
            assert log.name("plain") not in await transport.topics()
            assert sorted(await transport.create_topics(specs)) == [log.name("keyed"), log.name("plain")]
            assert await transport.create_topics([log.spec("plain", 9), specs[1]]) == []
            there = await transport.topics()
            assert await transport.topics([log.name("none"), log.name("keyed")]) == {log.name("keyed"): specs[1]}
            assert await transport.topics([]) == {}
            assert log.name("none") not in await transport.topics()
        assert [there[spec.name] for spec in specs] == specs

    async def test_an_unknown_topic_or_partition_is_an_error_everywhere(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("known", 2)])
            producer = await transport.producer()
            consumer = await transport.consumer([log.name("known")])
            writer = await transport.writer(log.name("group"), log.at("known"))
            for partition in (log.at("unknown"), log.at("known", 2)):
                with pytest.raises(UnknownTopicError, match=partition.topic):
                    await send(producer, partition, b"x")
                with pytest.raises(UnknownTopicError):
                    await transport.writer(log.name("group"), partition)
                with pytest.raises(UnknownTopicError):
                    await writer.commit([(log.at("known"), Record(value=b"x")), (partition, Record(value=b"x"))], 1)
                for question in (consumer.beginning_offset, consumer.end_offset):
                    with pytest.raises(UnknownTopicError):
                        await question(partition)
                with pytest.raises(UnknownTopicError):
                    await consumer.offset_at(partition, 0)
            with pytest.raises(UnknownTopicError, match="unknown"):
                await transport.consumer([log.name("known"), log.name("unknown")])
            assert set(await transport.topics()) >= {log.name("known")}
            assert log.name("unknown") not in await transport.topics()
            assert await everything(transport, log.at("known")) == [[]]

    async def test_records_come_back_whole_and_in_order(self, log: Log) -> None:
        headers = (("prela-format", b"spans/1"), ("again", b""), ("again", b"\x00\xff"))
        full = Record(value=bytes(range(256)), key=b"\x00key", headers=headers)
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain", 2)])
            producer = await transport.producer()
            first = await producer.send(log.at("plain"), [full, Record(value=None), Record(value=b"")])
            last = await send(producer, log.at("plain"), *(b"%d" % number for number in range(1000)))
            await send(producer, log.at("plain", 1), b"elsewhere")
            consumer = await reading(transport, log.name("plain"))
            records = await take(consumer, 1004)
        mine = [record for record in records if record.partition == 0]
        assert values(mine) == [full.value, None, b"", *(b"%d" % number for number in range(1000))]
        assert (mine[0].key, mine[0].headers, mine[1].key, mine[1].headers) == (full.key, headers, None, ())
        offsets = [record.offset for record in mine]
        assert offsets == sorted(set(offsets))
        assert (offsets[2], offsets[-1]) == (first, last)
        assert values([record for record in records if record.partition == 1]) == [b"elsewhere"]

    async def test_the_log_stamps_records_and_its_time_never_goes_back(self, log: Log) -> None:
        async with log.open() as transport, log.open() as other:
            await transport.create_topics([log.spec("plain")])
            producers = [await transport.producer(), await other.producer()]
            for number in range(60):
                await send(producers[number % 2], log.at("plain"), b"%d" % number)
            writer = await transport.writer(log.name("group"), log.at("plain"))
            await writer.commit([(log.at("plain"), Record(value=b"written"))], 0)
            [records] = await everything(transport, log.at("plain"))
        times = [record.timestamp_ms for record in records]
        assert len(times) == 61
        assert times == sorted(times)
        assert times[0] > 1_700_000_000_000

    async def test_a_consumer_without_a_group_has_every_partition_paused_at_the_beginning(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("a", 2), log.spec("b")])
            producer = await transport.producer()
            await send(producer, log.at("a"), b"x")
            partitions = {log.at("a"), log.at("a", 1), log.at("b")}
            consumer = await transport.consumer([log.name("a"), log.name("b")])
            poll = await consumer.poll()
            assert (set(poll.assigned), poll.revoked, poll.records) == (partitions, (), ())
            assert consumer.assignment() == partitions
            assert await consumer.poll(timeout=0.05) == Poll()
            assert await consumer.committed(log.at("a")) is None
            with pytest.raises(TransportError, match="group"):
                await consumer.commit({log.at("a"): Committed(offset=1)})
            consumer.resume(log.at("a"))
            assert values(await take(consumer, 1)) == [b"x"]

    async def test_pause_resume_seek_and_position(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain", 2)])
            producer = await transport.producer()
            partition, other = log.at("plain"), log.at("plain", 1)
            for number in range(10):
                await send(producer, partition, b"%d" % number)
            consumer = await reading(transport, log.name("plain"))
            first = (await consumer.poll(max_records=4, timeout=DEADLINE)).records
            assert values(first) == [b"0", b"1", b"2", b"3"]
            assert first[-1].offset < await consumer.position(partition) <= first[-1].offset + 1
            consumer.pause(partition)
            await send(producer, other, b"other")
            assert values(await take(consumer, 1)) == [b"other"]
            assert await consumer.position(partition) <= first[-1].offset + 1
            consumer.resume(partition)
            rest = await take(consumer, 6)
            assert values(rest) == [b"4", b"5", b"6", b"7", b"8", b"9"]
            assert await consumer.position(partition) >= await consumer.end_offset(partition)
            await consumer.seek(partition, rest[1].offset)
            assert await consumer.position(partition) == rest[1].offset
            assert values(await take(consumer, 5))[0] == b"5"
            await consumer.seek(partition, 0)
            assert values(await take(consumer, 10))[0] == b"0"

    async def test_what_is_not_ours_cannot_be_moved_and_is_passed_over_by_pause_and_resume(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain"), log.spec("foreign")])
            consumer = await reading(transport, log.name("plain"))
            foreign = log.at("foreign")
            consumer.pause(foreign)
            consumer.resume(foreign)
            with pytest.raises(FencedError):
                await consumer.seek(foreign, 0)
            with pytest.raises(FencedError):
                await consumer.position(foreign)
            assert consumer.assignment() == {log.at("plain")}

    async def test_offsets_by_time(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain"), log.spec("empty")])
            producer = await transport.producer()
            for number in range(40):
                await send(producer, log.at("plain"), b"%d" % number)
            [records] = await everything(transport, log.at("plain"))
            consumer = await reading(transport, log.name("plain"))
            for record in records:
                expected = next(r.offset for r in records if r.timestamp_ms >= record.timestamp_ms)
                assert await consumer.offset_at(log.at("plain"), record.timestamp_ms) == expected
            assert await consumer.offset_at(log.at("plain"), 0) == records[0].offset
            end = await consumer.end_offset(log.at("plain"))
            assert await consumer.offset_at(log.at("plain"), records[-1].timestamp_ms + 3_600_000) == end
            assert await consumer.offset_at(log.at("empty"), 0) == await consumer.end_offset(log.at("empty"))

    async def test_beginning_and_end_of_an_empty_and_of_a_filled_partition(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            consumer = await reading(transport, log.name("plain"))
            partition = log.at("plain")
            empty = await consumer.end_offset(partition)
            assert await consumer.beginning_offset(partition) == empty
            last = await send(await transport.producer(), partition, b"a", b"b")
            assert await consumer.beginning_offset(partition) == empty
            assert await consumer.end_offset(partition) > last
            assert await consumer.high_watermark(partition) == await consumer.end_offset(partition)

    async def test_large_records_and_the_limits_of_a_poll(self, log: Log) -> None:
        large = [bytes([number]) * 1_000_000 for number in range(8)]
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            producer = await transport.producer()
            for value in large:
                await send(producer, log.at("plain"), value)
            consumer = await reading(transport, log.name("plain"))
            assert values((await consumer.poll(max_bytes=10, timeout=DEADLINE)).records) == large[:1]
            await consumer.seek(log.at("plain"), 0)
            found: list[bytes | None] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < len(large):
                    part = (await consumer.poll(max_bytes=2_500_000)).records
                    assert sum(len(record.value or b"") for record in part) <= 2_500_000
                    found += values(part)
        assert found == large

    async def test_a_record_that_the_topic_cannot_take_is_refused_with_its_reason(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics(
                [log.spec("plain", max_record_bytes=10_000), log.spec("keyed", cleanup="compact")]
            )
            producer = await transport.producer()
            with pytest.raises(TooLargeError, match=r"10,001.*10,000"):
                await producer.send(log.at("plain"), [Record(value=b"fits"), Record(value=b"x" * 10_001)])
            with pytest.raises(TransportError, match="key"):
                await producer.send(log.at("keyed"), [Record(key=b"k", value=b"fits"), Record(value=b"x")])
            assert await everything(transport, log.at("plain"), log.at("keyed")) == [[], []]
            await send(producer, log.at("plain"), b"x" * 10_000)

    async def test_compaction_keeps_the_last_of_each_key_and_a_reader_reaches_the_end(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("keyed", cleanup="compact")])
            producer = await transport.producer()
            expected: dict[bytes | None, bytes] = {}
            for number in range(300):
                key = b"%d" % (number % 7)
                value = None if number % 11 == 10 else b"%d" % number
                last = await producer.send(log.at("keyed"), [Record(key=key, value=value)])
                expected.pop(key, None)
                if value is not None:
                    expected[key] = value
            [records] = await everything(transport, log.at("keyed"))
            consumer = await reading(transport, log.name("keyed"))
            assert await consumer.end_offset(log.at("keyed")) > last
        folded: dict[bytes | None, bytes] = {}
        for record in records:
            folded.pop(record.key, None)
            if record.value is not None:
                folded[record.key] = record.value
        assert folded == expected
        assert records[-1].offset == last

    async def test_reading_while_writing(self, log: Log) -> None:
        async with log.open() as transport, anyio.create_task_group() as tasks:
            await transport.create_topics([log.spec("plain")])
            consumer = await reading(transport, log.name("plain"))

            async def write() -> None:
                producer = await transport.producer()
                for number in range(0, 600, 3):
                    await send(producer, log.at("plain"), *(b"%d" % (number + part) for part in range(3)))

            tasks.start_soon(write)
            records = await take(consumer, 600)
        assert values(records) == [b"%d" % number for number in range(600)]

    async def test_a_cancelled_poll_loses_nothing(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            consumer = await transport.consumer([log.name("plain")])
            producer = await transport.producer()
            found: list[bytes | None] = []
            cancelled = 0
            for number in range(50):
                await send(producer, log.at("plain"), b"%d" % number)
                with anyio.move_on_after(number % 5 * 0.0002) as scope:
                    poll = await consumer.poll()
                    consumer.resume(*poll.assigned)
                    found += values(poll.records)
                cancelled += scope.cancelled_caught
            assert cancelled > 0
            found += values(await take(consumer, 50 - len(found)))
        assert found == [b"%d" % number for number in range(50)]

    async def test_resuming_while_another_task_polls(self, log: Log) -> None:
        async with log.open() as transport, anyio.create_task_group() as tasks:
            await transport.create_topics([log.spec("plain")])
            await send(await transport.producer(), log.at("plain"), b"x")
            consumer = await transport.consumer([log.name("plain")])
            await consumer.poll()
            found: list[bytes | None] = []

            async def read() -> None:
                found.extend(values((await consumer.poll(timeout=30.0)).records))

            tasks.start_soon(read)
            await anyio.lowlevel.checkpoint()
            consumer.resume(log.at("plain"))
        assert found == [b"x"]

    async def test_a_poll_that_is_under_way_returns_nothing_of_what_is_paused_meanwhile(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            await send(await transport.producer(), log.at("plain"), b"a", b"b")
            consumer = await reading(transport, log.name("plain"))
            in_time = 0
            for _ in range(20):
                await consumer.seek(log.at("plain"), 0)
                polls: list[Poll] = []

                async def read(polls: list[Poll] = polls) -> None:
                    polls.append(await consumer.poll(timeout=0.05))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read)
                    await anyio.lowlevel.checkpoint()
                    late = bool(polls)
                    consumer.pause(log.at("plain"))
                if not late:
                    in_time += 1
                    assert polls == [Poll()]
                consumer.resume(log.at("plain"))
            assert in_time > 0
            assert values(await take(consumer, 2)) == [b"a", b"b"]

    async def test_closing_twice_and_under_cancellation(self, log: Log) -> None:
        transport = log.open()
        await transport.create_topics([log.spec("plain")])
        consumer = await reading(transport, log.name("plain"), group=log.name("group"))
        producer = await transport.producer()
        writer = await transport.writer(log.name("group"), log.at("plain"))
        parts = (consumer, producer, writer, transport)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for part in parts:
                try:
                    await part.aclose()
                except asyncio.CancelledError:
                    continue
        for part in parts:
            await part.aclose()
        with pytest.raises(TransportError):
            await send(producer, log.at("plain"), b"x")

    async def test_event_loops_of_other_threads_with_transports_of_their_own(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])

            async def append(name: str) -> None:
                async with log.open() as mine, await mine.producer() as producer:
                    for number in range(100):
                        await send(producer, log.at("plain"), f"{name}:{number}".encode())

            threads = [threading.Thread(target=lambda name=name: asyncio.run(append(name))) for name in "ab"]
            for thread in threads:
                thread.start()
            records = await take(await reading(transport, log.name("plain")), 200)
            for thread in threads:
                await anyio.to_thread.run_sync(thread.join)
        for name in "ab":
            mine = [value for value in values(records) if value is not None and value.startswith(name.encode())]
            assert mine == [f"{name}:{number}".encode() for number in range(100)]

    async def test_a_poll_is_divided_between_busy_partitions(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain", 3)])
            producer = await transport.producer()
            for partition in range(3):
                await send(producer, log.at("plain", partition), *(b"x" for _ in range(200)))
            consumer = await reading(transport, log.name("plain"))
            await assigned(consumer, 3)
            seen: set[TopicPartition] = set()
            for _ in range(6):
                poll = await consumer.poll(max_records=20, timeout=DEADLINE)
                seen |= {TopicPartition(record.topic, record.partition) for record in poll.records}
        assert len(seen) == 3, "a partition with much to read starves the others"
