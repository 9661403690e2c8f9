"""An ended span releases its content: what outlives a request keeps its ids in memory, not its prompts."""

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import prela_stream as prela
from prela_stream.privacy.rules import Privacy
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer, get_tracer

tracer = get_tracer()


class Prompt:
    """A value whose life can be observed."""

    def __init__(self, text: str = "please") -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


SET: dict[str, Callable[[Span, Any], object]] = {
    "attribute": lambda span, value: span.set_attribute("prompt", value),
    "in a list": lambda span, value: span.set_attribute("prompt", [{"content": value}]),
    "event": lambda span, value: span.add_event("llm.request", {"messages": [value]}),
    "link": lambda span, value: span.add_link(span, {"prompt": value}),
    "tool": lambda span, value: span.set_tool(arguments={"a": value}, result=value),
}


@pytest.mark.parametrize("put", SET.values(), ids=SET)
@pytest.mark.parametrize("setup", ["recorded", "not recorded", "not sampled", "private", "abandoned"])
@pytest.mark.parametrize("text", ["please", "please " * 1000])
def test_objects_are_released(put: Callable[[Span, Any], object], setup: str, text: str) -> None:
    value = Prompt(text)
    alive = weakref.ref(value)
    with capture_spans():
        made = Tracer() if setup != "not recorded" else Tracer(exporter=CapturedSpans())
        if setup == "not recorded":
            made.configure(recorder=None)
        made.configure(sampler=prela.AlwaysOffSampler() if setup == "not sampled" else None)
        if setup == "private":
            tracer.configure(privacy=Privacy(capture_content=False))
        span = made.start_span("request", attributes={"initial": value})
        put(span, value)
        inner = made.start_span("inner", parent=span)
        if setup == "abandoned":
            span._abandon()
        else:
            span.end()
        inner.end()
        tracer.configure(privacy=Privacy())
    del value
    gc.collect()
    assert alive() is None
    assert span.trace_id == inner.trace_id


def test_a_value_that_interrupts_the_end_is_released(captured: CapturedSpans) -> None:
    class Interrupts:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    value = Interrupts()
    alive = weakref.ref(value)
    span = tracer.start_span("request", attributes={"value": value})
    with pytest.raises(KeyboardInterrupt):
        span.end()
    del value
    gc.collect()
    assert alive() is None
    assert len(captured.spans) == 1


async def test_a_task_that_outlives_its_request_keeps_no_prompt(captured: CapturedSpans) -> None:
    prompt = "p" * 100_000
    before = sys.getrefcount(prompt)
    release = asyncio.Event()
    with (
        tracer.span("request", attributes={"prompt": prompt}) as request,
        tracer.agent("agent", attributes={"p": prompt}),
    ):
        task = asyncio.create_task(release.wait())
        context = contextvars.copy_context()
        later = prela.wrap(len)
        deferred = tracer.defer()
    assert sys.getrefcount(prompt) == before
    assert request.attributes["prompt"] == "<str: released when the span ended>"
    assert captured.find("request").attributes["prompt"] == prompt
    release.set()
    await task
    assert later([]) == 0
    assert context.run(tracer.get_current_span) is not None
    deferred.cancel()


def test_a_thread_that_outlives_its_request_keeps_no_prompt(captured: CapturedSpans) -> None:
    prompt = "p" * 100_000
    before = sys.getrefcount(prompt)
    release = threading.Event()
    with tracer.span("request") as request:
        request.add_event("llm.request", {"messages": prompt})
        request.set_status("ERROR", prompt)
        thread = threading.Thread(target=prela.wrap(release.wait))
        thread.start()
    assert sys.getrefcount(prompt) == before
    assert len(request.status_message or "") == 1000
    release.set()
    thread.join()


def test_small_values_can_be_read_after_the_end(captured: CapturedSpans) -> None:
    small = {"text": "x" * 256, "number": 1, "none": None, "reasons": ["end_turn", 1.5], "bytes": b"1"}
    with tracer.span("span", attributes={**small, "large": "x" * 257}) as span:
        span.add_event("event", {"a": 1})
    assert span.attributes == {**small, "large": "<str: released when the span ended>"}
    assert [event.attributes for event in span.events] == [{"a": 1}]


def test_a_span_without_init_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    made = Tracer(exporter=CapturedSpans())
    made._output = type(made._output)()
    for name in ("first", "second"):
        with made.span(name):
            pass
    assert [record.args for record in caplog.records] == [("first",)]


def test_a_span_after_the_end_of_tracing_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    with capture_spans():
        pass
    with tracer.span("late"):
        pass
    assert caplog.records == []
