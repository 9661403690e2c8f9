"""Topics that are deleted and created again under a sink on Kafka: the store continues with the new ones."""

from pathlib import Path

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from prela_stream.app import open_reader, ready_transport, run_sinks
from prela_stream.app.adapters import make_topics
from prela_stream.codec.sampled import encode_kept
from prela_stream.config import Settings, load_settings
from prela_stream.errors import PrelaError
from prela_stream.transport.base import TopicPartition
from tests.support.kept import trace_id, whole
from tests.support.processes import DEADLINE
from tests.support.workers import send

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]


async def until_stored(settings: Settings, expected: set[str]) -> None:
    with anyio.fail_after(DEADLINE):
        while True:
            try:
                async with open_reader(settings) as reader:
                    if {row.trace_id for row in await reader.tail(0, limit=1_000)} == expected:
                        return
            except PrelaError:  # it is not created yet
                pass
            await anyio.sleep(0.05)


@pytest.mark.parametrize("count", [2, 9], ids=["shorter", "longer"])
async def test_a_sink_stores_what_is_in_the_new_topic(
    kafka: str, kafka_prefix: str, tmp_path: Path, count: int
) -> None:
    overrides = {
        "directory": str(tmp_path),
        "transport": "kafka",
        "kafka": {"bootstrap": [kafka]},
        "topics": {"prefix": kafka_prefix, "partitions": 1, "sampled_partitions": 1},
    }
    settings = load_settings(env={}, overrides=overrides)
    sampled = TopicPartition(settings.topics.sampled, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        async with ready_transport(settings) as transport, anyio.create_task_group() as tasks:
            await make_topics(settings, transport)
            tasks.start_soon(run_sinks, settings)
            await send(transport, *[encode_kept(whole(number)) for number in range(5)], to=sampled)
            expected = {trace_id(number) for number in range(5)}
            await until_stored(settings, expected)
            await admin.delete_topics([sampled.topic])
            with anyio.fail_after(DEADLINE):
                while sampled.topic in await transport.topics():
                    await anyio.sleep(0.05)
            await make_topics(settings, transport)
            await send(transport, *[encode_kept(whole(number)) for number in range(50, 50 + count)], to=sampled)
            await until_stored(settings, expected | {trace_id(number) for number in range(50, 50 + count)})
            tasks.cancel_scope.cancel()
    finally:
        await admin.close()
