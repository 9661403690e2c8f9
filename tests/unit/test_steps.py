"""Blocks as decorators: each call of a function, and each step of a generator, runs in a new block."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import prela_stream as prela
from prela_stream.testing import capture_spans
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()


def plain() -> None:
    with tracer.span("inside"):
        pass


async def coroutine() -> None:
    await asyncio.sleep(0)
    plain()


def generator() -> Iterator[int]:
    yield 1
    plain()
    yield 2


async def async_generator() -> AsyncIterator[int]:
    yield 1
    plain()
    yield 2


async def run(function: Callable[[], Any]) -> None:
    """Run a function of any kind; after each item, its consumer has a span."""
    result = function()
    if hasattr(result, "__await__"):
        await result
    elif hasattr(result, "__anext__"):
        async for _ in result:
            with tracer.span("consumer"):
                pass
    elif result is not None:
        for _ in result:
            with tracer.span("consumer"):
                pass


FUNCTIONS = [plain, coroutine, generator, async_generator]


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_session_is_that_of_the_function_and_not_of_its_consumer(function: Any) -> None:
    decorated = prela.session("s1")(function)
    with capture_spans() as captured:
        await run(decorated)
        await run(decorated)
    found = {span.name: span.attributes.get("gen_ai.conversation.id") for span in captured.spans}
    assert found["inside"] == "s1"
    assert found.get("consumer") is None


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_an_attached_span_is_the_parent_of_what_the_function_does(function: Any) -> None:
    with capture_spans() as captured:
        parent = tracer.start_span("parent")
        await run(prela.attach(parent)(function))
        parent.end()
    assert captured.find("inside").parent_span_id == parent.span_id
    assert {span.parent_span_id for span in captured.spans if span.name == "consumer"} <= {None}


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_each_call_has_a_new_trace(function: Any) -> None:
    decorated = prela.new_trace_context(baggage={"a": "1"})(function)
    with capture_spans() as captured, tracer.span("around"):
        await run(decorated)
        await run(decorated)
    inside = [span.trace_id for span in captured.spans if span.name == "inside"]
    assert len({*inside, captured.find("around").trace_id}) == 3


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_content_is_off_inside_and_on_in_the_consumer(function: Any) -> None:
    message = {"gen_ai.input.messages": [{"role": "user", "content": "hi"}]}

    async def record() -> None:
        with tracer.span("content", attributes=message):
            pass

    async def whole() -> None:
        await run(function)
        await record()

    with capture_spans() as captured:
        await prela.capture_content(False)(whole)()
        await record()
    hidden, shown = [span.attributes for span in captured.spans if span.name == "content"]
    assert ("gen_ai.input.messages" in hidden, "gen_ai.input.messages" in shown) == (False, True)


def test_a_block_can_be_entered_again_and_passes_errors() -> None:
    block = prela.session("s1")
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"), block:
            raise ValueError("wrong")
