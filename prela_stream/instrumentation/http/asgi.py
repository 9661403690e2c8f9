"""ASGI middleware that makes a span of each request, below the caller's span if the request's headers name one.

Works with any ASGI server and framework, and imports neither. The span of a request ends with the last byte of its response. Work
after that, such as Starlette's background tasks, has a span below it.
"""

import sys
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping
from types import FrameType
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.model.span import SpanStatus
from prela_stream.propagation.w3c import extract
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.parent import get_raw, set_raw
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer, get_tracer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MARK: Final = "prela_stream.span"
_SHARED: Final = ("http.route", "http.response.status_code")
"""Attributes of a request that the span of its background work has too, so that both are found together."""
_MIN_BACKGROUND_NS: Final = 1_000_000
"""Other work after the response than declared background tasks has a span if it fails, makes spans or takes at least this long:
an application needs some microseconds to return."""
_MIN_UNDECLARED_NS: Final = 250_000_000
"""The same for a websocket, and for a response object without background tasks. Its framework still waits for its own tasks to
end, and the other requests of a busy event loop lengthen that wait."""
_MAX_FRAMES: Final = 6
"""Between the sending of a message and the response object that sends it."""
_RELAY: Final = "starlette.middleware.base"
"""Its `BaseHTTPMiddleware` sends a response of its own for the one that it receives."""
_guard: Final = guard("instrumentation.asgi")


class TraceMiddleware:
    """`app = TraceMiddleware(app)`, or `app.add_middleware(TraceMiddleware)` in Starlette and FastAPI.

    A request without trace headers starts a new trace, even if a span was current when the server started.

    Args:
        app: The ASGI application.
        tracer: Makes the spans; None: the global tracer.
        exclude: Paths that are not traced, health checks for instance.
        trust_remote: False: headers of callers are ignored. Use it for a service that is open to the public.
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
        tracer = self._tracer or get_tracer()
        span = tracer.span(
            f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}",
            attributes=_request_attributes(scope),
            parent=TraceContext(sampled=None) if above is None else above,
        )
        scope[_MARK] = span
        request = _Request(tracer, span, scope, send)
        with span:
            try:
                await _Stepped(self._app(scope, receive, request.send), request.before_step)
            except BaseException as error:
                request.end_background(error)
                raise
            else:
                request.end_background(None)
            finally:
                request.name_by_route()


def _request_attributes(scope: Scope) -> dict[str, Any]:
    """The attributes of OpenTelemetry's conventions for HTTP servers, without the query, which may hold secrets."""
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


class _Request:
    """One request: ends its span with the response, and makes what follows current below it."""

    def __init__(self, tracer: Tracer, span: Span, scope: Scope, send: Send) -> None:
        self._tracer = tracer
        self._span = span
        self._scope = scope
        self._send = send
        self._has_trailers = False
        self._background: Span | None = None
        self._has_tasks: bool | None = False if scope["type"] == "websocket" else None
        self._ended_ns = 0
        self._answered: BaseException | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on to the server; after the last one the request has ended."""
        if message["type"] == "http.response.start":
            self._start_response(message)
            with _guard:
                self._has_tasks = _sender_has_tasks(sys._getframe(1))
        await self._send(message)
        with _guard:
            if self._background is None and self._is_last(message):
                self._end()

    def before_step(self) -> None:
        """Called before each step of the application, in its context. The response may have been sent by another task."""
        if self._background is not None and get_raw() is self._span:
            set_raw(self._background)

    def end_background(self, error: BaseException | None) -> None:
        """The application has returned, or raised `error`: end the span of the work after the response, if there was any."""
        background = self._background
        if background is None:
            return
        if error is self._answered:
            error = None
        self._answered = None  # its traceback holds this object
        with _guard:
            if get_raw() is background:
                set_raw(self._span)
            is_work = self._has_tasks or error is not None or background._children is not None
            minimum_ns = _MIN_BACKGROUND_NS if self._has_tasks is None else _MIN_UNDECLARED_NS
            if not is_work and time.perf_counter_ns() - self._ended_ns < minimum_ns:
                return  # it was never announced and its parent does not count it, so it can be dropped
            if error is not None:
                background.record_exception(error)
            background.end()

    def name_by_route(self) -> None:
        """Name the span by the template of its route, which a framework sets in the scope when it has found the route."""
        with _guard:
            route = getattr(self._scope.get("route"), "path", None)
            if isinstance(route, str) and not self._span.is_ended:
                route = self._scope.get("root_path", "") + route if self._scope.get("root_path") else route
                self._span.set_attribute("http.route", route)
                self._span.update_name(f"{self._scope.get('method', 'WEBSOCKET')} {route}")

    def _start_response(self, message: Message) -> None:
        with _guard:
            self._has_trailers = bool(message.get("trailers"))
            status = int(message["status"])
            self._span.set_attribute("http.response.status_code", status)
            error = sys.exception()
            if status >= 500 and isinstance(error, Exception):
                self._answered = error  # a framework answers an exception with this response, and raises it again
                self._span.record_exception(error)
            elif status >= 500:
                self._span.set_attribute("error.type", str(status))
                self._span.set_attribute("error.message", f"HTTP {status}")
                self._span.set_status(SpanStatus.ERROR, f"HTTP {status}")

    def _is_last(self, message: Message) -> bool:
        match message["type"]:
            case "http.response.trailers":
                return not message.get("more_trailers", False)
            case "http.response.body" | "http.response.zerocopysend":
                return not self._has_trailers and not message.get("more_body", False)
            case "http.response.pathsend":
                return not self._has_trailers
            case "websocket.close":
                return True
        return False

    def _end(self) -> None:
        self.name_by_route()
        self._span.end()
        self._ended_ns = time.perf_counter_ns()
        attributes = {key: self._span.attributes[key] for key in _SHARED if key in self._span.attributes}
        self._background = self._tracer.start_span(
            f"{self._span.name} background", attributes=attributes, parent=self._span
        )
        self.before_step()


def _sender_has_tasks(frame: FrameType | None) -> bool | None:
    """Whether the response object that sends a message has background tasks, as those of Starlette and FastAPI can.

    None: the sender is no such object, or passes on the response of another one, whose tasks it does not know.
    """
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return None
        if frame.f_code.co_name in ("__call__", "stream_response"):
            sender: Any = frame.f_locals.get("self")
            if hasattr(sender, "status_code") and hasattr(sender, "background"):
                has_tasks = callable(sender.background)
                return has_tasks if has_tasks or type(sender).__module__ != _RELAY else None
        frame = frame.f_back
    return None


class _Stepped:
    """Awaits an awaitable, and calls a function in its context before each of its steps.

    The response may be sent by another task than the one that runs background tasks. The latter's current span can be changed
    only between two of its steps. Works with every event loop, because it passes on whatever is awaited.
    """

    def __init__(self, awaitable: Awaitable[None], before_step: Callable[[], None]) -> None:
        self._awaitable = awaitable
        self._before_step = before_step

    def __await__(self) -> Generator[Any, Any, None]:
        coroutine = _awaiting(self._awaitable)
        resume: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        while True:
            self._before_step()
            try:
                awaited = resume(argument)
            except StopIteration:
                return
            try:
                resume, argument = coroutine.send, (yield awaited)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown into the coroutine
                resume, argument = coroutine.throw, error


async def _awaiting(awaitable: Awaitable[None]) -> None:
    await awaitable
