"""The public API as programs use it. Both type checkers accept every line, and infer the types of `assert_type`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

import prela_stream as prela
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans


def redact(span: prela.Redactable) -> None:
    span.attributes.pop("user.email", None)
    span.map_text(str.upper)


def switching_on() -> None:
    tracer = prela.init("agent", directory=".prela", sample_rate=0.5, capture_content=False, redact=redact)
    assert_type(tracer, prela.Tracer)
    prela.init(sampler=prela.ProbabilitySampler(0.1), auto_instrument=["anthropic"], resource_attributes={"team": 7})
    assert_type(prela.get_tracer(), prela.Tracer)
    assert_type(prela.flush(timeout=1.5).acknowledged, int)
    ledger = prela.ledger()
    if ledger is not None:
        assert_type(ledger.recorded, int)
    prela.shutdown()


def spans() -> None:
    tracer = prela.get_tracer()
    with tracer.span("agent", span_type=prela.SpanType.AGENT, attributes={"any": [1, {"value": None}]}) as span:
        assert_type(span, prela.Span)
        span.set_attribute("user.id", "u-17")
        span.add_event("planned", {"steps": 3}, timestamp=datetime.now(UTC))
        span.set_status(prela.SpanStatus.ERROR, "it failed")
        span.set_status("ERROR")
        span.record_exception(ValueError("x"))
        span.suspend(until=datetime.now(UTC), reason="approval")
        span.resume()
        assert_type(span.trace_id, str)
        assert_type(span.duration_ms, float | None)
        child = tracer.start_span("child", parent=span)
        child.add_link(span)
        child.end()
    assert_type(prela.get_current_span(), prela.Span | None)
    with prela.capture_content(False), prela.new_trace_context(baggage={"tenant": "t"}) as context:
        assert_type(context, prela.TraceContext)


@prela.trace
def plain_function(number: int) -> str:
    return str(number)


@prela.trace("named", span_type=prela.SpanType.TOOL)
async def async_function(number: int) -> str:
    return str(number)


@prela.trace()
def generator(number: int) -> Iterator[int]:
    yield number


@prela.trace()
async def async_generator(number: int) -> AsyncIterator[int]:
    yield number


@prela.tool
def bare_tool(number: int) -> str:
    return str(number)


@prela.agent("planner", description="plans")
async def agent_function(number: int) -> str:
    return str(number)


@prela.get_tracer().span()
def span_function(number: int) -> str:
    return str(number)


async def decorated() -> None:
    assert_type(bare_tool(1), str)
    assert_type(await agent_function(1), str)
    assert_type(span_function(1), str)
    assert_type(prela.tool("search", arguments={"q": 1}), prela.Span)
    assert_type(prela.tool(name="search"), prela.Span)
    assert_type(plain_function(1), str)
    assert_type(await async_function(1), str)
    assert_type(list(generator(1)), list[int])
    assert_type([number async for number in async_generator(1)], list[int])
    assert_type(prela.wrap(plain_function)(1), str)
    async with prela.get_tracer().span("async") as span:
        assert_type(span, prela.Span)
    async with prela.pipeline(redact=redact) as running:
        await running.aflush()
    assert_type((await prela.aflush()).pending, int)


async def reading() -> None:
    async with prela.kept_traces(group="billing", follow=False) as traces:
        async for kept in traces:
            assert_type(kept, prela.KeptTrace)
            assert_type(kept.spans, list[prela.SpanData])
            assert_type(kept.decision, prela.Decision)
            assert_type(kept.tree().roots[0].span, prela.SpanData)
            assert_type(kept.weight, float)
            await traces.commit()
    async for one in prela.decisions(None):
        assert_type(one, prela.Decision)
        assert_type(one.summary.spans, int)


def propagation() -> None:
    headers: dict[str, Any] = {}
    prela.inject(headers)
    prela.extract(headers)


def tests_of_your_own() -> None:
    with capture_spans() as captured:
        spans()
    assert_type(captured, CapturedSpans)
    assert_tree(captured.spans, "agent")
    assert_type(captured.find("agent"), prela.SpanData)


if __name__ == "__main__":
    asyncio.run(decorated())
