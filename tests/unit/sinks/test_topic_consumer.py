"""Offsets of a partition that was revoked and assigned again, and of one that another member has."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from prela_stream.errors import TransportError
from prela_stream.sinks.topic_consumer import TopicConsumer
from prela_stream.transport.base import TopicPartition, Transport
from prela_stream.transport.options import TopicOptions
from tests.support.workers import DEADLINE, local_log

TOPICS = TopicOptions(sampled_partitions=2)
PARTS = [TopicPartition(TOPICS.sampled, number) for number in (0, 1)]


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[Transport]:
    async with local_log(tmp_path, TOPICS) as opened:
        yield opened


async def hold(*readers: tuple[TopicConsumer, int]) -> None:
    """Poll all of them until each has its number of partitions."""
    with anyio.fail_after(DEADLINE):
        while any(len(reader.consumer.assignment()) != count for reader, count in readers):
            for reader, _ in readers:
                await reader.check_assignment()


async def offsets(transport: Transport) -> list[int | None]:
    """What the group has committed, of each partition."""
    found = [await transport.committed("g", part) for part in PARTS]
    return [None if one is None else one.offset for one in found]


async def test_offsets_of_before_a_revocation_are_not_committed_after_it(transport: Transport) -> None:
    async with await transport.consumer([TOPICS.sampled], group="g") as consumer:
        first = TopicConsumer(consumer, "g")
        await hold((first, 2))
        for part in PARTS:
            first.done(part, 1)
        async with await transport.consumer([TOPICS.sampled], group="g") as other:
            second = TopicConsumer(other, "g")
            await hold((first, 1), (second, 1))
            (moved,) = other.assignment()
            second.done(moved, 5)
            await second.commit()
        await hold((first, 2))
        assert await first.commit() == frozenset()
    expected: list[int | None] = [1, 1]
    expected[moved.partition] = 5
    assert await offsets(transport) == expected


async def test_a_reassigned_partition_does_not_prevent_the_commit_of_the_others(transport: Transport) -> None:
    async with await transport.consumer([TOPICS.sampled], group="g") as consumer:
        first = TopicConsumer(consumer, "g")
        await hold((first, 2))
        async with await transport.consumer([TOPICS.sampled], group="g") as other:
            await hold((first, 1), (TopicConsumer(other, "g"), 1))
            for part in PARTS:
                first.done(part, 3)
            assert await first.commit() == other.assignment()
            assert await first.commit() == frozenset(), "it is forgotten"
            kept = next(iter(consumer.assignment()))
    assert [offset for part, offset in zip(PARTS, await offsets(transport), strict=True) if part == kept] == [3]
    assert [offset for part, offset in zip(PARTS, await offsets(transport), strict=True) if part != kept] == [None]


async def test_the_next_commit_includes_one_that_failed(transport: Transport) -> None:
    async with await transport.consumer([TOPICS.sampled], group="g") as consumer:
        reader = TopicConsumer(consumer, "g")
        await hold((reader, 2))
        reader.done(PARTS[0], -1)
        with pytest.raises(TransportError):
            await reader.commit()
        reader.done(PARTS[0], 2)
        await reader.commit()
    assert await offsets(transport) == [2, None]
