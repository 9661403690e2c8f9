"""The Kafka transport while its only broker hangs, restarts and is killed: outcomes that hold, in bounded time."""

import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

import anyio
import pytest

from deploy.kafka import KafkaCluster
from prela_stream.errors import FencedError, OutcomeUnknownError, TransportError
from prela_stream.transport.base import (
    CommitOutcome,
    Committed,
    Consumer,
    Producer,
    Record,
    TopicPartition,
    TopicSpec,
    Writer,
)
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_harness import DEADLINE, everything, reading, send, take, values
from tests.support.kafka import Clusters, no_client_is_left

T = TypeVar("T")

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

SOURCE, LEFT, RIGHT, WARM = (TopicPartition(name, 0) for name in ("source", "left", "right", "warm"))

BOUND_S = 20.0
"""The longest of what is bounded here takes 8 s; a busy machine adds to it. What waits as long as others do takes more."""


def patient(cluster: KafkaCluster) -> KafkaTransport:
    """A transport that waits as long as a user's."""
    return KafkaTransport(KafkaOptions(bootstrap=(cluster.bootstrap,)))


def impatient(cluster: KafkaCluster, *, transaction_timeout_ms: int = 4_000) -> KafkaTransport:
    """A transport that waits seconds, where others wait minutes."""
    return KafkaTransport(
        KafkaOptions(
            bootstrap=(cluster.bootstrap,),
            connect_timeout_ms=2_000,
            request_timeout_ms=2_000,
            delivery_timeout_ms=2_000,
            transaction_timeout_ms=transaction_timeout_ms,
            session_timeout_ms=6_000,
        )
    )


