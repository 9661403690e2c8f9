"""What one span costs its caller: `with tracer.span()`, three attributes, encoded and queued. Beside it, in the same run, the
peers: opentelemetry-sdk with a BatchSpanProcessor, ddtrace, and the ancestor prela 0.1.0, each with a destination that discards.

    python bench/span.py [--rounds 5]

Every peer runs in a process of its own, the peers taking turns, so that a busy machine hits all alike. A round is 40 batches of
500 root spans; queues are emptied between batches, outside of the clock. Prints JSON: medians over all batches in microseconds of
wall time (`*_us`) and of the calling thread's CPU time (`*_cpu_us`), which other processes disturb less; the ratio is the median
of those of each round, ours and opentelemetry-sdk one right after the other, in CPU time. A peer that is not installed is `null`.
"""

import argparse
import json
import logging
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCHES, SPANS = 40, 500
Load = tuple[Callable[[], None], Callable[[], object]]
"""One span, and what empties the queue."""


def ours(kind: str) -> Load:
    from prela_stream.batching import BoundedQueue
    from prela_stream.sdk.sampler import AlwaysOffSampler
    from prela_stream.sdk.tracer import get_tracer

    queue = BoundedQueue(
        max_items=100_000,
        max_bytes=1 << 30,
        overflow="drop_newest",
        block_timeout=0,
        on_drop=lambda *_: sys.exit("dropped"),
    )

    class Queued:
        record = queue.put

    tracer = get_tracer()
    tracer.configure(recorder=Queued(), sampler=AlwaysOffSampler() if kind == "ours_unsampled" else None)

    def one() -> None:
        with tracer.span("operation") as span:
            span.set_attribute("model", "claude")
            span.set_attribute("tokens", 1234)
            span.set_attribute("ratio", 0.25)

    def at_once() -> None:
        with tracer.span("operation", attributes={"model": "claude", "tokens": 1234, "ratio": 0.25}):
            pass

    def drain() -> None:
        taken = queue.take(100_000)
        queue.release(len(taken), sum(len(item) for _, _, item, _ in taken))

    if kind == "ours_child":
        tracer.span("parent").__enter__()
    return at_once if kind == "ours_at_once" else one, drain


def otel(_: str) -> Load:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - the interface
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=100_000))
    tracer = provider.get_tracer("bench")

    def one() -> None:
        with tracer.start_as_current_span("operation") as span:
            span.set_attribute("model", "claude")
            span.set_attribute("tokens", 1234)
            span.set_attribute("ratio", 0.25)

    return one, provider.force_flush


def ddtrace(_: str) -> Load:
    from ddtrace.internal.writer import TraceWriter
    from ddtrace.trace import tracer

    class Discard(TraceWriter):
        def recreate(self, *_: Any, **__: Any) -> "Discard":
            return self

        def stop(self, timeout: float | None = None) -> None: ...

        def write(self, *_: Any, **__: Any) -> None: ...

        def flush_queue(self, *_: Any, **__: Any) -> None: ...

    tracer._span_aggregator.writer = Discard()

    def one() -> None:
        with tracer.trace("operation") as span:
            span.set_tag("model", "claude")
            span.set_metric("tokens", 1234)
            span.set_metric("ratio", 0.25)

    return one, lambda: None


def prela(_: str) -> Load:
    from prela import Tracer
    from prela.exporters.base import BaseExporter, ExportResult

    class Keep(BaseExporter):
        def __init__(self) -> None:
            self.spans: list[Any] = []

        def export(self, spans: list[Any]) -> ExportResult:  # type: ignore[override]  # as its own exporters do
            self.spans += spans
            return ExportResult.SUCCESS

        def shutdown(self) -> None: ...

    keep = Keep()
    tracer = Tracer(service_name="bench", exporter=keep)

    def one() -> None:
        with tracer.span("operation") as span:
            span.set_attribute("model", "claude")
            span.set_attribute("tokens", 1234)
            span.set_attribute("ratio", 0.25)

    return one, keep.spans.clear


PEERS: dict[str, Callable[[str], Load]] = {
    "ours": ours,
    "otel": otel,  # right after ours: the ratio is taken round by round
    "ours_at_once": ours,
    "ours_child": ours,
    "ours_unsampled": ours,
    "ddtrace": ddtrace,
    "prela": prela,
}


def measure(name: str) -> list[tuple[float, float]]:
    """Microseconds a span of each batch: wall time, CPU time of this thread."""
    one, drain = PEERS[name](name)
    taken: list[tuple[float, float]] = []
    for batch in range(BATCHES + 4):
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(SPANS):
            one()
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        drain()
        if batch >= 4:  # the first ones warm the interpreter up
            taken.append((wall / SPANS / 1e3, cpu / SPANS / 1e3))
    return taken


def run(name: str) -> list[tuple[float, float]] | str:
    """`measure` in a process of its own; the last line of its error if it fails."""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, __file__, "--one", name],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={"PYTHONPATH": str(root), "DD_TRACE_ENABLED": "true", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"},
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no output"])[-1]
    return [(wall, cpu) for wall, cpu in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        logging.disable()
        print(json.dumps(measure(arguments.one)))
        return
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PEERS}
    missing: dict[str, str] = {}
    ratios: list[float] = []
    for _ in range(arguments.rounds):
        for name in PEERS:
            got = run(name)
            if isinstance(got, str):
                missing[name] = got
            else:
                taken[name] += got
        if "otel" not in missing:
            last = {name: statistics.median(cpu for _, cpu in taken[name][-BATCHES:]) for name in ("ours", "otel")}
            ratios.append(last["otel"] / last["ours"])
    result: dict[str, Any] = {"python": platform.python_version(), "rounds": arguments.rounds, "spans": BATCHES * SPANS}
    for name, batches in taken.items():
        result[f"{name}_us"] = round(statistics.median(wall for wall, _ in batches), 2) if batches else None
        result[f"{name}_cpu_us"] = round(statistics.median(cpu for _, cpu in batches), 2) if batches else None
    if ratios:
        result["otel_over_ours"] = round(statistics.median(ratios), 1)
        result["otel_over_ours_each_round"] = [round(ratio, 1) for ratio in ratios]
    if missing:
        result["missing"] = missing
    print(json.dumps(result, indent=2))
    if any(name.startswith("ours") for name in missing):
        sys.exit(1)


if __name__ == "__main__":
    main()
