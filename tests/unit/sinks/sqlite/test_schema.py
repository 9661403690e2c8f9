"""Files of the store: private, and never those of other programs."""

import sqlite3
import stat
from pathlib import Path

import anyio
import pytest

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SOURCE, batch
from tests.support.stores import fill


async def test_its_files_are_private(options: SqliteOptions) -> None:
    sink = SqliteSink(options)
    assert await sink.stored_offset(SOURCE) is None
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in Path(options.path).parent.iterdir()}
    await sink.aclose()
    assert modes == dict.fromkeys(("traces.db", "traces.db-shm", "traces.db-wal"), 0o600)


async def test_files_of_other_programs_are_not_changed(options: SqliteOptions) -> None:
    path = anyio.Path(options.path)
    reader, sink = SqliteReader(options), SqliteSink(options)
    await path.parent.mkdir()
    await path.write_text("dear diary " * 500)
    for question in (reader.totals, lambda: sink.write(batch())):
        with pytest.raises(ConfigurationError, match="no SQLite file"):
            await question()
    assert (await path.read_text()).startswith("dear diary")
    await path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    connection.close()
    for question in (reader.totals, lambda: sink.write(batch())):
        with pytest.raises(ConfigurationError, match="of another program, no trace store"):
            await question()
    await path.unlink()
    await fill(options, 1)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for question in (reader.totals, lambda: sink.write(batch())):
        with pytest.raises(ConfigurationError, match="layout version 99, this release reads version 3"):
            await question()
    await reader.aclose()
    await sink.aclose()
