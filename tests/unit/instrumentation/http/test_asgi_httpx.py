"""Requests in and out, in one process: the middleware's spans, and what clients send along."""

from collections.abc import AsyncIterator, Iterator

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from prela_stream.instrumentation.http.asgi import Message, TraceMiddleware
from prela_stream.instrumentation.http.httpx import propagate, stop_propagating
from prela_stream.model.span import REMOTE_PARENT
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.context import new_trace_context
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()
FOREIGN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


async def item(request: Request) -> Response:
    with tracer.span("handle"):
        return PlainTextResponse(request.path_params.get("number", "-"))


async def fails(request: Request) -> Response:
    raise RuntimeError("broken")


async def refuses(request: Request) -> Response:
    return PlainTextResponse("no", status_code=503)


async def redirects(request: Request) -> Response:
    return PlainTextResponse("there", status_code=307, headers={"location": "http://elsewhere/item/2"})


async def headers_of(request: Request) -> Response:
    return PlainTextResponse(",".join(sorted(set(request.headers) & {"traceparent", "tracestate", "baggage"})))


def plain_chunks() -> Iterator[str]:
    with tracer.span("stream"):
        for number in range(3):
            with tracer.span(f"chunk {number}"):
                pass
            yield str(number)


async def streams(request: Request) -> Response:
    async def later() -> None:
        with tracer.span("background"):
            pass

    return StreamingResponse(plain_chunks(), background=BackgroundTask(later))


async def talks(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


app = Starlette(
    routes=[
        Route("/item/{number}", item, methods=["GET", "POST"]),
        Route("/fails", fails),
        Route("/refuses", refuses),
        Route("/redirects", redirects),
        Route("/headers", headers_of),
        Route("/streams", streams),
        Mount("/inner", Starlette(routes=[Route("/item/{number}", item)], middleware=[Middleware(TraceMiddleware)])),
        WebSocketRoute("/talks", talks),
    ],
    middleware=[Middleware(TraceMiddleware, exclude=["/headers"])],
)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def test_one_tree_over_a_call(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
    propagate(client)
    with tracer.span("caller"):
        assert (await client.get("/item/7?secret=1")).text == "7"
        await client.post("/item/8")
    assert_tree(captured.spans, "caller\n  GET /item/{number}\n    handle\n  POST /item/{number}\n    handle")
    first, second = captured.children(captured.find("caller"))
    assert (first.inject_ordinal, second.inject_ordinal) == (0, 1)
    assert (first.flags, captured.find("caller").inject_count) == (REMOTE_PARENT, 2)
    assert first.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/item/7",
        "server.address": "service",
        "server.port": None,
        "client.address": "127.0.0.1",
        "http.response.status_code": 200,
        "http.route": "/item/{number}",
    }


async def test_without_headers_a_request_is_a_trace_of_its_own(
    captured: CapturedSpans, client: httpx2.AsyncClient
) -> None:
    with tracer.span("around the server"):
        await client.get("/item/1")
        await client.get("/item/2", headers={"traceparent": "nonsense", "tracestate": "\x7f=;,", "baggage": "=;=,,%"})
        await client.get("/item/3", headers=[("traceparent", FOREIGN), ("traceparent", FOREIGN)])
    requests = captured.named("GET /item/{number}")
    assert [span.parent_span_id for span in requests] == [None] * 3
    assert len({span.trace_id for span in captured.spans}) == 4


async def test_a_foreign_parent_makes_a_local_root(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
    await client.get("/item/1", headers={"traceparent": FOREIGN, "tracestate": "dd=s:2"})
    span = captured.find("GET /item/{number}")
    assert (span.trace_id, span.parent_span_id) == tuple(FOREIGN.split("-")[1:3])
    assert (span.flags, span.inject_ordinal) == (REMOTE_PARENT, None)


async def test_strangers_may_be_ignored(captured: CapturedSpans) -> None:
    guarded = TraceMiddleware(app.router, trust_remote=False)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=guarded), base_url="http://x") as client:
        await client.get("/item/1", headers={"traceparent": FOREIGN})
    span = captured.find("GET /item/{number}")
    assert span.parent_span_id is None
    assert span.trace_id != FOREIGN.split("-")[1]


