"""The sink contract over the SQLite store, and a process that is killed while it writes."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SOURCE, trace_id

ROOT = Path(__file__).parents[2]


WRITER = """
import asyncio, sys
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SOURCE, batch, decision, whole

async def main():
    sink = SqliteSink(SqliteOptions(path=sys.argv[1]))
    offset = await sink.stored_offset(SOURCE) or 0
    print(offset, flush=True)
    while True:  # the Record at offset n holds trace n + 1; three Records a batch
        numbers = range(offset + 1, offset + 4)
        dropped = [decision(number + 40_000, kept=False) for number in numbers]
        offset += 3
        await sink.write(batch(*[whole(number) for number in numbers], next_offset=offset, decisions=dropped))
        print(offset, flush=True)

asyncio.run(main())
"""


def run_and_kill(path: Path, batches: int) -> int:
    """Let a process write, kill it in the middle of whatever it does, and return the last offset it said was durable."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(batches + 1)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL
    return int([line for line in lines if line.endswith("\n")][-1])


async def test_offset_and_data_agree_after_every_kill(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    options = SqliteOptions(path=str(path))
    said = 0
    for round_number in range(12):
        previous, said = said, run_and_kill(path, batches=1 + round_number % 4)
        assert said > previous
        sink = SqliteSink(options)
        stored = await sink.stored_offset(SOURCE)
        await sink.aclose()
        assert stored is not None
        assert stored >= said
        async with SqliteReader(options) as reader:
            assert await reader.totals() == {
                "traces": stored, "spans": 2 * stored, "decisions": 2 * stored, "kept": stored, "dropped": stored,
            }  # fmt: skip
            last = await reader.get(trace_id(stored))
            assert last is not None
            assert len(last.spans) == 2
            assert await reader.get(trace_id(stored + 1)) is None
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.execute("INSERT INTO trace_text (trace_text) VALUES ('integrity-check')")
    connection.close()
