"""Retention by age and size, and compaction: what goes, what stays, and that numbers are never used again."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.transport.base import LogRecord, Record, TopicPartition, TopicSpec
from prela_stream.transport.local import LocalTransport, log, retention, topic_table
from prela_stream.transport.local.database import Database, LogFile
from prela_stream.transport.options import LocalOptions
from tests.support.examples import examples

PARTITION = TopicPartition("topic", 0)


class Clock:
    """A clock that the test sets, ms since the epoch."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


class Bench:
    """A log file with one partition, used without a thread."""

    def __init__(self, path: Path, **spec: Any) -> None:
        self.database = Database(LogFile(LocalOptions(path=str(path), synchronous="normal")))
        self.clock = Clock()
        topic = TopicSpec(name="topic", partitions=1, **spec)
        self.database.write(lambda connection: topic_table.create(connection, [topic]))
        self.at = self.database.partition(PARTITION)

    def append(self, *records: Record) -> int:
        return self.database.write(lambda connection: log.append(connection, self.at, records, self.clock.now))

    def sweep(self) -> None:
        retention.Sweeper().sweep(self.database, self.clock.now)

    def records(self, offset: int = 0) -> list[LogRecord]:
        return self.database.read(
            lambda connection: log.read(
                connection, self.at, offset, max_records=100_000, max_bytes=1 << 40, oversize=True
            )
        ).records

    def bytes_held(self) -> int:
        sql = "SELECT bytes FROM partitions WHERE id = ?"
        return int(self.database.read(lambda connection: connection.execute(sql, (self.at.id,)).fetchone()[0]))

    def offsets(self) -> tuple[int, int]:
        return self.database.read(
            lambda connection: (log.beginning_offset(connection, self.at), log.end_offset(connection, self.at))
        )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(**spec: Any) -> Bench:
        made.append(Bench(tmp_path / "log.db", **spec))
        return made[-1]

    yield bench
    for each in made:
        each.database.close()


def test_records_go_when_they_are_too_old(make: Callable[..., Bench]) -> None:
    bench = make(retention_ms=1_000)
    for number in range(5):
        bench.append(Record(value=b"%d" % number))
        bench.clock.now += 400
    bench.sweep()  # written 2000, 1600, 1200, 800 and 400 ms ago
    assert [record.value for record in bench.records()] == [b"3", b"4"]
    assert bench.offsets() == (3, 5)
    bench.clock.now += 100_000
    bench.sweep()
    assert bench.offsets() == (5, 5)
    assert bench.bytes_held() == 0
    assert bench.append(Record(value=b"next")) == 5


def test_the_oldest_go_when_a_partition_is_too_large(make: Callable[..., Bench]) -> None:
    bench = make(retention_bytes=1_000)
    bench.append(*(Record(value=bytes(300)) for _ in range(10)))
    bench.sweep()
    assert [record.offset for record in bench.records()] == [7, 8, 9]
    assert bench.bytes_held() == 900


