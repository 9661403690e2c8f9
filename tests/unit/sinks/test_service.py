"""The loop of a sink over the local transport: batches, offsets, unreadable records, rebalances, faults."""

import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from prela_stream import telemetry
from prela_stream.codec.decisions import encode_decisions
from prela_stream.codec.sampled import encode_kept
from prela_stream.errors import ConfigurationError, SinkError, TransportError, UnknownTopicError
from prela_stream.model.decision import Decision
from prela_stream.sinks.base import PreparedBatch, Sink, SinkBatch
from prela_stream.sinks.service import SinkService, _Assigned, _Waiting
from prela_stream.sinks.sqlite import schema
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from prela_stream.sinks.topic_consumer import TopicConsumer
from prela_stream.transport.base import Committed, Poll, Record, TopicPartition, Transport
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.local.consumer import LocalConsumer
from prela_stream.transport.options import LocalOptions, TopicOptions
from prela_stream.transport.topics import topic_specs
from tests.support.kept import decision, fragments_of, trace_id, whole
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
                with contextlib.suppress(ConfigurationError):  # the store is not created yet
                    totals = await reader.totals()
    return totals


async def committed(transport: Transport, partition: TopicPartition, group: str = "sinks.sqlite") -> Committed | None:
    async with await transport.consumer([partition.topic], group=group) as consumer:
        return await consumer.committed(partition)


class WatchedSink(SqliteSink):
    """A store that notes every trace that it receives, also those that change nothing."""

    def __init__(self, options: SqliteOptions) -> None:
        super().__init__(options)
        self.received: list[str] = []

    def prepare(self, batch: SinkBatch) -> PreparedBatch:
        self.received += [trace.trace_id for trace in batch.traces]
        self.received += [about.trace_id_hex for about in batch.decisions]
        return super().prepare(batch)


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


async def test_a_new_service_continues_where_the_data_ends(transport: Transport, options: SqliteOptions) -> None:
    received = []
    for first in (1, 11, 21):
        await send_traces(transport, range(first, first + 10))
        sink = WatchedSink(options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(SinkService(transport, TOPICS, sink).run)
            await until_stored(options, traces=first + 9)
            tasks.cancel_scope.cancel()
        received += sink.received
    assert sorted(received) == [trace_id(number) for number in range(1, 31)]


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
        for partition in (0, 1):  # so that each member receives something, whichever partitions it has
            dropped = encode_decisions([decision(100 + partition, kept=False)])
            await send(transport, dropped, to=TopicPartition(TOPICS.decisions, partition))
        await until_stored(options, traces=20, dropped=2)
        leaving.cancel()
        await send_traces(transport, range(21, 31))
        totals = await until_stored(options, traces=30)
        assert totals["spans"] == 60
        tasks.cancel_scope.cancel()
    shared = {trace_id(number) for number in (*range(11, 21), 100, 101)}
    assert shared & set(first.received)
    assert shared & set(second.received)
    assert {trace_id(number) for number in range(21, 31)} <= set(second.received)


async def test_a_log_that_was_created_again_is_read_from_its_beginning(tmp_path: Path, options: SqliteOptions) -> None:
    for name, numbers in (("old.db", range(1, 41)), ("new.db", range(101, 111))):
        async with LocalTransport(LocalOptions(path=str(tmp_path / name))) as transport:
            await transport.create_topics(topic_specs(TOPICS))
            await send_traces(transport, numbers)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(SinkService(transport, TOPICS, SqliteSink(options)).run)
                await until_stored(options, traces=40 if name == "old.db" else 50)
                tasks.cancel_scope.cancel()


class FaultySink:
    """A sink in memory that raises `fault` while there is one, and notes what it has written."""

    wants_decisions = False

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.attempts = 0
        self.batches: list[SinkBatch] = []
        self.closed = False

    @property
    def written(self) -> list[str]:
        """Trace ids, each as often as it was written."""
        return [trace.trace_id for batch in self.batches for trace in batch.traces]

    async def write(self, batch: SinkBatch) -> None:
        self.attempts += 1
        if self.fault is not None:
            raise self.fault
        self.batches.append(batch)

    async def stored_offset(self, source: TopicPartition) -> int | None:
        return None

    async def aclose(self) -> None:
        self.closed = True


@asynccontextmanager
async def serving(transport: Transport, sink: Sink, **options: Any) -> AsyncIterator[SinkService]:
    """The service at work for the length of the block, with all its partitions; then stopped cleanly."""
    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()
        service = SinkService(transport, TOPICS, sink, **options)
        tasks.start_soon(partial(service.run, on_ready=ready.set))
        with anyio.fail_after(DEADLINE):
            await ready.wait()
        yield service
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE):
        while not condition():
            await anyio.sleep(0.01)


