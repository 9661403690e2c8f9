"""The transport contract, fourth part: several processes on one log, and what is left when one is killed."""

import json
import random

import anyio
import pytest

from prela_stream.transport.base import Committed
from tests.contracts.transport_harness import DEADLINE, Log, child, everything, reading, take, values


class ProcessContract:
    """Processes that write at once, and processes that die."""

    async def test_processes_append_at_once_and_nothing_is_lost_doubled_or_out_of_order(self, log: Log) -> None:
        names, count = ("a", "b", "c"), 150
        with (
            child(log, "append", name="a", count=count) as a,
            child(log, "append", name="b", count=count) as b,
            child(log, "append", name="c", count=count) as c,
        ):
            assert [await other.line() for other in (a, b, c)] == ["done"] * 3
            assert [await other.ended() for other in (a, b, c)] == [0] * 3
        async with log.open() as transport:
            parts = await everything(transport, log.at("shared"), log.at("shared", 1))
        for name in names:
            for parity, part in enumerate(parts):
                mine = [value.decode() for value in values(part) if value and value.startswith(name.encode())]
                assert mine == [f"{name}:{number}" for number in range(count) if number // 3 % 2 == parity]
        assert sum(map(len, parts)) == len(names) * count

    async def test_processes_that_create_the_same_topics_make_each_once(self, log: Log) -> None:
        topics = [f"topic{number}" for number in range(8)]
        with child(log, "create", topics=topics) as one, child(log, "create", topics=topics[::-1]) as two:
            assert [await one.line(), await two.line()] == ["ready", "ready"]
            one.signal()
            two.signal()
            made = json.loads(await one.line()) + json.loads(await two.line())
        assert sorted(made) == [log.name(topic) for topic in topics]

    @pytest.mark.timeout(300)
    async def test_a_process_killed_between_its_commits_leaves_records_and_offset_in_agreement(self, log: Log) -> None:
        await self.kill_between_commits(log, 8)

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    async def test_many_kills_between_commits(self, log: Log) -> None:
        await self.kill_between_commits(log, 40)

    async def kill_between_commits(self, log: Log, rounds: int) -> None:
        """Kill a writing process `rounds` times, each time after a random number of its commits, and count what is there."""
        chance = random.Random(rounds)
        source = log.at("source")
        async with log.open() as transport:
            await transport.create_topics([log.spec("left"), log.spec("right"), log.spec("source")])
            watcher = await reading(transport, log.name("left"))
            offset = 0
            for _ in range(rounds):
                with child(log, "commits") as other:
                    assert await other.line() == "begun"
                    wait_for = await watcher.end_offset(log.at("left")) + chance.randrange(40)
                    with anyio.fail_after(DEADLINE):
                        while await watcher.end_offset(log.at("left")) <= wait_for:
                            await watcher.poll(timeout=0.005)
                    other.process.kill()
                    await other.ended()
                writer = await transport.writer(log.name("group"), source)
                assert writer.committed is not None
                assert writer.committed.offset > offset, "the process was killed before it committed anything"
                offset = writer.committed.offset
                assert writer.committed == Committed(offset=offset, metadata=f"after {offset - 1}")
                expected = [b"%d" % number for number in range(offset)]
                assert [values(part) for part in await everything(transport, log.at("left"), log.at("right"))] == [
                    expected,
                    expected,
                ]

    async def test_a_reader_follows_a_writer_of_another_process(self, log: Log) -> None:
        async with log.open() as transport:
            await transport.create_topics([log.spec("shared", 2)])
            consumer = await reading(transport, log.name("shared"))
            with child(log, "append", name="a", count=60) as other:
                found = await take(consumer, 60)
                assert await other.line() == "done"
        assert sorted(values(found), key=str) == sorted((b"a:%d" % number for number in range(60)), key=str)
