"""Faults of the file of the SQLite store: locked, deleted, replaced, broken. The sink and the reader recover from each."""

import contextlib
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import anyio
import pytest

from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite import schema, writing
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SOURCE, batch, decision, fragment, span, trace_id, whole


async def stored(options: SqliteOptions) -> list[str]:
    async with SqliteReader(options) as reader:
        return sorted(row.trace_id for row in await reader.list_traces(TraceQuery()))


async def test_a_locked_store_is_a_transient_fault(options: SqliteOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_BUSY_S", 0.05)
    sink = SqliteSink(options)
    await sink.write(batch(whole(1)))
    other = sqlite3.connect(options.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(
            SinkError, match=rf"the trace store {options.path} cannot store a batch of .*database is locked"
        ):
            await sink.write(batch(whole(2), next_offset=2))
    second = SqliteSink(options)
    assert await second.stored_offset(SOURCE) == 1, "reading needs no lock"
    other.execute("ROLLBACK")
    other.close()
    await sink.write(batch(whole(2), next_offset=2))
    assert await second.stored_offset(SOURCE) == 2
    await sink.aclose()
    await second.aclose()
    assert await stored(options) == [trace_id(1), trace_id(2)]


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_deleted_store_is_created_again(
    options: SqliteOptions, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = SqliteSink(options)
    path = Path(options.path)
    async with SqliteReader(options) as reader:
        await sink.write(batch(whole(1), next_offset=5))
        assert (await reader.totals())["traces"] == 1
        if what == "file":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        with pytest.raises(ConfigurationError, match=rf"there is no trace store at {path}"):
            await reader.totals()
        await sink.write(batch(whole(2), whole(3), next_offset=7))
        assert [row.trace_id for row in await reader.list_traces(TraceQuery(), sort="oldest")] == [
            trace_id(2),
            trace_id(3),
        ]
        found = await reader.get(trace_id(2))
        assert found is not None
        assert found.spans[0].resource.service_name == "travel", (
            "a cached id of the former file names nothing in this one"
        )
    assert [f"the trace store {path} or its WAL was deleted" in record.getMessage() for record in caplog.records] == [
        True
    ]
    await sink.aclose()


async def test_a_store_that_is_deleted_during_a_write_loses_nothing_of_the_batch(
    options: SqliteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SqliteSink(options)
    await sink.write(batch(whole(1)))

    def delete(*_: object) -> None:
        Path(options.path).unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(writing.StoreWriter, "_add_document", delete)  # within the transaction
        with pytest.raises(
            SinkError, match=rf"{options.path} or its WAL was deleted, truncated or replaced during a write"
        ):
            await sink.write(batch(fragment(decision(1), [span(1, 5)], late=True), whole(2)))
    await sink.write(batch(whole(2)))
    await sink.aclose()
    assert await stored(options) == [trace_id(2)]


@pytest.mark.parametrize("size", [0, 100])
async def test_a_truncated_store_is_created_again(options: SqliteOptions, size: int) -> None:
    sink = SqliteSink(options)
    path = Path(options.path)
    async with SqliteReader(options) as reader:
        for first in range(0, 1_000, 100):
            await sink.write(batch(*map(whole, range(first, first + 100))))
        assert (await reader.totals())["traces"] == 1_000
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.truncate(path, size)
        for number in range(2_000, 2_003):
            await sink.write(batch(whole(number), next_offset=number))
        assert (await reader.totals())["traces"] == 3
    await sink.aclose()
    assert await stored(options) == [trace_id(number) for number in range(2_000, 2_003)]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_replaced_store_is_used_from_then_on(options: SqliteOptions, tmp_path: Path) -> None:
    copy = SqliteOptions(path=str(tmp_path / "copy.db"))
    other = SqliteSink(copy)
    await other.write(batch(whole(8), next_offset=80))
    await other.aclose()
    sink = SqliteSink(options)
    async with SqliteReader(options) as reader:
        await sink.write(batch(whole(1), next_offset=5))
        assert (await reader.totals())["traces"] == 1
        Path(copy.path).replace(options.path)
        for end in ("-wal", "-shm"):
            Path(options.path + end).unlink()
        assert [row.trace_id for row in await reader.list_traces(TraceQuery())] == [trace_id(8)]
        assert await sink.stored_offset(SOURCE) == 80
        await sink.write(batch(whole(2), next_offset=81))
        assert (await reader.totals())["traces"] == 2
    await sink.aclose()


async def test_a_store_that_cannot_be_opened_is_a_transient_fault(options: SqliteOptions) -> None:
    path = Path(options.path)
    path.parent.write_text("a file")
    sink = SqliteSink(options)
    with pytest.raises(SinkError, match=rf"cannot open the trace store {path}: .*Check its folder"):
        await sink.write(batch(whole(1)))
    path.parent.unlink()
    path.mkdir(parents=True)
    for attempt in (sink.write(batch(whole(1))), sink.stored_offset(SOURCE)):
        with pytest.raises(SinkError, match=rf"cannot open the trace store {path}: .*directory"):
            await attempt
    path.rmdir()
    await sink.write(batch(whole(1)))
    await sink.aclose()
    assert await stored(options) == [trace_id(1)]


async def test_a_damaged_store_is_reported_until_it_is_removed(options: SqliteOptions) -> None:
    sink = SqliteSink(options)
    await sink.write(batch(*map(whole, range(1, 200)), next_offset=5))
    await sink.aclose()
    path = Path(options.path)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    for _ in range(2):
        with pytest.raises(SinkError, match="malformed"):
            await sink.write(batch(whole(300)))
    path.unlink()
    await sink.write(batch(whole(300)))
    await sink.aclose()
    assert await stored(options) == [trace_id(300)]


READER = """
import asyncio, sys
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader

async def main():
    async with SqliteReader(SqliteOptions(path=sys.argv[1])) as reader:
        print((await reader.totals())["traces"])

asyncio.run(main())
"""


@pytest.mark.parametrize("ends", [("-wal",), ("-wal", "-shm")])
async def test_a_deleted_wal_loses_nothing(options: SqliteOptions, ends: tuple[str, ...]) -> None:
    sink = SqliteSink(options)
    await sink.write(batch(*map(whole, range(20))))
    for end in ends:
        Path(options.path + end).unlink()
    await sink.write(batch(whole(20)))
    found = await anyio.run_process([sys.executable, "-c", READER, options.path])
    assert int(found.stdout) == 21, "another process sees what was written before and after"
    await sink.aclose()
    with contextlib.closing(sqlite3.connect(options.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
