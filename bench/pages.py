"""The pages of a real `prela-stream web` process over HTTP, on one connection. Part of `bench/web.py --http`.

`ms` is the time from the request to the last byte. `server_cpu_ms` is the CPU time of the server for one request. On a machine
that other processes occupy, the first is larger than the second.
"""

import http.client
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from bench.page import served, url_of
from bench.sink_process import cpu_s
from prela_stream.sinks.query import TraceQuery

_NAMES: Final = {
    "text": "q", "service": "service", "name": "name", "session": "session", "model": "model", "tool": "tool",
    "error_type": "error_type", "policy": "policy", "status": "status", "min_tokens": "tokens", "min_cost_usd": "cost",
}  # fmt: skip


def path_of(where: TraceQuery) -> str:
    """The address of the trace list with these filters."""
    values = {name: getattr(where, field) for field, name in _NAMES.items()}
    if where.errors:
        values["status"] = "error"
    for name, milliseconds in (("min", where.min_duration_ms), ("max", where.max_duration_ms)):
        values[name] = None if milliseconds is None else f"{milliseconds:g}ms"
    values["attr"] = next(iter(where.attributes), None)
    return "/?" + urlencode({name: value for name, value in values.items() if value is not None})


def page_speeds(
    store: str, trace_id: str, lists: Mapping[str, Mapping[str, TraceQuery]], rounds: int
) -> dict[str, Any]:
    """p50 and p95 of each page.

    Args:
        store: A SQLite file.
        trace_id: Of a trace with thousands of spans.
        lists: Queries of the trace list, by title and name.
        rounds: Requests of each page, after one that is not counted.
    """
    trace = f"/traces/{trace_id}"
    pages = {title: {name: path_of(where) for name, where in some.items()} for title, some in lists.items()}
    pages["other"] = {
        "list": "/", "histograms, everything": "/histograms", "histograms, a day": "/histograms?since=24h",
        "sessions": "/sessions", "models and tools": "/models", "models and tools, a day": "/models?since=24h",
        "pipeline": "/pipeline", "5,000 spans": trace, "5,000 spans, transcript": f"{trace}/transcript",
        "one span": f"{trace}/spans/{2_500:016x}",
    }  # fmt: skip
    server = served(store)
    try:
        address = urlsplit(url_of(server)).netloc
        found = {
            title: {name: _speed(address, path, server.pid, rounds) for name, path in some.items()}
            for title, some in pages.items()
        }
    finally:
        server.terminate()
        server.wait()
    worst = {f"{title}_worst_p95_ms": max(one["p95_ms"] for one in found[title].values()) for title in lists}
    return {"rounds": rounds, "load": os.getloadavg()[0], **worst, **found}


def _speed(address: str, path: str, pid: int, rounds: int) -> dict[str, float]:
    connection = http.client.HTTPConnection(address, timeout=120)
    took: list[float] = []
    used, size = 0.0, 0
    for number in range(rounds + 1):
        if number == 1:
            used = cpu_s(pid)
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        size = len(answer.read())
        took.append((time.perf_counter() - began) * 1e3)
        if answer.status != http.client.OK:
            msg = f"GET {path}: expected the status 200, got {answer.status}"
            raise RuntimeError(msg)
    connection.close()
    values = sorted(took[1:])
    return {
        "first_ms": round(took[0], 1),
        "p50_ms": round(statistics.median(values), 1),
        "p95_ms": round(values[min(len(values) - 1, len(values) * 95 // 100)], 1),
        "server_cpu_ms": round((cpu_s(pid) - used) * 1e3 / rounds, 1),
        "kilobytes": round(size / 1e3, 1),
    }
