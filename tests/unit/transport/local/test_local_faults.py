"""Faults of the log file: locks, full disks, foreign and damaged files, a commit that fails, a replaced file."""

import os
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from prela_stream.errors import FencedError, OutcomeUnknownError, TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition, TopicSpec
from prela_stream.transport.local import LocalTransport, database, retention, schema
from prela_stream.transport.options import LocalOptions
from tests.contracts.transport_harness import DEADLINE
from tests.support.threads import own_threads

PARTITION = TopicPartition("topic", 0)
SPEC = TopicSpec(name="topic", partitions=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "log.db"


@pytest.fixture
async def transport(path: Path) -> AsyncIterator[LocalTransport]:
    """On a file with one topic; it waits 100 ms for a lock."""
    async with LocalTransport(LocalOptions(path=str(path), busy_timeout_ms=100)) as transport:
        await transport.create_topics([SPEC])
        yield transport


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A write of another process that does not end."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


async def contents(path: Path) -> list[bytes | None]:
    """Every value of the partition, read through another transport."""
    async with LocalTransport(LocalOptions(path=str(path))) as transport:
        consumer = await transport.consumer(["topic"])
        consumer.resume(*(await consumer.poll()).assigned)
        found: list[bytes | None] = []
        while await consumer.position(PARTITION) < await consumer.end_offset(PARTITION):
            found += [record.value for record in (await consumer.poll(timeout=0)).records]
        return found


def size(path: Path | str) -> int:
    """Bytes of a file."""
    return Path(path).stat().st_size


def damage(path: Path) -> None:
    """Overwrite all but the first page."""
    content = bytearray(path.read_bytes())
    content[schema.PAGE_BYTES :] = b"\xff" * (len(content) - schema.PAGE_BYTES)
    path.write_bytes(content)


def test_opening_a_transport_touches_nothing(path: Path) -> None:
    LocalTransport(LocalOptions(path=str(path)))
    assert not path.parent.exists()


async def test_listing_topics_creates_no_file(path: Path) -> None:
    async with LocalTransport(LocalOptions(path=str(path))) as transport:
        assert await transport.topics() == {}
    assert not path.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
async def test_files_are_for_their_owner_alone(path: Path, transport: LocalTransport) -> None:
    await (await transport.producer()).send(PARTITION, [Record(value=b"x")])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"log.db": 0o600, "log.db-wal": 0o600, "log.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_locked_file_is_an_error_after_the_timeout_and_trying_again_is_safe(
    path: Path, transport: LocalTransport
) -> None:
    producer = await transport.producer()
    with locked(path), pytest.raises(TransportError, match=r"locked for 100 ms \(local\.busy_timeout_ms\)") as caught:
        await producer.send(PARTITION, [Record(value=b"x")])
    assert not isinstance(caught.value, OutcomeUnknownError)
    await producer.send(PARTITION, [Record(value=b"x")])
    assert await contents(path) == [b"x"]


async def test_a_commit_on_a_locked_file_is_aborted_and_its_writer_unusable(
    path: Path, transport: LocalTransport
) -> None:
    writer = await transport.writer("group", PARTITION)
    with locked(path):
        assert await writer.commit([(PARTITION, Record(value=b"x"))], 1) is CommitOutcome.ABORTED
    with pytest.raises(FencedError, match="aborted"):
        await writer.commit([], 2)
    assert (await transport.writer("group", PARTITION)).committed is None
    assert await contents(path) == []


async def test_a_read_only_lookup_does_not_wait_for_a_lock(path: Path, transport: LocalTransport) -> None:
    with locked(path):
        assert await transport.topics() == {"topic": SPEC}


@contextmanager
def full(transport: LocalTransport) -> Iterator[None]:
    """No page can be added to the file."""
    connections: list[sqlite3.Connection] = []

    def limit(database_: database.Database) -> None:
        connection = database_._connected()
        connections.append(connection)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    transport._thread._submit(limit).result()
    yield
    transport._thread._submit(
        lambda _: connections[0].execute("PRAGMA max_page_count = 1073741823").fetchone()
    ).result()


