"""One logical call of the Messages API, with all its retries and the reading of its answer, on one span.

`Call` is the only recorder: the sync and the async client, whole answers, streams, raw and streaming responses all go through
it. It sees what went over the wire (the prepared request, the HTTP responses, the bytes of the body) and nothing of how the
application looks at it. Whatever comes first of read, closed, failed, cancelled and dropped ends the span; the rest is ignored.
"""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from prela_stream.errors import guard
from prela_stream.instrumentation.anthropic import messages
from prela_stream.instrumentation.http.body import observe_body
from prela_stream.instrumentation.http.sse import EventParser
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus
from prela_stream.tracing.span import Span

MESSAGES_PATH: Final = "/v1/messages"
COUNT_PATH: Final = "/v1/messages/count_tokens"
TRUNCATED_STREAM: Final = "the stream ended before its message_stop: the answer is not whole"

_guard: Final = guard("instrumentation.anthropic")


class Call:
    """Records one call; a context manager around the request itself, and the observer of a body that is read afterwards.

    Args:
        span: Open; ended by this object, exactly once.
        url: Of the request's options, to tell its attempts from those of requests made inside it.
        counting: It is a request to count tokens.
        content: Whether prompts and answers are recorded.
    """

    def __init__(self, span: Span, *, url: str, counting: bool, content: bool) -> None:
        self.url = url
        self._counting = counting
        self._open = [span]  # popped by whoever ends the call: atomic, so two threads cannot both do it
        self._span = span
        self._content = content
        self._started = time.perf_counter()
        self._attempts = 0
        self._response: Any = None
        self._slot: list[Call] = []
        self._before: Sequence[Call] = ()
        self._decoder: Any = None
        self._parser: EventParser | None = None
        self._builder = messages.MessageBuilder(content=content)
        self._body: list[bytes] = []
        self._given: dict[str, Any] = {}
        self._blind = False
        """A part of the body could not be understood, so nothing is concluded from what did not come."""
        self._first_chunk_seen = False

    def __enter__(self) -> Self:
        self._slot.append(self)
        self._before = current_call.get()
        current_call.set(self._slot)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._slot.clear()
        current_call.set(self._before)
        if error is not None:
            with _guard:
                self._saw_response(getattr(error, "response", None))
            self.end(error, read=False)

    def attempt(self, body: object) -> None:
        """An HTTP request is about to be sent; `body` is its JSON data, plain and ours to keep."""
        with _guard:
            self._attempts += 1
            if self._attempts > 1:
                self._span.set_attribute(semconv.RESEND_COUNT, self._attempts - 1)
                status = getattr(self._response, "status_code", None)
                self._span.add_event("retry", {} if status is None else {"http.response.status_code": status})
                return
            self._span.set_attributes(messages.request_attributes(body))
            if self._content and not self._counting:
                self._span.set_attributes(messages.content_attributes(body))

    def responded(self, response: object) -> None:
        """An attempt was answered, well or badly."""
        self._response = response

    def returned(self, value: object, response: object) -> None:
        """The client hands this value to the application.

        Args:
            value: A message, a stream or a response.
            response: The HTTP response that `value` wraps; None: it does not show it.
        """
        ends_later, self._blind = False, True
        with _guard:
            ends_later = self._take_answer(value, response)
            self._blind = False
        if not ends_later:
            self.end(None, read=True)

    def _take_answer(self, value: object, response: object) -> bool:
        """Take what has come, and watch what has not; whether there is any of that."""
        answered: Any = self._response if response is None else response
        self._saw_response(answered)
        self._response = None  # it will hold this object, which must not hold it
        if answered is None:  # middleware of the application answered without asking the server
            self._given = _as_dict(value)
            return False
        kind = answered.headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            self._parser = EventParser()
        try:
            body = answered.content
        except RuntimeError:  # what httpx raises for a body that is not read yet
            self._decoder = _content_decoder(answered)
            observe_body(answered, self)
            return True
        self._take(body)
        return False

    def chunk(self, data: bytes) -> None:
        """Part of the body, as BodyObserver."""
        if not self._open or self._blind:
            return
        self._blind = True
        with _guard:
            for part in (data,) if self._decoder is None else self._decoder.decode(data):
                self._take(part)
            self._blind = False

    def end(self, error: BaseException | None, *, read: bool) -> None:
        """The call is over, as BodyObserver: in `__exit__` if it failed, else when its body was read, closed or dropped."""
        if not self._open:
            return
        with _guard:
            self._record(self._message(read=read))
        with _guard:
            self._conclude(error, read=read)

    def _message(self, *, read: bool) -> dict[str, Any]:
        """What the server answered, as far as it is known."""
        if self._parser is not None:
            return self._builder.message()
        if self._given or not read or not self._body:
            return self._given
        return msgspec.json.decode(b"".join(self._body), type=dict[str, Any])

    def _conclude(self, error: BaseException | None, *, read: bool) -> None:
        """Choose the status. A message that is whole is a success, whatever happened to the connection after it."""
        streamed = self._parser is not None and not self._blind
        if streamed and self._builder.stopped:
            self._finish(SpanStatus.SUCCESS)
        elif self._builder.error is not None:
            self._finish_error(self._builder.error.get("type") or "api_error", self._builder.error.get("message"))
        elif error is not None and not isinstance(error, Exception):
            self._unfinished()
            self._finish(SpanStatus.CANCELLED, type(error).__name__)
        elif error is not None:
            self._unfinished()
            self._span.record_exception(error)
            self._finish_error(error_type(error), str(error))
        elif streamed and read:
            self._unfinished()
            self._finish_error("truncated_stream", TRUNCATED_STREAM)
        else:
            if not read:
                self._span.set_attribute(messages.CLOSED_EARLY, True)
            self._finish(SpanStatus.SUCCESS)

    def _unfinished(self) -> None:
        if self._parser is not None:
            self._span.set_attribute(semconv.FINISH_REASONS, [messages.UNFINISHED])

    def _finish_error(self, kind: str, message: str | None) -> None:
        self._span.set_attribute(semconv.ERROR_TYPE, kind)
        self._finish(SpanStatus.ERROR, message)

    def _finish(self, status: SpanStatus, message: str | None = None) -> None:
        try:
            span = self._open.pop()
        except IndexError:
            return
        span.set_status(status, message)
        span.end()

    def _saw_response(self, response: Any) -> None:
        if response is None or not hasattr(response, "status_code"):
            return
        self._response = response
        self._span.set_attribute("http.response.status_code", response.status_code)
        if (request_id := response.headers.get("request-id")) is not None:
            self._span.set_attribute(messages.REQUEST_ID, request_id)

    def _take(self, decoded: bytes) -> None:
        if self._parser is None:
            self._body.append(decoded)
            return
        for event in self._parser.feed(decoded):
            if not self._first_chunk_seen and event.get("type") == "content_block_delta":
                self._first_chunk_seen = True
                self._span.set_attribute(semconv.TIME_TO_FIRST_CHUNK, time.perf_counter() - self._started)
            self._builder.add(event)

    def _record(self, message: dict[str, Any]) -> None:
        if self._counting:
            if isinstance(message.get("input_tokens"), int):
                self._span.set_attribute(messages.COUNTED_TOKENS, message["input_tokens"])
            return
        self._span.set_attributes(messages.response_attributes(message, content=self._content))


