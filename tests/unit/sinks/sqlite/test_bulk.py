"""Many rows of one statement are the rows that were given, each once."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.sinks.sqlite.bulk import insert
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import batch, trace_id, whole


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB, c REAL)")
    return connection


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1_023, 1_024, 1_025, 1_056, 3_000])
def test_every_row_is_inserted_in_order(count: int) -> None:
    connection = database()
    rows = [(number, None if number % 7 == 0 else bytes([number % 256]), number / 2) for number in range(count)]
    assert insert(connection, "INSERT INTO t (a, b, c)", rows) == count
    assert connection.execute("SELECT * FROM t ORDER BY rowid").fetchall() == rows
    connection.close()


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)))
def test_rows_that_are_ignored_are_not_counted(first: set[int], second: set[int]) -> None:
    connection = database()
    into = "INSERT OR IGNORE INTO t (a, b)"
    assert insert(connection, into, [(number, b"1") for number in first]) == len(first)
    assert insert(connection, into, [(number, b"2") for number in second]) == len(second - first)
    assert {row[0]: row[1] for row in connection.execute("SELECT a, b FROM t")} == (
        dict.fromkeys(second, b"2") | dict.fromkeys(first, b"1")
    )
    connection.close()


async def test_large_batches_that_overlap_store_each_trace_once(options: SqliteOptions) -> None:
    sink = SqliteSink(options)
    await sink.write(batch(*map(whole, range(1, 101)), next_offset=100))
    again = [
        batch(*map(whole, range(51, 1_201)), next_offset=1_200),
        batch(*map(whole, range(1_101, 1_301)), next_offset=1_300),
    ]
    await sink.write_together([sink.prepare(one) for one in again], lambda: None)
    async with SqliteReader(options) as reader:
        assert await reader.totals() == {
            "traces": 1_300,
            "spans": 2_600,
            "decisions": 1_300,
            "kept": 1_300,
            "dropped": 0,
        }
        for number in (1, 75, 1_150, 1_300):
            stored = await reader.get(trace_id(number))
            assert stored is not None
            assert len(stored.spans) == 2
    await sink.aclose()
