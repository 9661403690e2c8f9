"""A log file that is removed or replaced while processes use it: all of them continue with the file that is at the path."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from prela_stream import telemetry
from prela_stream.errors import FencedError, TransportError, UnknownTopicError
from prela_stream.transport.base import CommitOutcome, Committed, Consumer, LogRecord, Record, TopicPartition, TopicSpec
from prela_stream.transport.local import LocalTransport, database
from prela_stream.transport.options import LocalOptions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove files in use")
PARTITION = TopicPartition("topic", 0)
SPECS = [TopicSpec(name="other", partitions=2), TopicSpec(name="topic", partitions=1)]
RECOVERY_S = 5.0
"""What users may wait, after the cause has ended."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".prela" / "log.db"


@pytest.fixture
async def transport(path: Path) -> AsyncIterator[LocalTransport]:
    async with LocalTransport(LocalOptions(path=str(path), busy_timeout_ms=100)) as transport:
        await transport.create_topics(SPECS)
        yield transport


def remove(path: Path) -> None:
    """`rm -rf .prela`."""
    shutil.rmtree(path.parent)


async def values(consumer: Consumer, count: int) -> list[bytes | None]:
    """So many values, of whatever is assigned."""
    found: list[LogRecord] = []
    with anyio.fail_after(RECOVERY_S):
        while len(found) < count:
            poll = await consumer.poll(timeout=0.1)
            consumer.resume(*poll.assigned)
            found += poll.records
    return [record.value for record in found]


async def test_a_producer_continues_with_a_new_file_and_its_topics(path: Path, transport: LocalTransport) -> None:
    producer = await transport.producer()
    await producer.send(PARTITION, [Record(value=b"lost")])
    remove(path)
    assert await producer.send(PARTITION, [Record(value=b"first of the new file")]) == 0
    assert (await transport.topics()).keys() == {"other", "topic"}


@pytest.mark.parametrize("group", [None, "group"])
async def test_a_consumer_gets_its_partitions_again(path: Path, transport: LocalTransport, group: str | None) -> None:
    producer = await transport.producer()
    consumer = await transport.consumer(["topic"], group=group)
    for number in range(3):
        await producer.send(PARTITION, [Record(value=b"%d" % number)])
    assert await values(consumer, 3) == [b"0", b"1", b"2"]
    if group is not None:
        await consumer.commit({PARTITION: Committed(offset=3)})
    remove(path)
    await producer.send(PARTITION, [Record(value=b"new")])
    polls = [await consumer.poll() for _ in range(1 if group is None else 2)]
    assert polls[0].revoked == (PARTITION,)
    assert polls[-1].assigned == (PARTITION,)
    assert [(poll.records, poll.rebalanced) for poll in polls] == [((), True)] * len(polls)
    consumer.resume(PARTITION)
    assert await values(consumer, 1) == [b"new"]
    assert await consumer.committed(PARTITION) is None


async def test_ids_of_the_former_file_are_not_used_in_the_new_one(path: Path, transport: LocalTransport) -> None:
    """The topics are created in another order there, so each partition has another id."""
    consumer, producer = await transport.consumer(["topic"]), await transport.producer()
    await producer.send(PARTITION, [Record(value=b"old")])
    assert await values(consumer, 1) == [b"old"]
    remove(path)
    async with LocalTransport(LocalOptions(path=str(path))) as other:
        await other.create_topics(list(reversed(SPECS)))
        elsewhere = await other.producer()
        await elsewhere.send(TopicPartition("other", 0), [Record(value=b"of another topic")] * 2)
        await elsewhere.send(PARTITION, [Record(value=b"new")])
        assert await values(consumer, 1) == [b"new"]
        assert await producer.send(PARTITION, [Record(value=b"newer")]) == 1


async def test_an_offset_of_the_former_file_is_not_committed(path: Path, transport: LocalTransport) -> None:
    consumer = await transport.consumer(["topic"], group="group")
    await consumer.poll()
    remove(path)
    with pytest.raises(FencedError, match=r"topic\[0\] is not, or no longer, assigned"):
        await consumer.commit({PARTITION: Committed(offset=7)})
    assert await transport.committed("group", PARTITION) is None


async def test_a_writer_of_the_former_file_is_fenced_and_a_new_one_starts(
    path: Path, transport: LocalTransport
) -> None:
    writer = await transport.writer("group", PARTITION)
    assert await writer.commit([(PARTITION, Record(value=b"x"))], 1) is CommitOutcome.COMMITTED
    remove(path)
    with pytest.raises(FencedError, match="the log file was removed or replaced"):
        await writer.commit([(PARTITION, Record(value=b"y"))], 2)
    again = await transport.writer("group", PARTITION)
    assert again.committed is None
    assert await again.commit([(PARTITION, Record(value=b"z"))], 1) is CommitOutcome.COMMITTED


