"""The CPU and the latency of the whole pipeline on Kafka, in separate processes as in production. Prints JSON.

    python bench/pipeline.py [--seconds 20] [--traces-per-s 20]

`delivery`: CPU of an agent's whole process for a span of about 1 KB, from the queue to the broker's acknowledgement (acks=all).
The peer is opentelemetry-sdk with its OTLP exporter (HTTP, protobuf), from `on_end` to the answer of a server that discards.
`latency`: traces of ten spans at a steady rate through a `prela-stream worker` and a `prela-stream sink` that keep each trace, at
commit intervals of 0.2, 1 and 5 seconds. Measured from the end of the root until a read_committed reader has the trace, and until
the store has it; and the worker's CPU seconds and commits per second.
"""

import argparse
import http.server
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import psutil

import prela_stream
from bench.broker import bench_broker, kafka_settings
from bench.items import BODY, SPANS_A_TRACE, make_span
from deploy.kafka import KafkaMissingError
from prela_stream.app import create_topics, open_reader, open_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.sampled import decode_kept
from prela_stream.config import Settings
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.demo.show import environment_of
from prela_stream.errors import PrelaError
from prela_stream.model.span import Resource

INTERVALS_MS: Final = (200, 1_000, 5_000)
KEEP_ALL: Final = '[[policy]]\nname = "all"\ntype = "always"\n'
ROUNDS: Final = 3
TURN: Final = 5_000
"""Items that are recorded before the queue is emptied: an agent's queue does not hold a whole run."""


# --- delivery: CPU from the queue to the acknowledgement ---


