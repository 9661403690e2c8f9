"""CPU per span of the worker of this checkout and of another one, on the same spans, in alternating rounds.

    git worktree add --detach ../earlier f1a8dfd
    python bench/against.py ../earlier [--part core] [--transport local] [--core python] [--rounds 7] [--spans-a-record 100]

- `worker`: a whole worker reads a filled log, from the moment at which it has its partitions until everything is committed. A
  local log is filled once, by the other checkout, and copied for each round. Topics on Kafka are filled for each round.
- `core`: the same spans are applied to one `PartitionState` in one process, without a transport, at `--rate` spans per second
  of stream time. What would be committed is taken out every 1,000 spans.

Each figure is the CPU time of a new process. Prints one JSON line per row: the median CPU per span of both, all rounds, and
`other_over_this`, the median of the ratios within one round. Only names that both checkouts have are used.
"""

import argparse
import functools
import gc
import importlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio

HERE: Final = Path(__file__).resolve().parent.parent
PARTS: Final = ("core", "worker")
COMMIT_SPANS: Final = 1_000


def measure_core(spans: int, a_record: int, rate: int) -> float:
    """CPU seconds that one partition takes for these spans; what the process did before is not included."""
    from bench.worker import POLICIES, SPANS_A_TRACE, trace_items
    from prela_stream.assembly.options import AssemblyOptions
    from prela_stream.config import load_settings
    from prela_stream.sampling.evaluator import Evaluator
    from prela_stream.sampling.policyset import load_policies
    from prela_stream.transport import base
    from prela_stream.transport.base import TopicPartition
    from prela_stream.worker.partition import PartitionState

    settings = load_settings(env=_variables())
    state = PartitionState(
        TopicPartition("spans", 0),
        topics=settings.topics,
        assembly=AssemblyOptions(),
        evaluator=Evaluator(load_policies(POLICIES, source="bench")),
        options=settings.worker,
    )
    # the earlier name of a record in the log
    record_type: Any = getattr(base, "LogRecord", None) or base.Stored  # type: ignore[attr-defined] # an older checkout has it
    rng = random.Random(7)
    body = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=760))
    used = 0.0
    offset = 0
    waiting: list[bytes] = []
    ahead = 10 * COMMIT_SPANS  # so many spans are made at a time, which is not measured
    for first in range(0, spans, ahead):
        records = []
        for _ in range(min(ahead, spans - first) // SPANS_A_TRACE):
            waiting += trace_items(rng, body, 1_700_000_000_000_000_000)[1]
            while len(waiting) >= a_record:
                stamp = 1_700_000_000_000 + offset * a_record * 1000 // rate
                records.append(_record(record_type, offset, stamp, waiting[:a_record]))
                offset += 1
                del waiting[:a_record]
        if first + ahead >= spans:  # everything is due; stream time does not follow one large jump
            stamp = records[-1].timestamp_ms
            records += [_record(record_type, offset + step, stamp + 1000 * step, []) for step in range(1, 4)]
        began = time.process_time()
        for number, record in enumerate(records):
            state.apply(record)
            if number * a_record % COMMIT_SPANS == 0:
                while state.has_news:
                    state.freeze()
        used += time.process_time() - began
    counters = state.counters
    assert counters.kept + counters.dropped == spans, counters
    return used


def _record(record_type: Any, offset: int, timestamp_ms: int, items: Sequence[bytes]) -> Any:
    return record_type(
        topic="spans", partition=0, offset=offset, timestamp_ms=timestamp_ms, value=_batch_of(list(items))
    )


@functools.cache
def _codec() -> tuple[Any, bytes]:
    from prela_stream.model.span import Resource

    worker = importlib.import_module("bench.worker")  # the codec has another name in the earlier checkout

    resource = Resource(service_name="bench", sdk_version="0", host="h", pid=1)
    return worker.encode_batch, worker.encode_resource(resource)


def _batch_of(items: list[bytes]) -> bytes:
    encode, resource = _codec()
    value: bytes = encode(resource, items)
    return value


def _gc_thresholds() -> tuple[int, int, int]:
    """As `prela-stream worker` of the checkout sets them."""
    try:
        found: Any = importlib.import_module("prela_stream.app.garbage")
    except ImportError:  # an earlier place
        found = importlib.import_module("prela_stream.cli.services")
    thresholds: tuple[int, int, int] = found.GC_THRESHOLDS
    return thresholds


def _variables() -> dict[str, str]:
    """The settings of this process, without those that its checkout does not have."""
    from prela_stream.worker.options import WorkerOptions

    known = "core" in WorkerOptions.__struct_fields__
    return {name: value for name, value in os.environ.items() if known or name != "PRELA_WORKER_CORE"}


async def fill_log(spans: int, a_record: int) -> None:
    """Create the topics of the environment's settings and write the spans."""
    from prela_stream.app import create_topics, ready_transport
    from prela_stream.config import load_settings

    settings = load_settings(env=_variables())
    if settings.transport == "kafka":
        await create_topics(settings)
    async with ready_transport(settings) as transport:
        worker = importlib.import_module("bench.worker")
        shape = {"shape": worker.Shape(spans_a_record=a_record)} if hasattr(worker, "Shape") else {"a_record": a_record}
        await worker.fill(transport, settings, spans=spans, **shape)


async def measure_worker(spans: int) -> float:
    """CPU seconds of a worker until everything is decided and committed, after it has its partitions."""
    from bench.worker import POLICIES
    from prela_stream.app import ready_transport
    from prela_stream.assembly.options import AssemblyOptions
    from prela_stream.config import load_settings
    from prela_stream.sampling.evaluator import Evaluator
    from prela_stream.sampling.policyset import load_policies
    from prela_stream.worker.service import Worker

    settings = load_settings(env=_variables())
    async with ready_transport(settings) as transport:
        worker = Worker(
            transport,
            topics=settings.topics,
            evaluator=Evaluator(load_policies(POLICIES, source="bench")),
            options=settings.worker,
            assembly=AssemblyOptions(),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            while len(worker.status()) < settings.topics.partitions:
                await anyio.sleep(0.001)
            began = time.process_time()
            while not _drained(worker.status().values(), spans):
                await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
        return time.process_time() - began


def _drained(states: Any, spans: int) -> bool:
    decided = sum(state.counters.kept + state.counters.dropped for state in states)
    return decided == spans and not any(state.pending_bytes for state in states)


def child(options: argparse.Namespace) -> None:
    """One measurement, in the checkout that PYTHONPATH names. Prints CPU seconds."""
    gc.set_threshold(*_gc_thresholds())
    if options.child == "fill":
        anyio.run(fill_log, options.spans, options.spans_a_record[0])
    elif options.child == "worker":
        print(anyio.run(measure_worker, options.spans))
    else:
        print(measure_core(options.spans, options.spans_a_record[0], options.rate))


class Rounds:
    """Measures both checkouts in turns."""

    def __init__(self, options: argparse.Namespace, bootstrap: str | None, folder: str) -> None:
        self._options = options
        self._bootstrap = bootstrap
        self._folder = Path(folder)
        self._checkouts = {"this": HERE, "other": options.other.resolve()}

    def row(self, a_record: int) -> dict[str, Any]:
        """The figures of one record size."""
        options = self._options
        found: dict[str, list[float]] = {name: [] for name in self._checkouts}
        log = self._folder / f"log-{a_record}"
        if options.part == "worker" and self._bootstrap is None:
            self._run("other", "fill", a_record, {"PRELA_DIRECTORY": str(log)})
        for number in range(options.rounds):
            for name in sorted(self._checkouts, reverse=number % 2 == 1):
                found[name].append(self._once(name, a_record, log) / options.spans * 1e6)
        ratios = [other / this for this, other in zip(found["this"], found["other"], strict=True)]
        return {
            "part": options.part,
            "transport": None if options.part == "core" else options.transport,
            "core": options.core,
            "spans_a_record": a_record,
            "spans": options.spans,
            "load": round(os.getloadavg()[0], 1),
            **{f"{name}_us": round(statistics.median(values), 2) for name, values in found.items()},
            "other_over_this": round(statistics.median(ratios), 3),
            "rounds": {name: [round(value, 2) for value in values] for name, values in found.items()},
        }

    def _once(self, name: str, a_record: int, log: Path) -> float:
        if self._options.part == "core":
            return self._run(name, "core", a_record, {})
        copy = self._folder / "copy"
        variables = {"PRELA_DIRECTORY": str(copy)}
        if self._bootstrap is None:
            shutil.copytree(log, copy)
        else:
            variables |= {
                "PRELA_KAFKA_BOOTSTRAP": self._bootstrap,
                "PRELA_TOPICS_PREFIX": f"bench-{uuid.uuid4().hex[:8]}",
            }
            self._run(name, "fill", a_record, variables)
        try:
            return self._run(name, "worker", a_record, variables)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _run(self, name: str, what: str, a_record: int, variables: dict[str, str]) -> float:
        checkout = self._checkouts[name]
        options = self._options
        command = [sys.executable, __file__, str(checkout), "--child", what, "--spans", str(options.spans)]
        command += ["--rate", str(options.rate), "--spans-a-record", str(a_record)]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PRELA_")},
            **variables,
            "PYTHONPATH": str(checkout),
            "PRELA_WORKER_CORE": options.core,
        }
        done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
        return float(done.stdout or 0)


@contextmanager
def _broker(transport: str) -> Iterator[str | None]:
    if transport == "local":
        yield None
        return
    from bench.broker import bench_broker

    with bench_broker() as bootstrap:
        yield bootstrap


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--part", choices=PARTS, default="worker")
    parser.add_argument("--transport", choices=("local", "kafka"), default="local")
    parser.add_argument("--core", choices=("native", "python"), default="python", help="where the checkout has both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--spans-a-record", type=int, nargs="+", default=[100, 10, 1])
    parser.add_argument("--rate", type=int, default=20_000, help="of `core`: spans per second of stream time")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    transport = options.transport if options.part == "worker" else "local"
    with _broker(transport) as bootstrap, tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(options, bootstrap, folder)
        for a_record in options.spans_a_record:
            print(json.dumps(rounds.row(a_record)), flush=True)


if __name__ == "__main__":
    main()
