"""The tool runner of the client: AGENT, with its model calls and tools below it, and no difference for the application."""

import gc
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.lib.tools._beta_runner import BaseAsyncToolRunner, BaseSyncToolRunner

from prela_stream.instrumentation.anthropic.runner import AGENT
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.testing import CapturedSpans
from prela_stream.tracing.tracer import get_current_span, get_tracer
from tests.integration.anthropic_client.conftest import Instrumented

REQUEST: dict[str, Any] = {
    "model": "claude-demo",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "What about lithium?"}],
}
FOUND = "Much is known about it."


@anthropic.beta_tool
def search(query: str) -> str:
    """Finds.

    Args:
        query: The text to find.
    """
    assert query
    with get_tracer().span("inside the tool"):
        return FOUND


@anthropic.beta_async_tool
async def search_async(query: str) -> str:
    """Finds.

    Args:
        query: The text to find.
    """
    assert query
    with get_tracer().span("inside the tool"):
        return FOUND


@anthropic.beta_tool(name="search")
def broken(query: str) -> str:
    """Fails.

    Args:
        query: The text to find.
    """
    raise LookupError(query)


def by_type(captured: CapturedSpans) -> tuple[SpanData, list[SpanData], list[SpanData]]:
    """The AGENT, the model calls and the tools."""
    (agent,) = [span for span in captured.spans if span.span_type is SpanType.AGENT]
    of_type = [[span for span in captured.spans if span.span_type is kind] for kind in (SpanType.LLM, SpanType.TOOL)]
    return agent, of_type[0], of_type[1]


def check_tree(captured: CapturedSpans, turns: int) -> None:
    agent, calls, tools = by_type(captured)
    assert (agent.name, agent.status) == (AGENT, SpanStatus.SUCCESS)
    assert agent.attributes[semconv.OPERATION_NAME] == "invoke_agent"
    assert agent.attributes[semconv.REQUEST_MODEL] == "claude-demo"
    assert agent.attributes[semconv.PROVIDER_NAME] == "anthropic"
    assert (len(calls), len(tools)) == (turns, turns - 1)
    assert {span.parent_span_id for span in (*calls, *tools)} == {agent.span_id}
    assert not {semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS} & set(agent.attributes)  # or they would be counted twice
    (asked,) = [
        part for part in calls[0].attributes[semconv.OUTPUT_MESSAGES][0]["parts"] if part["type"] == "tool_call"
    ]
    assert tools[0].status is SpanStatus.SUCCESS
    assert tools[0].attributes[semconv.TOOL_NAME] == asked["name"]
    assert tools[0].attributes[semconv.TOOL_CALL_ID] == asked["id"]
    assert tools[0].attributes[semconv.TOOL_CALL_ARGUMENTS] == asked["arguments"]
    assert tools[0].attributes[semconv.TOOL_CALL_RESULT] == FOUND
    inside = captured.named("inside the tool")
    assert [span.parent_span_id for span in inside] == [tool.span_id for tool in tools]


def messages_of(client: Anthropic, *, streaming: bool) -> Iterator[Any]:
    runner: Any = client.beta.messages.tool_runner(**REQUEST, tools=[search], stream=streaming)
    for turn in runner:
        assert get_current_span() is None, "the span of the run is current in the loop of the application"
        yield turn.get_final_message() if streaming else turn


@pytest.mark.parametrize("streaming", [False, True])
def test_a_run(client: Anthropic, instrumented: Instrumented, streaming: bool) -> None:
    expected = list(messages_of(client, streaming=streaming))
    assert len(expected) > 1
    with instrumented() as captured:
        assert list(messages_of(client, streaming=streaming)) == expected
    check_tree(captured, len(expected))