@pytest.mark.parametrize("fault", [SinkError("the disk is full"), ConnectionRefusedError(111, "refused")])
async def test_a_transient_fault_is_waited_for_counted_and_logged_once(
    transport: Transport, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    before = telemetry.SINK_RETRIES.value("faulty")
    numbers = range(1, 6)
    await send(transport, *[encode_kept(whole(number)) for number in numbers])
    sink = FaultySink(fault)
    with caplog.at_level(logging.INFO, logger="prela_stream.sinks"):
        async with serving(transport, sink, group="faulty", max_records=2) as service:
            await until(lambda: sink.attempts >= 4)
            assert service.observer.problems(60) == [f"the sink cannot write, and tries again: {fault}"]
            assert await committed(transport, SAMPLED, "faulty") is None
            sink.fault = None
            await until(lambda: len(sink.written) == len(numbers))
            await until(lambda: service.observer.problems(60) == [])
    assert sink.closed
    assert sink.written == [trace_id(number) for number in numbers]
    assert telemetry.SINK_RETRIES.value("faulty") - before >= 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    after = await committed(transport, SAMPLED, "faulty")
    assert after is not None
    assert after.offset >= len(numbers)


async def test_a_failing_sink_leaves_a_partition_that_moves_to_its_new_member(transport: Transport) -> None:
    await send_traces(transport, range(1, 21))
    faulty, working = FaultySink(SinkError("locked")), FaultySink()
    async with serving(transport, faulty, group="moving"):
        await until(lambda: faulty.attempts > 0)
        async with serving(transport, working, group="moving"):
            await until(lambda: len(working.written) == 10)
            faulty.fault = None
            await until(lambda: len(faulty.written) == 10)
    assert sorted(faulty.written + working.written) == sorted(trace_id(number) for number in range(1, 21))


async def test_wrong_options_end_the_service_only_before_its_first_success(transport: Transport) -> None:
    class Wrong(FaultySink):
        async def stored_offset(self, source: TopicPartition) -> int | None:
            raise ConfigurationError("the file belongs to another program")

    with pytest.raises(ConfigurationError, match="another program"), anyio.fail_after(DEADLINE):
        await SinkService(transport, TOPICS, Wrong(), group="wrong").run()
    sink = FaultySink()
    async with serving(transport, sink, group="wrong"):
        sink.fault = ConfigurationError("the file was replaced")
        await send(transport, encode_kept(whole(1)))
        await until(lambda: sink.attempts >= 2)
        sink.fault = None
        await until(lambda: sink.written == [trace_id(1)])


class DeletedTopics:
    """A transport whose topics do not exist while `deleted` is set, as after `kafka-topics --delete`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.deleted = False
        self.refused = 0

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> Any:
        self._refuse()
        consumer = await self._transport.consumer(topics, group=group)
        poll = consumer.poll

        async def poll_existing(**options: Any) -> Any:
            self._refuse()
            return await poll(**options)

        consumer.poll = poll_existing  # type: ignore[method-assign]
        return consumer

    def _refuse(self) -> None:
        if self.deleted:
            self.refused += 1
            raise UnknownTopicError("there is no topic prela.sampled")


@pytest.mark.slow
async def test_topics_that_were_deleted_are_waited_for(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    topics: Any = DeletedTopics(transport)
    topics.deleted = True
    with pytest.raises(UnknownTopicError):
        await SinkService(topics, TOPICS, FaultySink(), group="deleted").run()
    topics.deleted, sink = False, FaultySink()
    await send(transport, encode_kept(whole(1)))
    async with serving(topics, sink, group="deleted"):
        await until(lambda: sink.written == [trace_id(1)])
        topics.deleted, topics.refused = True, 0
        await until(lambda: topics.refused >= 3)
        topics.deleted = False
        await send(transport, encode_kept(whole(2)))
        with anyio.fail_after(5):
            await until(lambda: trace_id(2) in sink.written)
    logged = [record.getMessage() for record in caplog.records if record.name == "prela_stream.sinks.service"]
    assert len(logged) == 2
    assert "there is no topic prela.sampled" in logged[0]


@pytest.mark.slow
async def test_a_commit_that_fails_is_logged_once_and_repeated(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = 0

    async def refuse(self: LocalConsumer, offsets: dict[TopicPartition, Committed]) -> None:
        nonlocal failed
        failed += 1
        raise TransportError("the log is locked")

    sink = FaultySink()
    async with serving(transport, sink, group="commits"):
        with monkeypatch.context() as patch:
            patch.setattr(LocalConsumer, "commit", refuse)
            await send(transport, encode_kept(whole(1)))
            await until(lambda: failed >= 3)
        with anyio.fail_after(DEADLINE):
            while (after := await committed(transport, SAMPLED, "commits")) is None or after.offset < 1:
                await anyio.sleep(0.01)
    assert sink.written == [trace_id(1)]
    assert [record.getMessage() for record in caplog.records if "could not commit" in record.getMessage()] == [
        "could not commit the offsets of the consumer group commits, will try again: the log is locked"
    ]


async def test_traces_are_written_whole_and_offsets_wait_for_the_first_fragment(transport: Transport) -> None:
    large, small = fragments_of(1, 5), whole(2)
    await send(transport, *map(encode_kept, [large[0], small, *large[1:4]]))
    sink = FaultySink()
    async with serving(transport, sink, group="large", max_records=1):
        await until(lambda: sink.written == [trace_id(2)])
    assert {batch.next_offset for batch in sink.batches} == {0}
    other = FaultySink()
    async with serving(transport, other, group="large", max_records=2):
        await send(transport, encode_kept(large[4]))
        await until(lambda: trace_id(1) in other.written)
    assert other.written == [trace_id(2), trace_id(1)], "the small trace comes again: its offset was not committed"
    (trace,) = [trace for batch in other.batches for trace in batch.traces if trace.trace_id == trace_id(1)]
    assert len(trace.spans) == 5
    after = await committed(transport, SAMPLED, "large")
    assert after is not None
    assert after.offset >= 6


async def test_a_store_has_each_trace_once_whatever_was_in_progress_when_it_stopped(
    transport: Transport, options: SqliteOptions
) -> None:
    large = fragments_of(1, 3)
    await send(transport, *map(encode_kept, [whole(2), large[0], whole(3), large[1]]))
    async with serving(transport, SqliteSink(options)):
        await until_stored(options, traces=2)
    sink = SqliteSink(options)
    assert await sink.stored_offset(SAMPLED) == 1, "the large trace begins there"
    await sink.aclose()
    await send(transport, encode_kept(large[2]), encode_kept(whole(4)))
    async with serving(transport, SqliteSink(options)):
        assert await until_stored(options, traces=4) == {
            "traces": 4, "spans": 9, "decisions": 4, "kept": 4, "dropped": 0,
        }  # fmt: skip
    async with SqliteReader(options) as reader:
        assert await reader.newest_mark() == 4, "trace 3 was written again and changed nothing"


async def test_a_batch_that_is_being_written_is_finished_and_committed_before_the_service_stops(
    transport: Transport,
) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    class SlowSink(FaultySink):
        async def write(self, batch: SinkBatch) -> None:
            begun.set()
            await go_on.wait()
            self.batches.append(batch)

    await send(transport, encode_kept(whole(1)))
    sink = SlowSink()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(SinkService(transport, TOPICS, sink, group="other").run)
        await begun.wait()
        tasks.cancel_scope.cancel()
        go_on.set()
    assert sink.written == [trace_id(1)]
    after = await committed(transport, SAMPLED, "other")
    assert after is not None
    assert after.offset >= 1


async def test_a_locked_store_is_waited_for(
    transport: Transport, options: SqliteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BUSY_S", 0.05)
    before = telemetry.SINK_RETRIES.value("sinks.sqlite")
    async with serving(transport, SqliteSink(options)):
        await send_traces(transport, range(1, 5))
        await until_stored(options, traces=4)
        with contextlib.closing(sqlite3.connect(options.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await send_traces(transport, range(5, 9))
            await until(lambda: telemetry.SINK_RETRIES.value("sinks.sqlite") - before >= 3)
            other.execute("ROLLBACK")
        with anyio.fail_after(5):
            await until_stored(options, traces=8)


async def test_lag_readiness_and_batches_are_measured(transport: Transport) -> None:
    group = "measured"
    sink = FaultySink(None)
    service = SinkService(transport, TOPICS, sink, group=group)

    def measured(name: str) -> float:
        return telemetry.snapshot().value(f"prela_sink_{name}", group=group, topic=TOPICS.sampled)

    assert service.observer.problems(60) == [
        f"the sink has not received its partitions from the consumer group {group}"
    ]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        await until(lambda: not service.observer.problems(60))
        await send_traces(transport, range(1, 6))
        await until(lambda: len(sink.written) == 5)
        assert measured("records_total") == 5
        assert measured("batch_records") == measured("write_duration_seconds") >= 2
        await service.observer.refresh()
        assert measured("lag_records") == 0
        sink.fault = SinkError("the disk is full")
        await send_traces(transport, range(6, 9))
        await until(lambda: bool(service.observer.problems(60)))
        assert service.observer.problems(60) == ["the sink cannot write, and tries again: the disk is full"]
        sink.fault = None
        await until(lambda: not service.observer.problems(60) and len(sink.written) == 8)
        tasks.cancel_scope.cancel()
    assert measured("records_total") == 8
    assert service.observer.problems(60) != []


class GroupSink(FaultySink):
    """A sink that takes batches together. Each write waits until it is let through, and notes what it was asked to write."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[SinkBatch]] = []
        self.prepared: list[SinkBatch] = []
        self.is_writing = anyio.Event()
        self.may_write = anyio.Event()

    def prepare(self, batch: SinkBatch) -> PreparedBatch:
        self.prepared.append(batch)
        return PreparedBatch(source=batch.source, next_offset=batch.next_offset, content=batch)

    async def write_together(self, batches: Sequence[PreparedBatch], began: Callable[[], None]) -> None:
        began()
        self.is_writing.set()
        await self.may_write.wait()
        for one in batches:
            await self.write(one.content)
        self.groups.append([one.content for one in batches])


class WatchedService(SinkService):
    """Counts its polls."""

    polls = 0
    accepted = 0

    async def _accept(self, consumer: TopicConsumer, assigned: _Assigned, poll: Poll) -> None:
        await super()._accept(consumer, assigned, poll)
        self.polls += 1
        self.accepted += len(poll.records)


async def test_the_next_records_are_prepared_during_a_write_and_all_partitions_are_written_together(
    transport: Transport,
) -> None:
    sink = GroupSink()
    service = WatchedService(transport, TOPICS, sink, group="grouping", max_records=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        await until(lambda: service.observer.consumer is not None and len(service.observer.consumer.assignment()) == 2)
        await send(transport, *[encode_kept(whole(number)) for number in range(1, 7)])
        await sink.is_writing.wait()
        await until(lambda: service.accepted == 6)
        assert sum(len(batch.traces) for batch in sink.prepared) == 6
        assert sink.written == []
        await send_traces(transport, range(7, 11))
        sink.may_write.set()
        await until(lambda: len(sink.written) == 10)
        tasks.cancel_scope.cancel()
    assert sorted(sink.written) == [trace_id(number) for number in range(1, 11)]
    assert [len(one.traces) for one in sink.groups[0]] == [4]
    assert {one.source.partition for one in sink.groups[-1]} == {0, 1}
    for partition in (0, 1):
        after = await committed(transport, TopicPartition(TOPICS.sampled, partition), "grouping")
        assert after is not None
        assert after.offset >= 2


def test_what_was_written_of_a_partition_that_was_revoked_at_the_same_time_is_not_committed() -> None:
    other = TopicPartition(SAMPLED.topic, 1)
    assigned = _Assigned()
    written = [_Waiting(SinkBatch(source=one, next_offset=1), 1) for one in (SAMPLED, other)]
    later = _Waiting(SinkBatch(source=other, next_offset=2), 1)
    assigned.waiting.extend(written)
    assigned.apply(Poll(revoked=(SAMPLED,)))
    assigned.waiting.append(later)
    assert assigned.remove(written) == [written[1]]
    assert list(assigned.waiting) == [later]
