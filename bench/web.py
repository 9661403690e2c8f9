"""The SQLite store behind the web page and `prela-stream traces`, at the size of a busy week. Prints JSON.

    python bench/web.py [--traces 1000000] [--store FILE] [--rounds 20] [--parts ingest,late,read] [--http] [--browser]

`ingest`: spans of about 1 KB, ten per trace, written by a `prela-stream sink` process from a filled log of the local
transport, while another process lists traces (`bench/sink_process.py`). `late`: a late span of a trace of 20,000 spans,
beside one of a trace of ten spans and beside a span that comes with its trace. `read`: queries of the reader on a store of
`--traces` traces with three spans each: lists with two filters, words, one trace of 5,000 spans, histograms, sessions and
statistics. With `--store` the file is kept, and a later run with it measures `read` alone. `--http` requests the pages of a
`prela-stream web` process (`bench/pages.py`). `--browser` opens the trace of 5,000 spans in Chromium (`bench/page.py`).
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from prela_stream.codec.sampled import KeptFragment, decode_kept, encode_kept
from prela_stream.codec.spans import encode_item, encode_resource
from prela_stream.model.decision import Decision, TraceSummary, Trigger
from prela_stream.model.span import COUNTED, SPAN_TYPE_CODES, ItemKind, Resource, SpanType
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.kept_trace import read_trace
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.rows import batch_rows
from prela_stream.sinks.sqlite.schema import open_for_writing
from prela_stream.sinks.sqlite.sink import SqliteSink
from prela_stream.sinks.sqlite.transactions import transaction
from prela_stream.sinks.sqlite.writing import StoreWriter
from prela_stream.transport.base import TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.page import page_times
from bench.pages import page_speeds
from bench.sink_process import ingest

SOURCE: Final = TopicPartition("prela.sampled", 0)
OTHER: Final = TopicPartition("prela.sampled", 1)
SERVICES: Final = [f"service-{number}" for number in range(20)]
MODELS: Final = [f"model-{number}" for number in range(8)]
TOOLS: Final = [f"tool-{number}" for number in range(30)]
NAMES: Final = [f"agent {kind} {number}" for kind in ("plan", "answer", "review", "search") for number in range(50)]
WORDS: Final = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ru", "se", "ta") for b in "aeiou" for c in range(600)]
WEEK_NS: Final = 7 * 86_400 * 10**9
BATCH: Final = 500
BIG: Final = "b1" + "0" * 30
"""The id of the trace with 5,000 spans."""

_AGENT, _LLM, _TOOL = (SPAN_TYPE_CODES[kind] for kind in (SpanType.AGENT, SpanType.LLM, SpanType.TOOL))
_SUCCESS, _ERROR = 1, 2


class Maker:
    """Makes traces: skewed choices of services, models, tools, names and words, as real ones have."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._resources = [msgspec.Raw(encode_resource(Resource(service_name=name, pid=7))) for name in SERVICES]

    def skewed(self, values: Sequence[str]) -> str:
        """An early value far more often than a late one."""
        return values[int(len(values) * self._random.random() ** 3)]

    def words(self, count: int) -> str:
        """A text."""
        return " ".join(self.skewed(WORDS) for _ in range(count))

    def trace(self, trace_id: bytes, start_ns: int, spans: int, words: int, filler: str = "") -> KeptFragment:
        """A record of `sampled` with an agent, and model calls and tools below it."""
        pick = self._random
        service = int(len(SERVICES) * pick.random() ** 3)
        model, failed, name = self.skewed(MODELS), pick.random() < 0.05, self.skewed(NAMES)
        session = f"session-{pick.randrange(200_000)}"
        items = [
            self.item(
                trace_id,
                0,
                start_ns,
                {"gen_ai.conversation.id": session, "user.id": session[:11], "tier": pick.randrange(3)},
                name,
            )
        ]
        for index in range(1, spans):
            if index % 2:
                attributes: dict[str, Any] = {
                    "gen_ai.request.model": model, "gen_ai.usage.input_tokens": pick.randrange(5_000),
                    "gen_ai.usage.output_tokens": 40, "gen_ai.input.messages": self.words(words) + filler,
                }  # fmt: skip
            else:
                attributes = {"gen_ai.tool.name": self.skewed(TOOLS), "query": self.words(words) + filler}
                if failed:
                    attributes["error.type"] = "TimeoutError"
            items.append(self.item(trace_id, index, start_ns, attributes, "", failed=failed and index == 2))
        return KeptFragment(
            decision=self.decision(trace_id, start_ns, name, SERVICES[service], spans, errors=int(failed)),
            resources=[self._resources[service]],
            items=[(0, msgspec.Raw(item)) for item in items],
        )

    def item(
        self, trace_id: bytes, index: int, start_ns: int, attributes: dict[str, Any], name: str, *, failed: bool = False
    ) -> bytes:
        """A span."""
        kind = _AGENT if index == 0 else _LLM if index % 2 else _TOOL
        span_id, parent = (index + 1).to_bytes(8, "big"), None if index == 0 else (1).to_bytes(8, "big")
        head = (parent, COUNTED if index else 0, _ERROR if failed else _SUCCESS, 0, 0, 0, None, kind)
        times = (start_ns + index * 10**6, int(self._random.lognormvariate(7, 1) * 1e6))
        return encode_item(
            ItemKind.SPAN, trace_id, span_id, *head, *times, name or f"call {index % 9}", None, None, attributes
        )

    def decision(
        self, trace_id: bytes, start_ns: int, name: str, service: str, spans: int, *, errors: int = 0, kept: bool = True
    ) -> Decision:
        """The decision on it."""
        summary = TraceSummary(
            root_name=name, service=service, start_ns=start_ns, duration_ns=int(self._random.lognormvariate(7, 1) * 1e6),
            spans=spans, errors=errors, input_tokens=self._random.randrange(9_000), output_tokens=80,
            cost_usd=self._random.random() / 10,
        )  # fmt: skip
        return Decision(
            trace_id=trace_id, decision_id=trace_id, kept=kept, probability=0.1, threshold=0, weight=10.0 if kept else 0.0,
            policy="errors" if errors else "share", reason="10 %", trigger=Trigger.COMPLETE, complete=True, first_offset=0,
            cut_offset=1, decided_at_ms=start_ns // 10**6, policy_version="v", summary=summary,
        )  # fmt: skip


