"""The transport contract, second part: consumer groups whose members come, go and die."""

import signal
import sys

import anyio
import pytest

from prela_stream.errors import FencedError, TransportError, UnknownTopicError
from prela_stream.transport.base import Committed, Consumer, Transport
from tests.contracts.transport_harness import DEADLINE, Log, assigned, child, reading, send, take, values


async def rebalanced(consumers: list[Consumer], sizes: list[int]) -> None:
    """Poll all of them in turn until they hold so many partitions, none of them twice."""
    with anyio.fail_after(DEADLINE):
        while sorted(len(consumer.assignment()) for consumer in consumers) != sorted(sizes):
            for consumer in consumers:
                poll = await consumer.poll(timeout=0.05)
                consumer.resume(*poll.assigned)
    held = [partition for consumer in consumers for partition in consumer.assignment()]
    assert len(held) == len(set(held))


class GroupContract:
    """A Consumer with a group."""

    async def test_partitions_are_shared_as_members_come_and_go(self, log: Log) -> None:
        async with log.open() as transport, log.open() as elsewhere:
            await transport.create_topics([log.spec("plain", 5)])

            async def join(at: Transport) -> Consumer:
                return await at.consumer([log.name("plain")], group=log.name("group"))

            first = await join(transport)
            await rebalanced([first], [5])
            second, third = await join(elsewhere), await join(transport)
            await rebalanced([first, second, third], [2, 2, 1])
            await second.aclose()
            await rebalanced([first, third], [3, 2])
            await first.aclose()
            await rebalanced([third], [5])

    async def test_groups_do_not_disturb_one_another(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain", 2)])
            await send(await transport.producer(), log.at("plain"), b"x")
            for name in ("one", "two"):
                consumer = await transport.consumer([log.name("plain")], group=log.name(name))
                assert len(await assigned(consumer, 2)) == 2
                assert values(await take(consumer, 1)) == [b"x"]
                await consumer.commit({log.at("plain"): Committed(offset=1)})

    async def test_a_new_member_goes_on_where_the_group_committed(self, log: Log) -> None:
        partition = log.at("plain")
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            await send(await transport.producer(), partition, *(b"%d" % number for number in range(10)))
            consumer = await reading(transport, log.name("plain"), group=log.name("group"))
            assert await consumer.committed(partition) is None
            records = await take(consumer, 10)
            committed = Committed(offset=records[6].offset, metadata="mine: é")
            await consumer.commit({partition: committed})
            assert await consumer.committed(partition) == committed
        async with log.open() as transport:
            consumer = await transport.consumer([log.name("plain")], group=log.name("group"))
            await assigned(consumer)
            assert await consumer.committed(partition) == committed
            assert values(await take(consumer, 4)) == [b"6", b"7", b"8", b"9"]

    async def test_what_was_not_committed_is_delivered_again(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            await send(await transport.producer(), log.at("plain"), b"a", b"b")
            for _ in range(2):
                async with await transport.consumer([log.name("plain")], group=log.name("group")) as consumer:
                    await assigned(consumer)
                    assert values(await take(consumer, 2)) == [b"a", b"b"]

    async def test_a_partition_that_moved_is_revoked_and_cannot_be_committed(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain", 2)])
            producer = await transport.producer()
            first = await transport.consumer([log.name("plain")], group=log.name("group"))
            both = await assigned(first, 2)
            second = await transport.consumer([log.name("plain")], group=log.name("group"))
            revoked: set[object] = set()
            with anyio.fail_after(DEADLINE):
                while not (first.assignment() and second.assignment()):
                    poll = await first.poll(timeout=0.05)
                    revoked |= set(poll.revoked)
                    first.resume(*poll.assigned)
                    second.resume(*(await second.poll(timeout=0.05)).assigned)
            [moved] = second.assignment()
            [stayed] = first.assignment()
            assert moved in revoked
            for partition in both:
                await send(producer, partition, b"x")
            assert [record.partition for record in await take(first, 1)] == [stayed.partition]
            with pytest.raises(FencedError, match=moved.topic):
                await first.commit({stayed: Committed(offset=1), moved: Committed(offset=1)})
            assert await first.committed(stayed) is None
            assert await second.committed(moved) is None
            with pytest.raises(FencedError):
                await first.seek(moved, 0)
            await first.commit({stayed: Committed(offset=1)})
            await second.commit({moved: Committed(offset=1)})

    async def test_a_member_is_told_when_it_has_its_share_also_if_that_is_nothing(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            members = [await transport.consumer([log.name("plain")], group=log.name("group")) for _ in range(2)]
            reported = [False, False]
            shares = [0, 0]
            with anyio.fail_after(DEADLINE):  # the first one may have had its full share before the other joined
                while not all(reported) or sorted(shares) != [0, 1]:
                    for number, member in enumerate(members):
                        poll = await member.poll(timeout=0.05)
                        reported[number] = reported[number] or poll.rebalanced
                    shares = [len(member.assignment()) for member in members]
            alone = await transport.consumer([log.name("plain")])
            assert (await alone.poll()).rebalanced
            assert not (await alone.poll(timeout=0.0)).rebalanced

    async def test_an_outsider_can_ask_what_a_group_has_committed(self, log: Log) -> None:
        partition = log.at("plain")
        async with log.open() as transport, log.open() as elsewhere:
            await transport.create_topics([log.spec("plain")])
            consumer = await reading(transport, log.name("plain"), group=log.name("group"))
            assert await elsewhere.committed(log.name("group"), partition) is None
            await consumer.commit({partition: Committed(offset=3, metadata="three")})
            assert await elsewhere.committed(log.name("group"), partition) == Committed(offset=3, metadata="three")
            writer = await transport.writer(log.name("group"), partition)
            await writer.commit([], 4)
            assert await elsewhere.committed(log.name("group"), partition) == Committed(offset=4)
            assert await elsewhere.committed(log.name("another"), partition) is None
            with pytest.raises(UnknownTopicError):
                await elsewhere.committed(log.name("group"), log.at("unknown"))

    async def test_metadata_beyond_the_limit_is_refused(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain")])
            consumer = await reading(transport, log.name("plain"), group=log.name("group"))
            with pytest.raises(TransportError, match="4,000"):
                await consumer.commit({log.at("plain"): Committed(offset=1, metadata="é" * 2_001)})
            assert await consumer.committed(log.at("plain")) is None
            await consumer.commit({log.at("plain"): Committed(offset=1, metadata="é" * 2_000)})

    @pytest.mark.slow
    async def test_the_partitions_of_a_killed_process_pass_on(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain", 3)])
            with child(log.hasty(), "hold", topic="plain", group="group", count=3) as other:
                assert await other.line() == "holding"
                other.process.kill()
                await other.ended()
                consumer = await transport.consumer([log.name("plain")], group=log.name("group"))
                assert len(await assigned(consumer, 3)) == 3

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
    @pytest.mark.slow
    async def test_a_process_that_hung_is_fenced_when_it_goes_on(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("plain", 2)])
            with child(log.hasty(), "stale", topic="plain", group="group", count=2) as other:
                await other.stopped()
                consumer = await transport.consumer([log.name("plain")], group=log.name("group"))
                partitions = await assigned(consumer, 2)
                await consumer.commit({partition: Committed(offset=7) for partition in partitions})
                other.process.send_signal(signal.SIGCONT)
                assert await other.line() == "FencedError"
                assert {await consumer.committed(partition) for partition in partitions} == {Committed(offset=7)}
