"""A model server for the demo and the tests: the Anthropic Messages API over real HTTP, with a scripted model behind it.

Real clients speak to it over real sockets, so retries, streams, cancellation and broken connections are the real thing. What
a request gets is chosen by its `x-demo-behaviour` header, or else by the end of its model's name (`claude-demo-runaway`):
see BEHAVIOURS. `x-demo-seed` overrides the server's seed and `x-demo-latency-ms` its latency. Retries are told
apart by the count that the client sends; the only state is that of conversations which a client asks the server to hold
(`thread`, as the beta tool runner does).
"""

import argparse
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, NoReturn

import anyio
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from prela_stream.demo.model_script import Answer, answer, count_tokens, stream_events

logger = logging.getLogger("prela_stream.demo")

BEHAVIOURS: Final = {
    "normal": "a scripted conversation: rounds of tools, then prose",
    "runaway": "asks for the same tool with the same arguments for ever",
    "max_tokens": "stops because it ran out of tokens",
    "refusal": "declines",
    "overloaded": "529 twice, then as normal",
    "down": "529 always",
    "rate_limited": "429 always",
    "bad_request": "400",
    "unauthorized": "401",
    "slow": "the latency counts for each stream event, not once for the answer",
    "stall": "streams the beginning of the answer and then sends nothing more",
    "truncated": "ends the stream in the middle, without an error and without `message_stop`",
    "cut": "breaks the connection in the middle of the stream",
    "stream_error": "an `error` event in the middle of the stream",
}
"""What the server can be asked to do, and what that means."""