def batches(maker: Maker, traces: int, spans: int, words: int, filler: str = "") -> Iterator[list[bytes]]:
    """Records of `sampled`, as many as a sink reads at once; the traces of one week, the last of them now."""
    first = time.time_ns() - WEEK_NS
    for numbers in _batched(traces):
        yield [
            encode_kept(maker.trace(os.urandom(16), first + WEEK_NS * number // traces, spans, words, filler))
            for number in numbers
        ]


def _batched(count: int) -> Iterator[range]:
    for first in range(0, count, BATCH):
        yield range(first, min(first + BATCH, count))


def batch_of(records: Sequence[bytes], offset: int, decisions: Sequence[Decision] = ()) -> SinkBatch:
    """What the service of the sink makes of these records."""
    return SinkBatch(
        source=SOURCE,
        traces=[read_trace([decode_kept(record)]) for record in records],
        decisions=decisions,
        next_offset=offset,
    )


# --- late spans ---


def late(folder: Path, rounds: int = 300) -> dict[str, Any]:
    """Microseconds of CPU of one late span, without the commit, in traces of 20,000 and of ten spans in turns."""
    connection = open_for_writing(folder / "late.db")
    maker, now, resources = Maker(2), time.time_ns(), dict[bytes, int]()
    big, small = b"B" * 16, b"S" * 16
    took: dict[str, list[float]] = {"big": [], "small": [], "whole": []}
    with transaction(connection):
        writer = StoreWriter(connection, resources)
        for trace_id, spans in ((big, 20_000), (small, 10)):
            writer.write([batch_rows(batch_of([encode_kept(maker.trace(trace_id, now, spans, 30))], 1))])
        for number in range(rounds):
            for name, trace_id in (("big", big), ("small", small)):
                item = maker.item(trace_id, 30_000 + number, now, {"query": maker.words(30), "tier": 2}, "")
                fragment = msgspec.structs.replace(
                    maker.trace(trace_id, now, 1, 1), items=[(0, msgspec.Raw(item))], late=True
                )
                batch = batch_of([encode_kept(fragment)], 1)
                began = time.process_time()
                writer.write([batch_rows(batch)])
                took[name].append(time.process_time() - began)
            batch = batch_of([encode_kept(maker.trace(os.urandom(16), now, 10, 30))], 1)
            began = time.process_time()
            writer.write([batch_rows(batch)])
            took["whole"].append((time.process_time() - began) / 10)
        writer.save()
    connection.close()
    us = {name: statistics.median(values) * 1e6 for name, values in took.items()}
    return {
        "in_20000_spans_us": round(us["big"], 1),
        "in_10_spans_us": round(us["small"], 1),
        "with_its_trace_us": round(us["whole"], 1),
        "ratio": round(us["big"] / us["small"], 2),
    }


# --- queries ---

DAY_MS: Final = 86_400_000
TWO_FILTERS: Final[dict[str, TraceQuery]] = {
    "service, status": TraceQuery(service="service-0", status="error"),
    "service, model": TraceQuery(service="service-1", model="model-7"),
    "rare service, model": TraceQuery(service="service-19", model="model-0"),
    "model, tool": TraceQuery(model="model-0", tool="tool-0"),
    "tool, errors": TraceQuery(tool="tool-29", errors=True),
    "name, duration": TraceQuery(name="agent plan *", min_duration_ms=20_000),
    "name, status": TraceQuery(name="agent search 49", status="success"),
    "attribute, service": TraceQuery(attributes=("tier=1",), service="service-4"),
    "tokens, cost": TraceQuery(min_tokens=9_000, min_cost_usd=0.099),
    "session, status": TraceQuery(session="session-77", status="success"),
    "policy, duration": TraceQuery(policy="errors", max_duration_ms=30),
    "error type, model": TraceQuery(error_type="TimeoutError", model="model-3"),
}
TEXTS: Final[dict[str, TraceQuery]] = {
    "common word": TraceQuery(text="kaa0"),
    "two common words": TraceQuery(text="kaa0 kaa1"),
    "rare word": TraceQuery(text=WORDS[-1]),
    "common and rare word": TraceQuery(text=f"kaa0 {WORDS[-1]}"),
    "beginning of a word": TraceQuery(text="tau59*"),
    "word, service": TraceQuery(text="kaa1", service="service-3"),
    "word, errors": TraceQuery(text="kaa7", errors=True),
}


async def build(path: str, traces: int) -> float:
    """Fill the store; returns spans per second."""
    maker, sink = Maker(3), SqliteSink(SqliteOptions(path=path, retention_days=0, retention_gb=0))
    began, now = time.perf_counter(), time.time_ns()
    big = maker.trace(bytes.fromhex(BIG), now, 5_000, 30)
    await sink.write(batch_of([encode_kept(big)], 1))
    for number, records in enumerate(batches(maker, traces, spans=3, words=12)):
        dropped = [
            maker.decision(
                os.urandom(16), now - WEEK_NS * at // traces, maker.skewed(NAMES), maker.skewed(SERVICES), 5, kept=False
            )
            for at in range(number * 100, number * 100 + 100)
        ]
        await sink.write(batch_of(records, number + 2, dropped))
    await sink.aclose()
    return 3 * traces / (time.perf_counter() - began)


async def measured(ask: Callable[[], Awaitable[object]], rounds: int) -> dict[str, float]:
    """Milliseconds of a query, and of the processor for it: a busy machine makes the first larger than the second."""
    took, cpu = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        await ask()
        took.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
    return {"p50_ms": middle(took), "p95_ms": high(took), "cpu_p50_ms": middle(cpu), "cpu_p95_ms": high(cpu)}


def middle(values: list[float]) -> float:
    """The median."""
    return round(statistics.median(values), 1)


def high(values: list[float]) -> float:
    """The 95th percentile."""
    return round(sorted(values)[min(len(values) - 1, len(values) * 95 // 100)], 1)


async def read(path: str, rounds: int) -> dict[str, Any]:
    """The queries of a page."""
    found: dict[str, Any] = {}
    everything, day = TraceQuery(), TraceQuery(since_ns=time.time_ns() - DAY_MS * 10**6)
    async with SqliteReader(SqliteOptions(path=path, query_s=60)) as reader:
        total = (await reader.totals())["traces"]
        for title, queries in (("two_filters", TWO_FILTERS), ("text", TEXTS)):
            found[title] = {name: await measured(partial(reader.list_traces, q), rounds) for name, q in queries.items()}
        deep = (await reader.list_traces(everything, limit=1, offset=total // 2))[0].cursor
        others: dict[str, Callable[[], Awaitable[object]]] = {
            "list": lambda: reader.list_traces(everything),
            "list, slowest": lambda: reader.list_traces(everything, sort="slowest"),
            "list, below half of the rows": lambda: reader.list_traces(everything, after=deep),
            "dropped": lambda: reader.list_traces(TraceQuery(dropped=True, service="service-2", errors=False)),
            "count to 10,000, two filters": lambda: reader.count(TWO_FILTERS["model, tool"]),
            "histograms, everything": lambda: reader.histograms(everything),
            "histograms, a day": lambda: reader.histograms(day),
            "histograms, two filters": lambda: reader.histograms(TWO_FILTERS["service, status"]),
            "sessions": lambda: reader.sessions(everything, limit=50),
            "statistics, everything": lambda: reader.statistics(everything, "model"),
            "statistics, a day": lambda: reader.statistics(day, "model"),
            "exact sums, everything": lambda: reader.decided_totals("service"),
            "exact sums, a day": lambda: reader.decided_totals("service", since_ns=day.since_ns),
            "outline of 5,000 spans": lambda: reader.outline(BIG),
            "5,000 whole spans": lambda: reader.get(BIG),
            "one span of 5,000": lambda: reader.span(BIG, f"{2_500:016x}"),
        }
        found["other"] = {name: await measured(ask, max(rounds // 4, 3)) for name, ask in others.items()}
        found["stored"] = await reader.totals()
    for title in ("two_filters", "text"):
        for which in ("p95_ms", "cpu_p95_ms"):
            found[f"{title}_worst_{which}"] = max(one[which] for one in found[title].values())
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument(
        "--store", type=Path, help="keep the store in this file; if it exists, only its queries are measured"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--http", action="store_true", help="measure the pages of `prela-stream web` over HTTP too")
    parser.add_argument("--browser", action="store_true", help="measure the page of 5,000 spans in Chromium too")
    parser.add_argument("--parts", default="ingest,late,read", help="which of ingest, late and read to measure")
    chosen = parser.parse_args()
    parts = chosen.parts.split(",")
    result: dict[str, Any] = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = chosen.store or folder / "traces.db"
        is_new = not path.exists()
        if is_new and "ingest" in parts:
            spans = list(batches(Maker(1), 20_000, spans=10, words=30, filler="x" * 550))
            before = batch_of(next(batches(Maker(4), BATCH, spans=10, words=30)), 0)
            result["ingest"] = await ingest(folder, msgspec.structs.replace(before, source=OTHER), spans)
        if is_new and "late" in parts:
            result["late"] = await anyio.to_thread.run_sync(late, folder)
        if "read" in parts or chosen.http or chosen.browser:
            if is_new:
                result["build_spans_per_s"] = round(await build(str(path), chosen.traces))
            result["gigabytes"] = round((await anyio.Path(path).stat()).st_size / 1e9, 2)
        if "read" in parts:
            result["read"] = await read(str(path), chosen.rounds)
        if chosen.http:
            lists = {"two_filters": TWO_FILTERS, "text": TEXTS}
            result["http"] = await anyio.to_thread.run_sync(page_speeds, str(path), BIG, lists, chosen.rounds)
        if chosen.browser:
            result["browser"] = await page_times(str(path), BIG, chosen.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    anyio.run(main)
