"""Answers that the client parses, threads that the server holds, and the client for Vertex: one right span for each request."""

import json
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from anthropic import Anthropic, AnthropicVertex, AsyncAnthropic, AsyncAnthropicVertex

from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from tests.integration.anthropic_client.conftest import Instrumented
from tests.integration.anthropic_client.test_anthropic_bodies import (
    BLOCK,
    END,
    REQUEST,
    SSE,
    WHOLE,
    delta,
    message,
)
from tests.support.model_api import ModelApi, Reply, serving_replies, sse


class City(pydantic.BaseModel):
    """What the model is asked for."""

    name: str


JSON_ANSWER = '{"name": "Paris"}'
PARSED = Reply(json.dumps(message(content=[{"type": "text", "text": JSON_ANSWER}])).encode())
PLAIN = Reply(json.dumps(message()).encode())
STREAM = Reply(WHOLE, content_type=SSE)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


@pytest.fixture
def api(server: ModelApi) -> ModelApi:
    server.reply = PARSED
    server.requests.clear()
    return server


def check(span: SpanData, text: str, provider: str = "anthropic") -> None:
    found = span.attributes
    assert (span.name, span.span_type, span.status) == ("chat claude-x", SpanType.LLM, SpanStatus.SUCCESS)
    assert found[semconv.PROVIDER_NAME] == provider
    assert found[semconv.REQUEST_MODEL] == found[semconv.RESPONSE_MODEL] == "claude-x"
    assert (found[semconv.INPUT_TOKENS], found[semconv.OUTPUT_TOKENS]) == (10, 25)
    assert found[semconv.FINISH_REASONS] == ["stop"]
    parts = [{"type": "text", "content": text}]
    assert found[semconv.OUTPUT_MESSAGES] == [{"role": "assistant", "parts": parts, "finish_reason": "stop"}]
    question = [{"type": "text", "content": "hi"}]
    assert found[semconv.INPUT_MESSAGES][-1] == {"role": "user", "parts": question}


@pytest.mark.parametrize("is_beta", [False, True])
def test_parse(api: ModelApi, instrumented: Instrumented, is_beta: bool) -> None:
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        messages: Any = client.beta.messages if is_beta else client.messages
        expected = messages.parse(**REQUEST, output_format=City)
        with instrumented() as captured:
            found = messages.parse(**REQUEST, output_format=City)
    assert (found, type(found), found.parsed_output) == (expected, type(expected), City(name="Paris"))
    assert api.requests[0] == api.requests[1]
    (span,) = captured.spans
    check(span, JSON_ANSWER)


@pytest.mark.parametrize("is_beta", [False, True])
async def test_parse_async(api: ModelApi, instrumented: Instrumented, is_beta: bool) -> None:
    async with AsyncAnthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        messages: Any = client.beta.messages if is_beta else client.messages
        expected = await messages.parse(**REQUEST, output_format=City)
        with instrumented() as captured:
            found = await messages.parse(**REQUEST, output_format=City)
    assert (found, type(found), found.parsed_output) == (expected, type(expected), City(name="Paris"))
    (span,) = captured.spans
    check(span, JSON_ANSWER)


