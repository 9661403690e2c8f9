"""A store of an earlier release is converted when a sink opens it, and loses nothing."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from prela_stream.sinks.sqlite.writing import StoreWriter
from tests.support.kept import SOURCE, batch, decision, span, trace_id, whole

LAYOUT_1 = Path(__file__).with_name("layout1.db.gz")
"""Traces 1 (with a late span named zebra), 2 and 3 (without spans), and the decision to drop trace 9."""

LAYOUT_2 = Path(__file__).with_name("layout2.db.gz")
"""Traces 1 (with a late span named zebra) and 2, and the decision to drop trace 9."""


@pytest.fixture
def earlier(options: SqliteOptions) -> SqliteOptions:
    path = Path(options.path)
    path.parent.mkdir()
    path.write_bytes(gzip.decompress(LAYOUT_1.read_bytes()))
    return options


async def test_a_store_of_the_first_layout_is_converted(earlier: SqliteOptions) -> None:
    async with SqliteReader(earlier) as reader:
        with pytest.raises(ConfigurationError, match=r"has layout version 1, .*which converts it"):
            await reader.totals()
        sink = SqliteSink(earlier)
        assert await sink.stored_offset(SOURCE) == 42
        assert await reader.totals() == {"traces": 3, "spans": 6, "decisions": 4, "kept": 3, "dropped": 1}
        rows = await reader.list_traces(TraceQuery(), sort="oldest")
        assert [(row.trace_id, row.status, row.spans) for row in rows] == [
            (trace_id(1), "error", 3),
            (trace_id(2), "success", 3),
            (trace_id(3), "pending", 0),
        ]
        stored = await reader.get(trace_id(1))
        assert stored is not None
        assert [one.name for one in stored.spans] == ["plan trip", "tool 1", "zebra"]
        assert stored.spans[0].attributes == span(1).attributes
        assert stored.decision == decision(1)
        for where in (TraceQuery(text="zebra Lisbon1"), TraceQuery(attributes=("city=Lisbon1",), service="travel")):
            assert [row.trace_id for row in await reader.list_traces(where)] == [trace_id(1)]
        assert [row.trace_id for row in await reader.list_traces(TraceQuery(dropped=True))] == [trace_id(9)]
        await sink.write(batch(whole(1), whole(4), next_offset=43))
        assert (await reader.totals())["traces"] == 4
        await sink.aclose()
    connection = sqlite3.connect(earlier.path)
    assert connection.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'former%'").fetchall() == []
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_conversion_that_fails_leaves_the_file_as_it_was(
    earlier: SqliteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(writer: StoreWriter) -> None:
        writer._connection.execute("SELECT 1 FROM missing")

    sink = SqliteSink(earlier)
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "save", fail)
        with pytest.raises(SinkError, match="no such table: missing"):
            await sink.write(batch(whole(4)))
    connection = sqlite3.connect(earlier.path)
    assert connection.execute("SELECT count(*) FROM traces").fetchone() == (3,)
    connection.close()
    assert await sink.stored_offset(SOURCE) == 42
    await sink.aclose()


async def test_a_store_of_the_second_layout_gets_its_sums(options: SqliteOptions) -> None:
    path = Path(options.path)
    path.parent.mkdir()
    path.write_bytes(gzip.decompress(LAYOUT_2.read_bytes()))
    async with SqliteReader(options) as reader:
        with pytest.raises(ConfigurationError, match=r"has layout version 2, .*which converts it"):
            await reader.totals()
        sink = SqliteSink(options)
        assert await sink.stored_offset(SOURCE) == 43
        (row,) = await reader.decided_totals("service")
        assert (row.kept.traces, row.dropped.traces, row.kept.input_tokens) == (2, 1, 30)
        await sink.write(batch(whole(4), next_offset=44))
        await sink.aclose()
        assert [one.trace_id for one in await reader.list_traces(TraceQuery(text="zebra"))] == [trace_id(1)]
        (row,) = await reader.decided_totals("service")
        assert (row.kept.traces, row.kept.input_tokens) == (3, 70)
    with closing(sqlite3.connect(options.path)) as connection:
        assert connection.execute("SELECT sum(traces) FROM trace_slots").fetchone() == (3,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
