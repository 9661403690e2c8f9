"""A transport on the shared broker, and a topic for each test."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from prela_stream.transport.base import TopicPartition, TopicSpec
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_harness import DEADLINE
from tests.support.kafka import no_client_is_left


@pytest.fixture
async def transport(kafka: str) -> AsyncIterator[KafkaTransport]:
    """A transport on the shared broker, patient with one that stalls. What it leaves running when closed fails the test."""
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,), connect_timeout_ms=60_000)) as opened:
        yield opened
    await no_client_is_left()


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[Any]:
    """The admin client of another program."""
    client: Any = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def partition(kafka_prefix: str) -> TopicPartition:
    """A partition of the test's own topic."""
    return TopicPartition(f"{kafka_prefix}.topic", 0)


async def make(transport: KafkaTransport, partition: TopicPartition, **more: Any) -> None:
    """Make the topic of `partition`, with one partition."""
    await transport.create_topics([TopicSpec(name=partition.topic, partitions=1, **more)])


async def until(transport: KafkaTransport, partition: TopicPartition, *, there: bool) -> None:
    """Wait until a topic is there, or is not."""
    with anyio.fail_after(DEADLINE):
        while (partition.topic in await transport.topics()) != there:
            await anyio.sleep(0.05)