def test_an_answer_that_does_not_parse_has_its_error_and_its_tokens(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = PLAIN
    client = Anthropic(base_url=api.url, api_key="k", max_retries=0)
    with client, instrumented() as captured, pytest.raises(pydantic.ValidationError):
        client.messages.parse(**REQUEST, output_format=City)
    (span,) = captured.spans
    assert span.status is SpanStatus.ERROR
    assert (span.attributes[semconv.INPUT_TOKENS], span.attributes[semconv.OUTPUT_TOKENS]) == (10, 25)


HI: Any = {"role": "user", "content": "hi"}


def check_turns(spans: list[SpanData]) -> None:
    first, second = spans
    check(first, JSON_ANSWER)
    check(second, JSON_ANSWER)
    assert semconv.REQUEST_PREVIOUS_RESPONSE_ID not in first.attributes
    assert second.attributes[semconv.REQUEST_PREVIOUS_RESPONSE_ID] == "msg_1"


THREAD = {"type": "message_thread", "id": "thread_1"}
HELD = Reply(json.dumps(message(content=[{"type": "text", "text": JSON_ANSWER}], thread=THREAD)).encode())


HELD_START = {"type": "message_start", "message": message(content=[], stop_reason=None, thread=THREAD)}
HELD_STREAM = Reply(
    sse(HELD_START, BLOCK, delta(JSON_ANSWER[:7]), delta(JSON_ANSWER[7:]), *END),
    content_type=SSE,
)


def test_a_thread_that_the_server_holds(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = HELD
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        plain = client.beta.messages.thread(model="claude-x", max_tokens=64)
        expected = [plain.send(HI), plain.send(HI)]
        with instrumented() as captured:
            thread = client.beta.messages.thread(model="claude-x", max_tokens=64)
            assert [thread.send(HI), thread.send(HI)] == expected
    assert list(thread.messages) == list(plain.messages)
    assert api.requests[:2] == api.requests[2:]
    check_turns(captured.spans)


async def test_a_thread_that_the_server_holds_async(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = HELD
    async with AsyncAnthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        plain = client.beta.messages.thread(model="claude-x", max_tokens=64)
        expected = [await plain.send(HI), await plain.send(HI)]
        with instrumented() as captured:
            thread = client.beta.messages.thread(model="claude-x", max_tokens=64)
            assert [await thread.send(HI), await thread.send(HI)] == expected
    check_turns(captured.spans)


@pytest.mark.parametrize("how", ["parse", "stream"])
def test_a_thread_that_parses_or_streams(api: ModelApi, instrumented: Instrumented, how: str) -> None:
    def turns() -> list[Any]:
        thread: Any = client.beta.messages.thread(model="claude-x", max_tokens=64, output_format=City)
        found: list[Any] = []
        for _ in range(2):
            if how == "parse":
                found.append(thread.parse(HI))
            else:
                with thread.stream(HI) as stream:
                    found.append((list(stream.text_stream), stream.get_final_message()))
        return [*found, list(thread.messages), thread.previous_message_id]

    api.reply = HELD if how == "parse" else HELD_STREAM
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        expected = turns()
        with instrumented() as captured:
            assert turns() == expected
    assert api.requests[:2] == api.requests[2:]
    assert len(api.requests) == 4
    check_turns(captured.spans)


@pytest.mark.parametrize("how", ["parse", "stream"])
async def test_a_thread_that_parses_or_streams_async(api: ModelApi, instrumented: Instrumented, how: str) -> None:
    async def turns() -> list[Any]:
        thread: Any = client.beta.messages.thread(model="claude-x", max_tokens=64, output_format=City)
        found: list[Any] = []
        for _ in range(2):
            if how == "parse":
                found.append(await thread.parse(HI))
            else:
                async with thread.stream(HI) as stream:
                    found.append(([text async for text in stream.text_stream], await stream.get_final_message()))
        return [*found, list(thread.messages), thread.previous_message_id]

    api.reply = HELD if how == "parse" else HELD_STREAM
    async with AsyncAnthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        expected = await turns()
        with instrumented() as captured:
            assert await turns() == expected
    assert api.requests[:2] == api.requests[2:]
    assert len(api.requests) == 4
    check_turns(captured.spans)


def vertex(api: ModelApi) -> AnthropicVertex:
    return AnthropicVertex(region="us-east5", project_id="p", access_token="t", base_url=api.url, max_retries=0)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_client_for_vertex(api: ModelApi, instrumented: Instrumented, streaming: bool) -> None:
    def call(client: AnthropicVertex) -> Any:
        if not streaming:
            return client.messages.create(**REQUEST)
        with client.messages.stream(**REQUEST) as stream:
            return list(stream.text_stream), stream.get_final_message()

    api.reply = STREAM if streaming else PLAIN
    with vertex(api) as client:
        expected = call(client)
        with instrumented() as captured:
            assert call(client) == expected
    assert api.requests[0] == api.requests[1]
    assert api.requests[0][0].endswith("claude-x:streamRawPredict" if streaming else "claude-x:rawPredict")
    (span,) = captured.spans
    check(span, "Hello", "gcp.vertex_ai")


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_async_client_for_vertex(api: ModelApi, instrumented: Instrumented, streaming: bool) -> None:
    async def call(client: AsyncAnthropicVertex) -> Any:
        if not streaming:
            return await client.messages.create(**REQUEST)
        return [event.type async for event in await client.messages.create(**REQUEST, stream=True)]

    api.reply = STREAM if streaming else PLAIN
    client = AsyncAnthropicVertex(region="us-east5", project_id="p", access_token="t", base_url=api.url, max_retries=0)
    async with client:
        expected = await call(client)
        with instrumented() as captured:
            assert await call(client) == expected
    (span,) = captured.spans
    check(span, "Hello", "gcp.vertex_ai")


def test_retries_of_the_client_for_vertex_are_events_of_one_span(api: ModelApi, instrumented: Instrumented) -> None:
    """The client changes path and body of each attempt."""
    api.reply = PLAIN
    api.replies = iter([Reply(b"{}", status=529, headers={"retry-after-ms": "1"})])
    with vertex(api) as client, instrumented() as captured:
        client.with_options(max_retries=1).messages.create(**REQUEST)
    (span,) = captured.spans
    check(span, "Hello", "gcp.vertex_ai")
    assert span.attributes[semconv.RESEND_COUNT] == 1
    assert [event.name for event in span.events if event.name == "retry"] == ["retry"]
