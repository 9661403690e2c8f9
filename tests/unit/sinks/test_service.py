"""The sink's loop over the local transport: batches, offsets, unreadable Records, members that come and go, errors."""

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest

from prela_stream import telemetry
from prela_stream.codec.decisions import encode_decisions
from prela_stream.codec.sampled import KeptFragment, encode_kept
from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.model.decision import Decision
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.service import SinkService
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from prela_stream.transport.base import Committed, Record, TopicPartition, Transport
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions, TopicOptions
from prela_stream.transport.topics import topic_specs
from tests.contracts.sink_contract import decision, trace_id, whole
from tests.support.workers import DEADLINE, local_log

TOPICS = TopicOptions(partitions=2, sampled_partitions=2)
SAMPLED = TopicPartition(TOPICS.sampled, 0)


@pytest.fixture
def options(tmp_path: Path) -> SqliteOptions:
    return SqliteOptions(path=str(tmp_path / "traces.db"))


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[Transport]:
    async with local_log(tmp_path, TOPICS) as opened:
        yield opened


async def send(transport: Transport, *values: bytes, to: TopicPartition = SAMPLED) -> None:
    async with await transport.producer() as producer:
        await producer.send(to, [Record(value=value) for value in values])


async def send_traces(transport: Transport, numbers: Sequence[int]) -> None:
    for partition in (0, 1):
        mine = [encode_kept(whole(number)) for number in numbers if number % 2 == partition]
        if mine:
            await send(transport, *mine, to=TopicPartition(TOPICS.sampled, partition))


async def until_stored(options: SqliteOptions, **wanted: int) -> dict[str, int]:
    """Wait until the store's totals hold these."""
    totals: dict[str, int] = {}
    with anyio.fail_after(DEADLINE):
        async with SqliteReader(options) as reader:
            while not all(totals.get(name) == value for name, value in wanted.items()):
                await anyio.sleep(0.01)
                with contextlib.suppress(ConfigurationError):  # the service has not made the store yet
                    totals = await reader.totals()
    return totals


async def committed(transport: Transport, partition: TopicPartition, group: str = "sinks.sqlite") -> Committed | None:
    async with await transport.consumer([partition.topic], group=group) as consumer:
        return await consumer.committed(partition)


class WatchedSink(SqliteSink):
    """The store, and the traces that it was given: each as often as it came, which the store itself does not show."""

    def __init__(self, options: SqliteOptions) -> None:
        super().__init__(options)
        self.given: list[str] = []

    async def write(self, batch: SinkBatch) -> None:
        self.given += [fragment.decision.trace_id_hex for fragment in batch.fragments]
        self.given += [about.trace_id_hex for about in batch.decisions]
        await super().write(batch)


