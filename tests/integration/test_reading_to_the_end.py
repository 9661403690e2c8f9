"""`follow=False` where the end is not plain to see: members without a share, shares that move, a broker that hangs."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

import prela_stream as prela
from prela_stream.app import ready_transport
from prela_stream.app.adapters import make_topics
from prela_stream.codec.sampled import encode_kept
from prela_stream.config import Settings, load_settings
from prela_stream.transport.base import TopicPartition, Transport
from prela_stream.transport.kafka.consumer import KafkaConsumer
from tests.support.kafka import Clusters
from tests.support.kept import trace_id, whole
from tests.support.workers import DEADLINE, send

PLACES = ["local", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A log of the test's own with one partition of `sampled`, and the settings that name it."""

    settings: Settings
    transport: Transport

    @property
    def group(self) -> str:
        """A group that no other test has."""
        return f"{self.settings.topics.prefix}.readers"

    async def kept(self, *numbers: int) -> None:
        """Append whole traces to `sampled`."""
        values = [encode_kept(whole(number)) for number in numbers]
        await send(self.transport, *values, to=TopicPartition(self.settings.topics.sampled, 0))

    async def to_the_end(self, group: str | None) -> list[str]:
        """Trace ids that a new member is given until its loop ends; all of them are committed."""
        with anyio.fail_after(DEADLINE):
            async with prela.kept_traces(group, settings=self.settings, follow=False) as traces:
                found = [trace.trace_id async for trace in traces]
                if group is not None:
                    await traces.commit()
        return found


@asynccontextmanager
async def opened(overrides: dict[str, object]) -> AsyncIterator[Place]:
    """The place that these settings name, with its topics."""
    settings = load_settings(env={}, overrides=overrides)
    async with ready_transport(settings) as transport:
        await make_topics(settings, transport)
        yield Place(settings=settings, transport=transport)


def overrides_of(transport: str, folder: Path, request: pytest.FixtureRequest, session_timeout_ms: int) -> Any:
    """Settings of a log that no other test uses."""
    if transport == "local":
        return {"local": {"path": str(folder / "log.db"), "session_timeout_ms": session_timeout_ms}}
    timeout_ms = max(session_timeout_ms, 6_000)  # brokers take no less
    return {
        "transport": "kafka",
        "topics": {"prefix": request.getfixturevalue("kafka_prefix")},
        "kafka": {"bootstrap": [request.getfixturevalue("kafka")], "session_timeout_ms": timeout_ms},
    }


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path, patient_leaving: None) -> AsyncIterator[Place]:
    """Where members leave the group by themselves alone: no test takes as long as their session."""
    async with opened(overrides_of(request.param, tmp_path, request, 120_000)) as made:
        yield made


@pytest.fixture(params=PLACES)
async def hasty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Where a member that hangs is soon out of its group."""
    async with opened(overrides_of(request.param, tmp_path, request, 500)) as made:
        yield made


class Fellow:
    """A member that follows: it commits each trace, and leaves when it is told to."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._leave = anyio.CancelScope()
        self.seen: list[str] = []

    async def run(self) -> None:
        """Read until `leave`."""
        with self._leave:
            async with prela.kept_traces(self._place.group, settings=self._place.settings) as traces:
                async for trace in traces:
                    await traces.commit()
                    self.seen.append(trace.trace_id)

    def leave(self) -> None:
        """Leave the group."""
        self._leave.cancel()

    async def has_seen(self, count: int) -> None:
        """Wait until it was given so many traces."""
        with anyio.fail_after(DEADLINE):
            while len(self.seen) < count:
                await anyio.sleep(0.01)


@pytest.mark.parametrize("group", [None, "readers"])
async def test_a_topic_without_records_ends_at_once(place: Place, group: str | None) -> None:
    assert await place.to_the_end(group and place.group) == []


