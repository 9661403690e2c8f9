"""All topics on Kafka are deleted and created again under a running pipeline: it continues without an operator."""

import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from prela_stream.app.adapters import create_topics
from prela_stream.config import load_settings
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.topics import topic_names
from tests.support.processes import DEADLINE
from tests.support.running_pipeline import Agent, environment, services, stored, warnings

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]
RECOVERY_S = 30.0
"""The promise is 5, on a machine that is not busy."""


async def test_the_pipeline_continues_on_topics_that_were_created_again(
    kafka: str, kafka_prefix: str, tmp_path: Path
) -> None:
    env = environment(tmp_path, tmp_path / "prela")
    env |= {"PRELA_TRANSPORT": "kafka", "PRELA_KAFKA_BOOTSTRAP": kafka, "PRELA_TOPICS_PREFIX": kafka_prefix}
    settings = load_settings(env=env)
    await create_topics(settings)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(services(tmp_path, env, "worker", "sink"))
        agent = Agent(tmp_path, env)
        stack.callback(agent.close)
        await stored(settings, [await agent.trace()], DEADLINE)
        await delete_topics(kafka, topic_names(settings.topics), settings.kafka.bootstrap)
        late = await agent.trace(flush=False)  # it has no topic to go to
        await create_topics(settings)
        created = time.monotonic()
        await stored(settings, [late, await agent.trace()], RECOVERY_S)
        print(f"stored {time.monotonic() - created:.1f} s after the topics were created")  # noqa: T201 - a measurement
        for service in running:
            lines = [line for line in warnings(service.output()) if "prela_stream.transport" in line]
            groups = {line.partition(": ")[2].partition(" do not exist")[0] for line in lines if "do not exist" in line}
            assert len(groups) == len([line for line in lines if "do not exist" in line]), "one line per consumer"
            assert [line for line in lines if "created again; reading" in line], service.output()
            assert service.process.poll() is None


async def delete_topics(bootstrap: str, names: list[str], servers: tuple[str, ...]) -> None:
    """Delete topics and wait until they are gone."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(names)
    finally:
        await admin.close()
    async with KafkaTransport(load_settings(env={"PRELA_KAFKA_BOOTSTRAP": ",".join(servers)}).kafka) as transport:
        with anyio.fail_after(DEADLINE):
            while await transport.topics(names):
                await anyio.sleep(0.05)
