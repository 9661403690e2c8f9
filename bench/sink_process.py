"""Ingest of a real `prela-stream sink` process from the local transport, while another process reads. Part of `bench/web.py`.

The log is filled first. The clock runs from the first transaction of the sink to the last one, so that the start of its process
does not count. Its CPU time is that of the process, from `/proc`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from prela_stream.app import ready_transport
from prela_stream.config import load_settings
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from prela_stream.transport.base import Record, TopicPartition

READER: Final = """
import json, os, sys, time, anyio
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader

async def main():
    took = []
    async with SqliteReader(SqliteOptions(path=sys.argv[1])) as reader:
        print("ready", flush=True)
        while not os.path.exists(sys.argv[2]):
            for where in (TraceQuery(), TraceQuery(service="service-3", status="success"), TraceQuery(text="kaa1")):
                began = time.perf_counter()
                await reader.list_traces(where)
                took.append(time.perf_counter() - began)
            await anyio.sleep(0.05)
    took.sort()
    print(json.dumps({"queries": len(took), "p95_ms": round(took[len(took) * 95 // 100] * 1e3, 1)}))

anyio.run(main)
"""
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


async def ingest(folder: Path, first: SinkBatch, made: Sequence[Sequence[bytes]]) -> dict[str, Any]:
    """Spans per second of the sink.

    Args:
        folder: Holds the log and the store.
        first: Traces that the store has before, so that the reader has something to list.
        made: Records of `sampled`, each with ten spans.
    """
    options = SqliteOptions(path=str(folder / "ingest.db"), retention_days=0)
    store = SqliteSink(options)
    await store.write(first)
    await store.aclose()
    await _fill(folder, made)
    stop = folder / "stop"
    reader = _started("-c", READER, options.path, str(stop))
    assert reader.stdout is not None
    await anyio.to_thread.run_sync(reader.stdout.readline)
    sink = _started(
        "-m", "prela_stream", "sink", "--dir", str(folder), sinks=[{"path": options.path, "retention_days": 0}]
    )
    try:
        found = await _measured(options, sink.pid, 10 * sum(map(len, made)))
    finally:
        sink.terminate()
        sink.wait()
        stop.touch()
    size = sum(len(record) for one in made for record in one) / (10 * sum(map(len, made)))
    read = json.loads(await anyio.to_thread.run_sync(reader.stdout.readline))
    reader.wait()
    return {**found, "bytes_per_span": round(size), "lists_in_another_process": read}


def _started(*arguments: str, sinks: Sequence[dict[str, Any]] = ()) -> "subprocess.Popen[str]":
    env = {**os.environ, **({"PRELA_SINK": json.dumps(sinks)} if sinks else {})}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
    )


async def _fill(folder: Path, made: Sequence[Sequence[bytes]]) -> None:
    settings = load_settings(overrides={"directory": str(folder), "transport": "local"})
    async with ready_transport(settings) as transport, await transport.producer() as producer:
        for records in made:
            await producer.send(TopicPartition(settings.topics.sampled, 0), [Record(value=one) for one in records])


async def _measured(options: SqliteOptions, pid: int, spans: int) -> dict[str, Any]:
    async with SqliteReader(options) as reader:
        before = stored = (await reader.totals())["spans"]
        while stored == before:
            await anyio.sleep(0.01)
            stored = (await reader.totals())["spans"]
        began, used, at = time.perf_counter(), cpu_s(pid), stored
        while stored < before + spans:
            await anyio.sleep(0.05)
            stored = (await reader.totals())["spans"]
        took, used = time.perf_counter() - began, cpu_s(pid) - used
    return {
        "spans_per_s": round((stored - at) / took),
        "cpu_us_per_span": round(used * 1e6 / (stored - at), 1),
        "cores_used": round(used / took, 2),
        "spans": stored - at,
        "load": os.getloadavg()[0],
    }
