"""How long an agent's event loop stalls while spans are recorded at a steady rate (design: Budgets, event-loop stall).

Run `python bench/stall.py`; it prints JSON. A ticker on the agent's loop asks to be woken every millisecond; a stall is the delay
of a tick. Four set-ups, in turn over several rounds, each in a fresh process. The budget is compared with the round that other
work on the machine disturbed least; the medians are printed too:

- `idle`: the ticker alone, which shows the cost of the machine and of the ticker.
- `record_only`: items are recorded at the given rate and never sent: the cost that every set-up has.
- `background`: the pipeline runs in its background thread, as after `init()`, on the local transport.
- `own_loop`: the pipeline runs in the agent's own loop, on the local transport.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from bench.items import make_span
from prela_stream.delivery.background import BackgroundPipeline
from prela_stream.delivery.ledger import Ledger, LedgerSnapshot
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.model.span import Resource
from prela_stream.transport.base import TopicSpec, Transport
from prela_stream.transport.local.transport import LocalTransport
from prela_stream.transport.options import LocalOptions, TopicOptions

MODES = ("idle", "record_only", "background", "own_loop")
BUDGET_MS = 1.0
TICK = 0.001
BURST = 10
"""Spans recorded each time: an agent ends a few together."""

Record = Callable[[bytes, bytes], object]


async def tick(stalls: list[float], until: float) -> None:
    """Ask for a wake-up every millisecond and note how late it is, in ms."""
    while (now := time.perf_counter()) < until:
        await asyncio.sleep(TICK)
        stalls.append((time.perf_counter() - now - TICK) * 1e3)


async def load(record: Record, rate: int, until: float) -> int:
    """Record `rate` items a second in bursts until the time is over; returns how many."""
    began = time.perf_counter()
    sent = 0
    while (now := time.perf_counter()) < until:
        while sent < (now - began) * rate:
            for _ in range(BURST):
                record(*make_span(sent))
                sent += 1
        await asyncio.sleep(TICK)
    return sent


async def measure(record: Record | None, rate: int, seconds: float) -> dict[str, float]:
    """Run the ticker, and the load if there is one, and return the distribution of the stalls in ms."""
    stalls: list[float] = []
    until = time.perf_counter() + seconds
    cpu = time.process_time()
    recorded = 0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tick(stalls, until))
        if record is not None:
            recorded = await load(record, rate, until)
    cpu = time.process_time() - cpu
    stalls.sort()

    def at(share: float) -> float:
        return round(stalls[min(len(stalls) - 1, int(share * len(stalls)))], 3)

    return {
        "ticks": len(stalls),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "max_ms": round(stalls[-1], 3),
        "recorded_per_s": round(recorded / seconds),
        "process_cpu_us_per_span": round(cpu / recorded * 1e6, 2) if recorded else 0.0,
    }


async def create_topics(transport: Transport) -> None:
    """The topics of the run."""
    topics = TopicOptions()
    await transport.create_topics([TopicSpec(name=topics.spans, partitions=topics.partitions)])


def run(mode: str, rate: int, seconds: float, path: Path) -> dict[str, object]:
    """One set-up, in this process."""
    local = LocalOptions(path=str(path / "log.db"))
    setup = PipelineSetup(topics=TopicOptions(), options=PipelineOptions(), resource=Resource, prepare=create_topics)
    if mode == "idle":
        return dict(asyncio.run(measure(None, rate, seconds)))
    if mode == "record_only":
        put = Ledger(PipelineOptions(max_queue_items=1 << 40, max_queue_bytes=1 << 50)).queue.put
        return dict(asyncio.run(measure(put, rate, seconds)))
    if mode == "background":
        background = BackgroundPipeline(lambda: LocalTransport(local), setup)
        background.start()
        return _with_ledger(asyncio.run(measure(background.record, rate, seconds)), background.stop())

    async def own_loop() -> dict[str, object]:
        async with LocalTransport(local) as transport:
            async with Pipeline(transport, setup) as pipeline:
                result = await measure(pipeline.record, rate, seconds)
            return _with_ledger(result, pipeline.ledger())

    return anyio.run(own_loop)


def _with_ledger(result: dict[str, float], ledger: LedgerSnapshot) -> dict[str, object]:
    return {**result, "acknowledged": ledger.acknowledged, "balances": ledger.balances, "ledger": str(ledger)}


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The run that other work on the machine disturbed least, and the median of each figure over all runs."""
    keys = ("p50_ms", "p99_ms", "p999_ms", "max_ms", "process_cpu_us_per_span")
    return {
        "quietest": min(runs, key=lambda run: run["p99_ms"]),
        "median": {key: statistics.median(run[key] for run in runs) for key in keys},
    }


def main() -> None:
    """Run every set-up in a separate process and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=10_000, help="spans a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each set-up, in turn")
    parser.add_argument("--mode", choices=MODES, help="only this one")
    arguments = parser.parse_args()
    if arguments.mode:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(arguments.mode, arguments.rate, arguments.seconds, Path(folder))))
        return
    rounds: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for _ in range(arguments.rounds):
        for mode in MODES:
            command = [sys.executable, __file__, "--mode", mode, "--rate", str(arguments.rate)]
            command += ["--seconds", str(arguments.seconds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            rounds[mode].append(json.loads(done.stdout))
    results = {mode: summary(runs) for mode, runs in rounds.items()}
    report = {
        "bench": "stall",
        "rate": arguments.rate,
        "budget_p99_ms": BUDGET_MS,
        "within_budget": {mode: results[mode]["quietest"]["p99_ms"] <= BUDGET_MS for mode in MODES},
        "load_average": os.getloadavg()[0],
        "results": results,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
