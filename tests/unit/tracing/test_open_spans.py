"""Spans that are open: their heartbeats from the pipeline, and their end when the pipeline closes."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

import prela_stream as prela
from prela_stream.codec.spans import decode_batch, decode_head, decode_span
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.model.span import ItemKind, Resource, SpanStatus
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.context import attach
from prela_stream.tracing.open_spans import CANCELLED_BY, OpenSpans, _all_spans
from prela_stream.tracing.sampler import AlwaysOffSampler
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer, get_tracer
from prela_stream.transport.options import TopicOptions
from tests.support.memory_transport import MemoryTransport
from tests.support.processes import DEADLINE

TOPICS = TopicOptions(partitions=1)


def pipeline(transport: MemoryTransport, spans: OpenSpans | None, **options: Any) -> Pipeline:
    """A pipeline that sends at once and waits long at its end."""
    made = PipelineOptions(linger_ms=1, shutdown_timeout_s=DEADLINE, **options)
    setup = PipelineSetup(topics=TOPICS, options=made, resource=Resource, open_spans=spans)
    return Pipeline(transport, setup)


def kinds(transport: MemoryTransport) -> list[ItemKind]:
    """What arrived, in order."""
    return [ItemKind(head.kind) for _, head in transport.heads()]


def beats_of(transport: MemoryTransport, span: Span) -> int:
    """How many heartbeats of a span arrived."""
    mine = [head for _, head in transport.heads() if head.span_id == bytes.fromhex(span.span_id)]
    return sum(head.kind == ItemKind.HEARTBEAT for head in mine)


async def until(condition: Any) -> None:
    """Wait for a condition."""
    with anyio.fail_after(DEADLINE):
        while not condition():
            await anyio.sleep(0.005)


async def test_open_roots_and_agents_send_heartbeats_until_they_end() -> None:
    tracer = Tracer(exporter=CapturedSpans())
    transport = MemoryTransport({TOPICS.spans: 1})
    async with pipeline(transport, OpenSpans(tracer), heartbeat_ms=10) as running:
        tracer.configure(recorder=running)
        quiet = tracer.start_span("short")
        quiet.end()
        with attach(None):
            root = tracer.start_span("job")
        await until(lambda: kinds(transport).count(ItemKind.HEARTBEAT) >= 3)
        root.end()
        with attach(None):
            agent = tracer.start_span("agent")
        await until(lambda: beats_of(transport, agent) >= 3)
        agent.end()
    seen = [ItemKind(head.kind) for _, head in transport.heads() if head.span_id == bytes.fromhex(root.span_id)]
    assert kinds(transport)[:2] == [ItemKind.SPAN, ItemKind.START]
    assert seen.count(ItemKind.START) == 1
    assert seen[-1] == ItemKind.SPAN, "a heartbeat came after the end"


@pytest.mark.parametrize(("interval", "tasks"), [(0, 0), (60_000, 1)])
async def test_zero_means_no_heartbeats(interval: int, tasks: int) -> None:
    transport = MemoryTransport({TOPICS.spans: 1})
    async with pipeline(transport, OpenSpans(get_tracer()), heartbeat_ms=interval):
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert len([name for name in names if name.endswith("Pipeline._send_heartbeats")]) == tasks


async def test_many_heartbeats_leave_room_for_others() -> None:
    steps: list[str] = []

    class Many:
        def heartbeats(self) -> Iterator[None]:
            for _ in range(20):
                steps.append("beat")
                yield

        def cancel(self, reason: str) -> int:
            return 0

    async def other() -> None:
        while steps.count("beat") < 20:
            steps.append("other")
            await anyio.lowlevel.checkpoint()

    transport = MemoryTransport({TOPICS.spans: 1})
    spans = cast("OpenSpans", Many())
    async with pipeline(transport, spans, heartbeat_ms=1, slice_us=1) as running:
        with anyio.fail_after(DEADLINE):
            await other()
        await running.aclose()
    first = steps.index("beat")
    assert "other" in steps[first : first + 20]


async def test_an_error_in_a_heartbeat_does_not_end_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    asked: list[int] = []

    class Bad(OpenSpans):
        def heartbeats(self) -> Iterator[Span]:
            asked.append(1)
            raise RuntimeError("no heartbeat")

    transport = MemoryTransport({TOPICS.spans: 1})
    async with pipeline(transport, Bad(Tracer(exporter=CapturedSpans())), heartbeat_ms=1):
        await until(lambda: len(asked) >= 3)


async def test_a_pipeline_that_closes_ends_its_open_spans_children_first() -> None:
    tracer = Tracer(exporter=CapturedSpans())
    transport = MemoryTransport({TOPICS.spans: 1})
    elsewhere = CapturedSpans()
    stays = Tracer(exporter=elsewhere).start_span("stays open")
    async with pipeline(transport, OpenSpans(tracer)) as running:
        tracer.configure(recorder=running)
        with attach(None):
            root = tracer.start_span("root")
            child = tracer.start_span("child", parent=root)
            ended = tracer.start_span("ended", parent=child)
            ended.end()
    assert (root.status, child.status, ended.status) == (
        SpanStatus.CANCELLED,
        SpanStatus.CANCELLED,
        SpanStatus.SUCCESS,
    )
    assert (root.attributes[CANCELLED_BY], root.status_message) == (
        "shutdown",
        "tracing was shut down while this span was open",
    )
    assert not stays.is_ended
    stays.end()
    items = [decode_span(raw) for sent in transport.log for raw in decode_batch(sent.record.value or b"").raws]
    names = [item.name for item in items if item.status is not SpanStatus.PENDING]
    assert names == ["ended", "child", "root"]
    snapshot = running.ledger()
    assert snapshot.acknowledged == snapshot.recorded


def test_spans_that_are_not_recorded_are_not_ended() -> None:
    with capture_spans() as captured:
        tracer = get_tracer()
        left = tracer.start_span("open")
        assert OpenSpans(Tracer(exporter=CapturedSpans())).cancel("exit") == 0
        assert not left.is_ended
        assert OpenSpans(tracer).cancel("exit") == 1, "the one that was open"
        assert OpenSpans(tracer).cancel("exit") == 0
        assert captured.find("open").attributes == {CANCELLED_BY: "exit"}
    with capture_spans(sampler=AlwaysOffSampler()) as captured:
        unsampled = get_tracer().start_span("x")
        assert OpenSpans(get_tracer()).cancel("exit") == 0
        assert not unsampled.is_ended


def test_shutdown_cancels_and_a_new_init_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        tracer = prela.init("first", auto_instrument=False)
        span = tracer.start_span("survives")
        prela.init("second", auto_instrument=False)
        assert span.status is SpanStatus.PENDING
        assert prela.shutdown(5) is not None
        assert (span.is_ended, span.status.value) == (True, "CANCELLED")
    finally:
        prela.shutdown()


def test_the_items_of_a_wait_have_its_reason_and_latest_end() -> None:
    with capture_spans() as captured:
        span = get_tracer().start_span("ask")
        span.suspend(until=5, reason="approval")
        span.resume()
        span.suspend()
        span.end()
    heads = [decode_head(item) for item in captured.items]
    assert [ItemKind(head.kind).name for head in heads] == ["SUSPEND", "RESUME", "SUSPEND", "SPAN"]
    assert decode_span(captured.items[0]).attributes == {
        "prela.suspend.until": 5,
        "prela.suspend.reason": "approval",
    }
    assert [event.name for event in captured.find("ask").events] == ["suspend", "resume", "suspend"]
    assert captured.find("ask").events[0].attributes["prela.suspend.until"] == 5


async def test_a_start_item_is_small_whatever_the_name_is() -> None:
    captured = CapturedSpans()
    tracer = Tracer(exporter=captured)
    with tracer.span("n" * 2_000_000), tracer.span("child"):
        pass
    start = next(item for item in captured.items if decode_head(item).kind == ItemKind.START)
    assert len(start) < 2_000
    assert decode_head(start).name.endswith(" characters cut]")


def test_finding_open_spans_raises_nothing_in_other_threads() -> None:
    """CPython resizes the tuple that `tuple(generator)` builds, and fails if anything else refers to it (gh-59313)."""
    done = threading.Event()
    errors: list[BaseException] = []

    def build() -> None:
        try:
            while not done.is_set():
                tuple(number for number in range(3_000))
        except SystemError as error:
            errors.append(error)

    threads = [threading.Thread(target=build) for _ in range(2)]
    with capture_spans():
        for thread in threads:
            thread.start()
        try:
            with prela.span("open") as span:
                found = [_all_spans() for _ in range(25)]
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert errors == []
    assert all(any(one is span for one in spans) for spans in found)