async def messages_of_async(client: AsyncAnthropic, *, streaming: bool) -> AsyncIterator[Any]:
    runner: Any = client.beta.messages.tool_runner(**REQUEST, tools=[search_async], stream=streaming)
    async for turn in runner:
        assert get_current_span() is None, "the span of the run is current in the loop of the application"
        yield await turn.get_final_message() if streaming else turn


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_async_run(async_client: AsyncAnthropic, instrumented: Instrumented, streaming: bool) -> None:
    expected = [message async for message in messages_of_async(async_client, streaming=streaming)]
    with instrumented() as captured:
        assert [message async for message in messages_of_async(async_client, streaming=streaming)] == expected
    check_tree(captured, len(expected))


def test_a_run_until_done_below_the_span_of_the_application(client: Anthropic, instrumented: Instrumented) -> None:
    expected = client.beta.messages.tool_runner(**REQUEST, tools=[search]).until_done()
    with instrumented() as captured, get_tracer().span("request") as request:
        assert client.beta.messages.tool_runner(**REQUEST, tools=[search]).until_done() == expected
    assert by_type(captured)[0].parent_span_id == request.span_id


def test_a_tool_that_fails_is_an_error_of_the_tool_alone(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured:
        client.beta.messages.tool_runner(**REQUEST, tools=[broken], max_iterations=2).until_done()
    agent, _, tools = by_type(captured)
    assert (agent.status, tools[0].status) == (SpanStatus.SUCCESS, SpanStatus.ERROR)
    assert tools[0].attributes[semconv.ERROR_TYPE] == "tool_error"
    assert "LookupError" in tools[0].attributes[semconv.ERROR_MESSAGE]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_run_that_is_left_early(client: Anthropic, instrumented: Instrumented, how: str) -> None:
    with instrumented() as captured:
        runner = client.beta.messages.tool_runner(**REQUEST, tools=[search])
        next(runner)
        if how == "close":
            runner.close()
            assert list(runner) == []
        del runner
        gc.collect()
        assert by_type(captured)[0].status is SpanStatus.SUCCESS


async def test_an_async_run_that_is_closed(async_client: AsyncAnthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured:
        runner = async_client.beta.messages.tool_runner(**REQUEST, tools=[search_async])
        await anext(runner)
        await runner.close()
        assert [turn async for turn in runner] == []
    assert by_type(captured)[0].status is SpanStatus.SUCCESS


def test_a_run_whose_request_fails(client: Anthropic, instrumented: Instrumented) -> None:
    failing = client.with_options(default_headers={"x-demo-behaviour": "invalid"}, max_retries=0)
    with instrumented() as captured, pytest.raises(anthropic.APIStatusError) as raised:
        failing.beta.messages.tool_runner(**REQUEST, tools=[search]).until_done()
    agent, calls, _ = by_type(captured)
    assert (agent.status, calls[0].status) == (SpanStatus.ERROR, SpanStatus.ERROR)
    assert agent.attributes[semconv.ERROR_MESSAGE] == str(raised.value)


def test_without_content_names_and_ids_stay(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented(capture_content=False) as captured:
        client.beta.messages.tool_runner(**REQUEST, tools=[search]).until_done()
    _, _, (tool, *_) = by_type(captured)
    assert tool.attributes[semconv.TOOL_NAME] == "search"
    assert tool.attributes[semconv.TOOL_CALL_ID]
    assert not {semconv.TOOL_CALL_ARGUMENTS, semconv.TOOL_CALL_RESULT} & set(tool.attributes)
    assert FOUND not in repr(captured.spans)


def test_uninstrument_restores_the_runner_classes(instrumented: Instrumented) -> None:
    names = ("__run__", "_run_tool", "_run_toolset_member")
    places = [(owner, name) for owner in (BaseSyncToolRunner, BaseAsyncToolRunner) for name in names]
    originals = [vars(owner)[name] for owner, name in places]
    with instrumented():
        patched = [vars(owner)[name] for owner, name in places]
    assert all(new is not old for new, old in zip(patched, originals, strict=True))
    assert [inspect.iscoroutinefunction(new) for new in patched] == [
        inspect.iscoroutinefunction(old) for old in originals
    ]
    assert [inspect.signature(new) for new in patched] == [inspect.signature(old) for old in originals]
    assert [vars(owner)[name] for owner, name in places] == originals
