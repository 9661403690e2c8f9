"""The application and the client of the tests of HTTP, in one process."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from prela_stream.instrumentation.http.asgi import TraceMiddleware
from prela_stream.testing import CapturedSpans, capture_spans
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