async def test_a_full_disk_refuses_the_records_and_keeps_what_was_there(path: Path, transport: LocalTransport) -> None:
    producer = await transport.producer()
    await producer.send(PARTITION, [Record(value=b"before")])
    writer = await transport.writer("group", PARTITION)
    large = Record(value=bytes(500_000))
    with full(transport):
        with pytest.raises(TransportError, match="full"):
            await producer.send(PARTITION, [Record(value=b"small"), large])
        assert await writer.commit([(PARTITION, large)], 1) is CommitOutcome.ABORTED
    last = await producer.send(PARTITION, [Record(value=b"after")])
    assert await contents(path) == [b"before", b"after"]
    assert last == 1


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """The system refuses to write beyond this size, as on a full disk: COMMIT writes the pages."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no RLIMIT_FSIZE")
async def test_an_error_of_the_commit_itself_is_an_unknown_outcome(path: Path, transport: LocalTransport) -> None:
    producer = await transport.producer()
    await producer.send(PARTITION, [Record(value=b"before")])
    writer = await transport.writer("group", PARTITION)
    large = Record(value=bytes(300_000))
    room = size(f"{path}-wal") + 100_000
    with no_file_grows_beyond(room):
        with pytest.raises(OutcomeUnknownError, match="may or may not"):
            await producer.send(PARTITION, [large])
        assert await writer.commit([(PARTITION, large)], 5) is CommitOutcome.UNKNOWN
    with pytest.raises(FencedError, match="unknown"):
        await writer.commit([], 6)
    resolved = (await transport.writer("group", PARTITION)).committed
    assert await contents(path) == [b"before"]
    assert resolved is None, "records and offset agree"
    await producer.send(PARTITION, [Record(value=b"after")])
    assert await contents(path) == [b"before", b"after"]


async def test_a_file_that_is_no_database_is_transport_error_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database\n" * 200)
    before = path.read_bytes()
    async with LocalTransport(LocalOptions(path=str(path))) as transport:
        with pytest.raises(TransportError, match=r"notes\.txt is not a SQLite database"):
            await transport.create_topics([SPEC])
    assert path.read_bytes() == before


async def test_a_database_of_something_else_is_transport_error_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    async with LocalTransport(LocalOptions(path=str(path))) as transport:
        with pytest.raises(TransportError, match="not a log of prela_stream"):
            await transport.create_topics([SPEC])
    assert path.read_bytes() == before


async def test_a_log_of_another_version_is_transport_error(path: Path, transport: LocalTransport) -> None:
    await transport.aclose()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    async with LocalTransport(LocalOptions(path=str(path))) as later:
        with pytest.raises(TransportError, match=f"log of version {schema.VERSION + 1}.*version {schema.VERSION}"):
            await later.topics()


async def test_a_damaged_file_is_reported_as_damaged(path: Path, transport: LocalTransport) -> None:
    await (await transport.producer()).send(PARTITION, [Record(value=bytes(5_000))] * 100)
    await transport.aclose()
    damage(path)
    async with LocalTransport(LocalOptions(path=str(path))) as later:
        with pytest.raises(TransportError, match="damaged"):
            await later.topics()


async def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with LocalTransport(LocalOptions(path=str(tmp_path / "file" / "log.db"))) as transport:
        with pytest.raises(TransportError, match="cannot create the log file"):
            await transport.create_topics([SPEC])


async def test_a_cancelled_send_leaves_no_transaction_open(path: Path, transport: LocalTransport) -> None:
    patient = LocalOptions(path=str(path), busy_timeout_ms=60_000)
    async with LocalTransport(patient) as one, LocalTransport(patient) as other:
        producer = await one.producer()
        await producer.send(PARTITION, [Record(value=b"before")])
        with locked(path):
            with anyio.move_on_after(0.02) as scope:
                await producer.send(PARTITION, [Record(value=b"x")])
            assert scope.cancelled_caught
        await (await other.producer()).send(PARTITION, [Record(value=b"y")])
    assert b"y" in await contents(path)


async def test_closing_ends_every_thread(path: Path) -> None:
    before = own_threads()
    transport = LocalTransport(LocalOptions(path=str(path)))
    await transport.create_topics([SPEC])
    for group in (None, "group"):
        consumer = await transport.consumer(["topic"], group=group)
        await consumer.poll(timeout=0)
    await transport.aclose()
    assert own_threads() <= before
    with pytest.raises(TransportError, match="closed"):
        await consumer.poll()


async def test_closing_under_cancellation_ends_every_thread_too(path: Path) -> None:
    before = own_threads()
    transport = LocalTransport(LocalOptions(path=str(path)))
    await transport.create_topics([SPEC])
    consumer = await transport.consumer(["topic"], group="group")
    await consumer.poll(timeout=0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await transport.aclose()
    assert own_threads() <= before


FORKING = """
import anyio, os, sys
from prela_stream.errors import TransportError
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions

