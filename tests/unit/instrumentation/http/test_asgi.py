"""The middleware makes a span of each request, which ends with the last byte of its response."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from prela_stream.instrumentation.http import asgi
from prela_stream.instrumentation.http.asgi import App, Message, Send, TraceMiddleware
from prela_stream.instrumentation.http.httpx import propagate
from prela_stream.model.span import AFTER_END, COUNTED, REMOTE_PARENT
from prela_stream.testing import CapturedSpans, assert_tree
from prela_stream.tracing.tracer import get_current_span, get_tracer
from tests.unit.instrumentation.http.conftest import FOREIGN, app

tracer = get_tracer()


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


async def test_without_headers_a_request_starts_a_trace(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
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


async def test_headers_of_callers_can_be_ignored(captured: CapturedSpans) -> None:
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


async def test_a_streamed_body_and_a_background_task(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
    """Starlette runs each step of a plain generator in a thread, and sends the body in another task than the background task."""
    assert (await client.get("/streams")).text == "012"
    assert_tree(
        captured.spans,
        """
        GET /streams
          stream
            chunk 0
            chunk 1
            chunk 2
          GET /streams background
            background
        """,
    )


def application(after: Callable[[], Awaitable[None]] | None, *messages: Message, status: int = 200) -> App:
    """Sends a response, and runs `after` behind its last byte, as a framework runs background tasks."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": status, "headers": [], **(messages[0] if messages else {})}
        )
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await send({"type": "http.response.body", "body": b"last"})
        for message in messages[1:]:
            await send(message)
        if after is not None:
            await after()

    return app


async def serve(app: App) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await TraceMiddleware(app)({"type": "http", "method": "GET", "path": "/x"}, receive_nothing, send)
    return sent


async def receive_nothing() -> Message:
    await anyio.sleep_forever()
    return {}


async def test_a_request_ends_with_the_last_byte_of_its_response(captured: CapturedSpans) -> None:
    ended_before: list[str] = []

    async def mail() -> None:
        ended_before.extend(span.name for span in captured.spans)
        await anyio.sleep(0.02)
        assert get_current_span() is not None

    await serve(application(mail))
    assert ended_before == ["GET /x"]
    request, background = captured.find("GET /x"), captured.find("GET /x background")
    assert (request.status, background.status) == ("SUCCESS", "SUCCESS")
    assert request.end_ns is not None
    assert background.start_ns >= request.end_ns - 1_000_000  # the wall clock is read once for each span
    assert background.duration_ms is not None
    assert background.duration_ms >= 20
    assert background.parent_span_id == request.span_id
    assert background.flags & AFTER_END
    assert background.attributes == {"http.response.status_code": 200}


async def test_a_background_task_that_fails_does_not_fail_the_request(captured: CapturedSpans) -> None:
    async def mail() -> None:
        msg = "the mail server is down"
        raise ConnectionError(msg)

    with pytest.raises(ConnectionError):
        await serve(application(mail))
    request, background = captured.find("GET /x"), captured.find("GET /x background")
    assert (request.status, request.attributes["http.response.status_code"]) == ("SUCCESS", 200)
    assert "error.type" not in request.attributes
    assert (background.status, background.attributes["error.type"]) == ("ERROR", "ConnectionError")


async def test_a_background_task_that_is_cancelled_does_not_cancel_the_request(captured: CapturedSpans) -> None:
    with anyio.move_on_after(0.02):
        await serve(application(anyio.sleep_forever))
    assert captured.find("GET /x").status == "SUCCESS"
    assert captured.find("GET /x background").status == "CANCELLED"


async def test_spans_of_background_tasks_are_below_the_background_span(captured: CapturedSpans) -> None:
    async def audit() -> None:
        with tracer.span("audit"):
            pass

    with tracer.span("around the server") as around:
        await serve(application(audit))
        assert get_current_span() is around
    assert_tree(
        [span for span in captured.spans if span.name != "around the server"],
        "GET /x\n  GET /x background\n    audit",
    )


async def test_a_request_without_background_work_has_one_span(
    captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        asgi, "_MIN_BACKGROUND_NS", 60_000_000_000
    )  # a loaded machine may need more than 1 ms to return
    await serve(application(None))
    assert [span.name for span in captured.spans] == ["GET /x"]


@pytest.mark.parametrize("response", [PlainTextResponse, StreamingResponse])
async def test_a_response_without_tasks_has_no_background_span_on_a_busy_loop(
    captured: CapturedSpans, response: type[Response]
) -> None:
    """The framework returns 20 ms after the last byte, because the loop runs another request first."""

    async def endpoint(request: Request) -> Response:
        return response(iter(["ok"]) if response is StreamingResponse else "ok")

    app = Starlette(routes=[Route("/x", endpoint)])

    async def on_a_busy_loop(scope: Any, receive: Any, send: Send) -> None:
        await app(scope, receive, send)
        time.sleep(0.02)  # noqa: ASYNC251 - the other request

    transport = httpx2.ASGITransport(app=TraceMiddleware(on_a_busy_loop))
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/x")).text == "ok"
    assert_tree(captured.spans, "GET /x")


