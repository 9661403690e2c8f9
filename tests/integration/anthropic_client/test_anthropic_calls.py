"""Every way to request a message that succeeds: one LLM span with the true tokens, and no difference for the application.

Each scenario runs twice over real HTTP, without and with instrumentation, and must give the same. The usual ways are in the
table of scenarios (`tests/support/anthropic_scenarios.py`).
"""

from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, Stream

from prela_stream.instrumentation.anthropic.client import REQUEST_ID
from prela_stream.instrumentation.anthropic.messages import COUNTED_TOKENS
from prela_stream.instrumentation.llm_call import CLOSED_EARLY
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.tracing.tracer import get_tracer
from tests.integration.anthropic_client.conftest import Instrumented

SYSTEM = "You are careful. " * 30
REQUEST: dict[str, Any] = {
    "model": "claude-demo",
    "max_tokens": 99,
    "system": SYSTEM,
    "messages": [{"role": "user", "content": "What about lithium?"}],
}
TWICE_OVERLOADED = {"x-demo-behaviour": "overloaded"}


def create(client: Anthropic) -> Any:
    return client.messages.create(**REQUEST)


def create_streaming(client: Anthropic) -> Any:
    stream = client.messages.create(**REQUEST, stream=True)
    assert isinstance(stream, Stream)
    return list(stream)


def create_streaming_by_next(client: Anthropic) -> Any:
    with client.messages.create(**REQUEST, stream=True) as stream:
        return [next(stream), *stream]


def raw_response(client: Anthropic) -> Any:
    response = client.messages.with_raw_response.create(**REQUEST)
    assert response.retries_taken == 0
    return response.status_code, response.request_id, response.parse(), response.http_response.json()


def streaming_response_parsed(client: Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**REQUEST) as response:
        return response.parse()


