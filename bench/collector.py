"""The OpenTelemetry Collector (kafkareceiver, tail_sampling, kafkaexporter) and our worker on the same spans of one Kafka.

    python bench/collector.py [throughput] [memory] [latency] [kill] [--traces 50000] [--rounds 5] [--cores native,python]

- `throughput`: CPU per span, spans per second, peak memory, in alternating rounds; one text for all spans, then a text per trace.
- `memory`: resident bytes of an undecided span.
- `latency`: from the end of a trace to its spans on the output topic, and the share of a core at 500 spans/s.
- `kill`: traces that are missing or cut after a SIGKILL half-way and a restart at once.

Prints one JSON line per row. The last line has `collector_cpu_over_ours`: the median CPU per span of the Collector over that of
the worker with the native core, at 100 spans per record. CPU is user and system time of the process after it reported readiness,
until every trace is decided. It needs Go for the Collector (`python -m deploy.collector`), and Java and Maven for the broker.
"""

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio

from bench.broker import bench_broker, kafka_settings
from bench.cpython import build_of
from bench.peers.load import Load
from bench.peers.outputs import Decided, Kept, reading
from bench.peers.population import Filler, rootless, spans_of, traces
from bench.peers.processes import Collector, OurWorker, Peer
from deploy.collector.__main__ import build
from deploy.collector.errors import CollectorMissingError
from deploy.kafka import KafkaMissingError
from prela_stream.app import create_topics, open_transport
from prela_stream.config import Settings

PARTS: Final = ("throughput", "memory", "latency", "kill")
CORE_VARIABLE: Final = "PRELA_WORKER_CORE"
SPREAD_S: Final = 2.0
LATENCY_TRACES_PER_S: Final = 50
KILL_TRACES_PER_S: Final = 200