def test_a_slice_is_bounded_and_the_next_one_goes_on(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLICE_RECORDS", 4)
    bench = make(retention_ms=0)
    bench.append(*(Record(value=b"x") for _ in range(10)))
    bench.clock.now += 1
    left = []
    for _ in range(3):
        bench.sweep()
        left.append(len(bench.records()))
    assert left == [6, 2, 0]


def test_a_slice_is_due_once_an_interval_and_grows_with_what_was_written(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLICE_RECORDS", 0)
    bench = make(retention_ms=0)
    bench.append(*(Record(value=b"x") for _ in range(10)))
    bench.clock.now += 1
    sweeper = retention.Sweeper(interval_seconds=3_600.0)
    assert [sweeper.wrote(1, 1), sweeper.wrote(2, 1)] == [True, False]
    sweeper.sweep(bench.database, bench.clock.now)
    assert len(bench.records()) == 4


def test_a_tombstone_outlives_what_it_deleted_by_the_retention(make: Callable[..., Bench]) -> None:
    bench = make(cleanup="compact", retention_ms=1_000)
    bench.append(Record(key=b"a", value=b"1"), Record(key=b"b", value=b"1"))
    bench.clock.now += 5_000
    bench.append(Record(key=b"a", value=None))
    bench.sweep()
    assert [(record.key, record.value) for record in bench.records()] == [(b"b", b"1"), (b"a", None)]
    bench.clock.now += 1_001
    bench.sweep()
    assert [(record.key, record.value) for record in bench.records()] == [(b"b", b"1")]
    assert bench.offsets() == (1, 3)
    assert bench.append(Record(key=b"a", value=b"2")) == 3
    assert [record.offset for record in bench.records()] == [1, 3]


def test_log_time_follows_a_clock_that_is_set_back_but_not_its_noise(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.append(Record(value=b"x"))
    before = bench.clock.now
    bench.clock.now -= log.CLOCK_NOISE_MS
    bench.append(Record(value=b"x"))
    bench.clock.now = before - 3_600_000  # an hour would be a long time without log time
    bench.append(Record(value=b"x"))
    bench.clock.now += 1
    bench.append(Record(value=b"x"))
    times = [record.timestamp_ms - before for record in bench.records()]
    assert times == [0, 0, -3_600_000, -3_599_999]


async def test_whoever_writes_sweeps_and_a_reader_passes_over_the_gap(tmp_path: Path) -> None:
    clock = Clock()
    async with LocalTransport(LocalOptions(path=str(tmp_path / "log.db")), clock=clock) as transport:
        await transport.create_topics([TopicSpec(name="topic", partitions=1, retention_ms=1_000)])
        consumer = await transport.consumer(["topic"])
        consumer.resume(*(await consumer.poll()).assigned)
        async with LocalTransport(LocalOptions(path=str(tmp_path / "log.db")), clock=clock) as writing:
            producer = await writing.producer()
            await producer.send(PARTITION, [Record(value=b"old")] * 5)
        clock.now += 2_000
        async with LocalTransport(LocalOptions(path=str(tmp_path / "log.db")), clock=clock) as writing:
            producer = await writing.producer()
            await producer.send(PARTITION, [Record(value=b"new")])
        assert await consumer.beginning_offset(PARTITION) == 5, "closing waits for the sweep that the write began"
        assert [(record.offset, record.value) for record in (await consumer.poll()).records] == [(5, b"new")]
        assert await consumer.position(PARTITION) == 6


async def test_a_reader_reaches_the_end_where_the_last_records_are_gone(tmp_path: Path) -> None:
    clock = Clock()
    options = LocalOptions(path=str(tmp_path / "log.db"))
    async with LocalTransport(options, clock=clock) as transport:
        specs = [
            TopicSpec(name=name, partitions=1, cleanup="compact", retention_ms=1_000) for name in ("topic", "other")
        ]
        await transport.create_topics(specs)
        producer = await transport.producer()
        for key, value in ((b"stays", b"x"), (b"goes", b"x"), (b"goes", None)):
            await producer.send(PARTITION, [Record(key=key, value=value)])
        clock.now += 2_000
        async with LocalTransport(options, clock=clock) as writing:
            await (await writing.producer()).send(TopicPartition("other", 0), [Record(key=b"k", value=b"x")])
        consumer = await transport.consumer(["topic"])
        consumer.resume(*(await consumer.poll()).assigned)
        assert [record.key for record in (await consumer.poll()).records] == [b"stays"]
        assert await consumer.position(PARTITION) == await consumer.end_offset(PARTITION) == 3


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
steps = st.one_of(
    st.lists(st.tuples(keys, st.one_of(st.none(), st.binary(max_size=20))), min_size=1, max_size=5),
    st.integers(-500, 1_500),
    st.just("sweep"),
)


@pytest.mark.parametrize("cleanup", ["compact", "delete"])
@examples(60)
@given(script=st.lists(steps, max_size=25))
def test_any_script_of_appends_and_sweeps_agrees_with_a_plain_model(
    cleanup: str, script: list[object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bench = Bench(tmp_path_factory.mktemp("log") / "log.db", cleanup=cleanup, retention_ms=1_000)
    model: list[tuple[int, int, bytes, bytes | None]] = []  # offset, time, key, value
    end, last = 0, 0
    for step in script:
        if isinstance(step, list):
            last = max(last, bench.clock.now)
            assert bench.append(*(Record(key=key, value=value) for key, value in step)) == end + len(step) - 1
            for key, value in step:
                model = [row for row in model if cleanup == "delete" or row[2] != key]
                model.append((end, last, key, value))
                end += 1
        elif isinstance(step, int):
            bench.clock.now = max(bench.clock.now + step, last - log.CLOCK_NOISE_MS)
        else:
            bench.sweep()
            oldest = bench.clock.now - 1_000
            model = [row for row in model if row[1] >= oldest or (cleanup == "compact" and row[3] is not None)]
    assert [(record.offset, record.timestamp_ms, record.key, record.value) for record in bench.records()] == model
    assert bench.offsets() == (model[0][0] if model else end, end)
    assert bench.bytes_held() == sum(len(key) + len(value or b"") for _, _, key, value in model)
    for moment in {row[1] + more for row in model for more in (-1, 0, 1)}:
        found = bench.database.read(partial(log.offset_at, row=bench.at, timestamp_ms=moment))
        assert found == next((row[0] for row in model if row[1] >= moment), end)
    assert bench.database.read(_integrity) == [("ok",)]
    bench.database.close()


def _integrity(connection: sqlite3.Connection) -> list[tuple[str]]:
    return connection.execute("PRAGMA integrity_check").fetchall()