def streaming_response_lines(client: Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
        return list(response.iter_lines())


def beta_stream(client: Anthropic) -> Any:
    with client.beta.messages.stream(**REQUEST) as stream:
        return stream.get_final_message()


def create_after_retries(client: Anthropic) -> Any:
    return client.messages.create(**REQUEST, extra_headers=TWICE_OVERLOADED)


def with_middleware(client: Anthropic) -> Any:
    return client.with_options(middleware=[lambda request, call_next: call_next(request)]).messages.create(**REQUEST)


SYNC: list[Callable[[Anthropic], Any]] = [
    create_streaming_by_next,
    streaming_response_parsed,
    streaming_response_lines,
    beta_stream,
    with_middleware,
]


async def async_create(client: AsyncAnthropic) -> Any:
    return await client.messages.create(**REQUEST)


async def async_streaming_response_lines(client: AsyncAnthropic) -> Any:
    async with client.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
        return [line async for line in response.iter_lines()]


ASYNC: list[Callable[[AsyncAnthropic], Awaitable[Any]]] = [async_streaming_response_lines]


def check_whole(span: SpanData, truth: anthropic.types.Message, parent: str) -> None:
    """The span has everything that the message has, to the token."""
    usage = truth.usage
    written, read = usage.cache_creation_input_tokens, usage.cache_read_input_tokens
    assert written
    assert read == 0
    found = span.attributes
    assert (span.name, span.span_type, span.status) == ("chat claude-demo", SpanType.LLM, SpanStatus.SUCCESS)
    assert span.parent_span_id == parent
    assert found[semconv.OPERATION_NAME] == "chat"
    assert found[semconv.PROVIDER_NAME] == "anthropic"
    assert found[semconv.REQUEST_MODEL] == found[semconv.RESPONSE_MODEL] == "claude-demo"
    assert found[semconv.REQUEST_MAX_TOKENS] == 99
    assert found[semconv.INPUT_TOKENS] == usage.input_tokens + written
    assert found[semconv.CACHE_WRITE_TOKENS] == written
    assert found[semconv.CACHE_READ_TOKENS] == 0
    assert found[semconv.OUTPUT_TOKENS] == usage.output_tokens
    assert (found[semconv.FINISH_REASONS], found[semconv.RAW_FINISH_REASONS]) == (["stop"], [truth.stop_reason])
    assert found[semconv.RESPONSE_ID].startswith("msg_")
    assert found[REQUEST_ID].startswith("req_")
    assert found["http.response.status_code"] == 200
    assert truth.content[0].type == "text"
    parts = [{"type": "text", "content": truth.content[0].text}]
    assert found[semconv.OUTPUT_MESSAGES] == [{"role": "assistant", "parts": parts, "finish_reason": "stop"}]
    question = [{"type": "text", "content": "What about lithium?"}]
    assert found[semconv.INPUT_MESSAGES] == [{"role": "user", "parts": question}]
    assert found[semconv.SYSTEM_INSTRUCTIONS] == [{"type": "text", "content": SYSTEM}]
    if found.get(semconv.REQUEST_STREAM):
        assert span.duration_ms is not None
        assert 0 < found[semconv.TIME_TO_FIRST_CHUNK] * 1000 <= span.duration_ms
    else:
        assert semconv.TIME_TO_FIRST_CHUNK not in found
    assert CLOSED_EARLY not in found
    assert semconv.ERROR_TYPE not in found


@pytest.mark.parametrize("scenario", SYNC, ids=lambda scenario: scenario.__name__)
def test_sync(scenario: Callable[[Anthropic], Any], client: Anthropic, instrumented: Instrumented) -> None:
    truth, expected = create(client), scenario(client)
    with instrumented() as captured, get_tracer().span("agent") as agent:
        assert scenario(client) == expected
    (span,) = [span for span in captured.spans if span.name != "agent"]
    check_whole(span, truth, agent.span_id)


@pytest.mark.parametrize("scenario", ASYNC, ids=lambda scenario: scenario.__name__)
async def test_async(
    scenario: Callable[[AsyncAnthropic], Awaitable[Any]], async_client: AsyncAnthropic, instrumented: Instrumented
) -> None:
    truth, expected = await async_create(async_client), await scenario(async_client)
    with instrumented() as captured:
        async with get_tracer().span("agent") as agent:
            assert await scenario(async_client) == expected
    (span,) = [span for span in captured.spans if span.name != "agent"]
    check_whole(span, truth, agent.span_id)


def test_retries_are_events_of_the_one_span(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured:
        create_after_retries(client)
    (span,) = captured.spans
    assert [event.name for event in span.events] == ["llm.request", "retry", "retry", "llm.response"]
    assert [event.attributes for event in span.events[1:3]] == [{"http.response.status_code": 529}] * 2


def test_count_tokens_is_no_generation(client: Anthropic, instrumented: Instrumented) -> None:
    request = {"model": "claude-demo", "messages": REQUEST["messages"]}
    expected = client.messages.count_tokens(**request)
    with instrumented() as captured:
        assert client.messages.count_tokens(**request) == expected
        assert client.beta.messages.count_tokens(**request).input_tokens == expected.input_tokens
    for span in captured.spans:
        assert (span.name, span.span_type, span.status) == (
            "count_tokens claude-demo",
            SpanType.CUSTOM,
            SpanStatus.SUCCESS,
        )
        assert span.attributes[COUNTED_TOKENS] == expected.input_tokens
        assert not {semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.INPUT_MESSAGES} & set(span.attributes)
    assert len(captured.spans) == 2


def test_the_beta_tool_runner_gives_a_span_a_turn(client: Anthropic, instrumented: Instrumented) -> None:
    @anthropic.beta_tool
    def search(query: str) -> str:
        """Finds.

        Args:
            query: The text to find.
        """
        return f"Much is known about {query}."

    def run() -> list[Any]:
        return list(client.beta.messages.tool_runner(**REQUEST, tools=[search]))

    expected = run()
    assert len(expected) >= 2
    with instrumented() as captured:
        assert run() == expected
    turns = [span for span in captured.spans if span.span_type is SpanType.LLM]
    assert len(turns) == len(expected)
    assert [span.attributes[semconv.OUTPUT_TOKENS] for span in turns] == [turn.usage.output_tokens for turn in expected]
    assert [span.attributes[semconv.RAW_FINISH_REASONS] for span in turns] == [[turn.stop_reason] for turn in expected]
    assert turns[-1].attributes[semconv.CACHE_READ_TOKENS] == expected[-1].usage.cache_read_input_tokens > 0
    assert turns[0].attributes[semconv.OUTPUT_MESSAGES][0]["parts"][-1]["name"] == "search"
    assert turns[1].attributes[semconv.INPUT_MESSAGES][-1]["parts"][0]["type"] == "tool_call_response"
    assert turns[0].attributes[semconv.TOOL_DEFINITIONS][0]["name"] == "search"


def test_messages_that_can_be_read_once_reach_the_server_and_the_span(
    client: Anthropic, instrumented: Instrumented
) -> None:
    def once() -> dict[str, Any]:
        blocks = iter([{"type": "text", "text": "What about lithium?"}])
        return {**REQUEST, "messages": iter([{"role": "user", "content": blocks}])}

    expected = client.messages.create(**once())
    with instrumented() as captured:
        assert client.messages.create(**once()) == expected
    (span,) = captured.spans
    question = [{"type": "text", "content": "What about lithium?"}]
    assert span.attributes[semconv.INPUT_MESSAGES] == [{"role": "user", "parts": question}]


def test_parameters_in_an_extra_body_are_seen(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured:
        client.messages.create(**REQUEST, extra_body={"temperature": 0.25})
    assert captured.spans[0].attributes[semconv.REQUEST_TEMPERATURE] == 0.25


@pytest.mark.parametrize("scenario", [create, create_streaming, raw_response], ids=lambda scenario: scenario.__name__)
def test_without_content_the_numbers_stay(
    scenario: Callable[[Anthropic], Any], client: Anthropic, instrumented: Instrumented
) -> None:
    truth = create(client)
    with instrumented(capture_content=False) as captured:
        scenario(client)
    (span,) = captured.spans
    assert "lithium" not in repr(span)
    assert "careful" not in repr(span)
    assert span.attributes[semconv.OUTPUT_TOKENS] == truth.usage.output_tokens
    assert span.attributes[semconv.FINISH_REASONS] == ["stop"]
    content = {semconv.INPUT_MESSAGES, semconv.OUTPUT_MESSAGES, semconv.SYSTEM_INSTRUCTIONS, semconv.TOOL_DEFINITIONS}
    assert not content & set(span.attributes)