async def test_the_replacement_is_logged_once_per_transport_and_counted(
    path: Path, transport: LocalTransport, caplog: pytest.LogCaptureFixture
) -> None:
    before = telemetry.LOCAL_LOGS_REPLACED.value()
    consumers = [await transport.consumer(["topic"]) for _ in range(3)]
    producer = await transport.producer()
    for consumer in consumers:
        await consumer.poll()
    remove(path)
    with caplog.at_level(logging.WARNING):
        await producer.send(PARTITION, [Record(value=b"x")])
        for consumer in consumers:
            assert await values(consumer, 1) == [b"x"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert str(path.absolute()) in lines[0]
    assert telemetry.LOCAL_LOGS_REPLACED.value() == before + 1


async def test_a_consumer_of_topics_that_nothing_creates_waits_for_them(path: Path, transport: LocalTransport) -> None:
    async with LocalTransport(LocalOptions(path=str(path))) as reader:
        consumer = await reader.consumer(["topic"], group="group")
        await consumer.poll()
        remove(path)
        with pytest.raises(UnknownTopicError):
            await consumer.poll(timeout=0)
        await (await transport.producer()).send(PARTITION, [Record(value=b"x")])
        assert await values(consumer, 1) == [b"x"]


async def test_a_file_that_is_moved_away_and_back_keeps_its_records(path: Path, transport: LocalTransport) -> None:
    producer = await transport.producer()
    await producer.send(PARTITION, [Record(value=b"kept")])
    await transport.aclose()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    async with LocalTransport(LocalOptions(path=str(path))) as elsewhere:
        await elsewhere.create_topics(SPECS)
        consumer = await elsewhere.consumer(["topic"])
        await consumer.poll()
        shutil.rmtree(path.parent)
        away.rename(path.parent)
        assert await values(consumer, 1) == [b"kept"]


async def test_a_file_that_is_none_is_waited_for(path: Path, transport: LocalTransport) -> None:
    producer = await transport.producer()
    await producer.send(PARTITION, [Record(value=b"x")])
    remove(path)
    path.parent.write_text("a file instead of the folder")
    with pytest.raises(TransportError, match="cannot create the log file"):
        await producer.send(PARTITION, [Record(value=b"y")])
    path.parent.unlink()
    assert await producer.send(PARTITION, [Record(value=b"y")]) == 0


def truncate(path: Path) -> None:
    """`: > log.db`: the file keeps its inode."""
    with path.open("wb"):
        pass


def overwrite(path: Path) -> None:
    """Garbage, and removed a moment later by an operator."""
    path.write_bytes(b"garbage" * 10_000)


def remove_wal(path: Path) -> None:
    path.with_name("log.db-wal").unlink()


def remove_shm(path: Path) -> None:
    path.with_name("log.db-shm").unlink()


def remove_database_only(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, overwrite, remove_wal, remove_shm, remove_database_only])
async def test_whatever_happened_to_the_file_all_continue_once_it_is_removed(
    path: Path, transport: LocalTransport, damage: Callable[[Path], None]
) -> None:
    producer = await transport.producer()
    consumer = await transport.consumer(["topic"], group="group")
    for number in range(10):
        await producer.send(PARTITION, [Record(value=b"%d" % number + bytes(5_000))])
    assert len(await values(consumer, 10)) == 10
    damage(path)
    for _ in range(3):
        with suppress(TransportError):
            await producer.send(PARTITION, [Record(value=b"may be lost")])
        with suppress(TransportError):
            await consumer.poll(timeout=0)
    remove(path)
    await producer.send(PARTITION, [Record(value=b"new")])
    found: list[LogRecord] = []
    with anyio.fail_after(RECOVERY_S):
        while not found:
            poll = await consumer.poll(timeout=0.1)
            consumer.resume(*poll.assigned)
            found += poll.records
    assert [record.value for record in found] == [b"new"]


@pytest.mark.parametrize("damage", [truncate, remove_wal, remove_shm, remove_database_only])
async def test_a_log_whose_files_are_damaged_is_repaired_or_created_again(
    path: Path, transport: LocalTransport, damage: Callable[[Path], None]
) -> None:
    """What SQLite can recover or create needs no operator."""
    producer = await transport.producer()
    for number in range(10):
        await producer.send(PARTITION, [Record(value=b"%d" % number + bytes(5_000))])
    damage(path)
    with anyio.fail_after(RECOVERY_S):
        while True:
            try:
                await producer.send(PARTITION, [Record(value=b"new")])
                break
            except TransportError:
                await anyio.sleep(0.05)
    async with LocalTransport(LocalOptions(path=str(path))) as other:
        consumer = await other.consumer(["topic"])
        found: list[LogRecord] = []
        with anyio.fail_after(RECOVERY_S):
            while not found or found[-1].value != b"new":
                poll = await consumer.poll(timeout=0.1)
                consumer.resume(*poll.assigned)
                found += poll.records


