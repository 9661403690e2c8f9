"""Throughput of a worker on one core: 1 KB spans, 5 % of the traces kept, from a filled topic, local and on Kafka.

The first row has 100 spans per record, 10 per trace, 16 partitions and one worker. Every further row changes one of these: 1 or
10 spans per record, 1 or 1,000 per trace, 1 or 64 partitions, two workers. Each with both cores. The row with two workers runs
them as processes, so it has no times of commits or of the event loop.

Prints one JSON document. `spans_per_cpu_s` is spans over CPU seconds of the process, so a waiting disk does not count as work.
`spans_per_s` is by wall time. Neither includes the start of the worker, until it has its partitions (`start_s`, `start_cpu_s`).
A CPython that was built with profile-guided optimisation needs a third less, and some distributors do not record it:
`loop_step_ns`, the time of one step of an empty loop, shows the difference. The ratio between the rows shows the cost of a record
without its spans. The worker catches up all the time, so a row also shows whether it does so without repeating work: `restores`
after a failed commit, the duration of commits (`commit_ms`), and how long a turn of the event loop took (`loop_lag_ms`).
With `--profile` the time of each transport's last row is split by function (cProfile, whose cost inflates small functions).

    python bench/worker.py [--transport local] [--core native] [--spans 400000] [--spans-a-record 100] [--spans-a-trace 10]
        [--partitions 16] [--workers 1] [--profile]

Each option selects the rows with this value.
"""

import argparse
import cProfile
import gc
import json
import os
import platform
import pstats
import random
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from bench.broker import bench_broker, kafka_settings
from bench.cpython import build_of
from deploy.kafka import KafkaMissingError
from prela_stream import telemetry
from prela_stream.app import create_topics, ready_transport
from prela_stream.app.garbage import GC_THRESHOLDS
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import SPANS_FORMAT, encode_batch, encode_item, encode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.config import Settings, load_settings
from prela_stream.model.ids import partition_of
from prela_stream.model.span import COUNTED, ItemKind, Resource
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import CommitOutcome, Record, TopicPartition, Transport, Writer
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.service import Worker

SPANS_A_TRACE = 10
TRANSPORTS = ("local", "kafka")
CORES = ("native", "python")
POLICIES = """
[[policy]]
name = "errors"
type = "status"
statuses = ["ERROR"]

[[policy]]
name = "slow"
type = "latency"
min_ms = 600_000

[[policy]]
name = "rest"
type = "probabilistic"
probability = 0.05
"""


class Shape(NamedTuple):
    """The shape of a load."""

    spans_a_record: int = 100
    spans_a_trace: int = SPANS_A_TRACE
    partitions: int = 16
    workers: int = 1


SHAPES = (
    Shape(),
    Shape(spans_a_record=10),
    Shape(spans_a_record=1),
    Shape(spans_a_trace=1),
    Shape(spans_a_trace=1_000),
    Shape(partitions=1),
    Shape(partitions=64),
    Shape(workers=2),
)


def trace_items(rng: random.Random, body: str, start_ns: int, spans: int = SPANS_A_TRACE) -> tuple[bytes, list[bytes]]:
    """One trace in the order in which an SDK sends it: the children, then the root; about 1 KB each."""
    trace_id, root = rng.randbytes(16), rng.randbytes(8)
    items = []
    for index in range(spans):
        is_root = index == spans - 1
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "model-large",
            "gen_ai.usage.input_tokens": 1234,
            "gen_ai.usage.output_tokens": 56,
            "gen_ai.input.messages": body,
        }
        items.append(
            encode_item(
                ItemKind.SPAN,
                trace_id,
                root if is_root else rng.randbytes(8),
                None if is_root else root,
                0 if is_root else COUNTED,
                1,
                0,
                spans - 1 if is_root else 0,
                0,
                None,
                0 if is_root else 1,
                start_ns + index * 1_000_000,
                1_500_000_000,
                "research" if is_root else "chat model-large",
                None,
                None,
                attributes,
                [],
                [],
                None,
            )
        )
    return trace_id, items