@pytest.mark.parametrize("response", [PlainTextResponse, StreamingResponse])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_background_task_has_a_span_however_short_it_is(
    captured: CapturedSpans, response: type[Response], is_async: bool
) -> None:
    ran: list[str | None] = []

    def task() -> None:
        span = get_current_span()
        ran.append(None if span is None else span.name)

    async def async_task() -> None:
        task()

    async def endpoint(request: Request) -> Response:
        tasks = BackgroundTasks()
        tasks.add_task(async_task if is_async else task)
        return response(iter(["ok"]) if response is StreamingResponse else "ok", background=tasks)

    app = Starlette(routes=[Route("/x", endpoint)], middleware=[Middleware(TraceMiddleware)])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as client:
        await client.get("/x")
    assert_tree(captured.spans, "GET /x\n  GET /x background")
    assert ran == ["GET /x background"]


async def test_trailers_are_part_of_the_response(captured: CapturedSpans) -> None:
    async def audit() -> None:
        with tracer.span("audit"):
            pass

    trailers: list[Message] = [
        {"type": "http.response.trailers", "headers": [], "more_trailers": True},
        {"type": "http.response.trailers", "headers": []},
    ]
    sent = await serve(application(audit, {"trailers": True}, *trailers))
    assert [message["type"] for message in sent][-2:] == ["http.response.trailers"] * 2
    assert_tree(captured.spans, "GET /x\n  GET /x background\n    audit")


async def test_a_websocket_ends_with_its_close(captured: CapturedSpans) -> None:
    async def talk(scope: Any, receive: Any, send: Send) -> None:
        await send({"type": "websocket.accept"})
        with tracer.span("talk"):
            await send({"type": "websocket.close"})
        with tracer.span("clean up"):
            pass

    async def send(message: Message) -> None:
        pass

    await TraceMiddleware(talk)({"type": "websocket", "path": "/talk"}, receive_nothing, send)
    assert captured.find("WEBSOCKET /talk").status == "SUCCESS"
    assert captured.find("talk").flags & COUNTED


async def test_an_error_before_the_last_byte_fails_the_request(captured: CapturedSpans) -> None:
    async def breaks(scope: Any, receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        msg = "the rest is missing"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="the rest"):
        await serve(breaks)
    assert (captured.find("GET /x").status, len(captured.spans)) == ("ERROR", 1)


async def test_a_status_of_500_is_an_error_with_a_message(captured: CapturedSpans) -> None:
    await serve(application(None, status=503))
    span = captured.find("GET /x")
    assert (span.status, span.status_message) == ("ERROR", "HTTP 503")
    assert (span.attributes["error.type"], span.attributes["error.message"]) == ("503", "HTTP 503")


async def test_a_middleware_in_a_middleware_makes_no_second_span(
    captured: CapturedSpans, client: httpx2.AsyncClient
) -> None:
    await client.get("/inner/item/1")
    assert_tree(captured.spans, "GET /inner/item/{number}\n  handle")


async def test_a_websocket_on_a_busy_loop_has_no_background_span(captured: CapturedSpans) -> None:
    async def talk(scope: Any, receive: Any, send: Send) -> None:
        await send({"type": "websocket.close"})
        time.sleep(0.02)  # noqa: ASYNC251 - the loop runs another request

    async def send(message: Message) -> None:
        pass

    await TraceMiddleware(talk)({"type": "websocket", "path": "/talk"}, receive_nothing, send)
    assert_tree(captured.spans, "WEBSOCKET /talk")


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


async def test_a_request_that_is_cancelled(captured: CapturedSpans) -> None:
    async def hangs(scope: object, receive: object, send: object) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await TraceMiddleware(hangs)({"type": "http", "method": "GET", "path": "/x"}, None, None)  # type: ignore[arg-type]  # not used
    assert captured.find("GET /x").status == "CANCELLED"


async def test_an_exception_that_the_framework_answers_is_one_of_the_request(captured: CapturedSpans) -> None:
    """Starlette sends a response of status 500, then raises the exception again: that is no background work."""

    async def endpoint(request: Request) -> Response:
        msg = "no such order"
        raise LookupError(msg)

    framework = Starlette(routes=[Route("/x", endpoint)])
    transport = httpx2.ASGITransport(app=TraceMiddleware(framework), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/x")).status_code == 500
    assert_tree(captured.spans, "GET /x ERROR")
    found = captured[0].attributes
    assert (found["error.type"], found["error.message"], found["http.response.status_code"]) == (
        "LookupError",
        "no such order",
        500,
    )
    assert "endpoint" in found["error.stacktrace"]
