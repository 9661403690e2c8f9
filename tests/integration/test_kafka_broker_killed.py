"""A broker that is killed in the middle of commits: when it is back, every transaction has come to its end.

Kafka promises that, and every guarantee of this package depends on it. It does not hold in 4.3.1 and 4.4.0 (docs/kafka.md), so
a new version has to pass this test before deploy/kafka/pom.xml may name it.
"""

import random
from contextlib import suppress

import anyio
import anyio.to_thread
import pytest

from prela_stream.errors import TransportError
from prela_stream.transport.base import CommitOutcome, Record, TopicPartition, TopicSpec, Writer
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.options import KafkaOptions
from tests.support.kafka import Clusters
from tests.support.kafka_log import KafkaLog, describe_transaction
from tests.support.processes import DEADLINE

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = 4
WRITERS = 12
OUTPUTS = 4
RECORD = Record(value=b"kept")


class Writers:
    """Writers of one group, one per partition, that commit as fast as they can."""

    def __init__(self, transport: KafkaTransport) -> None:
        self._transport = transport
        self._rng = random.Random(7)
        self.commits = [0] * WRITERS

    async def write(self, number: int) -> None:
        """Commit until cancelled, with another writer when one can write nothing any more."""
        while True:
            async with await self._opened(number) as writer:
                offset = writer.committed.offset if writer.committed else 0
                with suppress(TransportError):
                    while await writer.commit([(self._output(), RECORD)], offset + 1) is CommitOutcome.COMMITTED:
                        offset += 1
                        self.commits[number] += 1

    def _output(self) -> TopicPartition:
        return TopicPartition("output", self._rng.randrange(OUTPUTS))

    async def reopen(self, number: int) -> None:
        """Take the partition over, which waits until the last transaction is over."""
        async with await self._opened(number):
            return

    async def _opened(self, number: int) -> Writer:
        """The writer of this partition, as soon as it can be had: a broker that has just started may take its time."""
        with anyio.fail_after(DEADLINE):
            while True:
                try:
                    return await self._transport.writer("group", TopicPartition("source", number))
                except TransportError:
                    await anyio.sleep(0.1)


async def test_no_transaction_outlives_a_broker_that_is_killed_as_it_commits(kafka_clusters: Clusters) -> None:
    cluster = await anyio.to_thread.run_sync(kafka_clusters)
    (broker,) = cluster.broker
    async with KafkaTransport(KafkaOptions(bootstrap=(cluster.bootstrap,))) as transport:
        await transport.create_topics(
            [TopicSpec(name="source", partitions=WRITERS), TopicSpec(name="output", partitions=OUTPUTS)]
        )
        for _ in range(KILLS):
            writers = Writers(transport)
            async with anyio.create_task_group() as tasks:
                for number in range(WRITERS):
                    tasks.start_soon(writers.write, number)
                with anyio.fail_after(2 * DEADLINE):  # a writer that cannot be opened fails with its reason before
                    while min(writers.commits) < 2:
                        await anyio.sleep(0.01)
                await anyio.to_thread.run_sync(broker.kill)
                tasks.cancel_scope.cancel()
            await anyio.to_thread.run_sync(broker.start)
            async with anyio.create_task_group() as tasks:
                for number in range(WRITERS):
                    tasks.start_soon(writers.reopen, number)
            async with KafkaLog(cluster.bootstrap) as outside:
                assert await outside.held_back("output", OUTPUTS) == 0
            for number in range(WRITERS):
                assert describe_transaction(cluster.bootstrap, f"group-source-{number}").is_over