async def test_errors(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
    assert (await client.get("/fails")).status_code == 500
    assert (await client.get("/refuses")).status_code == 503
    assert (await client.get("/nowhere")).status_code == 404
    failed, refused, missing = (captured.find(f"GET {path}") for path in ("/fails", "/refuses", "/nowhere"))
    assert (failed.status, failed.attributes["error.type"]) == ("ERROR", "RuntimeError")
    assert (refused.status, refused.status_message) == ("ERROR", "HTTP 503")
    assert (missing.status, missing.attributes["http.response.status_code"]) == ("SUCCESS", 404)


async def test_a_streamed_body_and_what_comes_after_it(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
    """Starlette runs each step of a plain generator in a thread, with a context of its own."""
    assert (await client.get("/streams")).text == "012"
    assert_tree(captured.spans, "GET /streams\n  stream\n    chunk 0\n    chunk 1\n    chunk 2\n  background")


async def test_a_middleware_in_a_middleware_makes_no_second_span(
    captured: CapturedSpans, client: httpx2.AsyncClient
) -> None:
    await client.get("/inner/item/1")
    assert_tree(captured.spans, "GET /inner/item/{number}\n  handle")


async def test_other_scopes(captured: CapturedSpans) -> None:
    async def receive() -> Message:
        return {"type": "websocket.connect"}

    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": "websocket", "path": "/talks", "headers": [], "subprotocols": []}, receive, send)
    assert sent == ["websocket.accept", "websocket.close"]
    assert captured.find("WEBSOCKET /talks").status == "SUCCESS"
    seen = []

    async def other(scope: object, receive: object, send: object) -> None:
        seen.append(scope)

    await TraceMiddleware(other)({"type": "lifespan"}, receive, send)
    assert seen == [{"type": "lifespan"}]
    assert len(captured.spans) == 1


async def test_a_request_that_is_given_up_is_cancelled(captured: CapturedSpans) -> None:
    async def hangs(scope: object, receive: object, send: object) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await TraceMiddleware(hangs)({"type": "http", "method": "GET", "path": "/x"}, None, None)  # type: ignore[arg-type]  # not used
    assert captured.find("GET /x").status == "CANCELLED"


# --- clients ---


async def test_clients_send_nothing_unless_asked(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
    with tracer.span("caller"):
        assert (await client.get("/headers")).text == ""
        propagate(client)
        assert (await client.get("/headers")).text == "traceparent,tracestate"
        with new_trace_context(baggage={"user": "7"}), tracer.span("other"):
            assert (await client.get("/headers")).text == "baggage,traceparent,tracestate"
        stop_propagating(client)
        assert (await client.get("/headers")).text == ""
    propagate(client)
    assert (await client.get("/headers")).text == ""
    assert captured.find("caller").inject_count == 1


async def test_only_named_hosts_get_the_trace_also_over_redirects(
    captured: CapturedSpans, client: httpx2.AsyncClient
) -> None:
    propagate(propagate(client), hosts=["service"])
    client.follow_redirects = True
    with tracer.span("caller"):
        assert (await client.get("http://elsewhere/headers")).text == ""
        assert (await client.get("/redirects")).text == "2"
    assert captured.find("caller").inject_count == 1
    assert [span.parent_span_id is None for span in captured.roots] == [True, True]
    assert captured.find("GET /redirects").parent_span_id == captured.find("caller").span_id


def test_a_sync_client(captured: CapturedSpans) -> None:
    seen: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("traceparent"))
        return httpx2.Response(200)

    before: list[httpx2.Request] = []
    hooks = {"request": [before.append]}
    client = propagate(httpx2.Client(transport=httpx2.MockTransport(answer), event_hooks=hooks))
    with client, tracer.span("caller") as span:
        client.get("http://x/")
    assert [str(value).split("-")[2] for value in seen] == [span.span_id]
    assert len(before) == 1


@pytest.mark.parametrize("wrong", [None, object(), "client", httpx2])
def test_what_is_no_client_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="takes a Client or AsyncClient"):
        propagate(wrong)
