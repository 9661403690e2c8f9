"""What OTLP/HTTP costs: CPU time of `prela-stream otlp` for each span of 1 KB, and spans per second and core. Prints JSON.

    python bench/otlp.py [--seconds 10] [--connections 4] [--kafka] [--python PATH]
                         [--peer COMMAND --peer-address HOST:PORT]

A client process sends requests of 512 spans, half of them model calls and half HTTP spans. Each has attributes that no other span
has. The receiver is a separate process, and all of its CPU time counts: HTTP, protobuf, conversion, privacy, the log. `--peer`
starts another receiver with a command, and sends it the same requests in turns. The CPU time of its children counts.
"""

import argparse
import http.client
import json
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.broker import bench_broker, kafka_settings
from bench.cpython import build_of
from prela_stream.app import create_topics
from tests.support.metrics import free_address

SPANS = 512
REQUESTS = 64
TEXT = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do "
ROOT = Path(__file__).parent.parent
START_S = 120.0


def model_call(number: int) -> dict[str, Any]:
    """Attributes of a model call as OpenTelemetry's instrumentors write them."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.response.model": "gpt-5-2026-08-07",
        "gen_ai.response.id": f"chatcmpl-{number}",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1_000 + number,
        "gen_ai.usage.output_tokens": 100 + number,
        "gen_ai.request.max_tokens": 1024,
        "server.address": "api.openai.com",
        "gen_ai.conversation.id": f"conversation-{number}",
        "app.note": f"{number} {TEXT * 7}",
    }


def http_call(number: int) -> dict[str, Any]:
    """Attributes of an HTTP client span."""
    return {
        "http.request.method": "POST",
        "url.full": f"https://api.example.com/v1/items/{number}",
        "http.response.status_code": 200,
        "server.address": "api.example.com",
        "server.port": 443,
        "network.protocol.version": "1.1",
        "user_agent.original": "python-requests/2.32",
        "http.route": "/v1/items/{id}",
        "app.tenant": f"tenant-{number % 50}",
        "thread.id": number,
        "app.ratio": number / 7,
        "app.note": f"{number} {TEXT * 9}",
    }


def request(first: int) -> bytes:
    """A request in which each trace has 8 spans."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    for key, value in (("service.name", "bench"), ("host.name", "host"), ("telemetry.sdk.version", "1.45.2")):
        group.resource.attributes.add(key=key).value.string_value = value
    scope = group.scope_spans.add()
    scope.scope.name = "bench"
    for number in range(first, first + SPANS):
        span = scope.spans.add(
            trace_id=(1 << 120 | number // 8).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            parent_span_id=b"" if number % 8 == 0 else (number // 8 * 8 + 1).to_bytes(8, "big"),
            name="chat gpt-5" if number % 2 else "POST",
            kind=3,
            start_time_unix_nano=1_700_000_000_000_000_000 + number,
            end_time_unix_nano=1_700_000_001_000_000_000 + number,
        )
        for key, value in (model_call(number) if number % 2 else http_call(number)).items():
            target = span.attributes.add(key=key).value
            if isinstance(value, list):
                for one in value:
                    target.array_value.values.add(string_value=one)
            elif isinstance(value, str):
                target.string_value = value
            elif isinstance(value, int):
                target.int_value = value
            else:
                target.double_value = value
    return made.SerializeToString()


class Receiver:
    """A process that receives OTLP/HTTP, and its address."""

    def __init__(self, command: list[str], address: str, env: dict[str, str], log: Path) -> None:
        self.address = address
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, env={**os.environ, **env}, stdout=output, stderr=output, cwd=ROOT)
        until = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                msg = f"{shlex.join(command)} does not answer: {log.read_text()}"
                raise RuntimeError(msg)
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return post(http.client.HTTPConnection(self.address, timeout=5), b"") == 200
        except (OSError, http.client.HTTPException):
            return False

    def cpu_s(self) -> float:
        """CPU time so far, with that of child processes."""
        own = psutil.Process(self.process.pid)
        return sum(sum(one.cpu_times()[:2]) for one in (own, *own.children(recursive=True)))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def post(connection: http.client.HTTPConnection, body: bytes) -> int:
    """Send a request and read its answer."""
    connection.request("POST", "/v1/traces", body=body, headers={"content-type": "application/x-protobuf"})
    response = connection.getresponse()
    response.read()
    return response.status