def prela_cpu(bootstrap: str, spans: int) -> float:
    """Microseconds of process CPU a span."""
    items = [make_span(number) for number in range(TURN)]

    async def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            settings = kafka_settings(bootstrap, folder)
            await create_topics(settings)
            resource = Resource(service_name="bench", sdk_version="0", host="h", pid=1)
            setup = PipelineSetup(topics=settings.topics, options=PipelineOptions(), resource=lambda: resource)
            async with (
                open_transport(settings) as transport,
                Pipeline(transport, setup) as pipeline,
            ):
                for item in items:  # the first connections are not part of it
                    pipeline.record(*item)
                assert (await pipeline.aflush(60)).complete
                used = 0.0
                for _ in range(spans // TURN):
                    for item in items:
                        pipeline.record(*item)
                    began = time.process_time()
                    assert (await pipeline.aflush(60)).complete
                    used += time.process_time() - began
                ledger = pipeline.ledger()
                assert ledger.acknowledged == ledger.recorded, ledger
        return used / (spans // TURN * TURN) * 1e6

    return anyio.run(run)


class Discard(http.server.BaseHTTPRequestHandler):
    """Answers every OTLP request with success."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the body and accept it."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def serve() -> None:
    """The collector's place, as a process: prints its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Discard)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


def otlp(port: int, spans: int) -> float:
    """Microseconds of process CPU a span of opentelemetry-sdk, from `on_end` to the answer of its OTLP exporter."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracer = TracerProvider().get_tracer("bench")
    ended: list[Any] = []  # the SDK's own spans, which the API does not type as readable
    for number in range(TURN):
        span = tracer.start_span("chat")
        span.set_attributes(
            {"gen_ai.request.model": "model", "gen_ai.usage.input_tokens": number, "gen_ai.input.messages": BODY}
        )
        span.end()
        ended.append(span)
    exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}/v1/traces")
    processor = BatchSpanProcessor(exporter, max_queue_size=4 * TURN, max_export_batch_size=512)
    used = 0.0
    for turn in range(spans // TURN + 1):
        began = time.process_time()
        for span in ended:
            processor.on_end(span)
        assert processor.force_flush(60_000)
        if turn:  # the first one connects
            used += time.process_time() - began
    processor.shutdown()  # type: ignore[no-untyped-call]  # as the SDK ships it
    return used / (spans // TURN * TURN) * 1e6


def alone(*arguments: object) -> float:
    """The figure that this script prints when it runs in a separate process."""
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def delivery(bootstrap: str, spans: int) -> dict[str, Any]:
    """Both SDKs in turns."""
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        try:
            rounds = [
                (alone("--prela", bootstrap, "--spans", spans), alone("--otlp", port, "--spans", spans))
                for _ in range(ROUNDS)
            ]
        finally:
            server.terminate()
    mine, theirs = zip(*rounds, strict=True)
    return {
        "spans": spans,
        "span_bytes": len(make_span(0)[1]),
        "ours_cpu_us_a_span": round(statistics.median(mine), 2),
        "otel_otlp_cpu_us_a_span": round(statistics.median(theirs), 2),
        "rounds": [[round(one, 2) for one in both] for both in rounds],
        "budget_cpu_us_a_span": 6,
    }


# --- latency and the cost of transactions ---


@contextmanager
def service(name: str, settings: Settings) -> Iterator[psutil.Process]:
    """`prela-stream worker` or `sink` for the length of the block; the block begins when the service is ready."""
    env = {**os.environ, **environment_of(settings)}
    log = Path(settings.directory) / f"{name}.log"
    with log.open("wb") as errors:
        running = psutil.Popen([sys.executable, "-m", "prela_stream", name], stderr=errors, env=env)
    try:
        deadline = time.monotonic() + 60
        while "ready" not in log.read_text(encoding="utf-8"):
            if time.monotonic() > deadline or running.poll() is not None:
                sys.exit(f"the {name} did not start:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.05)
        yield running
    finally:
        running.terminate()
        running.wait(30)


class Seen:
    """When each trace was there, wall clock ns, by trace id."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}
        self.sampled: dict[str, int] = {}
        self.stored: dict[str, int] = {}
        self.commits = 0
        self.stop = anyio.Event()

    async def follow_log(self, settings: Settings) -> None:
        """Read `sampled` and `decisions` as a consumer without a group: committed Records alone."""
        topics = settings.topics
        async with (
            open_transport(settings) as transport,
            await transport.consumer([topics.sampled, topics.decisions]) as consumer,
        ):
            while not self.stop.is_set():
                poll = await consumer.poll(timeout=0.05)
                consumer.resume(*poll.assigned)
                now = time.time_ns()
                for record in poll.records:
                    assert record.value is not None
                    if record.topic == topics.sampled:
                        self.sampled.setdefault(decode_kept(record.value).decision.trace_id_hex, now)
                    else:
                        self.commits += bool(decode_decisions(record.value))

    async def follow_store(self, settings: Settings) -> None:
        """Read the store every 10 ms, as `prela-stream traces tail` does."""
        mark = 0
        async with open_reader(settings) as reader:
            while not self.stop.is_set():
                try:
                    rows = await reader.tail(mark, limit=1_000)
                except PrelaError:  # the sink has not made it yet
                    rows = []
                now = time.time_ns()
                for row in rows:
                    self.stored.setdefault(row.trace_id, now)
                    mark = row.stored
                await anyio.sleep(0.01)


def make_traces(seen: Seen, seconds: float, traces_per_s: float) -> None:
    """A steady load through the SDK, in a separate thread."""
    tracer = prela_stream.get_tracer()
    began = time.monotonic()
    made = 0
    while (now := time.monotonic() - began) < seconds:
        if made >= now * traces_per_s:
            time.sleep(0.001)
            continue
        made += 1
        with tracer.span("agent", span_type=prela_stream.SpanType.AGENT) as root:
            for _ in range(SPANS_A_TRACE - 1):
                with tracer.span("chat", span_type=prela_stream.SpanType.LLM) as span:
                    span.set_attribute("gen_ai.input.messages", BODY)
        seen.ended[root.trace_id] = time.time_ns()


async def at_interval(bootstrap: str, interval_ms: int, seconds: float, traces_per_s: float) -> dict[str, Any]:
    """One row: a worker that commits every `interval_ms`."""
    with tempfile.TemporaryDirectory() as folder:
        policies = Path(folder) / "policies.toml"
        policies.write_text(KEEP_ALL, encoding="utf-8")
        settings = kafka_settings(
            bootstrap, folder, WORKER_COMMIT_INTERVAL_MS=str(interval_ms), POLICIES_FILE=str(policies)
        )
        await create_topics(settings)
        seen = Seen()
        with service("worker", settings) as worker, service("sink", settings) as sink:
            os.environ.update(environment_of(settings))
            prela_stream.init(service_name="bench")
            cpu, start = [_cpu(process) for process in (worker, sink)], time.monotonic()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(seen.follow_log, settings)
                tasks.start_soon(seen.follow_store, settings)
                await anyio.to_thread.run_sync(make_traces, seen, seconds, traces_per_s)
                with anyio.fail_after(60):
                    while len(seen.stored) < len(seen.ended):
                        await anyio.sleep(0.05)
                took = time.monotonic() - start
                used = [_cpu(process) - before for process, before in zip((worker, sink), cpu, strict=True)]
                seen.stop.set()
            ledger = prela_stream.shutdown()
            assert ledger is not None
            assert ledger.acknowledged == ledger.recorded, ledger
    return {
        "commit_interval_ms": interval_ms,
        "traces": len(seen.ended),
        "spans": len(seen.ended) * SPANS_A_TRACE,
        "sampled_ms": _spread([seen.sampled[trace] - seen.ended[trace] for trace in seen.ended]),
        "stored_ms": _spread([seen.stored[trace] - seen.ended[trace] for trace in seen.ended]),
        "commits_per_s": round(seen.commits / took, 2),
        "worker_cpu_share": round(used[0] / took, 3),
        "sink_cpu_share": round(used[1] / took, 3),
    }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _spread(values_ns: Sequence[int]) -> dict[str, float]:
    values = sorted(value / 1e6 for value in values_ns)
    return {
        name: round(values[min(len(values) - 1, int(share * len(values)))], 1)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the load at each commit interval")
    parser.add_argument("--traces-per-s", type=float, default=20.0)
    parser.add_argument("--spans", type=int, default=100_000, help="spans of a delivery round")
    for hidden in ("--prela", "--otlp"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
    elif chosen.prela:
        print(prela_cpu(chosen.prela, chosen.spans))
    elif chosen.otlp:
        print(otlp(int(chosen.otlp), chosen.spans))
    else:
        result: dict[str, Any] = {
            "bench": "pipeline",
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "budget_sampled_p99_ms": 2_000,
        }
        try:
            with bench_broker() as bootstrap:
                result["delivery"] = delivery(bootstrap, chosen.spans)
                result["latency"] = [
                    anyio.run(at_interval, bootstrap, interval_ms, chosen.seconds, chosen.traces_per_s)
                    for interval_ms in INTERVALS_MS
                ]
        except KafkaMissingError as error:
            result["missing"] = str(error)
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