async def make(cluster: KafkaCluster) -> None:
    """Make the topics, and have the broker do everything once: its first time may take longer than the impatient wait."""
    partitions = (SOURCE, LEFT, RIGHT, WARM)
    async with patient(cluster) as transport:
        await had(
            lambda: transport.create_topics([TopicSpec(name=partition.topic, partitions=1) for partition in partitions])
        )
        await send(await transport.producer(), WARM, b"x")
        await take(await reading(transport, WARM.topic, group="warm"), 1)
        writer = await transport.writer("warm", WARM)
        assert await writer.commit([(WARM, Record(value=b"x"))], 1) is CommitOutcome.COMMITTED


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block takes no longer."""
    started = monotonic()
    yield
    assert monotonic() - started < seconds


async def had(attempt: Callable[[], Awaitable[T]]) -> T:
    """What comes of it as soon as it works: a busy machine may take longer for it than the impatient wait."""
    with anyio.fail_after(DEADLINE):
        while True:
            try:
                return await attempt()
            except TransportError:
                await anyio.sleep(0.1)


async def opened(transport: KafkaTransport) -> Writer:
    """The writer of `source`, as soon as it can be had."""
    return await had(lambda: transport.writer("group", SOURCE))


async def sent(producer: Producer, name: str) -> tuple[bytes, set[bytes]]:
    """Send to `left` until it is acknowledged: what was, and what may or may not be stored before it."""
    unknown: set[bytes] = set()
    numbers = itertools.count()

    async def attempt() -> bytes:
        value = f"{name} {next(numbers)}".encode()
        try:
            await send(producer, LEFT, value)
        except OutcomeUnknownError:
            unknown.add(value)
            raise
        return value

    return await had(attempt), unknown


async def read_to(consumer: Consumer, value: bytes) -> list[bytes | None]:
    """All values up to this one."""
    found: list[bytes | None] = []
    with anyio.fail_after(DEADLINE):
        while value not in found:
            poll = await had(consumer.poll)
            consumer.resume(*poll.assigned)
            found += values(poll.records)
    return found


async def stored(cluster: KafkaCluster, *partitions: TopicPartition) -> list[list[bytes | None]]:
    """All values of each partition, as a reader sees them that waits as long as necessary."""
    async with patient(cluster) as outside:
        return [values(part) for part in await everything(outside, *partitions)]


async def test_a_broker_that_hangs_holds_nobody_up_and_nothing_is_told_that_is_not_so(
    kafka_clusters: Clusters, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = kafka_clusters()
    await make(cluster)
    async with impatient(cluster) as transport:
        producer, writer = await transport.producer(), await opened(transport)
        before, unknown = await sent(producer, "before")
        consumer = await had(lambda: reading(transport, "left"))
        seen = await read_to(consumer, before)
        cluster.broker[0].suspend()
        try:
            with within(BOUND_S), pytest.raises(OutcomeUnknownError, match=r"may or may not be stored.*2,000 ms"):
                await send(producer, LEFT, b"hanging")
            with within(BOUND_S), pytest.raises(TransportError, match="retrying is safe"):
                await consumer.end_offset(LEFT)
            with within(BOUND_S):
                assert await writer.commit([(LEFT, Record(value=b"aborted"))], 1) is CommitOutcome.ABORTED
            with within(BOUND_S), pytest.raises(TransportError, match=cluster.bootstrap):
                await transport.writer("group", SOURCE)
            with within(BOUND_S):
                assert (await consumer.poll(timeout=0.5)).records == ()
            other = impatient(cluster)
            with within(BOUND_S), pytest.raises(TransportError, match=cluster.bootstrap):
                await other.topics()
            with within(BOUND_S):
                await other.aclose()
        finally:
            cluster.broker[0].resume()
        assert (await opened(transport)).committed is None
        after, too = await sent(producer, "after")
        unknown |= {b"hanging"} | too
        [found] = await stored(cluster, LEFT)
        assert [value for value in found if value not in unknown] == [before, after]
        seen += await read_to(consumer, after)
        assert seen == found[: len(seen)]
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_closing_while_the_broker_hangs_is_bounded(kafka_clusters: Clusters) -> None:
    cluster = kafka_clusters()
    await make(cluster)
    transport = impatient(cluster)
    member = await had(lambda: reading(transport, "left", group="group"))
    await had(lambda: transport.consumer(["left"]))
    value, _ = await sent(await transport.producer(), "x")
    await (await opened(transport)).commit([], 1)
    await read_to(member, value)
    cluster.broker[0].suspend()
    try:
        with within(BOUND_S):
            await transport.aclose()
    finally:
        cluster.broker[0].resume()
    await no_client_is_left()


async def test_idle_clients_go_on_after_the_broker_was_restarted(kafka_clusters: Clusters) -> None:
    cluster = kafka_clusters()
    await make(cluster)
    async with patient(cluster) as transport:  # sends once, and learns how its commit ended
        producer, writer = await transport.producer(), await opened(transport)
        alone = await reading(transport, "left")
        member = await reading(transport, "left", group="readers")
        last = await send(producer, LEFT, b"before")
        assert await writer.commit([], 1, "one") is CommitOutcome.COMMITTED
        for consumer in (alone, member):
            await take(consumer, 1)
        await member.commit({LEFT: Committed(offset=last + 1)})  # where it goes on, should it have to join again
        await anyio.to_thread.run_sync(cluster.broker[0].stop)
        await anyio.to_thread.run_sync(cluster.broker[0].start)
        outcome = await writer.commit([(LEFT, Record(value=b"idle"))], 2, "two")
        assert outcome in (CommitOutcome.COMMITTED, CommitOutcome.ABORTED)
        went = outcome is CommitOutcome.COMMITTED
        again = await opened(transport)
        assert again.committed == (Committed(offset=2, metadata="two") if went else Committed(offset=1, metadata="one"))
        after, unknown = await sent(producer, "after")
        for consumer in (alone, member):
            found = [value for value in await read_to(consumer, after) if value not in unknown]
            assert found == [*([b"idle"] if went else []), after]


async def test_a_commit_whose_end_is_not_answered_is_unknown_and_the_next_writer_settles_it(
    kafka_clusters: Clusters,
) -> None:
    cluster = kafka_clusters()
    await make(cluster)
    async with impatient(cluster, transaction_timeout_ms=16_000) as transport:  # time enough to come to the end
        for number in range(2):
            writer: Any = await opened(transport)
            offset = writer.committed.offset if writer.committed else 0
            sender = writer._sender.kafka._sender  # where its last request is sent from
            end = sender._do_txn_commit

            async def end_unanswered(result: object, end: Any = end) -> Any:
                cluster.broker[0].suspend()
                return await end(result)

            sender._do_txn_commit = end_unanswered
            try:
                with within(BOUND_S):
                    outcome = await writer.commit([(LEFT, Record(value=b"%d" % number))], offset + 1)
            finally:
                cluster.broker[0].resume()
            assert outcome is CommitOutcome.UNKNOWN
            with pytest.raises(FencedError, match="ended unknown"):
                await writer.commit([], 1_000)
            after = await opened(transport)
            landed = after.committed is not None and after.committed.offset == offset + 1
            [found] = await stored(cluster, LEFT)
            assert (b"%d" % number in found) == landed
            await after.aclose()


@pytest.mark.slow
async def test_commits_whose_broker_is_killed_land_whole_or_not_at_all(kafka_clusters: Clusters) -> None:
    cluster = kafka_clusters()
    chance = random.Random(11)
    outcomes: list[CommitOutcome] = []
    done = anyio.Event()
    await make(cluster)
    async with impatient(cluster, transaction_timeout_ms=2_000) as transport:

        async def commit() -> None:
            while not done.is_set():
                writer = await opened(transport)
                number = writer.committed.offset if writer.committed else 0
                while not done.is_set():
                    value = Record(value=b"%d" % number)
                    try:
                        outcome = await writer.commit([(LEFT, value), (RIGHT, value)], number + 1)
                    except FencedError:
                        pytest.fail("no other writer is opened here")
                    except TransportError:
                        break  # it could not even begin
                    outcomes.append(outcome)
                    if outcome is not CommitOutcome.COMMITTED:
                        break
                    number += 1
                await writer.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit)
            for _ in range(5):
                count = len(outcomes) + chance.randrange(5, 40)
                with anyio.fail_after(DEADLINE):
                    while len(outcomes) < count:
                        await anyio.sleep(chance.random() / 100)
                await anyio.to_thread.run_sync(cluster.broker[0].kill)
                await anyio.to_thread.run_sync(cluster.broker[0].start)
            done.set()
        last = (await opened(transport)).committed
        assert last is not None
        expected = [b"%d" % number for number in range(last.offset)]
        assert await stored(cluster, LEFT, RIGHT) == [expected, expected]
        assert outcomes.count(CommitOutcome.COMMITTED) <= last.offset
        assert set(outcomes) != {CommitOutcome.COMMITTED}, "no kill has hit a commit"