FAILURES: Final = {
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "down": (529, "overloaded_error", "Overloaded"),
    "rate_limited": (429, "rate_limit_error", "Number of requests has exceeded your rate limit"),
    "bad_request": (400, "invalid_request_error", "messages: at least one message is required"),
    "unauthorized": (401, "authentication_error", "invalid x-api-key"),
}
RETRIES_UNTIL_OK: Final = 2
RETRY_AFTER_MS: Final = 5
HELD_THREADS: Final = 1000


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the model server answers if the headers of a request do not choose."""

    seed: int = 0
    latency_ms: float = 0.0
    """Time to the answer, or to the first event of a stream."""


class BrokenStreamError(Exception):
    """Raised inside a response to make the HTTP server drop the connection. Never shown."""


class Threads:
    """Conversations that the server holds, by the id of their last answer; the oldest are forgotten."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Any]] = {}

    def whole(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The request with everything that came before it; None if that is not known."""
        thread = body.get("thread") or {}
        if thread.get("type") != "continue":
            return body
        held = self._held.get(str(thread.get("previous_message_id")))
        return None if held is None else {**held, **body, "messages": held["messages"] + body["messages"]}

    def hold(self, body: dict[str, Any], reply: Answer) -> None:
        """Remember a conversation for its next turn, if its client asked for that."""
        if not body.get("thread"):
            return
        turn = {"role": "assistant", "content": reply.content}
        self._held[reply.id] = {**body, "messages": [*body["messages"], turn]}
        if len(self._held) > HELD_THREADS:
            del self._held[next(iter(self._held))]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What one request chooses."""

    body: dict[str, Any]
    behaviour: str
    seed: int
    latency: float
    """Seconds."""
    retry: int


def create_app(options: ServerOptions | None = None) -> Starlette:
    """The ASGI application: `POST /v1/messages` and `POST /v1/messages/count_tokens`."""
    settings = options or ServerOptions()
    threads = Threads()

    async def messages(request: Request) -> Response:
        call = await _read_call(request, settings)
        if isinstance(call, Response):
            return call
        if (failure := _failure(call)) is not None:
            return failure
        body = threads.whole(call.body)
        if body is None:
            return _error(404, "not_found_error", "thread: no message with this previous_message_id")
        reply = answer(body, seed=call.seed, behaviour=call.behaviour)
        threads.hold(body, reply)
        headers = {"request-id": f"req_{reply.id.removeprefix('msg_')}"}
        if call.body.get("stream"):
            return StreamingResponse(_sse(reply, call), media_type="text/event-stream", headers=headers)
        await anyio.sleep(call.latency)
        return JSONResponse(reply.message(), headers=headers)

    async def tokens(request: Request) -> Response:
        call = await _read_call(request, settings)
        if isinstance(call, Response):
            return call
        return _failure(call) or JSONResponse({"input_tokens": count_tokens(call.body)})

    return Starlette(
        routes=[
            Route("/v1/messages", messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", tokens, methods=["POST"]),
        ]
    )


async def _read_call(request: Request, settings: ServerOptions) -> Call | Response:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        return _error(400, "invalid_request_error", f"the body is no JSON: {error}")
    headers = request.headers
    behaviour = headers.get("x-demo-behaviour") or _behaviour_of(str(body.get("model", "")))
    if behaviour not in BEHAVIOURS:
        return _error(
            400, "invalid_request_error", f"x-demo-behaviour is one of {', '.join(BEHAVIOURS)}, got {behaviour}"
        )
    return Call(
        body=body,
        behaviour=behaviour,
        seed=int(headers.get("x-demo-seed", settings.seed)),
        latency=float(headers.get("x-demo-latency-ms", settings.latency_ms)) / 1000,
        retry=int(headers.get("x-stainless-retry-count", 0)),
    )


def _behaviour_of(model: str) -> str:
    """The behaviour that a model's name ends with: `claude-demo-bad_request` gives `bad_request`."""
    ending = model.rpartition("-")[2]
    return ending if ending in BEHAVIOURS else "normal"


def _failure(call: Call) -> Response | None:
    if call.behaviour == "overloaded" and call.retry >= RETRIES_UNTIL_OK:
        return None
    if call.behaviour in FAILURES:
        return _error(*FAILURES[call.behaviour])
    if not call.body.get("messages"):
        return _error(*FAILURES["bad_request"])
    return None


def _error(status: int, kind: str, message: str) -> Response:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_failed"}
    return JSONResponse(
        body, status_code=status, headers={"request-id": "req_failed", "retry-after-ms": str(RETRY_AFTER_MS)}
    )


async def _sse(reply: Answer, call: Call) -> AsyncIterator[bytes]:
    """The reply as server-sent events, ended early if that is the behaviour."""
    events = list(stream_events(reply))
    middle = len(events) // 2
    if call.behaviour != "slow":
        await anyio.sleep(call.latency)
    for index, event in enumerate(events):
        if index == middle:
            match call.behaviour:
                case "truncated":
                    return
                case "cut":
                    raise BrokenStreamError
                case "stall":
                    await anyio.sleep_forever()
                case "stream_error":
                    error = {"type": "overloaded_error", "message": "Overloaded"}
                    yield _sse_event({"type": "error", "error": error})
                    return
        if call.behaviour == "slow":
            await anyio.sleep(call.latency)
        yield _sse_event(event)


def _sse_event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A listening socket and its URL. Clients may connect at once: they wait in the backlog until the server accepts."""
    listener = socket.create_server((host, port), backlog=512)
    return listener, f"http://{host}:{listener.getsockname()[1]}"


def _uvicorn(options: ServerOptions) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(options),
        log_level="critical",  # a cut stream is what was asked for; uvicorn would print it as an error
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


@contextmanager
def serving(options: ServerOptions | None = None, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Run the model server in a thread of this process for the length of the block; gives its base URL."""
    listener, url = _listen(host, port)
    server = _uvicorn(options or ServerOptions())
    thread = threading.Thread(target=server.run, args=([listener],), name="prela-demo-model-server")
    thread.start()
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def main(arguments: list[str] | None = None) -> None:
    """Run the model server as a process: prints `{"url": …}` as one line when it listens; SIGTERM ends it."""
    parser = argparse.ArgumentParser(prog="python -m prela_stream.demo.model_server", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    chosen = parser.parse_args(arguments)

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        # uvicorn shuts down on the signal and raises it again for us: asked to end, the process ends well
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    listener, url = _listen(chosen.host, chosen.port)
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()
    with listener:
        _uvicorn(ServerOptions(seed=chosen.seed, latency_ms=chosen.latency_ms)).run(sockets=[listener])


if __name__ == "__main__":
    main()
