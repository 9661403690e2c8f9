"""What every instrumentor guarantees: one function per guarantee, run on a real client against recorded answers over HTTP.

A new instrumentor needs a row in `instrumentor_rows.py` and nothing here. Each function gets the instrumentor and its row. It
fails with a message that names what is missing.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import pytest

from prela_stream.instrumentation.base import Instrumentor
from prela_stream.instrumentation.llm_call import CLOSED_EARLY, ModelCall
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.privacy.rules import capture_content
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.tracer import get_tracer
from tests.support.model_api import ModelApi, Reply

PROMPT = "the prompt of the contract"
TOOL = "the tool of the contract"
ANSWER = "the answer of the contract"
MODEL = "contract-model"
DEADLINE = 30
"""Seconds until a check that waits has failed."""


class Library(Protocol):
    """Uses one client library: each method sends PROMPT and the definition of TOOL to MODEL, with no or one retry."""

    def create(self, url: str, *, retries: int = 0) -> object:
        """A whole answer, from the sync client."""
        ...

    def create_async(self, url: str) -> Awaitable[object]:
        """A whole answer, from the async client."""
        ...

    def stream(self, url: str) -> AbstractContextManager[Iterator[object]]:
        """A streamed answer, from the sync client; closed with the block."""
        ...

    def stream_async(self, url: str) -> AbstractAsyncContextManager[AsyncIterator[object]]:
        """A streamed answer, from the async client; closed with the block."""
        ...

    def patched(self) -> list[tuple[type, str]]:
        """Every attribute that the instrumentor replaces."""
        ...


class Row(NamedTuple):
    """One library with recorded answers of its API, which all contain ANSWER."""

    library: Library
    provider: str
    whole: bytes
    stream: list[bytes]
    """In two pieces, with some text of the answer in the first one."""
    failure: tuple[int, bytes, str]
    """HTTP status and body of an error that is not retried, and the `error.type` that it gives."""
    overloaded: tuple[int, bytes]
    """HTTP status and body of an error that is retried."""
    input_tokens: int
    output_tokens: int
    finish_reason: str


class Subject(NamedTuple):
    """What a check works with."""

    instrumentor: Instrumentor
    make: Callable[[], Instrumentor]
    """Makes another one, as a second layer would."""
    row: Row
    api: ModelApi

    @contextmanager
    def on(self, reply: Reply, *, content: bool = True) -> Iterator[CapturedSpans]:
        """A block in which calls get this reply and are traced."""
        self.api.reply = reply
        with capture_spans() as captured:
            self.instrumentor.instrument(get_tracer(), InstrumentationOptions(capture_content=content))
            try:
                yield captured
            finally:
                self.instrumentor.uninstrument()

    @property
    def whole(self) -> Reply:
        """A whole answer."""
        return Reply(self.row.whole)

    @property
    def streamed(self) -> Reply:
        """A streamed answer."""
        return Reply(pieces=self.row.stream, content_type="text/event-stream")


Check = Callable[[Subject], Awaitable[None] | None]


def the_span(captured: CapturedSpans, what: str) -> SpanData:
    """The one LLM span that was captured."""
    spans = [span for span in captured.spans if span.span_type is SpanType.LLM]
    assert len(spans) == 1, f"{what}: expected exactly one LLM span, got {len(spans)}"
    return spans[0]


def assert_answered(span: SpanData, row: Row, what: str, *, retries: int | None = None) -> None:
    """Everything that a whole answer gives."""
    expected = {
        semconv.PROVIDER_NAME: row.provider,
        semconv.REQUEST_MODEL: MODEL,
        semconv.INPUT_TOKENS: row.input_tokens,
        semconv.OUTPUT_TOKENS: row.output_tokens,
        semconv.FINISH_REASONS: [row.finish_reason],
        "http.response.status_code": 200,
        semconv.RESEND_COUNT: retries,
    }
    found = {key: span.attributes.get(key) for key in expected}
    assert span.status is SpanStatus.SUCCESS, f"{what}: the status of a whole answer is {span.status}"
    assert found == expected, f"{what}: attributes differ"
    assert span.attributes.get(semconv.RESPONSE_ID), f"{what}: the id of the response is missing"


def assert_content(span: SpanData, what: str) -> None:
    """Prompt, tool and answer are on the span."""
    for name, text, key in (
        ("prompt", PROMPT, semconv.INPUT_MESSAGES),
        ("tool definition", TOOL, semconv.TOOL_DEFINITIONS),
        ("answer", ANSWER, semconv.OUTPUT_MESSAGES),
    ):
        assert text in repr(span.attributes.get(key)), f"{what}: the {name} is missing"


def assert_no_content(captured: CapturedSpans, what: str) -> None:
    """Prompt, tool and answer are nowhere in what was captured."""
    for name, text in (("prompt", PROMPT), ("tool definition", TOOL), ("answer", ANSWER)):
        assert not any(text.encode() in item for item in captured.items), (
            f"{what}: capture_content is ignored for the {name}"
        )


def sync_call(subject: Subject) -> None:
    """A sync call gives one span with content."""
    with subject.on(subject.whole) as captured, get_tracer().span("agent") as agent:
        subject.row.library.create(subject.api.url)
        span = the_span(captured, "sync call")
    assert_answered(span, subject.row, "sync call")
    assert_content(span, "sync call")
    assert span.parent_span_id == agent.span_id, "sync call: the span is not below the current span"


async def async_call(subject: Subject) -> None:
    """An async call gives one span with content."""
    with subject.on(subject.whole) as captured:
        async with get_tracer().span("agent") as agent:
            await subject.row.library.create_async(subject.api.url)
            span = the_span(captured, "async call")
    assert_answered(span, subject.row, "async call")
    assert_content(span, "async call")
    assert span.parent_span_id == agent.span_id, "async call: the span is not below the current span"


def assert_streamed(span: SpanData, row: Row, what: str) -> None:
    """As `assert_answered`, for a stream that was read to its end."""
    assert_answered(span, row, what)
    assert_content(span, what)
    assert span.attributes.get(semconv.REQUEST_STREAM) is True, f"{what}: {semconv.REQUEST_STREAM} is missing"
    assert semconv.TIME_TO_FIRST_CHUNK in span.attributes, f"{what}: {semconv.TIME_TO_FIRST_CHUNK} is missing"
    assert CLOSED_EARLY not in span.attributes, f"{what}: a stream that was read to its end is marked as closed early"


def sync_stream(subject: Subject) -> None:
    """A sync stream gives one span, which ends when the stream was read."""
    with subject.on(subject.streamed) as captured:
        with subject.row.library.stream(subject.api.url) as stream:
            assert not captured.spans, "sync stream: the span ends before the stream was read"
            assert list(stream)
        assert_streamed(the_span(captured, "sync stream"), subject.row, "sync stream")


async def async_stream(subject: Subject) -> None:
    """An async stream gives one span, which ends when the stream was read."""
    with subject.on(subject.streamed) as captured:
        async with subject.row.library.stream_async(subject.api.url) as stream:
            assert not captured.spans, "async stream: the span ends before the stream was read"
            assert [event async for event in stream]
        assert_streamed(the_span(captured, "async stream"), subject.row, "async stream")


def assert_closed_early(span: SpanData, what: str) -> None:
    """A stream that the application left is no error, and its output tokens are unknown."""
    assert span.status is SpanStatus.SUCCESS, f"{what}: the status is {span.status}"
    assert span.attributes.get(CLOSED_EARLY) is True, f"{what}: {CLOSED_EARLY} is missing"
    assert semconv.OUTPUT_TOKENS not in span.attributes, f"{what}: output tokens are made up"


def early_break(subject: Subject) -> None:
    """A stream that is left early ends its span, sync."""
    gate = threading.Event()
    with subject.on(Reply(pieces=subject.row.stream, content_type="text/event-stream", gate=gate)) as captured:
        with subject.row.library.stream(subject.api.url) as stream:
            next(stream)
        gate.set()
        assert_closed_early(the_span(captured, "early break"), "early break")


async def early_break_async(subject: Subject) -> None:
    """A stream that is left early ends its span, async."""
    gate = threading.Event()
    with subject.on(Reply(pieces=subject.row.stream, content_type="text/event-stream", gate=gate)) as captured:
        async with subject.row.library.stream_async(subject.api.url) as stream:
            await anext(stream)
        gate.set()
        assert_closed_early(the_span(captured, "early break, async"), "early break, async")


def assert_failed(span: SpanData, row: Row, what: str) -> None:
    """An error has a status, a type, a message and a finish reason."""
    status, _, kind = row.failure
    assert span.status is SpanStatus.ERROR, f"{what}: the status is {span.status}"
    assert span.attributes.get(semconv.ERROR_TYPE) == kind, f"{what}: {semconv.ERROR_TYPE} differs"
    assert span.attributes.get("http.response.status_code") == status, f"{what}: the HTTP status differs"
    assert span.status_message, f"{what}: the status message is missing"
    assert span.attributes.get(semconv.FINISH_REASONS) == ["error"], f"{what}: the finish reason is not error"


def error(subject: Subject) -> None:
    """The application gets the library's own error, and the span has it, sync."""
    status, body, _ = subject.row.failure
    subject.api.reply = Reply(body, status=status)
    with pytest.raises(Exception) as expected:  # noqa: PT011 - the type is what the library raises
        subject.row.library.create(subject.api.url)
    with subject.on(Reply(body, status=status)) as captured, pytest.raises(expected.type) as raised:
        subject.row.library.create(subject.api.url)
    assert (raised.type, str(raised.value)) == (expected.type, str(expected.value)), (
        "error: the library's error changes"
    )
    assert_failed(the_span(captured, "error"), subject.row, "error")


