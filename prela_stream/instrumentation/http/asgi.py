"""The receiving end of HTTP: an ASGI middleware that makes a span of each request, below the caller's where headers name one.

Works with any ASGI server and framework, and imports neither. The span is open until the application has answered, the body of
a stream included.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.model.span import SpanStatus
from prela_stream.propagation.w3c import extract
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer, get_tracer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MARK: Final = "prela_stream.span"
_guard: Final = guard("instrumentation.asgi")


class TraceMiddleware:
    """`app = TraceMiddleware(app)`, or `app.add_middleware(TraceMiddleware)` in Starlette and FastAPI.

    A request without headers of a trace begins a trace of its own, whatever is current where the server was started.

    Args:
        app: The ASGI application.
        tracer: Whose spans; None: the global tracer's.
        exclude: Paths that are not traced, health checks for instance.
        trust_remote: False: headers of callers are not taken up; for a service that strangers call.
    """

    def __init__(
        self, app: App, *, tracer: Tracer | None = None, exclude: Iterable[str] = (), trust_remote: bool = True
    ) -> None:
        self._app = app
        self._tracer = tracer
        self._exclude = frozenset(exclude)
        self._trust_remote = trust_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket; anything else passes through."""
        if scope["type"] not in ("http", "websocket") or _MARK in scope or scope.get("path") in self._exclude:
            await self._app(scope, receive, send)
            return
        above = extract(scope.get("headers", ())) if self._trust_remote else None
        span = (self._tracer or get_tracer()).span(
            f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}",
            attributes=_request_attributes(scope),
            parent=TraceContext(sampled=None) if above is None else above,
        )
        scope[_MARK] = span

        async def send_and_see(message: Message) -> None:
            if message["type"] == "http.response.start":
                _saw_status(span, message)
            await send(message)

        with span:
            try:
                await self._app(scope, receive, send_and_see)
            finally:
                _name_by_route(span, scope)


def _request_attributes(scope: Scope) -> dict[str, Any]:
    """What OpenTelemetry's conventions for HTTP servers say, without the query: it may hold secrets."""
    attributes: dict[str, Any] = {}
    with _guard:
        if "method" in scope:
            attributes["http.request.method"] = scope["method"]
        attributes["url.scheme"] = scope.get("scheme", "http")
        attributes["url.path"] = scope.get("path", "")
        if server := scope.get("server"):
            attributes["server.address"], attributes["server.port"] = server[0], server[1]
        if client := scope.get("client"):
            attributes["client.address"] = client[0]
    return attributes


def _saw_status(span: Span, message: Message) -> None:
    with _guard:
        status = int(message["status"])
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(SpanStatus.ERROR, f"HTTP {status}")


def _name_by_route(span: Span, scope: Scope) -> None:
    """The route's template names all requests alike; frameworks say it when they have found the route."""
    with _guard:
        route = getattr(scope.get("route"), "path", None)
        if isinstance(route, str) and not span.is_ended:
            route = scope.get("root_path", "") + route if scope.get("root_path") else route
            span.set_attribute("http.route", route)
            span.update_name(f"{scope.get('method', 'WEBSOCKET')} {route}")
