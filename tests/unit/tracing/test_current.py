"""The current span under tasks, threads, generators and exits out of order."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import pytest

from prela_stream.model.span import AFTER_END
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.carrying import wrap
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import get_current_span, get_tracer


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


tracer = get_tracer()


async def child(name: str, wait_for: asyncio.Event, opens: asyncio.Event) -> None:
    with tracer.span(name):
        opens.set()
        await wait_for.wait()
        with tracer.span(f"in {name}"):
            await asyncio.sleep(0)


async def test_gathered_children_are_siblings_although_all_are_open_at_once(captured: CapturedSpans) -> None:
    events = [asyncio.Event() for _ in range(4)]
    events[3].set()
    with tracer.span("root"):
        # each waits until the next one is open: the ancestor SDK makes c1 a child of c0 and c2 a child of c1
        await asyncio.gather(*(child(f"c{i}", wait_for=events[min(i + 1, 3)], opens=events[i]) for i in range(3)))
    assert_tree(
        captured.spans,
        """
        root
          c0
            in c0
          c1
            in c1
          c2
            in c2
        """,
    )
    assert captured.find("root").child_count == 3


async def test_task_groups_of_asyncio_and_anyio(captured: CapturedSpans) -> None:
    async def work(name: str) -> None:
        async with tracer.span(name):
            await anyio.lowlevel.checkpoint()

    with tracer.span("root"):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work("a"))
            tasks.create_task(work("b"))
        async with anyio.create_task_group() as group:
            group.start_soon(work, "c")
            group.start_soon(work, "d")
    assert [span.name for span in captured.children(captured.find("root"))] == ["a", "b", "c", "d"]


async def test_ten_thousand_concurrent_tasks_each_keep_their_own_current_span(captured: CapturedSpans) -> None:
    gate = asyncio.Event()

    async def work(number: int) -> None:
        with tracer.span(f"outer {number}") as outer:
            await gate.wait()
            with tracer.span("inner", attributes={"number": number}) as inner:
                await asyncio.sleep(0)
                assert inner.parent_span_id == outer.span_id
            assert get_current_span() is outer

    with tracer.span("root"):
        tasks = [asyncio.create_task(work(number)) for number in range(10_000)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
    spans = captured.spans
    by_id = {span.span_id: span for span in spans}
    inner = [span for span in spans if span.name == "inner"]
    assert len(spans) == 20_001
    assert {f"outer {span.attributes['number']}" for span in inner} == {f"outer {number}" for number in range(10_000)}
    assert all(by_id[str(span.parent_span_id)].name == f"outer {span.attributes['number']}" for span in inner)
    assert captured.find("root").child_count == 10_000


async def test_an_async_generator_can_be_closed_in_another_context(
    captured: CapturedSpans,
) -> None:
    async def stream() -> AsyncIterator[int]:
        with tracer.span("stream"):
            yield 1
            yield 2

    generator = stream()
    await asyncio.create_task(anext(generator))  # type: ignore[arg-type]  # a coroutine in fact; entered in the task's context

    with tracer.span("other") as other:
        await generator.aclose()  # type: ignore[attr-defined]  # an async generator in fact
        assert get_current_span() is other
    assert captured.find("stream").status == "SUCCESS"
    assert captured.find("other").parent_span_id is None


def test_exits_out_of_order_leave_no_current_span(captured: CapturedSpans) -> None:
    first, second, third = tracer.span("first"), tracer.span("second"), tracer.span("third")
    for span in (first, second, third):
        span.__enter__()
    second.__exit__(None, None, None)
    assert get_current_span() is third
    first.__exit__(None, None, None)
    third.__exit__(None, None, None)
    assert get_current_span() is None
    with tracer.span("next"):
        pass
    assert captured.find("next").trace_id != first.trace_id


def test_exit_in_another_context_does_not_raise(captured: CapturedSpans) -> None:
    span = tracer.span("moved")
    contextvars.copy_context().run(span.__enter__)
    contextvars.copy_context().run(span.__exit__, None, None, None)
    assert get_current_span() is None
    assert captured.find("moved").status == "SUCCESS"


def test_background_task_that_outlives_its_parent_stays_in_the_trace(captured: CapturedSpans) -> None:
    with tracer.span("request") as request:
        context = contextvars.copy_context()

    def background() -> None:
        for name in ("one", "two"):
            with tracer.span(name):
                pass

    context.run(background)
    for name in ("one", "two"):
        assert captured.find(name).parent_span_id == request.span_id
        assert captured.find(name).flags == AFTER_END
    assert captured.find("request").child_count == 0


def test_entering_gives_the_span_itself(captured: CapturedSpans) -> None:
    with tracer.span("x") as span:
        assert type(span) is Span
        assert tracer.get_current_span() is span


async def test_callbacks_run_in_the_context_that_scheduled_them(captured: CapturedSpans) -> None:
    loop = asyncio.get_running_loop()
    left = 3
    done = asyncio.Event()

    def callback(name: str) -> None:
        nonlocal left
        with tracer.span(name):
            left -= 1
        if not left:
            done.set()

    with tracer.span("root"):
        with tracer.span("a"):
            loop.call_soon(callback, "soon")
        with tracer.span("b"):
            loop.call_later(0.001, callback, "later")
        with tracer.span("c"):
            loop.call_soon_threadsafe(callback, "threadsafe")
        await done.wait()
    for parent, name in (("a", "soon"), ("b", "later"), ("c", "threadsafe")):
        assert captured.find(name).parent_span_id == captured.find(parent).span_id


async def test_a_future_runs_a_callback_in_the_context_that_added_it(captured: CapturedSpans) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    def callback(_: object) -> None:
        with tracer.span("callback"):
            done.set()

    with tracer.span("adds"):
        future.add_done_callback(callback)
    with tracer.span("resolves"):
        future.set_result(None)
        await done.wait()
    assert captured.find("callback").parent_span_id == captured.find("adds").span_id


async def test_event_loops_in_threads(captured: CapturedSpans) -> None:
    async def work(name: str) -> None:
        async with tracer.span(name):
            await asyncio.gather(*(child(f"{name} {i}", event, event) for i in range(2)))

    event = asyncio.Event()
    event.set()
    with tracer.span("root"):
        await asyncio.to_thread(lambda: asyncio.run(work("carried")))
        await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(work("bare")))
        await asyncio.get_running_loop().run_in_executor(None, wrap(lambda: asyncio.run(work("wrapped"))))
        assert tracer.get_current_span() is not None
    root = captured.find("root")
    assert [span.name for span in captured.children(root)] == ["carried", "wrapped"]
    assert captured.find("bare").parent_span_id is None  # run_in_executor carries no context: `wrap` does
    for name in ("carried", "bare", "wrapped"):
        assert len(captured.children(captured.find(name))) == 2
