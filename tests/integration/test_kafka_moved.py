"""A cluster moves to other addresses: consumers, producers and writers reach it through another bootstrap server."""

import sys
import time
from pathlib import Path

import anyio
import pytest

from deploy.kafka import KafkaCluster, KafkaMissingError
from deploy.kafka.settings import free_ports
from prela_stream.errors import TransportError
from prela_stream.transport.base import CommitOutcome, LogRecord, Record, TopicPartition, TopicSpec
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_harness import reading, send, take, values
from tests.support.kafka import no_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]
PARTITION = TopicPartition("topic", 0)
RECOVERY_S = 60.0
"""A broker starts in it too."""


@pytest.mark.parametrize("group", [None, "group"])
async def test_a_consumer_finds_the_cluster_at_its_new_address(tmp_path: Path, group: str | None) -> None:
    first, second = free_ports(2)
    options = KafkaOptions(
        bootstrap=(f"127.0.0.1:{first}", f"127.0.0.1:{second}"),
        session_timeout_ms=6_000,
        delivery_timeout_ms=3_000,  # a producer and a writer try the old address for so long
        transaction_timeout_ms=6_000,
        connect_timeout_ms=30_000,
    )
    try:
        cluster = KafkaCluster(1, data_dir=tmp_path, ports=(first,))
    except KafkaMissingError as error:
        no_kafka(str(error))
    with cluster:
        transport = KafkaTransport(options)
        await transport.create_topics([TopicSpec(name="topic", partitions=1)])
        producer = await transport.producer()
        consumer = await reading(transport, "topic", group=group)
        await send(producer, PARTITION, b"before")
        assert values(await take(consumer, 1)) == [b"before"]
        writer = await transport.writer("writers", PARTITION)
    async with transport:
        with KafkaCluster(1, data_dir=tmp_path, ports=(second,)):
            moved = time.monotonic()
            found: list[LogRecord] = []
            sent = False
            with anyio.fail_after(RECOVERY_S):
                while b"after" not in values(found):
                    try:
                        if not sent:
                            await send(producer, PARTITION, b"after")
                        sent = True
                        poll = await consumer.poll(timeout=0.2)
                        consumer.resume(*poll.assigned)
                        found += poll.records
                    except TransportError:
                        await anyio.sleep(0.1)
            sys.stdout.write(f"read {time.monotonic() - moved:.1f} s after the broker had started\n")
            with anyio.fail_after(RECOVERY_S):
                while True:
                    try:
                        if await writer.commit([(PARTITION, Record(value=b"x"))], 1) is CommitOutcome.COMMITTED:
                            break
                        writer = await transport.writer("writers", PARTITION)
                    except TransportError:
                        writer = await transport.writer("writers", PARTITION)