current_call: Final[ContextVar[Sequence[Call]]] = ContextVar("prela_stream_anthropic_call", default=())
"""The call whose request runs here, or none. Set and reset within one call of the client, never across a yield. In a list that
is emptied at the end: connections that are opened meanwhile keep a copy of the context for as long as they live."""


def error_type(error: BaseException) -> str:
    """The low-cardinality kind of a failed call, as the client's own tracer names it.

    The type in the API's error envelope, else the HTTP status; `client_timeout_error`, `connection_error` or `client_error`
    where there is neither.
    """
    kind = getattr(error, "type", None)
    if isinstance(kind, str):
        return kind
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return str(status)
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"APITimeoutError", "TimeoutException"}:
        return "client_timeout_error"
    return "connection_error" if names & {"APIConnectionError", "TransportError"} else "client_error"


def _content_decoder(response: Any) -> Any:
    """A decoder of the response's content encoding, next to the one with which it decodes for its owner; None: there is none."""
    encoding = response.headers.get("content-encoding")
    if encoding is None:
        return None
    return type(response)(200, headers={"content-encoding": encoding})._get_content_decoder()


def _as_dict(value: Any) -> dict[str, Any]:
    dump = getattr(value, "model_dump", None)
    dumped = dump(mode="json") if callable(dump) else None
    return dumped if isinstance(dumped, dict) else {}