async def test_kept_traces_and_decisions_reach_the_store_and_their_offsets_are_committed(
    transport: Transport, options: SqliteOptions
) -> None:
    await send_traces(transport, range(1, 31))
    dropped: list[Decision] = [decision(number + 100, kept=False) for number in range(3)]
    await send(transport, encode_decisions(dropped), to=TopicPartition(TOPICS.decisions, 1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(SinkService(transport, TOPICS, SqliteSink(options)).run)
        assert (await until_stored(options, traces=30, dropped=3))["spans"] == 60
        tasks.cancel_scope.cancel()
    sink = SqliteSink(options)
    stored = await sink.stored_offset(SAMPLED)
    await sink.aclose()
    assert stored is not None
    after = await committed(transport, SAMPLED)
    assert after is not None
    assert after.offset == stored


async def test_a_new_service_goes_on_where_the_data_ends(transport: Transport, options: SqliteOptions) -> None:
    given = []
    for first in (1, 11, 21):
        await send_traces(transport, range(first, first + 10))
        sink = WatchedSink(options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(SinkService(transport, TOPICS, sink).run)
            await until_stored(options, traces=first + 9)
            tasks.cancel_scope.cancel()
        given += sink.given
    assert sorted(given) == [trace_id(number) for number in range(1, 31)]


async def test_an_unreadable_record_is_counted_logged_once_and_skipped(
    transport: Transport, options: SqliteOptions, caplog: pytest.LogCaptureFixture
) -> None:
    before = telemetry.SINK_BAD_RECORDS.value(TOPICS.sampled)
    good = encode_kept(whole(1))
    await send(transport, b"", b"\x07future", good[:-20], good, b"\x01\xc1")
    with caplog.at_level(logging.ERROR):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(SinkService(transport, TOPICS, SqliteSink(options)).run)
            await until_stored(options, traces=1)
            await send(transport, encode_kept(whole(2)))
            await until_stored(options, traces=2)
            tasks.cancel_scope.cancel()
    assert telemetry.SINK_BAD_RECORDS.value(TOPICS.sampled) == before + 4
    (line,) = [record.getMessage() for record in caplog.records if record.name == "prela_stream.sinks.topic_consumer"]
    assert f"{TOPICS.sampled} partition 0 offset" in line


async def test_two_members_share_the_work_and_one_takes_over(transport: Transport, options: SqliteOptions) -> None:
    first, second = WatchedSink(options), WatchedSink(options)
    async with anyio.create_task_group() as tasks:
        leaving, joined = anyio.CancelScope(), anyio.Event()

        async def leave() -> None:
            with leaving:
                await SinkService(transport, TOPICS, first).run()

        tasks.start_soon(leave)
        await send_traces(transport, range(1, 11))
        await until_stored(options, traces=10)
        tasks.start_soon(partial(SinkService(transport, TOPICS, second).run, on_ready=joined.set))
        with anyio.fail_after(DEADLINE):
            await joined.wait()
        await send_traces(transport, range(11, 21))
        for partition in (0, 1):  # so that every partition brings something, whoever holds it
            dropped = encode_decisions([decision(100 + partition, kept=False)])
            await send(transport, dropped, to=TopicPartition(TOPICS.decisions, partition))
        await until_stored(options, traces=20, dropped=2)
        leaving.cancel()
        await send_traces(transport, range(21, 31))
        totals = await until_stored(options, traces=30)
        assert totals["spans"] == 60
        tasks.cancel_scope.cancel()
    shared = {trace_id(number) for number in (*range(11, 21), 100, 101)}
    assert shared & set(first.given)
    assert shared & set(second.given)
    assert {trace_id(number) for number in range(21, 31)} <= set(second.given)


async def test_a_log_that_was_made_anew_is_read_from_its_beginning(tmp_path: Path, options: SqliteOptions) -> None:
    for name, numbers in (("old.db", range(1, 41)), ("new.db", range(101, 111))):
        async with LocalTransport(LocalOptions(path=str(tmp_path / name))) as transport:
            await transport.create_topics(topic_specs(TOPICS))
            await send_traces(transport, numbers)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(SinkService(transport, TOPICS, SqliteSink(options)).run)
                await until_stored(options, traces=40 if name == "old.db" else 50)
                tasks.cancel_scope.cancel()


class FailingSink:
    """A store that takes one batch and breaks on the next."""

    wants_decisions = False

    def __init__(self) -> None:
        self.taken: list[KeptFragment] = []
        self.closed = False

    async def write(self, batch: SinkBatch) -> None:
        if self.taken:
            raise SinkError("the disk is full")
        self.taken.extend(batch.fragments)

    async def stored_offset(self, source: TopicPartition) -> int | None:
        return None

    async def aclose(self) -> None:
        self.closed = True


async def test_an_error_of_the_sink_stops_the_service_and_the_batch_comes_again(transport: Transport) -> None:
    await send(transport, encode_kept(whole(1)), encode_kept(whole(2)), encode_kept(whole(3)))
    seen = []
    for taken in (1, 2):
        sink = FailingSink()
        with pytest.raises(SinkError, match="disk is full"), anyio.fail_after(DEADLINE):
            await SinkService(transport, TOPICS, sink, group="other", max_records=1).run()
        assert sink.closed
        seen += [one.decision.trace_id_hex for one in sink.taken]
        after = await committed(transport, SAMPLED, "other")
        assert after is not None
        assert len(seen) == taken
    assert seen == [trace_id(1), trace_id(2)]


async def test_a_batch_that_is_being_written_is_finished_and_committed_before_the_service_stops(
    transport: Transport,
) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    class SlowSink(FailingSink):
        async def write(self, batch: SinkBatch) -> None:
            begun.set()
            await go_on.wait()
            self.taken.extend(batch.fragments)

    await send(transport, encode_kept(whole(1)))
    sink = SlowSink()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(SinkService(transport, TOPICS, sink, group="other").run)
        await begun.wait()
        tasks.cancel_scope.cancel()
        go_on.set()
    assert len(sink.taken) == 1
    after = await committed(transport, SAMPLED, "other")
    assert after is not None
    assert after.offset >= 1
