"""What else an application does with a client: the same result as without instrumentation, and no span lost or doubled.

Each way runs with `anthropic` and `openai`, twice over real HTTP. It uses the requests and answers of the table of scenarios.
"""

import asyncio
import gzip
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.tracer import get_tracer
from tests.support import anthropic_scenarios, openai_scenarios
from tests.support.model_api import ModelApi, Reply, serving_replies
from tests.support.scenarios import Row, raised

OK, ERROR, EARLY = SpanStatus.SUCCESS, SpanStatus.ERROR, "closed early"


class Library(NamedTuple):
    """One client library."""

    name: str
    sync: Callable[..., Any]
    asynchronous: Callable[..., Any]
    rows: dict[str, Row]
    http_client: Callable[..., Any]
    create: Callable[[Any], Any]
    open_stream: Callable[[Any], Any]
    open_stream_async: Callable[[Any], Any]
    open_helper: Callable[[Any], Any]

    def client(self, url: str, **options: Any) -> Any:
        """A sync client."""
        return self.sync(base_url=url, api_key="k", **options)

    def replies(self, name: str) -> list[Reply]:
        """What the server sends in a scenario, with an open gate."""
        gate = threading.Event()
        gate.set()
        return self.rows[name].replies(gate)


def openai_helper(client: Any) -> Any:
    """Where `stream` is; before openai 1.92 it is a beta."""
    return client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions


ANTHROPIC = Library(
    "anthropic", anthropic.Anthropic, anthropic.AsyncAnthropic, anthropic_scenarios.ROWS, anthropic.DefaultHttpxClient,
    anthropic_scenarios.create,
    lambda client: client.messages.create(**anthropic_scenarios.STREAMED),
    lambda client: client.messages.create(**anthropic_scenarios.STREAMED),
    lambda client: client.messages.stream(**anthropic_scenarios.REQUEST),
)  # fmt: skip
OPENAI = Library(
    "openai", openai.OpenAI, openai.AsyncOpenAI, openai_scenarios.ROWS, openai.DefaultHttpxClient,
    openai_scenarios.create,
    lambda client: client.chat.completions.create(**openai_scenarios.STREAMED),
    lambda client: client.chat.completions.create(**openai_scenarios.STREAMED),
    lambda client: openai_helper(client).stream(**openai_scenarios.HELPER),
)  # fmt: skip
both = pytest.mark.parametrize("library", [ANTHROPIC, OPENAI], ids=lambda library: str(library.name))


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


def compressed(reply: Reply) -> Reply:
    body = gzip.compress(b"".join(reply.pieces))
    half = len(body) // 2
    headers = {"content-encoding": "gzip"}
    return Reply(pieces=[body[:half], body[half:]], content_type=reply.content_type, headers=headers)


def cut(reply: Reply) -> Reply:
    return Reply(pieces=reply.pieces[:1], content_type=reply.content_type, is_cut=True)


LIMITED = Reply(b'{"error": {"message": "slow down"}}', status=429, headers={"retry-after": "0.001"})
PAGE = Reply(b"<html>Bad gateway</html>", status=502, content_type="text/html")
EMPTY = Reply(b"", status=500, content_type=None)


# --- what the application does ---


def call(library: Library, url: str, **options: Any) -> Any:
    with library.client(url, **options) as client:
        return library.create(client)


def read(library: Library, url: str, **options: Any) -> Any:
    with library.client(url, **options) as client:
        return list(library.open_stream(client))


def failing(what: Callable[..., Any]) -> Callable[..., Any]:
    def attempt(library: Library, url: str) -> Any:
        try:
            return what(library, url, max_retries=0)
        except Exception as error:  # noqa: BLE001 - whatever the client raises
            return raised(error), raised(error.__cause__) if error.__cause__ else None

    return attempt


def iterate_twice(library: Library, url: str) -> Any:
    with library.client(url) as client:
        stream = library.open_stream(client)
        first = list(stream)
        again: list[Any] = []
        try:
            again += list(stream)
        except Exception as error:  # noqa: BLE001 - whatever the client raises
            again.append(raised(error))
        return first, again


def close_twice(library: Library, url: str) -> Any:
    with library.client(url) as client:
        stream = library.open_stream(client)
        next(iter(stream))
        stream.close()
        stream.close()
        return stream.response.is_closed


def raise_in_the_block(library: Library, url: str) -> Any:
    with library.client(url) as client:
        try:
            with library.open_helper(client) as stream:
                next(iter(stream))
                raise LookupError("of the application")
        except LookupError as error:
            return raised(error)


