"""Where a loop with `follow=False` ends: members without a partition, partitions that move, a broker that hangs."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

import prela_stream as prela
from prela_stream.config import load_settings
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.kafka.consumer import KafkaConsumer
from tests.support.kafka import Clusters
from tests.support.kept import trace_id, whole
from tests.support.kept_log import KeptLog, OpenLog, opened
from tests.support.workers import DEADLINE


@pytest.fixture
async def log(open_log: OpenLog, patient_leaving: None) -> AsyncIterator[KeptLog]:
    """Members leave the group only on request: no test takes as long as their session."""
    async with open_log(session_timeout_ms=120_000, partitions=1) as opened:
        yield opened


@pytest.fixture
async def impatient_log(open_log: OpenLog) -> AsyncIterator[KeptLog]:
    """A member that hangs is soon removed from its group."""
    async with open_log(session_timeout_ms=500, partitions=1) as opened:
        yield opened


class Fellow:
    """A member that follows: it commits each trace, and leaves on request."""

    def __init__(self, log: KeptLog) -> None:
        self._log = log
        self._leave = anyio.CancelScope()
        self.seen: list[str] = []

    async def run(self) -> None:
        """Read until `leave`."""
        with self._leave:
            async with prela.kept_traces(self._log.group, settings=self._log.settings) as traces:
                async for trace in traces:
                    await traces.commit()
                    self.seen.append(trace.trace_id)

    def leave(self) -> None:
        """Leave the group."""
        self._leave.cancel()

    async def has_seen(self, count: int) -> None:
        """Wait until it has received so many traces."""
        with anyio.fail_after(DEADLINE):
            while len(self.seen) < count:
                await anyio.sleep(0.01)


@pytest.mark.parametrize("group", [None, "readers"])
async def test_a_topic_without_records_ends_at_once(log: KeptLog, group: str | None) -> None:
    assert await log.rest(group and log.group) == []


async def test_a_member_without_a_partition_ends(log: KeptLog) -> None:
    await log.kept(whole(1))
    fellow = Fellow(log)
    found: list[str] = []

    async def read() -> None:
        found.extend(await log.rest(log.group))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fellow.run)
        await fellow.has_seen(1)
        async with (
            anyio.create_task_group() as readers
        ):  # with the fellow they are three: at least one has no partition
            readers.start_soon(read)
            readers.start_soon(read)
        await log.kept(whole(2))
        await fellow.has_seen(2)  # it has the partition still, or again
        fellow.leave()
    assert found == []
    assert set(fellow.seen) == {trace_id(1), trace_id(2)}


async def test_a_partition_that_is_released_is_read_now_or_the_next_time(log: KeptLog) -> None:
    await log.kept(whole(1))
    fellow = Fellow(log)
    found: list[str] = []

    async def read() -> None:
        found.extend(await log.rest(log.group))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fellow.run)
        await fellow.has_seen(1)
        async with anyio.create_task_group() as readers:
            readers.start_soon(read)
            fellow.leave()
            await log.kept(whole(2))
    found += await log.rest(log.group)
    assert {*fellow.seen, *found} == {trace_id(1), trace_id(2)}


async def test_a_member_that_hung_reads_what_it_is_assigned_again_before_its_end(impatient_log: KeptLog) -> None:
    await impatient_log.kept(whole(1), whole(2))
    both = [trace_id(1), trace_id(2)]
    hung, go_on = threading.Event(), threading.Event()

    async def hang() -> list[str]:
        seen = []
        async with prela.kept_traces(impatient_log.group, settings=impatient_log.settings, follow=False) as traces:
            async for trace in traces:
                seen.append(trace.trace_id)
                if len(seen) == len(both):
                    hung.set()
                    assert go_on.wait(DEADLINE)  # the loop is blocked: no heartbeat leaves it
                    await traces.commit()  # fenced, and skipped
            await traces.commit()
        return seen

    hanging = asyncio.ensure_future(asyncio.to_thread(asyncio.run, hang()))
    hanging.add_done_callback(lambda _: hung.set())
    assert await anyio.to_thread.run_sync(hung.wait, DEADLINE)
    if hanging.done():
        await hanging  # raises the error that stopped it
    with anyio.fail_after(DEADLINE):
        async with prela.kept_traces(impatient_log.group, settings=impatient_log.settings) as traces:
            assert [(await anext(traces)).trace_id for _ in both] == both  # and none of them is committed
        go_on.set()
        assert await hanging == both + both
    assert await impatient_log.rest(impatient_log.group) == []


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_broker_that_hangs_when_it_is_asked_for_the_end_is_waited_for(
    kafka_clusters: Clusters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = kafka_clusters()
    patient: dict[str, Any] = {"transport": "kafka", "kafka": {"bootstrap": [cluster.bootstrap]}}
    async with opened(load_settings(env={}, overrides=patient)) as log:
        await log.kept(whole(1), whole(2))
        assert len(await log.rest(None)) == 2  # the broker has served every request once
    settings = load_settings(env={}, overrides=patient)
    ask = KafkaConsumer.end_offset
    asked = 0

    async def ask_a_broker_that_hangs(self: KafkaConsumer, partition: TopicPartition) -> int:
        nonlocal asked
        asked += 1
        if asked > 1:
            return await ask(self, partition)
        admin = self._offsets._admin
        options = admin.options
        admin.options = msgspec.structs.replace(options, request_timeout_ms=1_000)  # impatient for this once
        cluster.broker[0].suspend()
        try:
            return await ask(self, partition)
        finally:
            admin.options = options

    monkeypatch.setattr(KafkaConsumer, "end_offset", ask_a_broker_that_hangs)

    async def resume_once_it_is_missed() -> None:
        try:
            with anyio.fail_after(DEADLINE):
                while "cannot read from the transport" not in caplog.text:
                    await anyio.sleep(0.05)
        finally:
            cluster.broker[0].resume()

    async with anyio.create_task_group() as tasks:
        with caplog.at_level(logging.WARNING):
            tasks.start_soon(resume_once_it_is_missed)
            with anyio.fail_after(2 * DEADLINE):
                async with prela.kept_traces(None, settings=settings, follow=False) as traces:
                    found = [trace.trace_id async for trace in traces]
    assert found == [trace_id(1), trace_id(2)]
    assert asked > 1