async def fill(transport: Transport, settings: Settings, *, spans: int, shape: Shape) -> float:
    """Write `spans` spans to all partitions; returns the mean size of a span in bytes."""
    a_record = shape.spans_a_record
    rng = random.Random(7)
    body = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=760))
    resource = encode_resource(Resource(service_name="bench", sdk_version="0", host="h", pid=1))
    partitions = settings.topics.partitions
    waiting: list[list[bytes]] = [[] for _ in range(partitions)]
    records: list[list[Record]] = [[] for _ in range(partitions)]
    size = 0
    now = time.time_ns()
    async with await transport.producer() as producer:
        for _ in range(spans // shape.spans_a_trace):
            trace_id, items = trace_items(rng, body, now, shape.spans_a_trace)
            partition = partition_of(trace_id, partitions)
            size += sum(map(len, items))
            queue = waiting[partition]
            queue += items
            while len(queue) >= a_record:
                value = encode_batch(resource, queue[:a_record])
                del queue[:a_record]
                records[partition].append(Record(value=value, headers=((FORMAT_HEADER, SPANS_FORMAT),)))
            if len(records[partition]) >= 2000 // a_record + 1:
                await producer.send(TopicPartition(settings.topics.spans, partition), records[partition])
                records[partition] = []
        for partition in range(partitions):
            if waiting[partition]:
                value = encode_batch(resource, waiting[partition])
                records[partition].append(Record(value=value, headers=((FORMAT_HEADER, SPANS_FORMAT),)))
            if records[partition]:
                await producer.send(TopicPartition(settings.topics.spans, partition), records[partition])
    return size / spans


class TimedWriters:
    """A transport whose writers record how long each commit takes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.commits_ms: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def writer(self, group: str, source: TopicPartition) -> Writer:
        """As `Transport.writer`."""
        writer = await self._transport.writer(group, source)
        commit = writer.commit

        async def timed(*arguments: Any) -> CommitOutcome:
            began = time.perf_counter()
            try:
                return await commit(*arguments)
            finally:
                self.commits_ms.append((time.perf_counter() - began) * 1e3)

        writer.commit = timed  # type: ignore[method-assign, assignment]
        return writer


async def drain(transport: Transport, settings: Settings, spans: int, core: str) -> dict[str, Any]:
    """Run a worker until every trace is decided and committed; returns the measurements."""
    evaluator = Evaluator(load_policies(POLICIES, source="bench"))
    timed = TimedWriters(transport)
    worker = Worker(
        timed,
        topics=settings.topics,
        evaluator=evaluator,
        options=msgspec.convert({"core": core}, WorkerOptions),
        assembly=AssemblyOptions(),
    )
    failures = telemetry.WORKER_FAILURES.value()
    lags: list[float] = []
    begun = time.perf_counter(), time.process_time()
    ready: list[tuple[float, float]] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run, lambda: ready.append((time.perf_counter(), time.process_time())))
        while not _drained(worker, spans):
            woken = time.perf_counter()
            await anyio.sleep(0.02)
            lags.append((time.perf_counter() - woken - 0.02) * 1e3)
        tasks.cancel_scope.cancel()
    wall, cpu = time.perf_counter() - ready[0][0], time.process_time() - ready[0][1]
    return {
        "start_s": round(ready[0][0] - begun[0], 2),
        "start_cpu_s": round(ready[0][1] - begun[1], 2),
        "spans_per_s": round(spans / wall),
        "spans_per_cpu_s": round(spans / cpu),
        "cpu_us_a_span": round(cpu / spans * 1e6, 2),
        "restores": telemetry.WORKER_FAILURES.value() - failures,
        "commits": len(timed.commits_ms),
        "commit_ms": _quantiles(timed.commits_ms),
        "loop_lag_ms": _quantiles(lags),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) for name, share in shares.items()}


def _drained(worker: Worker, spans: int) -> bool:
    states = worker.status().values()
    decided = sum(state.counters.kept + state.counters.dropped for state in states)
    return decided == spans and not any(state.pending_bytes for state in states)


async def drain_by_processes(settings: Settings, workers: int, spans: int, traces: int, core: str) -> dict[str, Any]:
    """As `drain`, with several worker processes; the start of the last one does not count."""
    from bench.peers.outputs import Decided, reading
    from bench.peers.processes import OurWorker

    decided = Decided()
    peers = [OurWorker(settings, PRELA_WORKER_CORE=core) for _ in range(workers)]
    async with reading(settings, settings.topics.decisions, decided.take):
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(peer.start)
        began, used, before = time.perf_counter(), sum(peer.cpu_s() for peer in peers), len(decided.count)
        while len(decided.count) < traces:
            await anyio.sleep(0.02)
        wall, cpu = time.perf_counter() - began, sum(peer.cpu_s() for peer in peers) - used
    if not cpu:
        sys.exit(f"{spans} spans are too few: they were decided before all {workers} workers were ready")
    for peer in peers:
        await peer.stop()
    counted = spans * (traces - before) / traces
    return {
        "start_s": round(max(peer.start_s for peer in peers), 2),
        "start_cpu_s": round(sum(peer.start_cpu_s for peer in peers), 2),
        "spans_per_s": round(counted / wall),
        "spans_per_cpu_s": round(counted / cpu),
        "cpu_us_a_span": round(cpu / counted * 1e6, 2),
        "restores": sum(peer.log_text().count("restoring from the log") for peer in peers),
    }


async def measure(
    bootstrap: str | None, core: str, shape: Shape, spans: int, profile: cProfile.Profile | None = None
) -> dict[str, Any]:
    """One row: fill a new log, then drain it. Without `bootstrap` the log is local."""
    with tempfile.TemporaryDirectory() as folder:
        partitions = str(shape.partitions)
        if bootstrap is None:
            settings = load_settings(
                env={"PRELA_TOPICS_PARTITIONS": partitions}, overrides={"directory": folder, "transport": "local"}
            )
        else:
            settings = kafka_settings(bootstrap, folder, TOPICS_PARTITIONS=partitions)
            await create_topics(settings)
        async with ready_transport(settings) as transport:
            bytes_a_span = await fill(transport, settings, spans=spans, shape=shape)
            if profile:
                profile.enable()
            if shape.workers == 1:
                measured = await drain(transport, settings, spans, core)
            else:
                traces = spans // shape.spans_a_trace
                measured = await drain_by_processes(settings, shape.workers, spans, traces, core)
            if profile:
                profile.disable()
    return {
        "transport": settings.transport,
        "core": core,
        **shape._asdict(),
        "spans": spans,
        "bytes_a_span": round(bytes_a_span),
        **measured,
    }


def split(profile: cProfile.Profile) -> list[dict[str, Any]]:
    """The twenty functions with the most self time."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = sorted(stats.items(), key=lambda row: -row[1][2])[:20]
    return [
        {"function": f"{Path(file).name}:{name}", "calls": calls, "own_s": round(own, 3)}
        for (file, _, name), (calls, _, own, _, _) in rows
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", help="default: both")
    parser.add_argument("--core", choices=CORES, action="append", help="default: both")
    parser.add_argument("--spans", type=int, default=400_000)
    for field in Shape._fields:
        values = sorted({getattr(shape, field) for shape in SHAPES})
        parser.add_argument(
            f"--{field.replace('_', '-')}", type=int, choices=values, action="append", help="default: all"
        )
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLDS)  # as `prela-stream worker` does
    chosen = [
        shape
        for shape in SHAPES
        if all(value in (getattr(arguments, field) or [value]) for field, value in shape._asdict().items())
    ]
    result: dict[str, Any] = {
        "bench": "worker",
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        **build_of(sys.executable),
        "budget_spans_per_cpu_s": 250_000,
        "rows": [],
    }
    for transport in arguments.transport or TRANSPORTS:
        try:
            with bench_broker() if transport == "kafka" else nullcontext() as bootstrap:
                result["rows"] += [
                    anyio.run(measure, bootstrap, core, shape, arguments.spans)
                    for shape in chosen
                    for core in arguments.core or CORES
                ]
                if arguments.profile:
                    profile = cProfile.Profile()
                    anyio.run(measure, bootstrap, (arguments.core or CORES)[0], Shape(), arguments.spans, profile)
                    result[f"profile_{transport}"] = split(profile)
        except KafkaMissingError as error:
            result["missing"] = str(error)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