async def test_a_truncated_log_is_created_again_while_an_idle_process_has_it_open(
    path: Path, transport: LocalTransport
) -> None:
    async with LocalTransport(LocalOptions(path=str(path))) as idle:
        idle_producer = await idle.producer()
        await idle_producer.send(PARTITION, [Record(value=b"x")])
        producer = await transport.producer()
        await producer.send(PARTITION, [Record(value=b"x")])
        truncate(path)
        with anyio.fail_after(RECOVERY_S):
            while True:
                try:
                    await producer.send(PARTITION, [Record(value=b"new")])
                    break
                except TransportError:
                    await anyio.sleep(0.05)
        assert await idle_producer.send(PARTITION, [Record(value=b"also new")]) == 1
        consumer = await transport.consumer(["topic"], group="group")
        assert await values(consumer, 2) == [b"new", b"also new"]
    assert sorted(one.name.removeprefix("log.db") for one in path.parent.glob("log.db*")) == ["", "-shm", "-wal"]


async def test_a_log_of_an_early_release_gets_an_id_and_keeps_its_records(
    path: Path, transport: LocalTransport
) -> None:
    import sqlite3

    producer = await transport.producer()
    await producer.send(PARTITION, [Record(value=b"kept")])
    await transport.aclose()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE log")
    connection.commit()
    connection.close()
    async with LocalTransport(LocalOptions(path=str(path))) as later:
        assert await values(await later.consumer(["topic"]), 1) == [b"kept"]


async def test_the_wal_of_a_linked_file_is_truncated(tmp_path: Path) -> None:
    """SQLite puts the WAL beside the file that a symlink names."""
    real = tmp_path / "disk" / "real.db"
    real.parent.mkdir()
    link = tmp_path / "log.db"
    link.symlink_to(real)
    longest = 0
    async with LocalTransport(LocalOptions(path=str(link))) as transport:
        await transport.create_topics(SPECS)
        producer = await transport.producer()
        for _ in range(40):
            await producer.send(PARTITION, [Record(value=os.urandom(1_000_000))])
            longest = max(longest, real.with_name("real.db-wal").stat().st_size)
    assert longest < 2 * database._CHECKPOINT_BYTES


async def test_a_relative_path_is_that_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with LocalTransport(LocalOptions(path="log.db", busy_timeout_ms=0)) as transport:
        await transport.create_topics(SPECS)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await (await transport.producer()).send(PARTITION, [Record(value=b"x")])
        for file in tmp_path.glob("log.db*"):
            file.unlink()
        (tmp_path / "log.db").write_bytes(b"no database" * 1000)
        with pytest.raises(TransportError, match=f"{tmp_path / 'log.db'} is not a SQLite database"):
            await transport.topics()
    assert not (tmp_path / "elsewhere" / "log.db").exists()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at a folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command, so no disk can be filled")
    if done.returncode:
        pytest.skip(f"this user may not mount, so no disk can be filled: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_loses_nothing_that_was_acknowledged_and_all_continue(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 8 << 20):
        async with AsyncExitStack() as stack:
            options = LocalOptions(path=str(disk / ".prela" / "log.db"), busy_timeout_ms=200)
            transport = await stack.enter_async_context(LocalTransport(options))
            reading = await stack.enter_async_context(LocalTransport(options))
            await transport.create_topics(SPECS)
            producer = await transport.producer()
            consumer = await reading.consumer(["topic"], group="group")
            writer = await transport.writer("group", PARTITION)
            consumer.resume(*(await consumer.poll()).assigned)
            ballast = disk / "ballast"
            sent = 0
            try:
                while sent < 1_000:
                    await producer.send(PARTITION, [Record(value=b"%d" % sent + bytes(20_000))])
                    sent += 1
                    if sent == 20:
                        fill(ballast)
            except TransportError as error:
                assert "full" in str(error)  # noqa: PT017 - sends before it succeed
            assert 20 <= sent < 1_000, "the disk was never full, or from the start"
            large = [(PARTITION, Record(value=bytes(900_000)))] * 2
            assert await writer.commit(large, 5) is not CommitOutcome.COMMITTED
            ballast.unlink()
            with anyio.fail_after(RECOVERY_S):
                await producer.send(PARTITION, [Record(value=b"after")])
                writer = await transport.writer("group", PARTITION)
                assert writer.committed is None
                assert await writer.commit([], 1) is CommitOutcome.COMMITTED
            found: list[bytes | None] = []
            with anyio.fail_after(RECOVERY_S):
                while b"after" not in found:
                    poll = await consumer.poll(timeout=0.1)
                    consumer.resume(*poll.assigned)
                    found += [(record.value or b"").rstrip(b"\0") for record in poll.records]
            assert found[:sent] == [b"%d" % number for number in range(sent)]


def fill(ballast: Path) -> None:
    """Take all the space that is left."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            return