def read_in_a_thread(library: Library, url: str) -> Any:
    with library.client(url) as client, ThreadPoolExecutor(1) as pool:
        return pool.submit(list, library.open_stream(client)).result()


def read_the_response(library: Library, url: str) -> Any:
    """Below the stream: the lines of the response of httpx."""
    with library.client(url) as client:
        return list(library.open_stream(client).response.iter_lines())


def with_hooks(library: Library, url: str) -> Any:
    """Hooks of the HTTP client, one of which reads each body before the client does."""
    seen: list[str] = []
    hooks = {
        "request": [lambda request: seen.append(request.method)],
        "response": [lambda response: seen.append(str(len(response.read())))],
    }
    with library.client(url, http_client=library.http_client(http2=False, event_hooks=hooks)) as client:
        return library.create(client), list(library.open_stream(client)), seen


def subclassed(library: Library, url: str) -> Any:
    kind: Any = library.sync

    class Company(kind):  # type: ignore[misc]  # of either library
        """Counts its requests."""

        made = 0

        def request(self, *args: Any, **kwargs: Any) -> Any:
            type(self).made += 1
            return super().request(*args, **kwargs)

    with Company(base_url=url, api_key="k") as client:
        return library.create(client), library.create(client.with_options(max_retries=1)), client.made


def copied(library: Library, url: str) -> Any:
    with library.client(url) as client:
        copy = client.with_options(timeout=30, default_headers={"x-team": "a"})
        return library.create(copy), library.create(copy.copy()), library.create(client)


def pickled(library: Library, url: str) -> Any:
    found = call(library, url)
    return pickle.loads(pickle.dumps(found)), pickle.loads(pickle.dumps(list(read(library, url))))


class Way(NamedTuple):
    """One way of use."""

    replies: Callable[[Library], list[Reply]]
    use: Callable[[Library, str], Any]
    statuses: tuple[SpanStatus | str, ...]
    retries: int | None = None
    error_type: str | None = None


WHOLE, STREAM = "create", "create a stream and read it"
WAYS: dict[str, Way] = {
    "429 with Retry-After, then an answer": Way(lambda one: [LIMITED, *one.replies(WHOLE)], call, (OK,), 1),
    "429 with Retry-After, then a stream": Way(lambda one: [LIMITED, *one.replies(STREAM)], read, (OK,), 1),
    "an error page": Way(lambda _: [PAGE], failing(call), (ERROR,), None, "502"),
    "an error page for a stream": Way(lambda _: [PAGE], failing(read), (ERROR,), None, "502"),
    "an empty error": Way(lambda _: [EMPTY], failing(call), (ERROR,), None, "500"),
    "a compressed answer": Way(lambda one: [compressed(*one.replies(WHOLE))], call, (OK,)),
    "a compressed stream": Way(lambda one: [compressed(*one.replies(STREAM))], read, (OK,)),
    "an answer whose connection breaks": Way(
        lambda one: [cut(*one.replies(WHOLE))], failing(call), (ERROR,), None, "connection_error"
    ),
    "a stream whose connection breaks": Way(
        lambda one: [cut(*one.replies(STREAM))], failing(read), (ERROR,), None, "connection_error"
    ),
    "iterated twice": Way(lambda one: one.replies(STREAM), iterate_twice, (OK,)),
    "closed twice": Way(lambda one: [cut(*one.replies(STREAM))], close_twice, (EARLY,)),
    "an error in the block": Way(lambda one: [cut(*one.replies(STREAM))], raise_in_the_block, (EARLY,)),
    "read in a thread": Way(lambda one: one.replies(STREAM), read_in_a_thread, (OK,)),
    "lines of the response": Way(lambda one: one.replies(STREAM), read_the_response, (OK,)),
    "hooks that read": Way(lambda one: one.replies(WHOLE) + one.replies(STREAM), with_hooks, (OK, OK)),
    "a subclass": Way(lambda one: one.replies(WHOLE) * 2, subclassed, (OK, OK)),
    "copies": Way(lambda one: one.replies(WHOLE) * 3, copied, (OK, OK, OK)),
    "pickled": Way(lambda one: one.replies(WHOLE) + one.replies(STREAM), pickled, (OK, OK)),
}


def status_of(span: SpanData) -> SpanStatus | str:
    return EARLY if span.attributes.get("prela.stream.closed_early") else span.status


