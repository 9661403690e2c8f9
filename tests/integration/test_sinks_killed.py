"""A process that writes to a sink is killed at random: what it reported as durable is there, and nothing is torn."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from prela_stream.sinks.jsonl import JsonlOptions, JsonlSink
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SOURCE, batch, trace_id, whole

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from prela_stream.sinks.registry import SINK_TYPES, load, options_type
from tests.support.kept import SOURCE, batch, decision, whole

async def main():
    kind, path, offset = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sink = load(SINK_TYPES[kind].sink)(options_type(kind)(path=path))
    offset = await sink.stored_offset(SOURCE) or offset
    print(offset, flush=True)
    while True:  # the record at offset n holds trace n + 1; a batch has three records
        numbers = range(offset + 1, offset + 4)
        dropped = [decision(number + 40_000, kept=False) for number in numbers]
        offset += 3
        await sink.write(batch(*[whole(number) for number in numbers], next_offset=offset, decisions=dropped))
        print(offset, flush=True)

asyncio.run(main())
"""


def run_and_kill(kind: str, path: Path, batches: int, offset: int = 0) -> int:
    """Let a process write, kill it at a random moment, and return the last offset that it reported as durable."""
    command = [sys.executable, "-c", WRITER, kind, str(path), str(offset)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(batches + 1)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL
    return int([line for line in lines if line.endswith("\n")][-1])


async def test_offset_and_data_of_the_sqlite_store_agree_after_every_kill(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    options = SqliteOptions(path=str(path))
    durable = 0
    for round_number in range(12):
        previous, durable = durable, run_and_kill("sqlite", path, batches=1 + round_number % 4)
        assert durable > previous
        sink = SqliteSink(options)
        stored = await sink.stored_offset(SOURCE)
        await sink.aclose()
        assert stored is not None
        assert stored >= durable
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


async def test_lines_of_the_jsonl_sink_are_whole_after_every_kill(tmp_path: Path) -> None:
    durable = 0
    for round_number in range(8):
        previous, durable = durable, run_and_kill("jsonl", tmp_path, 1 + round_number % 3, durable)
        assert durable > previous
    sink = JsonlSink(JsonlOptions(path=str(tmp_path)))  # cuts what the last kill left, as each process did before
    await sink.write(batch(whole(durable + 1)))
    await sink.aclose()
    assert {trace_id(number) for number in range(1, durable + 1)} <= traces_in(tmp_path)


def traces_in(folder: Path) -> set[str]:
    """Ids of all traces, of which no line may be incomplete."""
    found: set[str] = set()
    for file in folder.iterdir():
        *lines, rest = file.read_bytes().split(b"\n")
        assert rest == b""
        found |= {json.loads(line)["trace_id"] for line in lines}
    return found