options = LocalOptions(path=sys.argv[1])
transport = LocalTransport(options)
print(anyio.run(transport.topics), flush=True)
if os.fork() == 0:
    try:
        anyio.run(transport.topics)
    except TransportError as error:
        print(error, flush=True)
    anyio.run(transport.aclose)
    print(anyio.run(LocalTransport(options).topics), flush=True)
    os._exit(0)
os.wait()
print(anyio.run(transport.topics), flush=True)
anyio.run(transport.aclose)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
async def test_after_a_fork_the_child_has_to_open_a_new_transport(path: Path, transport: LocalTransport) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(path)]
    done = await anyio.run_process(command, check=True)
    first, refused, own, again = done.stdout.decode().splitlines()
    assert "after a fork, open a new transport in the child" in refused
    assert first == own == again


async def test_retention_that_fails_is_logged_and_costs_no_record(
    path: Path, transport: LocalTransport, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await transport.create_topics([TopicSpec(name="short", partitions=1, retention_ms=0)])
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    overdue = retention.overdue

    def lock_first(connection: sqlite3.Connection, now_ms: int) -> dict[TopicPartition, schema.PartitionRow]:
        blocker.execute("BEGIN IMMEDIATE")
        return overdue(connection, now_ms + 1_000)

    monkeypatch.setattr(retention, "overdue", lock_first)
    assert await (await transport.producer()).send(TopicPartition("short", 0), [Record(value=b"x")]) == 0
    await transport.aclose()
    blocker.close()
    assert "housekeeping of the local log is postponed" in caplog.text


async def test_the_write_ahead_log_is_kept_short(path: Path, transport: LocalTransport) -> None:
    producer = await transport.producer()
    longest = 0
    for _ in range(60):
        await producer.send(PARTITION, [Record(value=os.urandom(1_000_000))])
        longest = max(longest, size(f"{path}-wal"))
    assert longest < 2 * database._CHECKPOINT_BYTES
    assert size(path) > 40_000_000
    assert len(await contents(path)) == 60


async def test_a_member_that_stays_silent_between_polls_keeps_its_partitions(path: Path) -> None:
    """Sessions depend on the clock, which moves here only after the first member's timer has sent a heartbeat."""
    options = LocalOptions(path=str(path), session_timeout_ms=1_000)
    now_ms = 1_700_000_000_000

    def clock() -> int:
        return now_ms

    async with LocalTransport(options, clock=clock) as transport, LocalTransport(options, clock=clock) as elsewhere:
        await transport.create_topics([SPEC])
        first = await transport.consumer(["topic"], group="group")
        assert (await first.poll()).assigned
        second = await elsewhere.consumer(["topic"], group="group")
        for _ in range(3):
            now_ms += 700  # the first of two heartbeats is too old
            await all_heartbeats_are(path, now_ms)
            assert not (await second.poll(timeout=0)).assigned
        await first.commit({PARTITION: Committed(offset=1)})


async def all_heartbeats_are(path: Path, at_ms: int) -> None:
    """Wait until every member has a heartbeat of this time in the file."""
    with anyio.fail_after(DEADLINE), closing(sqlite3.connect(path)) as connection:
        while connection.execute("SELECT min(heartbeat_ms) FROM members").fetchone()[0] < at_ms:
            await anyio.sleep(0.01)


async def test_a_clock_set_back_does_not_keep_a_dead_member_alive(path: Path) -> None:
    options = LocalOptions(path=str(path), session_timeout_ms=60_000)
    async with LocalTransport(options, clock=lambda: 1_700_003_600_000) as dead:
        await dead.create_topics([SPEC])
        consumer = await dead.consumer(["topic"], group="group")
        assert (await consumer.poll()).assigned
        async with LocalTransport(options, clock=lambda: 1_700_000_000_000) as transport:
            other = await transport.consumer(["topic"], group="group")
            assert (await other.poll(timeout=0)).assigned == (PARTITION,)


async def test_a_close_does_not_wait_for_a_lock_of_another_process(path: Path) -> None:
    async with LocalTransport(LocalOptions(path=str(path), busy_timeout_ms=600_000)) as transport:
        await transport.create_topics([SPEC])
        consumer = await transport.consumer(["topic"], group="group")
        await consumer.poll(timeout=0)
        producer = await transport.producer()
        with locked(path), anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(producer.send, PARTITION, [Record(value=b"x")])
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await transport.aclose()