class Bench:
    """One run: a broker, a Collector, and the choices of the command line."""

    def __init__(self, bootstrap: str, folder: str, binary: Path, options: argparse.Namespace) -> None:
        self._bootstrap = bootstrap
        self._folder = folder
        self._binary = binary
        self._options = options
        self.python: str = options.python
        """The CPython that runs the worker."""
        self.ratios: dict[str, dict[str, float]] = {}

    async def topics(self) -> Settings:
        """Settings with new topics."""
        settings = kafka_settings(self._bootstrap, self._folder)
        await create_topics(settings)
        return settings

    def worker(self, settings: Settings, core: str = "auto") -> OurWorker:
        """A worker that is not started yet."""
        return OurWorker(settings, python=self.python, **{CORE_VARIABLE: core})

    # --- throughput ---

    async def throughput(self) -> None:
        """Alternating rounds, for one text and for a text per trace."""
        for text in ("one text", "a text per trace"):
            await self._throughput(text, unique=text != "one text")

    async def _throughput(self, text: str, *, unique: bool) -> None:
        options = self._options
        cores = options.cores.split(",")
        source = await self.topics()
        targets = [await self.topics() for _ in range(options.rounds * len(cores))]
        filled = {"collector": [source.topics.spans], "worker": [target.topics.spans for target in targets]}
        async with open_transport(source) as transport:
            filler = Filler(transport, filled, partitions=source.topics.partitions, a_record=options.spans_a_record)
            await filler.fill(traces(options.traces, unique=unique))
        spans = spans_of(options.traces)
        size = {form: round(total / spans, 1) for form, total in filler.bytes.items()}
        show(row="population", text=text, spans=spans, spans_a_record=options.spans_a_record, bytes_a_span=size)
        used: dict[str, list[float]] = defaultdict(list)
        for number in range(options.rounds):
            for core in cores:
                row = await self._worker_round(targets.pop(), core)
                self._show_round(number, f"worker, {core} core", text, row, used)
            self._show_round(number, "collector", text, await self._collector_round(source), used)
        medians = {name: statistics.median(values) for name, values in used.items()}
        self.ratios[text] = {name: round(medians["collector"] / value, 2) for name, value in medians.items()}
        show(row="medians", text=text, cpu_us_a_span={name: round(us, 2) for name, us in medians.items()})

    def _show_round(self, number: int, name: str, text: str, row: dict[str, Any], used: dict[str, list[float]]) -> None:
        spans = spans_of(self._options.traces)
        us = row["cpu_s"] / spans * 1e6
        used[name].append(us)
        rates = {"spans_per_cpu_s": round(spans / row["cpu_s"]), "spans_per_s": round(spans / row["wall_s"])}
        show(row="round", number=number, peer=name, text=text, cpu_us_a_span=us, **rates, **row)

    async def _collector_round(self, source: Settings) -> dict[str, Any]:
        out = await self.topics()
        peer = Collector(self._binary, out, TOPIC_IN=source.topics.spans)
        await peer.start()
        began = time.monotonic()
        while await peer.consumed() < spans_of(self._options.traces):
            await anyio.sleep(0.2)
        wall_s = time.monotonic() - began
        while await peer.decided() < self._options.traces:
            await anyio.sleep(0.2)
        row = self._figures(peer, wall_s)
        row["refused_by_its_queue_spans"] = int((await peer.metrics())["otelcol_exporter_enqueue_failed_spans"])
        await peer.stop()
        return row | await kept_of(out, "collector")

    async def _worker_round(self, settings: Settings, core: str) -> dict[str, Any]:
        peer, decided = self.worker(settings, core), Decided()
        async with reading(settings, settings.topics.decisions, decided.take):
            await peer.start()
            began = time.monotonic()
            while len(decided.count) < self._options.traces:
                await anyio.sleep(0.05)
            row = self._figures(peer, time.monotonic() - began)
        await peer.stop()
        row["restores"] = peer.log_text().count("restoring from the log")
        return row | await kept_of(settings, "worker")

    @staticmethod
    def _figures(peer: Peer, wall_s: float) -> dict[str, Any]:
        return {
            "cpu_s": peer.cpu_s() - peer.start_cpu_s,
            "wall_s": wall_s,
            "peak_mib": peer.peak_mib(),
            "start_s": peer.start_s,
            "start_cpu_s": peer.start_cpu_s,
        }

    # --- memory ---

    async def memory(self) -> None:
        """Resident bytes of an undecided span: no trace is ever complete, and nothing is decided."""
        source, target = await self.topics(), await self.topics()
        topics = {"collector": [source.topics.spans], "worker": [target.topics.spans]}
        async with open_transport(source) as transport:
            filler = Filler(transport, topics, partitions=source.topics.partitions, a_record=100)
            count = self._options.traces
            await filler.fill((trace_id, rootless(items)) for trace_id, items in traces(count))
        spans = spans_of(count)
        waiting = {"DECISION_WAIT": "1800s", "NUM_TRACES": str(2 * count)}
        for form, peer in {
            "collector": Collector(self._binary, source, **waiting),
            "worker": self.worker(target),
        }.items():
            await peer.start()
            empty = peer.rss_mib()
            if isinstance(peer, Collector):
                while await peer.consumed() < spans:
                    await anyio.sleep(0.2)
            await rested(peer)
            per_span = (peer.rss_mib() - empty) * 2**20 / spans
            wire = filler.bytes[form] / spans
            show(
                row="memory",
                peer=peer.name,
                undecided_spans=spans,
                bytes_a_span=per_span,
                wire_bytes_a_span=wire,
                over_wire=per_span - wire,
            )
            await peer.stop(signal.SIGKILL)

    # --- latency ---

    async def latency(self) -> None:
        """Fifty traces a second, all kept."""
        for name, form, variables in (
            ("collector, wait 30 s (its default)", "collector", {"DECISION_WAIT": "30s"}),
            ("collector, 1 s after the root", "collector", {"DECISION_WAIT": "30s", "ROOT_WAIT": "1s"}),
            ("worker", "worker", {}),
        ):
            settings = await self.topics()
            peer = self._peer(form, settings, variables)
            load, kept = self._load(settings, form, LATENCY_TRACES_PER_S, spread_s=0.0), Kept()
            await peer.start()
            cpu, began = peer.cpu_s(), time.monotonic()
            async with reading(settings, settings.topics.sampled, kept.take(form)):
                await load.run()
                share = (peer.cpu_s() - cpu) / (time.monotonic() - began)
                await until(lambda kept=kept, load=load: len(kept.first_s) >= len(load.sent), 90)  # type: ignore[misc]
            waits = sorted(kept.first_s[one] - load.ended[one] for one in kept.first_s if one in load.ended)
            spread = {f"p{share}_s": waits[min(len(waits) - 1, len(waits) * share // 100)] for share in (1, 50, 99)}
            show(row="latency", peer=name, traces=len(load.sent), kept=len(kept.first_s), **spread, core_share=share)
            await peer.stop()

    # --- a crash ---

    async def kill(self) -> None:
        """SIGKILL half-way, and a restart at once. Every trace has two halves 2 s apart, and must be written whole."""
        for name, form, variables in (
            ("collector, wait 10 s, marked after", "collector", {"DECISION_WAIT": "10s", "MARK_AFTER": "true"}),
            ("worker", "worker", {}),
        ):
            settings = await self.topics()
            group = f"kill-{random.randrange(10**9)}"
            load, kept = self._load(settings, form, KILL_TRACES_PER_S, spread_s=SPREAD_S), Kept()
            peer = self._peer(form, settings, variables, group)
            await peer.start()
            async with reading(settings, settings.topics.sampled, kept.take(form)), anyio.create_task_group() as tasks:
                tasks.start_soon(load.run)
                await anyio.sleep(self._options.seconds / 2)
                await peer.stop(signal.SIGKILL)
                killed = time.monotonic()
                peer = self._peer(form, settings, variables, group)
                await peer.start()
                await anyio.sleep(self._options.seconds / 2)
                await until(lambda kept=kept, load=load: len(kept.first_s) >= len(load.sent), 75)  # type: ignore[misc]
            await peer.stop()
            show(row="kill", peer=name, **harm(load, kept), first_output_after_s=first_after(kept, killed))

    def _peer(self, form: str, settings: Settings, variables: dict[str, str], group: str | None = None) -> Peer:
        if form == "worker":
            return self.worker(settings)
        return Collector(self._binary, settings, group=group, **variables)

    def _load(self, settings: Settings, form: str, rate: float, *, spread_s: float) -> Load:
        seed, seconds = random.randrange(10**9), self._options.seconds
        return Load(settings, form, traces_per_s=rate, seconds=seconds, spread_s=spread_s, seed=seed)


def harm(load: Load, kept: Kept) -> dict[str, int]:
    """Traces that were not written, or not whole, or not once."""
    missing = load.sent.keys() - kept.spans.keys()
    cut = [one for one, spans in load.sent.items() if one not in missing and set(kept.spans[one]) != spans]
    return {
        "sent": len(load.sent),
        "whole": len(load.sent) - len(missing) - len(cut),
        "missing": len(missing),
        "cut": len(cut),
        "spans_lost": sum(len(spans - set(kept.spans.get(one, ()))) for one, spans in load.sent.items()),
        "traces_with_spans_twice": sum(max(spans.values()) > 1 for spans in kept.spans.values()),
    }


def first_after(kept: Kept, killed: float) -> float:
    """Seconds from the kill to the first trace of the new process; what the old one had sent may arrive for 0.5 s."""
    return min((at for at in kept.first_s.values() if at > killed + 0.5), default=killed) - killed


async def kept_of(settings: Settings, form: str) -> dict[str, int]:
    """Kept traces and spans on the output topic, read when nothing has arrived for 1.5 s."""
    kept = Kept()
    async with reading(settings, settings.topics.sampled, kept.take(form)):
        seen = -1
        while seen != kept.messages:
            seen = kept.messages
            await anyio.sleep(1.5)
    return {"kept_traces": len(kept.spans), "kept_spans": sum(len(spans) for spans in kept.spans.values())}


async def rested(peer: Peer) -> None:
    """Return when the process has used less than 8 % of a core for three seconds, after at least three."""
    before, quiet_s = peer.cpu_s(), 0
    await anyio.sleep(3)
    while quiet_s < 3:
        await anyio.sleep(1)
        now = peer.cpu_s()
        quiet_s = quiet_s + 1 if now - before < 0.08 else 0
        before = now


async def until(holds: Callable[[], bool], seconds: float) -> None:
    """Return when it holds, or after so many seconds: what is missing then is reported by the row."""
    with anyio.move_on_after(seconds):
        while not holds():
            await anyio.sleep(0.1)


def show(**row: Any) -> None:
    """Print a row."""
    print(
        json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}),
        flush=True,
    )


async def run(bench: Bench, parts: list[str]) -> None:
    """Measure the parts, and print the line with the ratios."""
    for part in parts:
        await getattr(bench, part)()
    one = bench.ratios.get("one text", {})
    ours = next((value for name, value in one.items() if "native" in name), None)
    show(collector_cpu_over_ours=ours, ratios=bench.ratios, **build_of(bench.python))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--traces", type=int, default=50_000, help="traces of ten spans in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the latency and crash measurements")
    parser.add_argument("--spans-a-record", type=int, default=100)
    parser.add_argument("--cores", default="native,python", help="cores of the worker, each measured in every round")
    parser.add_argument("--python", default=sys.executable, help="the CPython that runs the worker")
    options = parser.parse_args()
    try:
        binary = build()
        with bench_broker() as bootstrap, tempfile.TemporaryDirectory() as folder:
            anyio.run(run, Bench(bootstrap, folder, binary, options), options.parts or list(PARTS))
    except (CollectorMissingError, KafkaMissingError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