async def test_a_member_for_whom_no_partition_is_left_comes_to_its_end(place: Place) -> None:
    await place.kept(1)
    fellow = Fellow(place)
    found: list[str] = []

    async def read() -> None:
        found.extend(await place.to_the_end(place.group))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fellow.run)
        await fellow.has_seen(1)
        async with anyio.create_task_group() as readers:  # two beside the fellow: one of them at least has no share
            readers.start_soon(read)
            readers.start_soon(read)
        await place.kept(2)
        await fellow.has_seen(2)  # it has the partition still, or again
        fellow.leave()
    assert found == []
    assert set(fellow.seen) == {trace_id(1), trace_id(2)}


async def test_a_share_that_comes_free_is_read_now_or_the_next_time(place: Place) -> None:
    await place.kept(1)
    fellow = Fellow(place)
    found: list[str] = []

    async def read() -> None:
        found.extend(await place.to_the_end(place.group))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fellow.run)
        await fellow.has_seen(1)
        async with anyio.create_task_group() as readers:
            readers.start_soon(read)
            fellow.leave()
            await place.kept(2)
    found += await place.to_the_end(place.group)
    assert {*fellow.seen, *found} == {trace_id(1), trace_id(2)}


async def test_what_came_back_to_a_member_that_hung_is_read_before_its_end(hasty: Place) -> None:
    await hasty.kept(1, 2)
    both = [trace_id(1), trace_id(2)]
    hung, go_on = threading.Event(), threading.Event()

    async def hang() -> list[str]:
        seen = []
        async with prela.kept_traces(hasty.group, settings=hasty.settings, follow=False) as traces:
            async for trace in traces:
                seen.append(trace.trace_id)
                if len(seen) == len(both):
                    hung.set()
                    assert go_on.wait(DEADLINE)  # the loop stands still: no heartbeat leaves it
                    await traces.commit()  # fenced, and passed over
            await traces.commit()
        return seen

    hanging = asyncio.ensure_future(asyncio.to_thread(asyncio.run, hang()))
    hanging.add_done_callback(lambda _: hung.set())
    assert await anyio.to_thread.run_sync(hung.wait, DEADLINE)
    if hanging.done():
        await hanging  # says why it did not get so far
    with anyio.fail_after(DEADLINE):
        async with prela.kept_traces(hasty.group, settings=hasty.settings) as traces:
            assert [(await anext(traces)).trace_id for _ in both] == both  # and none of them is committed
        go_on.set()
        assert await hanging == both + both
    assert await hasty.to_the_end(hasty.group) == []


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_broker_that_hangs_when_it_is_asked_for_the_end_is_waited_for(
    kafka_clusters: Clusters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = kafka_clusters()
    patient: dict[str, Any] = {"transport": "kafka", "kafka": {"bootstrap": [cluster.bootstrap]}}
    async with opened(patient) as place:
        await place.kept(1, 2)
        assert len(await place.to_the_end(None)) == 2  # the broker has done everything once
    settings = load_settings(env={}, overrides=patient)
    ask = KafkaConsumer.end_offset
    asked = 0

    async def ask_a_broker_that_hangs(self: KafkaConsumer, partition: TopicPartition) -> int:
        nonlocal asked
        asked += 1
        if asked > 1:
            return await ask(self, partition)
        wire = self._offsets._wire
        options = wire.options
        wire.options = msgspec.structs.replace(options, request_timeout_ms=1_000)  # impatient for this once
        cluster.broker[0].suspend()
        try:
            return await ask(self, partition)
        finally:
            wire.options = options

    monkeypatch.setattr(KafkaConsumer, "end_offset", ask_a_broker_that_hangs)

    async def resume_when_it_is_missed() -> None:
        try:
            with anyio.fail_after(DEADLINE):
                while "cannot read from the transport" not in caplog.text:
                    await anyio.sleep(0.05)
        finally:
            cluster.broker[0].resume()

    async with anyio.create_task_group() as tasks:
        with caplog.at_level(logging.WARNING):
            tasks.start_soon(resume_when_it_is_missed)
            with anyio.fail_after(2 * DEADLINE):
                async with prela.kept_traces(None, settings=settings, follow=False) as traces:
                    found = [trace.trace_id async for trace in traces]
    assert found == [trace_id(1), trace_id(2)]
    assert asked > 1
