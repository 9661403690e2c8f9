"""Two services, one trace: real processes over real HTTP, and over headers as Kafka has them, through log, worker and store."""

import sys
import urllib.request
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from prela_stream.model.decision import Trigger
from prela_stream.testing import render_tree
from tests.support.joined import joined
from tests.support.processes import DEADLINE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers run on Linux and macOS")

SERVER = """
import socket
import prela_stream as prela
import uvicorn
from prela_stream.integrations import TraceMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

prela.init("answers")
tracer = prela.get_tracer()

def chunks(topic):
    with tracer.span("stream", attributes={"user": tracer.get_current_span().context.get_baggage("user")}):
        for number in range(2):
            with tracer.span(f"chunk {number}"):
                yield topic

async def answer(request):
    return StreamingResponse(chunks(request.path_params["topic"]))

app = Starlette(routes=[Route("/answer/{topic}", answer)], middleware=[Middleware(TraceMiddleware)])
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
"""
CLIENT = """
import asyncio, sys
import httpx2
import prela_stream as prela
from prela_stream.integrations import propagate

prela.init("questions")
tracer = prela.get_tracer()

async def ask(client, topic):
    async with tracer.span(f"ask {topic}"):
        response = await client.get(f"{sys.argv[1]}/answer/{topic}")
        assert response.text == 2 * topic

async def main():
    async with propagate(httpx2.AsyncClient(timeout=60)) as client:
        with prela.new_trace_context(baggage={"user": "Zoë"}), tracer.span("agent", span_type=prela.SpanType.AGENT) as span:
            await asyncio.gather(ask(client, "reefs"), ask(client, "moss"))
            with tracer.span("again, from a thread"):
                await asyncio.to_thread(propagate(httpx2.Client(timeout=60)).get, f"{sys.argv[1]}/answer/ferns")
    print(span.trace_id)

asyncio.run(main())
"""
PRODUCER = """
import json
import prela_stream as prela
from prela_stream.integrations import inject_kafka

prela.init("orders")
with prela.get_tracer().span("place order") as span:
    messages = [inject_kafka([("kind", b"order")]) for _ in range(2)]
print(json.dumps([[(key, value.decode()) for key, value in headers] for headers in messages]), span.trace_id, sep="\\n")
"""
CONSUMER = """
import json, sys
import prela_stream as prela

prela.init("shipping")
for headers in json.loads(sys.argv[1]):
    with prela.attach(prela.extract([(key, value.encode()) for key, value in headers])):
        with prela.get_tracer().span("ship"), prela.get_tracer().span("pack"):
            pass
"""
STRANGER = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(self.headers["traceparent"]).encode())
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
CALLS_STRANGER = """
import sys
import httpx2
import prela_stream as prela
from prela_stream.integrations import propagate

prela.init("questions")
with prela.get_tracer().span("agent") as span, propagate(httpx2.Client(timeout=60)) as client:
    assert span.span_id in client.get(sys.argv[1]).text
print(span.trace_id)
"""


async def test_two_services_over_http_make_one_tree_and_complete_needs_no_timeout(tmp_path: Path) -> None:
    with joined(tmp_path) as house:
        port = await house.line(house.start(SERVER))
        trace_id = await house.run(CLIENT, f"http://127.0.0.1:{port}")
        trace = await house.stored(trace_id)
    assert render_tree(trace.spans) == "\n".join(
        (
            "agent [AGENT]",
            *("  ask reefs", "    GET /answer/{topic}", "      stream", "        chunk 0", "        chunk 1"),
            *("  ask moss", "    GET /answer/{topic}", "      stream", "        chunk 0", "        chunk 1"),
            *(
                "  again, from a thread",
                "    GET /answer/{topic}",
                "      stream",
                "        chunk 0",
                "        chunk 1",
            ),
        )
    )
    assert (trace.decision.trigger, trace.decision.complete) == (Trigger.COMPLETE, True)
    assert {span.attributes["user"] for span in trace.spans if span.name == "stream"} == {"Zoë"}


async def test_two_services_joined_by_kafka_headers_make_one_tree(tmp_path: Path) -> None:
    with joined(tmp_path) as house:
        messages, trace_id = (await house.run(PRODUCER)).splitlines()
        await house.run(CONSUMER, messages)
        trace = await house.stored(trace_id)
    assert render_tree(trace.spans) == "place order\n  ship\n    pack\n  ship\n    pack"
    assert (trace.decision.trigger, trace.decision.complete) == (Trigger.COMPLETE, True)


async def test_a_service_without_our_sdk_is_waited_for_no_longer_than_remote_wait(tmp_path: Path) -> None:
    with joined(tmp_path, remote_wait_ms="300") as house:
        port = await house.line(house.start(STRANGER))
        trace_id = await house.run(CALLS_STRANGER, f"http://127.0.0.1:{port}")
        trace = await house.stored(trace_id)
    assert (trace.decision.trigger, trace.decision.complete) == (Trigger.REMOTE_WAIT, False)
    assert render_tree(trace.spans) == "agent"


async def test_a_request_behind_a_foreign_gateway_is_a_local_root(tmp_path: Path) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "tracestate": "gateway=1"}
    with joined(tmp_path) as house:
        port = await house.line(house.start(SERVER))
        request = urllib.request.Request(f"http://127.0.0.1:{port}/answer/moss", headers=headers)

        def call() -> bytes:
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                body: bytes = response.read()
                return body

        assert await anyio.to_thread.run_sync(call) == b"mossmoss"
        trace = await house.stored(trace_id)
    assert render_tree(trace.spans) == "GET /answer/{topic}\n  stream\n    chunk 0\n    chunk 1"
    assert trace.spans[0].trace_id == trace_id
    assert {span.parent_span_id for span in trace.spans if span.name.startswith("GET")} == {"b7ad6b7169203331"}
    assert (trace.decision.trigger, trace.decision.complete) == (Trigger.COMPLETE, True)
