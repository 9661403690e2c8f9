"""The counting processors of the docs, with the real SDK of each language. `make test-languages` runs all of them."""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from prela_stream.otel.files.formats import read_text
from prela_stream.otel.sdk import foreign_of
from prela_stream.otel.spans import ForeignSpan
from tests.support.counting import block, check

PROGRAMS = Path(__file__).parent / "counting"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>counting</groupId><artifactId>counting</artifactId><version>1</version><dependencies><dependency>
<groupId>io.opentelemetry</groupId><artifactId>opentelemetry-sdk</artifactId><version>1.55.0</version></dependency></dependencies>
</project>"""
NPM = (
    "@opentelemetry/api@1.9.1",
    "@opentelemetry/context-async-hooks@2.12.1",
    "@opentelemetry/exporter-trace-otlp-http@0.223.1",
    "@opentelemetry/sdk-trace-base@2.12.1",
)


async def test_python() -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(names["CountChildren"]())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("program")

    async def work(name: str) -> None:
        with tracer.start_as_current_span(name):
            await asyncio.to_thread(lambda: tracer.start_span(f"{name} inner").end())

    ended = asyncio.Event()

    async def work_later() -> None:
        await ended.wait()
        tracer.start_span("late").end()

    with tracer.start_as_current_span("root"):
        await asyncio.gather(work("a"), work("b"), work("c"))
        with tracer.start_as_current_span("tool"):
            job = asyncio.create_task(work_later())
    ended.set()
    await job
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(remote)):
        await work("server")
    for _ in range(200):
        race(tracer)
    check(foreign_of(span) for span in exporter.get_finished_spans())


def race(tracer: trace.Tracer) -> None:
    """End a span while other threads start children of it."""
    parent = tracer.start_span("raced")
    context = trace.set_span_in_context(parent)
    ready = threading.Barrier(3)

    def start_children() -> None:
        ready.wait()
        for _ in range(5):
            tracer.start_span("child", context=context).end()

    threads = [threading.Thread(target=start_children) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    parent.end()
    for thread in threads:
        thread.join()


def run(command: list[str], folder: Path, **variables: str) -> bytes:
    """The output of a command; skips the test without it, and fails it where `CI=true`."""
    program = shutil.which(command[0])
    if program is None:
        reason = f"{command[0]} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, env={**os.environ, **variables}, capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stderr or done.stdout).decode()
    return done.stdout


def spans_of(document: bytes) -> list[ForeignSpan]:
    """The spans of an OTLP JSON document."""
    found = list(read_text(document))
    assert all(isinstance(one, ForeignSpan) for one in found)
    return [one for one in found if isinstance(one, ForeignSpan)]


@contextmanager
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP endpoint: its address, and the bodies that it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b""
            while size := int(self.rfile.readline(), 16):  # Node sends it in chunks
                body += self.rfile.read(size)
                self.rfile.readline()
            bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.languages
@pytest.mark.timeout(900)
def test_javascript(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "counting.mjs").write_text(block("js"))
    shutil.copy(PROGRAMS / "main.mjs", tmp_path)
    run(["npm", "install", "--no-audit", "--no-fund", *NPM], tmp_path)
    with receiver() as (url, bodies):
        run(["node", "main.mjs"], tmp_path, OTLP_URL=url)
    check(span for body in bodies for span in spans_of(body))


@pytest.mark.languages
@pytest.mark.timeout(900)
def test_go(tmp_path: Path) -> None:
    (tmp_path / "counting").mkdir()
    (tmp_path / "counting" / "counting.go").write_text(block("go"))
    (tmp_path / "go.mod").write_text("module counting\n\ngo 1.24\n\nrequire go.opentelemetry.io/otel/sdk v1.47.0\n")
    shutil.copy(PROGRAMS / "main.go", tmp_path)
    run(["go", "mod", "tidy"], tmp_path)
    check(spans_of(run(["go", "run", "."], tmp_path)))


@pytest.mark.languages
@pytest.mark.timeout(900)
def test_java(tmp_path: Path) -> None:
    (tmp_path / "pom.xml").write_text(POM)
    (tmp_path / "CountChildren.java").write_text(block("java"))
    shutil.copy(PROGRAMS / "Main.java", tmp_path)
    run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"], tmp_path)
    run(["javac", "-cp", "lib/*", "Main.java", "CountChildren.java"], tmp_path)
    check(spans_of(run(["java", "-cp", f".{os.pathsep}lib/*", "Main"], tmp_path)))