async def error_async(subject: Subject) -> None:
    """The span has the library's error, async."""
    status, body, _ = subject.row.failure
    with subject.on(Reply(body, status=status)) as captured, pytest.raises(Exception):  # noqa: B017, PT011 - as above
        await subject.row.library.create_async(subject.api.url)
    assert_failed(the_span(captured, "error, async"), subject.row, "error, async")


def retry(subject: Subject) -> None:
    """An attempt that is repeated is an event of the one span."""
    status, body = subject.row.overloaded
    replies = iter([Reply(body, status=status, headers={"retry-after-ms": "1"}), subject.whole])
    with subject.on(subject.whole) as captured:
        subject.api.replies = replies
        subject.row.library.create(subject.api.url, retries=1)
    span = the_span(captured, "retry")
    assert_answered(span, subject.row, "retry", retries=1)
    assert [event.name for event in span.events] == ["llm.request", "retry", "llm.response"], (
        "retry: an event is missing"
    )


async def cancellation(subject: Subject) -> None:
    """A task that is cancelled in the middle of a stream ends its span as CANCELLED."""
    gate, started = threading.Event(), asyncio.Event()

    async def read() -> None:
        async with subject.row.library.stream_async(subject.api.url) as stream:
            async for _ in stream:
                started.set()

    with subject.on(Reply(pieces=subject.row.stream, content_type="text/event-stream", gate=gate)) as captured:
        task = asyncio.create_task(read())
        await asyncio.wait_for(started.wait(), DEADLINE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        span = the_span(captured, "cancellation")
    assert span.status is SpanStatus.CANCELLED, f"cancellation: the status is {span.status}"


def content_off(subject: Subject) -> None:
    """Without content the numbers stay, sync, whole and streamed."""
    with subject.on(subject.whole, content=False) as captured:
        subject.row.library.create(subject.api.url)
        assert_answered(the_span(captured, "content off"), subject.row, "content off")
        assert_no_content(captured, "content off")
    with subject.on(subject.streamed, content=False) as captured:
        with subject.row.library.stream(subject.api.url) as stream:
            assert list(stream)
        assert_answered(the_span(captured, "content off, stream"), subject.row, "content off, stream")
        assert_no_content(captured, "content off, stream")


async def content_off_async(subject: Subject) -> None:
    """Without content the numbers stay, async, whole and streamed."""
    with subject.on(subject.whole, content=False) as captured:
        await subject.row.library.create_async(subject.api.url)
        assert_answered(the_span(captured, "content off, async"), subject.row, "content off, async")
        assert_no_content(captured, "content off, async")
    with subject.on(subject.streamed, content=False) as captured:
        async with subject.row.library.stream_async(subject.api.url) as stream:
            assert [event async for event in stream]
        assert_no_content(captured, "content off, async stream")


def content_off_in_a_block(subject: Subject) -> None:
    """`capture_content(False)` holds for the calls in its block."""
    with subject.on(subject.whole) as captured, capture_content(False):
        subject.row.library.create(subject.api.url)
    assert_no_content(captured, "content off in a block")


def uninstrument(subject: Subject) -> None:
    """Uninstrumenting restores the very same objects, and nothing is recorded after it."""
    places = subject.row.library.patched()
    assert places, "uninstrument: the row names no patched attribute"
    before = [vars(owner)[name] for owner, name in places]
    with subject.on(subject.whole) as captured:
        during = [vars(owner)[name] for owner, name in places]
        subject.instrumentor.instrument(get_tracer(), InstrumentationOptions())
        assert [vars(owner)[name] for owner, name in places] == during, (
            "uninstrument: a second instrument() patches again"
        )
    after = [vars(owner)[name] for owner, name in places]
    for (owner, name), old, new, patched in zip(places, before, after, during, strict=True):
        assert new is old, f"uninstrument: {owner.__name__}.{name} is not restored"
        assert patched is not old, f"uninstrument: {owner.__name__}.{name} is not patched"
        kind = inspect.iscoroutinefunction(old)
        assert inspect.iscoroutinefunction(patched) is kind, f"uninstrument: {owner.__name__}.{name} changes its kind"
    subject.row.library.create(subject.api.url)
    assert not captured.spans, "uninstrument: calls are recorded after it"


def one_span_in_two_layers(subject: Subject) -> None:
    """A call that passes two instrumented layers gives one span: of the same library, or of a library above it."""
    second = subject.make()
    with subject.on(subject.whole) as captured:
        second.instrument(get_tracer(), InstrumentationOptions())
        try:
            subject.row.library.create(subject.api.url)
        finally:
            second.uninstrument()
        assert_answered(the_span(captured, "two layers of one library"), subject.row, "two layers of one library")
    with subject.on(subject.whole) as captured:
        outer = get_tracer().start_span("outer", span_type=SpanType.LLM)
        other: Any = OtherProvider()
        with ModelCall(outer, other, other, request=other, streaming=False, content=True) as call:
            call.returned(subject.row.library.create(subject.api.url))
        the_span(captured, "a library above this one")


class OtherProvider:
    """A provider and operation of a library above the one under test; it maps nothing."""

    module = "other"
    request_id = ("request-id", "other.request.id")
    name = "chat"
    span_type = SpanType.LLM
    price_flavor: str | None = None

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {}

    request_content = request_attributes

    def response_attributes(self, answer: object, *, content: bool) -> dict[str, Any]:
        """As `Operation.response_attributes`."""
        return {semconv.OPERATION_NAME: "chat"}

    def response_failure(self, answer: object) -> None:
        """As `Operation.response_failure`."""


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        sync_call,
        async_call,
        sync_stream,
        async_stream,
        early_break,
        early_break_async,
        error,
        error_async,
        retry,
        cancellation,
        content_off,
        content_off_async,
        content_off_in_a_block,
        uninstrument,
        one_span_in_two_layers,
    )
}
"""Every guarantee, by name."""


async def run(check: Check, subject: Subject) -> None:
    """Run one check, sync or async."""
    result = check(subject)
    if result is not None:
        await result
