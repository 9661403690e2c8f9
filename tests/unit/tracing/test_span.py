"""What a span records, how it ends, and that wrong or late calls do no harm."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from prela_stream import telemetry
from prela_stream.codec.spans import decode_head
from prela_stream.errors import SpanEndedError
from prela_stream.model.span import ItemKind, SpanStatus, SpanType
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


def test_what_is_set_arrives(captured: CapturedSpans) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    with tracer.span("chat", SpanType.LLM, {"model": "m"}) as span:
        span.set_attribute("tokens", 12)
        span.set_attributes({"nested": {"list": [1, None, True]}})
        span.add_event("first token", {"ms": 80})
        span.set_status(SpanStatus.SUCCESS, "fine")
        span.update_name("chat m")
        with tracer.start_span("other") as other:
            span.add_link(other, {"why": "batch"})
    data = captured.find("chat m")
    assert data.attributes == {"model": "m", "tokens": 12, "nested": {"list": [1, None, True]}}
    assert (data.span_type, data.status, data.status_message) == (SpanType.LLM, SpanStatus.SUCCESS, "fine")
    assert [(event.name, event.attributes) for event in data.events] == [("first token", {"ms": 80})]
    assert data.links[0].span_id.hex() == other.span_id
    assert before <= data.started_at <= data.events[0].timestamp <= datetime.now(UTC)
    assert (data.trace_id, data.span_id, data.duration_ms) == (span.trace_id, span.span_id, span.duration_ms)
    assert span.started_at == data.started_at
    assert span.ended_at == data.ended_at
    assert dict(span.attributes) == data.attributes


def test_values_are_taken_at_the_end_and_the_callers_mapping_is_left_alone(captured: CapturedSpans) -> None:
    messages = ["one"]
    given = {"messages": messages}
    with tracer.span("x", attributes=given) as span:
        span.set_attribute("more", 1)
        messages.append("two")
    messages.append("three")
    assert captured.find("x").attributes == {"messages": ["one", "two"], "more": 1}
    assert given == {"messages": ["one", "two", "three"]}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad"), "ERROR"),
        (TimeoutError(), "ERROR"),
        (ExceptionGroup("several", [ValueError("bad")]), "ERROR"),
        (BaseExceptionGroup("mixed", [asyncio.CancelledError(), ValueError("bad")]), "ERROR"),
        (BaseExceptionGroup("stopped", [asyncio.CancelledError()]), "CANCELLED"),
        (asyncio.CancelledError(), "CANCELLED"),
        (KeyboardInterrupt(), "CANCELLED"),
        (SystemExit(3), "CANCELLED"),
        (SystemExit("a reason"), "CANCELLED"),
    ],
)
def test_exceptions_mark_the_span_and_propagate(captured: CapturedSpans, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)) as raised, tracer.span("x"):
        raise error
    assert raised.value is error
    data = captured.find("x")
    assert data.status == status
    assert data.attributes["error.type"] == type(error).__name__
    assert data.attributes["error.message"] == (str(error) or type(error).__name__)
    assert data.status_message == data.attributes["error.message"]
    assert ("test_span" in data.attributes.get("error.stacktrace", "")) == (status == "ERROR")


@pytest.mark.parametrize(
    "error",
    [GeneratorExit(), SystemExit(), SystemExit(0), BaseExceptionGroup("closed", [GeneratorExit(), SystemExit(0)])],
)
def test_an_ordinary_end_is_a_success_and_goes_on(captured: CapturedSpans, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, tracer.span("x", attributes={"key": 1}):
        raise error
    assert raised.value is error
    data = captured.find("x")
    assert (data.status, data.status_message, data.attributes) == ("SUCCESS", None, {"key": 1})


async def test_cancelled_task_is_cancelled_and_arrives(captured: CapturedSpans) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with tracer.span("work"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert captured.find("work").status == "CANCELLED"


def test_an_exception_whose_text_fails_is_recorded_and_propagates(captured: CapturedSpans) -> None:
    class NastyError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(NastyError), tracer.span("x"):
        raise NastyError
    assert captured.find("x").attributes["error.message"] == "<NastyError: it has no text form>"


def test_changes_after_the_end_have_no_effect_are_counted_and_logged_once(
    captured: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    with tracer.span("x", attributes={"a": 1}) as span:
        pass
    methods = ("set_attribute", "add_event", "set_status", "record_exception", "update_name", "end", "suspend")
    before = {method: telemetry.ENDED_SPAN_CHANGES.value(method) for method in methods}
    with caplog.at_level(logging.WARNING, "prela_stream"):
        for _ in range(3):
            span.set_attribute("b", 2)
            span.add_event("e")
            span.set_status("ERROR")
            span.record_exception(ValueError())
            span.update_name("y")
            span.end()
            span.suspend()
    assert {method: telemetry.ENDED_SPAN_CHANGES.value(method) - before[method] for method in methods} == dict.fromkeys(
        methods, 3
    )
    assert len(caplog.records) == sum(1 for count in before.values() if count == 0)
    assert [(data.name, data.attributes, data.status) for data in captured.spans] == [("x", {"a": 1}, "SUCCESS")]


def test_changes_after_the_end_raise_in_strict_mode(captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracer.span("x") as span:
        pass
    monkeypatch.setenv("PRELA_STRICT", "1")
    with pytest.raises(SpanEndedError, match=r"set_attribute\(\) on the span 'x', which has ended"):
        span.set_attribute("a", 1)


def test_end_inside_the_block_is_fine(captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")
    with pytest.raises(ZeroDivisionError), tracer.span("x") as span:  # noqa: PT012 - the exit after end() is the point
        span.end()
        raise ZeroDivisionError
    assert captured.find("x").status == "SUCCESS"


def test_end_time_may_be_given_and_is_never_before_the_start(captured: CapturedSpans) -> None:
    late = tracer.start_span("late")
    late.end(late.started_at + timedelta(seconds=5))
    early = tracer.start_span("early")
    early.end(datetime(2000, 1, 1, tzinfo=UTC))
    assert captured.find("late").duration_ms == pytest.approx(5_000, abs=0.01)
    assert captured.find("early").duration_ns == 0


def test_two_threads_that_end_one_span_record_it_once(captured: CapturedSpans) -> None:
    for _ in range(200):
        span = tracer.start_span("x")
        barrier = threading.Barrier(2)

        def finish(span=span, barrier=barrier) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - bound per round
            barrier.wait(10)
            span.end()

        threads = [threading.Thread(target=finish) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(captured.spans) == 200


def kinds(captured: CapturedSpans) -> list[tuple[ItemKind, str]]:
    heads = [decode_head(item) for item in captured.items]
    return [(ItemKind(head.kind), head.name) for head in heads]


def test_roots_and_agents_are_announced_before_their_first_child(captured: CapturedSpans) -> None:
    with tracer.span("root"), tracer.span("agent", SpanType.AGENT), tracer.span("step"), tracer.span("leaf"):
        pass
    start, span = ItemKind.START, ItemKind.SPAN
    assert kinds(captured) == [
        (start, "root"),
        (start, "agent"),
        (span, "leaf"),
        (span, "step"),
        (span, "agent"),
        (span, "root"),
    ]


def heartbeats() -> int:
    """Send the heartbeats of the global tracer; returns how many spans have one."""
    return len(list(OpenSpans(tracer).heartbeats()))


def test_heartbeats_name_open_spans_and_start_those_that_were_not_announced(captured: CapturedSpans) -> None:
    root = tracer.start_span("root")
    assert heartbeats() == 1
    assert heartbeats() == 1
    tracer.start_span("forgotten")
    assert heartbeats() == 1
    root.suspend()
    root.resume()
    root.end()
    assert heartbeats() == 0
    wanted = [ItemKind.START, ItemKind.HEARTBEAT, ItemKind.HEARTBEAT, ItemKind.SUSPEND, ItemKind.RESUME, ItemKind.SPAN]
    assert [kind for kind, _ in kinds(captured)] == wanted
