"""Old traces are deleted by age and by size, with everything that belongs to them."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite import sink as sink_module
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import batch, decision, fragment, span, trace_id

SIDE_TABLES = ("spans", "calls", "trace_text", "trace_labels", "late_text", "late_documents", "resources", "decisions")
DAY_MS = 86_400_000


def sizes(path: str) -> dict[str, int]:
    """Rows by table."""
    connection = sqlite3.connect(path)
    found = {
        table: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        for table in ("traces", *SIDE_TABLES)
    }
    connection.close()
    return found


async def write(sink: SqliteSink, number: int, decided_at_ms: int, text: str = "") -> None:
    """A trace with a late span, and a dropped trace, decided at this time."""
    about = decision(number, decided_at_ms=decided_at_ms)
    dropped = decision(number + 1_000, kept=False, decided_at_ms=decided_at_ms)
    late = fragment(about, [span(number, 7, name=f"late {number}")], late=True)
    attributes = {"text": text, "city": f"Lisbon{number}"}
    spans = [span(number, 0, attributes=attributes), span(number, 1)]
    await sink.write(batch(fragment(about, spans), decisions=[about, dropped]))
    await sink.write(batch(late))


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> Callable[[SqliteSink], None]:
    """The sink deletes with each batch from then on."""

    def set_due(sink: SqliteSink) -> None:
        sink._next_purge = 0.0
        monkeypatch.setattr(sink_module, "_PURGE_EVERY_S", 0.0)

    return set_due


async def test_traces_that_were_decided_long_ago_are_deleted_with_everything_that_belongs_to_them(
    tmp_path: Path, due: Callable[[SqliteSink], None]
) -> None:
    options = SqliteOptions(path=str(tmp_path / "traces.db"), retention_days=2)
    now = int(time.time() * 1e3)
    sink = SqliteSink(options)
    await write(sink, 1, now - DAY_MS)
    one = sizes(options.path)
    due(sink)
    for number in (2, 3):
        await write(sink, number, now - 3 * DAY_MS)
    await sink.write(batch())
    await sink.aclose()
    assert sizes(options.path) == one
    async with SqliteReader(options) as reader:
        assert [row.trace_id for row in await reader.list_traces(TraceQuery())] == [trace_id(1)]
        assert await reader.decision(trace_id(2)) is None
        assert await reader.decision(trace_id(1_002)) is None
        assert await reader.decision(trace_id(1_001)) is not None
        assert await reader.list_traces(TraceQuery(text="Lisbon2")) == []
        assert await reader.totals() == {"traces": 1, "spans": 3, "decisions": 2, "kept": 1, "dropped": 1}


async def test_the_oldest_traces_are_deleted_while_the_store_is_too_large(
    tmp_path: Path, due: Callable[[SqliteSink], None]
) -> None:
    options = SqliteOptions(path=str(tmp_path / "traces.db"), retention_days=0, retention_gb=0.002)
    sink = SqliteSink(options)
    due(sink)
    for number in range(1, 150):
        await write(sink, number, number, text=f"{number} " * 4_000)
    await sink.aclose()
    rows = sizes(options.path)
    assert 20 < rows["traces"] < 149
    assert rows["calls"] == 2 * rows["traces"]
    assert rows["late_text"] == rows["late_documents"] == rows["trace_text"] == rows["trace_labels"] == rows["traces"]
    async with SqliteReader(options) as reader:
        kept = [row.trace_id for row in await reader.list_traces(TraceQuery(), sort="oldest")]
        assert kept == [trace_id(number) for number in range(150 - len(kept), 150)], "the newest remain"
        assert (await reader.totals())["spans"] == rows["spans"]
    connection = sqlite3.connect(options.path)
    assert connection.execute("PRAGMA page_count").fetchone()[0] * 4096 < 6e6, "free pages are used again"
    connection.close()


async def test_zero_keeps_everything(tmp_path: Path, due: Callable[[SqliteSink], None]) -> None:
    options = SqliteOptions(path=str(tmp_path / "traces.db"), retention_days=0, retention_gb=0)
    sink = SqliteSink(options)
    due(sink)
    await write(sink, 1, 1)
    await sink.write(batch())
    await sink.aclose()
    assert sizes(options.path)["traces"] == 1


async def test_a_resource_that_a_later_trace_uses_is_kept(tmp_path: Path, due: Callable[[SqliteSink], None]) -> None:
    options = SqliteOptions(path=str(tmp_path / "traces.db"))
    sink = SqliteSink(options)
    now = int(time.time() * 1e3)
    await write(sink, 1, 1)
    await write(sink, 2, now)
    due(sink)
    await sink.write(batch())
    await write(sink, 3, now)
    await sink.aclose()
    async with SqliteReader(options) as reader:
        for number in (2, 3):
            stored = await reader.get(trace_id(number))
            assert stored is not None
            assert {one.resource.service_name for one in stored.spans} == {"travel"}
