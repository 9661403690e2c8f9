"""Old traces are deleted."""

import sqlite3
import time
from pathlib import Path

import msgspec

from prela_stream.sinks.base import TraceFilter
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SECOND, batch, decision, fragment, span, trace_id


async def test_old_traces_are_deleted_with_everything_that_belongs_to_them(tmp_path: Path) -> None:
    options = SqliteOptions(path=str(tmp_path / "traces.db"), retention_days=1)
    now = time.time_ns()
    old, fresh = now - 2 * 86_400 * SECOND, now - 3_600 * SECOND
    sink = SqliteSink(options)
    for number, start in ((1, old), (2, fresh), (3, old)):
        summary = msgspec.structs.replace(decision(number).summary, start_ns=start)
        about = decision(number, summary=summary, decided_at_ms=start // 1_000_000)
        dropped = decision(number + 10, kept=False, decided_at_ms=start // 1_000_000)
        await sink.write(batch(fragment(about, [span(number, start_ns=start)]), decisions=[about, dropped]))
        sink._next_purge = 0.0  # due with the next batch
    await sink.write(batch())
    await sink.aclose()
    async with SqliteReader(options) as reader:
        assert [row.trace_id for row in await reader.list_traces(TraceFilter())] == [trace_id(2)]
        assert await reader.decision(trace_id(1)) is None
        assert await reader.decision(trace_id(11)) is None
        assert await reader.decision(trace_id(12)) is not None
        assert await reader.list_traces(TraceFilter(text="Lisbon1")) == []
        assert await reader.totals() == {"traces": 1, "spans": 1, "decisions": 2, "kept": 1, "dropped": 1}
    connection = sqlite3.connect(options.path)
    for table in ("spans", "trace_text"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
    connection.close()
