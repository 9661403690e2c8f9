"""Records one model call of any provider, with all its retries and the reading of its answer, as one span.

`ModelCall` is the only recorder. Sync and async clients, whole answers, streams, raw and streaming responses all use it. It sees
what is sent and received (the prepared request, the HTTP responses, the bytes of the body) and not how the application reads it.
The first of these ends the span: the body was read, closed or dropped, or the call failed or was cancelled.

The span reports SUCCESS only for an answer that could be read. If what was received does not decide the status, the exception
that the library raised for it does.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Self

from prela_stream import telemetry
from prela_stream.errors import guard
from prela_stream.instrumentation.http.body import observe_body
from prela_stream.instrumentation.http.events import EventDecoder
from prela_stream.instrumentation.http.lines import LineDecoder
from prela_stream.instrumentation.http.responses import content_decoder, http_response
from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.instrumentation.outcome import Facts, Outcome, outcome_of
from prela_stream.instrumentation.provider import Failure, Operation, Provider, StreamState, read_json
from prela_stream.instrumentation.results import completed, event_of_request, event_of_response
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.tracing.span import Span

CLOSED_EARLY: Final = "prela.stream.closed_early"
"""True if the application stopped reading before the answer was complete; output tokens are then unknown."""
UNREAD_PARTS: Final = "prela.response.unread_parts"
"""Number of events, or of whole bodies, that the instrumentation could not understand. Absent if there were none."""
UNFINISHED: Final = "error"
"""The finish reason of a generation that did not end as the model meant to."""

_guard: Final = guard("instrumentation.llm_call")
_MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError)
"""What the mapping of a provider may raise for JSON of an unexpected shape."""


class ModelCall:
    """Records one call; a context manager around the request, and the observer of a body that is read afterwards.

    Args:
        span: Open; this object ends it, exactly once.
        provider: Names of headers.
        operation: Maps requests and answers to attributes.
        request: The library's own object for the request, with `url` and `json_data`. A second layer that receives the same
            object records nothing.
        streaming: The request asks for a stream. The content type of the response does not matter.
        content: Whether prompts and answers are recorded.
    """

    def __init__(
        self,
        span: Span,
        provider: Provider,
        operation: Operation,
        *,
        request: Any,
        streaming: bool,
        content: bool,
    ) -> None:
        self._provider = provider
        self._request: Any = request
        self._operation = operation
        self._open = [span]  # popped by the caller that ends the call: atomic, so two threads cannot both do it
        self._span = span
        self._content = content
        self._started = time.perf_counter()
        self._attempts = 0
        self._attempted: object = None
        self._response: Any = None
        self._slot: list[ModelCall] = []
        self._before: Sequence[ModelCall] = ()
        self._decoder: Any = None
        self._decoding_error: Exception | None = None
        self._state: StreamState | None = operation.stream_state(content=content) if streaming else None
        self._is_lines = self._state is not None and self._state.last_event is None
        self._events: EventDecoder | LineDecoder | None = None
        if streaming:
            self._events = LineDecoder() if self._is_lines else EventDecoder()
        self._body: list[bytes] = []
        self._given: dict[str, Any] | None = None
        """The answer as the library returned it, if no response was seen."""
        self._unread = 0
        self._is_undecodable = False
        """A part could not be decoded, so that no part after it can be found."""
        self._library_accepted = True
        """The library reads the body that is observed, so its exceptions are seen."""
        self._is_blind = False
        """True if our own code failed, so that nothing is concluded from what was not seen."""
        self._first_output_seen = False

    def __enter__(self) -> Self:
        self._slot.append(self)
        self._before = calls_in_progress.get()
        calls_in_progress.set(self._slot)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self._describe_unsent()
        enclosing, self._before = self._before, ()
        self._slot.clear()
        calls_in_progress.set(enclosing)
        self._request = self._attempted = None  # a body that is read later must not keep the request alive
        if error is not None:
            with self._watching():
                self._take_failed(error)
            self.end(error, read=False)

    def covers(self, request: object) -> bool:
        """Whether this call already records `request`, which now arrives at another instrumented layer.

        A layer of the same library receives the same object; with another object it is a further call, which middleware of the
        application makes. A layer without requests, as a framework is, leaves them to the libraries below it.
        """
        return request is self._request or getattr(self._request, "url", None) is None

    def sends(self, request: Any) -> bool:
        """Whether `request` is an attempt of this call, and not of a request that middleware makes inside it."""
        url = getattr(self._request, "url", None)
        return url is not None and str(request.url).endswith(str(url))  # a client may put a deployment in front of it

    def attempt(self, request: Any) -> None:
        """An HTTP request is about to be sent.

        Args:
            request: The library's object for this attempt, whose `json_data` is plain and unshared. Layers on top of one another
                all report the same object.
        """
        with _guard:
            if request is self._attempted:
                return
            self._attempted = request
            self._attempts += 1
            if self._attempts == 1:
                self._describe_request(request.json_data)
                if self._operation.span_type is SpanType.LLM:
                    self._span.add_event(semconv.EVENT_LLM_REQUEST, event_of_request(self._span.attributes))
                return
            self._span.set_attribute(semconv.RESEND_COUNT, self._attempts - 1)
            status = getattr(self._response, "status_code", None)
            self._span.add_event("retry", {} if status is None else {"http.response.status_code": status})
            self._response = None

    def _describe_request(self, body: object) -> None:
        self._span.set_attributes(self._operation.request_attributes(body))
        if self._content:
            self._span.set_attributes(self._operation.request_content(body))

    def _describe_unsent(self) -> None:
        """Record the request if no attempt was seen: middleware answered, or the library does not show its attempts."""
        if not self._attempts and self._request is not None:
            with _guard:
                self._describe_request(getattr(self._request, "json_data", None))

    def responded(self, response: object) -> None:
        """An attempt received a response, of any status."""
        self._response = response

    def returned(self, value: object) -> None:
        """The library returns this value to the application: an answer, a stream or a response."""
        is_read_later = False
        self._describe_unsent()
        with self._watching():
            is_read_later = self._take_answer(value)
        if not is_read_later:
            self._library_accepted = False
            self.end(None, read=True)

    def chunk(self, data: bytes) -> None:
        """As `BodyObserver.chunk`."""
        if self._open and not self._is_blind:
            with self._watching():
                self._take(data) if self._decoder is None else self._take_encoded(self._decoder.decode, data)

    def end(self, error: BaseException | None, *, read: bool) -> None:
        """As `BodyObserver.end`: the call is over. In `__exit__` if it failed, else when its body was read or closed."""
        if not self._open:
            return
        if read and self._decoder is not None and not self._is_blind:
            with self._watching():
                self._take_encoded(self._decoder.flush)
        if read and isinstance(self._events, LineDecoder):
            with self._watching():
                for event in self._events.flush():
                    self._take_event(event)
        if error is None:
            error = self._decoding_error
        attributes: dict[str, Any] = {}
        failure: Failure | None = None
        with self._watching():
            answer = self._answer(read=read, broken_off=error is not None)
            failure = self._operation.response_failure(answer)
            if self._state is not None and self._state.failure is not None:
                failure = self._state.failure
            attributes = self._operation.response_attributes(answer, content=self._content)
            self._span.set_attributes(
                completed(
                    attributes,
                    answer,
                    provider=self._provider,
                    operation=self._operation,
                    known=self._span.attributes,
                    began=self._span.started_at,
                )
            )
        with _guard:
            self._conclude(error, failure, attributes, read=read)
            if attributes and self._operation.span_type is SpanType.LLM:
                self._span.add_event(semconv.EVENT_LLM_RESPONSE, event_of_response(self._span.attributes))
        try:
            span = self._open.pop()
        except IndexError:
            return
        with _guard:
            span.end()

    def _conclude(
        self, error: BaseException | None, failure: Failure | None, attributes: Mapping[str, Any], *, read: bool
    ) -> None:
        state = self._state
        if read and state is None and not (attributes or failure or self._unread or self._is_blind):
            self._unread = 1  # a document without anything that an answer has
        if self._unread:
            self._span.set_attribute(UNREAD_PARTS, self._unread)
            telemetry.UNREAD_PARTS.add(self._unread, self._provider.module)
        is_document = state is None or self._events is None or self._events.document is not None
        is_complete = bool(attributes) if is_document or state is None else state.is_complete
        if self._is_lines:  # they have no end but that of the body
            is_complete = read
        facts = Facts(
            failure=failure,
            error=error,
            last_event=None if state is None else state.last_event,
            is_complete=is_complete,
            was_read=read,
            unread_parts=self._unread,
            library_accepted=self._library_accepted,
            is_blind=self._is_blind,
        )
        outcome = outcome_of(facts)
        self._set_outcome(outcome, error)
        if outcome.failure is not None and self._operation.span_type is SpanType.LLM:
            keeps_reason = semconv.FINISH_REASONS in attributes and is_complete and not self._unread and failure is None
            if not keeps_reason and (outcome.status is SpanStatus.ERROR or (state is not None and attributes)):
                self._span.set_attribute(semconv.FINISH_REASONS, [UNFINISHED])

    def _set_outcome(self, outcome: Outcome, error: BaseException | None) -> None:
        span = self._span
        if outcome.closed_early:
            span.set_attribute(CLOSED_EARLY, True)
        if outcome.failure is None:
            span.set_status(outcome.status)
            return
        if outcome.status is SpanStatus.ERROR:
            if isinstance(error, Exception):
                span.record_exception(error)  # the stack
            span.set_attribute(semconv.ERROR_TYPE, outcome.failure.kind)
            span.set_attribute(semconv.ERROR_MESSAGE, outcome.failure.message)
        span.set_status(outcome.status, outcome.failure.message)

    def _take_answer(self, value: object) -> bool:
        """Take what was received, and observe the rest. Returns whether there is a rest."""
        response = http_response(value) or self._response
        self._see_response(response)
        self._response = None  # the response will hold this object, and must not be held by it
        if response is None:  # middleware of the application answered without a request, or no attempt is patched
            self._take_value(value)
            return False
        try:
            body = response.content
        except RuntimeError:  # httpx raises it for a body that is not read yet
            with self._watching():
                self._decoder = content_decoder(response)
            observe_body(response, self, reader=self._provider.module)
            return True
        self._take(body)
        return False

    def _take_value(self, value: Any) -> None:
        """Take the answer from the returned value: an object of the library, JSON data, or anything that middleware returns."""
        dump = getattr(value, "model_dump", None)
        dumped = dump(mode="json") if callable(dump) else value
        self._given = dict(dumped) if isinstance(dumped, Mapping) else {}
        if not isinstance(dumped, Mapping | str | bytes):
            self._unread += 1
            self._is_blind = True  # the application knows what it is

    def _take_failed(self, error: BaseException) -> None:
        """Take the answer that was received before the library or the application's middleware raised `error`."""
        response = self._response
        if response is None:  # not every library shows the response of a failed attempt; its error has it
            response = getattr(error, "response", None)
        if not hasattr(response, "status_code"):
            return
        self._see_response(response)
        self._response = None
        if response.status_code >= 400:
            return
        try:
            body = response.content
        except RuntimeError:  # a stream that was not read
            return
        self._take(body)

    def _see_response(self, response: Any) -> None:
        if response is None:
            return
        self._span.set_attribute("http.response.status_code", response.status_code)
        header, attribute = self._provider.request_id
        if (request_id := response.headers.get(header)) is not None:
            self._span.set_attribute(attribute, request_id)

    def _take(self, decoded: bytes) -> None:
        if self._events is None:
            self._body.append(decoded)
        elif not self._is_undecodable:
            try:
                for event in self._events.feed(decoded):
                    self._take_event(event)
            except ValueError:  # no boundary between events can be found any more
                self._is_undecodable = True
                self._unread += 1

    def _take_encoded(self, decode: Callable[..., bytes | Iterable[bytes]], *data: bytes) -> None:
        """Take what the content decoder of httpx (bytes) or httpx2 (an iterator of them) returns for data.

        The reader of the body uses a decoder of the same type, so an error of it is one of the call.
        """
        if self._decoding_error is not None:
            return
        try:
            decoded = decode(*data)
            parts = [decoded] if isinstance(decoded, bytes) else list(decoded)
        except Exception as error:
            self._decoding_error = error
            raise
        for part in parts:
            self._take(part)

    def _take_event(self, event: StreamEvent) -> None:
        state = self._state
        assert state is not None  # there is a state wherever there is a decoder of events
        try:
            is_understood = state.add(event)
        except _MALFORMED:
            is_understood = False
        if not is_understood:
            self._unread += 1
        if state.has_output and not self._first_output_seen:
            self._first_output_seen = True
            self._span.set_attribute(semconv.TIME_TO_FIRST_CHUNK, time.perf_counter() - self._started)

    def _answer(self, *, read: bool, broken_off: bool) -> dict[str, Any]:
        """The answer, as far as it is known."""
        if self._given is not None:
            return self._given
        document: bytes | None = b"".join(self._body)
        if self._state is not None and self._events is not None:
            document = self._events.document
            if document is None:
                return self._state.answer()
        if not document or not (read or broken_off):
            return {}
        answer = read_json(document)
        if isinstance(answer, dict):
            return answer
        if not broken_off:  # else the rest is missing, which is no fault of the document
            self._unread += 1
        return {}

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Keep an error of this SDK from the application, and remember that it happened."""
        failed = True
        with _guard:
            yield
            failed = False
        if failed:
            self._is_blind = True


calls_in_progress: Final[ContextVar[Sequence[ModelCall]]] = ContextVar("prela_stream_model_call", default=())
"""The call whose request runs in this context, or none. Set and reset within one call of the library, never across a yield.
In a list that is emptied at the end, because connections that are opened during the call keep a copy of the context."""


def call_in_progress() -> ModelCall | None:
    """The recorded call inside which this code runs."""
    return next(iter(calls_in_progress.get()), None)
