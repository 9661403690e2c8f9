"""The web application and its server: which URL is which page, what an error becomes, how the server starts and stops."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from prela_stream.addresses import parse_address, url_of
from prela_stream.errors import ConfigurationError, PrelaError
from prela_stream.web import (
    diff_page,
    list_page,
    live_page,
    models_page,
    pipeline_page,
    sessions_page,
    span_page,
    trace_page,
    transcript_page,
)
from prela_stream.web.api import PipelineSource
from prela_stream.web.options import WebOptions
from prela_stream.web.rendering import STATIC, THEMES, page
from prela_stream.web.security import Protection
from prela_stream.web.state import Pages, StoreUnavailableError

if TYPE_CHECKING:
    import uvicorn

    from prela_stream.sinks.reader import TraceReader

logger = logging.getLogger("prela_stream")

_NEXT_PORTS: Final = 20
_STOP_S: Final = 4.0
_YEAR: Final = "public, max-age=31536000, immutable"
_ASSETS: Final = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "htmx-4.0.1.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def create_app(reader: TraceReader, options: WebOptions, pipeline: PipelineSource | None = None) -> Protection:
    """The pages as an ASGI application.

    Args:
        reader: Of the store. The caller closes it.
        options: The address, and who may read.
        pipeline: What the pipeline page shows beside the store; None: nothing.
    """
    pages = Pages(reader=reader, pipeline=pipeline)
    host, _ = parse_address(options.listen) or ("127.0.0.1", 0)
    app = Starlette(
        routes=[
            Route("/", list_page.traces),
            Route("/histograms", list_page.histograms),
            Route("/traces/{trace_id}", trace_page.trace),
            Route("/traces/{trace_id}/rows", trace_page.rows),
            Route("/traces/{trace_id}/transcript", transcript_page.transcript),
            Route("/traces/{trace_id}/text", transcript_page.plain),
            Route("/traces/{trace_id}/export", transcript_page.export),
            Route("/traces/{trace_id}/spans/{span_id}", span_page.span),
            Route("/traces/{trace_id}/spans/{span_id}/raw", span_page.raw),
            Route("/live", live_page.live),
            Route("/live/events", live_page.events),
            Route("/live/running", live_page.running),
            Route("/diff", diff_page.diff),
            Route("/sessions", sessions_page.sessions),
            Route("/sessions/view", sessions_page.session),
            Route("/models", models_page.models),
            Route("/pipeline", pipeline_page.pipeline),
            Route("/static/{name}", _asset),
            Route("/theme/{name}", _theme),
        ],
        exception_handlers={PrelaError: _failed, HTTPException: _http_error, Exception: _defect},
    )
    app.state.pages = pages
    return Protection(app, pages=pages, token=options.token, host=host, names=options.hosts)


async def _asset(request: Request) -> Response:
    """One of the files of this package, by its name in the list: no path is made from the URL."""
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, "there is no such file")
    headers = {"cache-control": _YEAR if request.url.query else "no-cache"}
    return FileResponse(STATIC / name, media_type=_ASSETS[name], headers=headers)


async def _theme(request: Request) -> Response:
    """Remember the chosen theme, for a browser without scripts too."""
    name = request.path_params["name"]
    answer = RedirectResponse("/", 303)
    if name in THEMES:
        answer.set_cookie("prela_theme", name, max_age=31_536_000, samesite="strict", path="/")
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    """A parameter is wrong, the store cannot answer, or a query took too long."""
    if isinstance(error, StoreUnavailableError):
        return page(request, "error.html", status=503, title="Waiting for the store", text=str(error), waiting=True)
    status, title = (400, "This is not understood") if isinstance(error, ConfigurationError) else (503, "No answer")
    return page(request, "error.html", status=status, title=title, text=str(error), waiting=False)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return page(request, "error.html", status=error.status_code, title="Not found", text=error.detail, waiting=False)


async def _defect(request: Request, error: Exception) -> Response:
    """The server logs the traceback."""
    text = f"A defect of the page: {type(error).__name__}. The log of the server has the details."
    return page(request, "error.html", status=500, title="This page failed", text=text, waiting=False)


@asynccontextmanager
async def served(
    reader: TraceReader,
    options: WebOptions,
    pipeline: PipelineSource | None = None,
    *,
    search_port: bool = False,
) -> AsyncIterator[str]:
    """Serve the pages for the length of the block; yields their URL.

    Args:
        reader: Of the store. The caller closes it.
        options: The address, and who may read.
        pipeline: As in `create_app`.
        search_port: Whether to take one of the next ports if the port is in use.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    app = create_app(reader, options, pipeline)
    sockets = [_bound(options.listen, _NEXT_PORTS if search_port else 0)]
    server = _server(app)
    stopped = anyio.Event()

    async def serve() -> None:
        with anyio.CancelScope(shield=True) as scope:  # it is stopped below, so that no answer is cut
            scopes.append(scope)
            await server.serve(sockets)
        stopped.set()

    scopes: list[anyio.CancelScope] = []
    host, port = sockets[0].getsockname()[:2]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        try:
            yield url_of(host, port)
        finally:
            app.pages.stopping.set()
            server.should_exit = True
            with anyio.CancelScope(shield=True), anyio.move_on_after(_STOP_S):
                await stopped.wait()
            for scope in scopes:
                scope.cancel()


def _server(app: Protection) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        """The signals belong to the command that runs this server."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=1,
    )
    return Server(config)


def _bound(listen: str, more: int) -> socket.socket:
    """A listening socket at this address, or at one of the `more` next ports."""
    found = parse_address(listen)
    if found is None:
        msg = f"web.listen: expected HOST:PORT, for example 127.0.0.1:8787, got {listen!r}"
        raise ConfigurationError(msg)
    host, port = found
    for candidate in range(port, min(port + more, 65_535) + 1):
        try:
            listener = socket.create_server((host, candidate), family=_family(host), backlog=128)
            # asyncio sets it only if the socket names its protocol, and create_server does not. Without
            # it, the second answer on a connection waits 40 ms for the acknowledgement of the first.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == min(port + more, 65_535):
                msg = f"web.listen: cannot listen on {listen}: {error.strerror or error}. Set another address or stop its user"
                raise ConfigurationError(msg) from error
        else:
            return listener
    raise AssertionError(listen)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