def check(captured: CapturedSpans, way: Way, application: str) -> None:
    spans = [span for span in captured.spans if span.name != "application"]
    assert [status_of(span) for span in spans] == list(way.statuses)
    assert {span.parent_span_id for span in spans} == {application}
    for span in spans:
        assert span.attributes.get(semconv.RESEND_COUNT) == way.retries
        assert span.attributes.get(semconv.ERROR_TYPE) == way.error_type
        assert (span.attributes.get(semconv.OUTPUT_TOKENS) == 25) is (status_of(span) is OK)
        assert (semconv.ERROR_MESSAGE in span.attributes) is (span.status is ERROR)


@both
@pytest.mark.parametrize("name", WAYS)
def test_a_way_of_use(server: ModelApi, library: Library, name: str) -> None:
    way = WAYS[name]
    server.replies = iter(way.replies(library))
    expected = way.use(library, server.url)
    with capture_spans() as captured:
        auto_instrument(names=[library.name])
        try:
            server.replies = iter(way.replies(library))
            with get_tracer().span("application") as application:
                assert way.use(library, server.url) == expected
        finally:
            uninstrument()
    check(captured, way, application.span_id)


@both
def test_a_client_from_before_and_a_stream_from_before(server: ModelApi, library: Library) -> None:
    """A client that has been used is traced from now on; a stream that is open already is left alone."""
    server.replies = iter(library.replies(STREAM) + library.replies(WHOLE) * 2)
    with library.client(server.url) as client:
        begun = library.open_stream(client)
        expected = library.create(client)
        with capture_spans() as captured:
            auto_instrument(names=[library.name])
            try:
                assert library.create(client) == expected
                assert list(begun)
            finally:
                uninstrument()
    assert [span.status for span in captured.spans] == [OK]


@both
async def test_concurrent_streams_of_a_task_group(server: ModelApi, library: Library) -> None:
    server.replies = iter(library.replies(STREAM) * 8)

    async def agent(client: Any, number: int, streams: dict[int, Any]) -> None:
        async with get_tracer().span(f"agent {number}") as span:
            stream = await library.open_stream_async(client)
            streams[number] = span.span_id, [event async for event in stream]

    streams: dict[int, Any] = {}
    with capture_spans() as captured:
        auto_instrument(names=[library.name])
        try:
            async with library.asynchronous(base_url=server.url, api_key="k") as client, asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(agent(client, number, streams))
        finally:
            uninstrument()
    calls = [span for span in captured.spans if span.name.startswith("chat")]
    assert sorted(str(span.parent_span_id) for span in calls) == sorted(parent for parent, _ in streams.values())
    assert [(span.status, span.attributes[semconv.OUTPUT_TOKENS]) for span in calls] == [(OK, 25)] * 8
    assert all(events == streams[0][1] for _, events in streams.values())


@both
async def test_a_stream_that_another_task_reads(server: ModelApi, library: Library) -> None:
    server.replies = iter(library.replies(STREAM))

    async def read_all(stream: Any) -> list[Any]:
        async with get_tracer().span("reader"):
            return [event async for event in stream]

    with capture_spans() as captured:
        auto_instrument(names=[library.name])
        try:
            async with library.asynchronous(base_url=server.url, api_key="k") as client:
                async with get_tracer().span("opener") as opener:
                    stream = await library.open_stream_async(client)
                assert await asyncio.create_task(read_all(stream))
        finally:
            uninstrument()
    (call_span,) = [span for span in captured.spans if span.name.startswith("chat")]
    assert (call_span.parent_span_id, call_span.status) == (opener.span_id, OK)


@both
@pytest.mark.parametrize("is_begun", [False, True], ids=["before the answer", "in the middle"])
def test_a_timeout(server: ModelApi, library: Library, is_begun: bool) -> None:
    """The server waits until the client has given up."""
    gate = threading.Event()
    (whole,) = library.replies(STREAM)
    pieces = whole.pieces if is_begun else [b"".join(whole.pieces)]
    server.replies = iter([Reply(pieces=pieces, content_type=whole.content_type, gate=gate)])
    with capture_spans() as captured:
        auto_instrument(names=[library.name])
        try:
            with library.client(server.url, timeout=0.3, max_retries=0) as client, suppress(Exception):
                list(library.open_stream(client))
                pytest.fail("there was no timeout")
        finally:
            gate.set()
            uninstrument()
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.FINISH_REASONS]) == (ERROR, ["error"])
    assert span.attributes[semconv.ERROR_TYPE] in ("client_timeout_error", "connection_error")
