"""Topics on Kafka: creation, deletion, and mistakes in topics of others."""

from typing import Any

import pytest
from aiokafka.admin import NewTopic

from prela_stream.errors import UnknownTopicError
from prela_stream.transport.base import CommitOutcome, Record, TopicPartition
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.kafka.admin.connection import AdminConnection
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_harness import reading, send, take
from tests.unit.transport.kafka.conftest import make, until

pytestmark = pytest.mark.kafka


async def test_topics_are_made_when_a_broker_is_alive_again_and_known_to_all_that_are(
    transport: KafkaTransport, partition: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that stalled longer than its session lists none as alive until it is heard of again."""
    ask = AdminConnection.metadata
    answers: list[Any] = []

    async def metadata(self: AdminConnection, topics: list[str] | None, *, node: int | None = None) -> Any:
        answers.append(await ask(self, topics, node=node))
        if len(answers) in (1, 3):  # before creating, and before checking that all know it
            answers[-1].brokers = []
        return answers[-1]

    monkeypatch.setattr(AdminConnection, "metadata", metadata)
    await make(transport, partition)
    assert [len(answer.brokers) for answer in answers[:5]] == [0, 1, 0, 1, 1]
    await send(await transport.producer(), partition, b"x")


async def test_a_deleted_topic_stays_deleted_while_all_kinds_of_clients_go_on(
    kafka: str, partition: TopicPartition, admin: Any
) -> None:
    source = TopicPartition(f"{partition.topic}.source", 0)
    refresh = {"metadata_max_age_ms": 100}
    options = KafkaOptions(
        bootstrap=(kafka,),
        extra=refresh,
        delivery_timeout_ms=8_000,
        transaction_timeout_ms=16_000,  # five sixths of it for a commit
    )
    async with KafkaTransport(options) as transport:
        await make(transport, partition)
        await make(transport, source)
        producer, writer = await transport.producer(), await transport.writer("edge", source)
        consumer = await reading(transport, partition.topic)
        member = await reading(transport, partition.topic, group=partition.topic)
        await send(producer, partition, b"x")
        assert await writer.commit([(partition, Record(value=b"y"))], 1) is CommitOutcome.COMMITTED
        await take(consumer, 2)
        await admin.delete_topics([partition.topic])
        async with KafkaTransport(options) as elsewhere:
            await until(elsewhere, partition, there=False)
        for _ in range(10):
            await consumer.poll(timeout=0.1)
            await member.poll(timeout=0.1)
        late = [(partition, Record(value=b"z"))]
        assert await writer.commit(late, 2) is CommitOutcome.ABORTED
        with pytest.raises(UnknownTopicError, match=r"topics create"):
            await (await transport.writer("edge", source)).commit(late, 2)
        with pytest.raises(UnknownTopicError, match=r"topics create"):
            await send(producer, partition, b"z")
        assert partition.topic not in await transport.topics()


async def test_asking_for_topics_that_there_are_not_makes_none(
    transport: KafkaTransport, partition: TopicPartition
) -> None:
    producer = await transport.producer()
    for question in (
        transport.consumer([partition.topic]),
        transport.consumer([partition.topic], group="edge"),
        transport.writer("edge", partition),
        transport.committed("edge", partition),
        send(producer, partition, b"x"),
    ):
        with pytest.raises(UnknownTopicError, match=r"topics create"):
            await question
    assert partition.topic not in await transport.topics()


async def test_what_a_topic_made_by_others_lacks_is_said(
    transport: KafkaTransport, partition: TopicPartition, admin: Any
) -> None:
    settings = {"cleanup.policy": "compact,delete", "min.insync.replicas": "2", "max.message.bytes": "20000"}
    await admin.create_topics([NewTopic(partition.topic, 3, 1, topic_configs=settings)])
    await until(transport, partition, there=True)
    found = (await transport.topics())[partition.topic]
    assert (found.partitions, found.cleanup, found.max_record_bytes) == (3, "compact", 20_000 - 16_384)
    stamped, policy, in_sync = found.problems
    assert "LogAppendTime, found CreateTime" in stamped
    assert "compact,delete" in policy
    assert "nothing can be written" in in_sync
