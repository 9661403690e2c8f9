"""What one span costs its caller: `with tracer.span()`, three attributes, encoded and queued. Beside it, in the same run, the
peers: opentelemetry-sdk with a BatchSpanProcessor, ddtrace, and the ancestor prela 0.1.0, each with a destination that discards.

    python bench/span.py [--rounds 200]

Every peer is a process of its own. They take turns: a round is a batch of 500 root spans of each, some milliseconds long, so that
a machine which changes its speed from one second to the next, as virtual ones do, hits all alike. Queues are emptied between
batches, outside of the clock. Prints JSON: medians over all batches in microseconds of wall time (`*_us`) and of the calling
thread's CPU time (`*_cpu_us`), which other processes disturb less; the ratio to opentelemetry-sdk is the median of those of each
round, in CPU time, its quartiles beside it. A peer that is not installed is `null`.
"""

import argparse
import json
import logging
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPANS, WARM_UP = 500, 4
Load = tuple[Callable[[], None], Callable[[], object]]
"""One span, and what empties the queue."""


def ours(kind: str) -> Load:
    from prela_stream.delivery.queue import BoundedQueue
    from prela_stream.tracing.sampler import AlwaysOffSampler
    from prela_stream.tracing.tracer import get_tracer

    queue = BoundedQueue(
        max_items=100_000,
        max_bytes=1 << 30,
        overflow="drop_newest",
        block_timeout=0,
        on_drop=lambda *_: sys.exit("dropped"),
    )

    class Queued:
        __module__ = "prela_stream.delivery"  # recorders of the package are called without a check of re-entrance
        record = queue.put

        def refuse(self, _: bytes) -> None:
            sys.exit("refused")

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


def serve(name: str) -> None:
    """A peer's process: a batch for each line that it is given; its time and its CPU time, ns, are the answer."""
    one, drain = PEERS[name](name)
    for _ in range(WARM_UP):
        for _ in range(SPANS):
            one()
        drain()
    for _ in sys.stdin:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(SPANS):
            one()
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        drain()
        print(json.dumps([wall, cpu]), flush=True)


class Peer:
    """A peer's process, from outside."""

    def __init__(self, name: str) -> None:
        self.batches: list[tuple[float, float]] = []
        """Microseconds a span of each batch: wall time, CPU time."""
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        root = Path(__file__).resolve().parent.parent
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--one", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=root,
            env={"PYTHONPATH": str(root), "DD_TRACE_ENABLED": "true", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"},
        )

    def batch(self) -> bool:
        """One more; False if the process has ended, or never began."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        answer = self._process.stdout.readline()
        if not answer:
            return False
        wall, cpu = json.loads(answer)
        self.batches.append((wall / SPANS / 1e3, cpu / SPANS / 1e3))
        return True

    def end(self) -> str:
        """End it; the last line that it wrote to its standard error."""
        self._process.kill()
        self._process.communicate()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        self._errors.close()
        return said[-1] if said else "no output"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        logging.disable()
        serve(arguments.one)
        return
    print(json.dumps(result := compare(arguments.rounds), indent=2))
    if any(name.startswith("ours") for name in result.get("missing", ())):
        sys.exit(1)


def compare(rounds: int) -> dict[str, Any]:
    """All peers, in turns."""
    running = {name: Peer(name) for name in PEERS}
    missing: dict[str, str] = {}
    for name, peer in list(running.items()):  # the first batch waits until the peer has warmed up
        if not peer.batch():
            missing[name] = running.pop(name).end()
    for _ in range(rounds):
        for peer in running.values():
            peer.batch()
    for peer in running.values():
        peer.end()
    result: dict[str, Any] = {"python": platform.python_version(), "rounds": rounds, "spans_a_batch": SPANS}
    for name in PEERS:
        taken = running[name].batches[1:] if name in running else []
        result[f"{name}_us"] = round(statistics.median(wall for wall, _ in taken), 2) if taken else None
        result[f"{name}_cpu_us"] = round(statistics.median(cpu for _, cpu in taken), 2) if taken else None
    if {"ours", "otel"} <= running.keys():
        pairs = zip(running["ours"].batches[1:], running["otel"].batches[1:], strict=True)
        low, middle, high = statistics.quantiles([theirs / mine for (_, mine), (_, theirs) in pairs], n=4)
        result["otel_over_ours"] = round(middle, 2)
        result["otel_over_ours_quartiles"] = [round(low, 2), round(high, 2)]
    if missing:
        result["missing"] = missing
    return result


if __name__ == "__main__":
    main()
