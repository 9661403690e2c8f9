"""The current span under tasks, threads, generators and exits out of order."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest

from prela_stream.model.span import AFTER_END, COUNTED
from prela_stream.propagation.w3c import inject
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.carrying import ContextThreadPoolExecutor, wrap
from prela_stream.tracing.context import attach, new_trace_context
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


def test_a_new_thread_starts_its_own_trace_and_a_wrapped_function_does_not(captured: CapturedSpans) -> None:
    def work(name: str) -> None:
        with tracer.span(name):
            pass

    with tracer.span("root") as root:
        threads = [threading.Thread(target=work, args=["alone"]), threading.Thread(target=wrap(work), args=["joined"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert get_current_span() is root
    assert captured.find("alone").trace_id != root.trace_id
    assert captured.find("joined").parent_span_id == root.span_id


def test_sixty_four_threads_at_once_share_one_wrapped_function(captured: CapturedSpans) -> None:
    barrier = threading.Barrier(64)

    @wrap
    def without_parent(number: int) -> None:
        barrier.wait(10)
        with tracer.span(f"t{number}") as span:
            for _ in range(20):
                with tracer.span("step") as step:
                    assert step.parent_span_id == span.span_id

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(without_parent, range(64)))
    assert len(captured.spans) == 64 * 21
    assert {span.child_count for span in captured.roots} == {20}
    assert len({span.span_id for span in captured.spans}) == 64 * 21


async def test_executor_and_to_thread_carry_the_current_span(captured: CapturedSpans) -> None:
    def work(name: str) -> None:
        with tracer.span(name):
            pass

    with tracer.span("root") as root:
        with ContextThreadPoolExecutor(2) as pool:
            pool.submit(work, "submitted").result()
            list(pool.map(work, ["mapped"]))
        await asyncio.to_thread(work, "asyncio")
        await anyio.to_thread.run_sync(work, "anyio")
    assert {span.name for span in captured.children(captured.find("root"))} == {
        "submitted",
        "mapped",
        "asyncio",
        "anyio",
    }
    assert root.trace_id == captured.find("mapped").trace_id


async def test_wrapped_coroutine_function_runs_in_the_trace_it_was_wrapped_in(captured: CapturedSpans) -> None:
    async def work() -> str:
        with tracer.span("later"):
            return "done"

    with tracer.span("root") as root:
        later = wrap(work)
    assert await later() == "done"
    assert captured.find("later").parent_span_id == root.span_id
    assert captured.find("later").flags == AFTER_END


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


def test_attach_makes_a_started_span_current_without_ending_it(captured: CapturedSpans) -> None:
    span = tracer.start_span("manual")
    assert get_current_span() is None
    with attach(span):
        assert get_current_span() is span
        with attach(None), tracer.span("elsewhere"):
            pass
    assert not span.is_ended
    span.end()
    assert captured.find("elsewhere").trace_id != span.trace_id


def test_new_trace_context_gives_its_id_to_the_roots_inside(captured: CapturedSpans) -> None:
    wanted = "0af7651916cd43dd8448eb211c80319c"
    with tracer.span("around"), new_trace_context(trace_id=wanted, baggage={"user": "7"}) as context:
        with tracer.span("inside") as span:
            assert span.context.get_baggage("user") == "7"
            context.set_baggage("tier", "gold")
            assert dict(span.context.baggage) == {"user": "7", "tier": "gold"}
        assert context.trace_id == wanted
    assert captured.find("inside").trace_id == wanted
    assert captured.find("inside").parent_span_id is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0AF7651916CD43DD8448EB211C80319C", "0af7651916cd43dd8448eb211c80319c"),
        ("0af76519-16cd-43dd-8448-eb211c80319c", "0af7651916cd43dd8448eb211c80319c"),
    ],
)
def test_trace_ids_of_the_ancestor_are_understood(text: str, expected: str) -> None:
    with new_trace_context(trace_id=text) as context:
        assert context.trace_id == expected


def test_a_trace_id_that_is_no_hex_is_hashed_the_same_way_each_time() -> None:
    with new_trace_context(trace_id="request-17") as first, new_trace_context(trace_id="request-17") as second:
        assert first.trace_id == second.trace_id
        assert len(first.trace_id) == 32


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


def test_the_context_of_a_span_is_that_span_as_a_parent(captured: CapturedSpans) -> None:
    with tracer.span("request") as request, tracer.span("agent") as agent:
        pass
    open_span = tracer.start_span("open", parent=agent)
    with attach(open_span.context), tracer.span("attached"):
        assert tracer.get_current_span() is not open_span
    with attach(open_span.context):
        assert tracer.get_current_span() is open_span
    with tracer.span("named", parent=open_span.context):
        pass
    assert inject({}, open_span.context)["traceparent"] == f"00-{open_span.trace_id}-{open_span.span_id}-03"
    open_span.add_link(request.context)
    open_span.end()
    found = captured.find("open")
    for name in ("attached", "named"):
        assert (captured.find(name).parent_span_id, captured.find(name).flags) == (open_span.span_id, COUNTED)
    assert (found.child_count, found.inject_count) == (2, 1)
    assert [link.span_id.hex() for link in found.links] == [request.span_id]
    assert open_span.context == open_span.context != agent.context
    open_span.context.set_baggage("user", "7")
    assert request.context.get_baggage("user") == "7"