def load(receiver: Receiver, bodies: list[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Send for some seconds; CPU time and rate. Requests that are answered with 503 are sent again and counted."""
    counts, again = [0] * connections, [0] * connections
    until = time.perf_counter() + seconds

    def work(index: int) -> None:
        connection = http.client.HTTPConnection(receiver.address, timeout=60)
        at = index
        while time.perf_counter() < until:
            status = post(connection, bodies[at % len(bodies)])
            if status == 503:
                again[index] += 1
                continue
            if status != 200:
                msg = f"answered {status}"
                raise RuntimeError(msg)
            counts[index] += SPANS
            at += connections
        connection.close()

    before, began = receiver.cpu_s(), time.perf_counter()
    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu, wall, spans = receiver.cpu_s() - before, time.perf_counter() - began, sum(counts)
    return {
        "spans": spans,
        "spans_per_second": round(spans / wall),
        "cpu_us_per_span": round(cpu / spans * 1e6, 2),
        "spans_per_second_and_core": round(spans / cpu),
        "sent_again": sum(again),
    }


@contextmanager
def ours(python: str, folder: Path, bootstrap: str) -> Iterator[Receiver]:
    """`prela-stream otlp` on a log of its own."""
    address = free_address()
    env = {"PRELA_OTLP_LISTEN": address, "PRELA_OTLP_GRPC_LISTEN": "off", "PRELA_DIRECTORY": str(folder)}
    if bootstrap:
        settings = kafka_settings(bootstrap, str(folder))
        import anyio

        anyio.run(create_topics, settings)
        env |= {"PRELA_KAFKA_BOOTSTRAP": bootstrap, "PRELA_TOPICS_PREFIX": settings.topics.prefix}
    if python != sys.executable:
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    receiver = Receiver([python, "-m", "prela_stream", "otlp"], address, env, folder / "otlp.log")
    try:
        yield receiver
    finally:
        receiver.stop()


def measure(chosen: argparse.Namespace, bootstrap: str) -> dict[str, Any]:
    """Both receivers in turns; the best turn of each, because other processes share the machine."""
    bodies = [request(number * SPANS) for number in range(REQUESTS)]
    found: dict[str, Any] = {"bytes_per_span": round(sum(map(len, bodies)) / SPANS / REQUESTS)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(chosen.python, folder, bootstrap) as receiver:
            peer = (
                Receiver(shlex.split(chosen.peer), chosen.peer_address, {}, folder / "peer.log")
                if chosen.peer
                else None
            )
            try:
                turns: dict[str, Receiver] = {"prela_stream": receiver} | ({"peer": peer} if peer else {})
                results: dict[str, list[dict[str, Any]]] = {one: [] for one in turns}
                for one in turns.values():
                    load(one, bodies, chosen.connections, 2.0)
                for _ in range(chosen.turns):
                    for label, one in turns.items():
                        results[label].append(load(one, bodies, chosen.connections, chosen.seconds))
            finally:
                if peer is not None:
                    peer.stop()
    least: Callable[[dict[str, Any]], float] = lambda one: one["cpu_us_per_span"]  # noqa: E731
    return found | {label: min(rows, key=least) for label, rows in results.items()}


def main() -> None:
    """Measure, and print one JSON document."""
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--connections", type=int, default=4)
    options.add_argument("--kafka", action="store_true", help="append to Kafka instead of the local log")
    options.add_argument("--python", default=sys.executable, help="interpreter of the receiver")
    options.add_argument("--peer", default="", help="command that starts another receiver of OTLP/HTTP")
    options.add_argument("--peer-address", default="127.0.0.1:14318")
    chosen = options.parse_args()
    if chosen.kafka:
        with bench_broker() as bootstrap:
            found = measure(chosen, bootstrap)
    else:
        found = measure(chosen, "")
    document = {
        "python": platform.python_version() if chosen.python == sys.executable else chosen.python,
        **build_of(chosen.python),
        "log": "kafka" if chosen.kafka else "local",
        **found,
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
