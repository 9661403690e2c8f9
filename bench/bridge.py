"""What the bridge to OpenTelemetry and the counting processor of the docs add to a span of opentelemetry-sdk.

    python bench/bridge.py [--rounds 40]

Two kinds of spans: a small one with three attributes, and a model call of about 1 KB with eleven attributes, messages among
them. Each is a child of an open span. Every peer is a process, and they take turns in batches of 500 spans. Prints JSON: the
median of CPU time per span in microseconds, and what the peer adds to the SDK alone, which is the median of the differences of
each round.

- `sdk`: opentelemetry-sdk, whose spans go nowhere
- `batch`: with a BatchSpanProcessor and an exporter that discards
- `counting`: with the counting processor of docs/opentelemetry.md
- `bridge`: with the bridge, into the queue of this package
- `ours`: the same span by this SDK, without OpenTelemetry
"""

import argparse
import json
import logging
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
SPANS, WARM_UP = 500, 4
PEERS: Final = ("sdk", "batch", "counting", "bridge", "ours")
TEXT: Final = "The reef lies north of the island and is open to divers from May to October. " * 4
SMALL: Final[dict[str, Any]] = {"model": "claude", "tokens": 1234, "ratio": 0.25}
CALL: Final[dict[str, Any]] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-5",
    "gen_ai.response.model": "claude-sonnet-5",
    "gen_ai.response.id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "gen_ai.request.max_tokens": 1024,
    "gen_ai.usage.input_tokens": 812,
    "gen_ai.usage.output_tokens": 97,
    "gen_ai.response.finish_reasons": ("end_turn",),
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": TEXT}]}]),
    "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": TEXT[:154]}]}]),
}
KINDS: Final = {"small": SMALL, "call": CALL}


def queue() -> Any:
    """The queue of a pipeline, as a recorder, and its method that empties it."""
    from prela_stream.delivery.queue import BoundedQueue

    items = BoundedQueue(
        max_items=100_000,
        max_bytes=1 << 30,
        overflow="drop_newest",
        block_timeout=0,
        on_drop=lambda *_: sys.exit("dropped"),
    )

    class Queued:
        __module__ = "prela_stream.delivery"  # recorders of the package are called without a check of re-entrance
        record = items.put

        def refuse(self, _: bytes) -> None:
            sys.exit("refused")

    def drain() -> None:
        taken = items.take(100_000)
        items.release(len(taken), sum(len(item) for _, _, item, _ in taken))

    return Queued(), drain


def with_sdk(peer: str, attributes: dict[str, Any]) -> tuple[Callable[[], None], Callable[[], object]]:
    """One span of the SDK, and what empties its destination."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - the interface
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    drain: Callable[[], object] = provider.force_flush
    if peer == "batch":
        provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=100_000))
    elif peer == "counting":
        page = (
            (ROOT / "docs" / "opentelemetry.md").read_text(encoding="utf-8").partition("## The counting processor")[2]
        )
        names: dict[str, Any] = {}
        exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
        provider.add_span_processor(names["CountChildren"]())
    elif peer == "bridge":
        import prela_stream

        recorder, drain = queue()
        prela_stream.get_tracer().configure(recorder=recorder)
        prela_stream.bridge_opentelemetry(provider)
    tracer = provider.get_tracer("bench", "1.0")
    parent = tracer.start_as_current_span("parent")
    parent.__enter__()

    def one(_: object = parent) -> None:  # which ends if nothing refers to it
        with tracer.start_as_current_span("operation") as span:
            span.set_attributes(attributes)

    return one, drain


def with_ours(attributes: dict[str, Any]) -> tuple[Callable[[], None], Callable[[], object]]:
    """The same span of this SDK."""
    from prela_stream import get_tracer

    tracer = get_tracer()
    recorder, drain = queue()
    tracer.configure(recorder=recorder)
    tracer.span("parent").__enter__()

    def one() -> None:
        with tracer.span("operation") as span:
            span.set_attributes(attributes)

    return one, drain


def serve(peer: str, kind: str) -> None:
    """The process of a peer: a batch for each line that it reads; its CPU time in ns is the answer."""
    one, drain = with_ours(KINDS[kind]) if peer == "ours" else with_sdk(peer, KINDS[kind])
    for _ in range(WARM_UP):
        for _ in range(SPANS):
            one()
        drain()
    for _ in sys.stdin:
        cpu = time.thread_time_ns()
        for _ in range(SPANS):
            one()
        cpu = time.thread_time_ns() - cpu
        drain()
        print(cpu, flush=True)


def measure(kind: str, rounds: int) -> dict[str, Any]:
    """All peers on one kind of spans, in turns."""
    running = {
        peer: subprocess.Popen(
            [sys.executable, __file__, "--one", peer, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        for peer in PEERS
    }
    taken: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for _ in range(rounds + 1):
        for peer, process in running.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            taken[peer].append(int(process.stdout.readline()) / SPANS / 1e3)
    for process in running.values():
        process.communicate()
    found: dict[str, Any] = {}
    for peer, batches in taken.items():
        found[f"{peer}_cpu_us"] = round(statistics.median(batches[1:]), 2)
        if peer != "sdk":
            added = [mine - sdk for mine, sdk in zip(batches[1:], taken["sdk"][1:], strict=True)]
            found[f"{peer}_added_us"] = round(statistics.median(added), 2)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        logging.disable()
        serve(*arguments.one)
        return
    found: dict[str, Any] = {"python": platform.python_version(), "rounds": arguments.rounds, "spans_a_batch": SPANS}
    print(json.dumps(found | {kind: measure(kind, arguments.rounds) for kind in KINDS}, indent=2))


if __name__ == "__main__":
    main()
