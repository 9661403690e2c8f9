"""The context in threads, executors and wrapped functions."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest

from prela_stream.model.span import AFTER_END
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.carrying import ContextThreadPoolExecutor, wrap
from prela_stream.tracing.tracer import get_current_span, get_tracer


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


tracer = get_tracer()


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


def test_wrap_carries_the_trace_into_what_a_function_returns(captured: CapturedSpans) -> None:
    def steps(name: str) -> Iterator[int]:
        with tracer.span(name):
            yield 1

    async def later(name: str) -> int:
        with tracer.span(name):
            return 1

    def plain_later(name: str) -> Coroutine[Any, Any, int]:
        return later(name)

    with tracer.span("root"):
        generator_function, plain_function = wrap(steps), wrap(plain_later)
    with tracer.span("elsewhere"):
        assert list(generator_function("generator")) == [1]
        assert asyncio.run(plain_function("coroutine")) == 1
    assert_tree(captured.spans, "root\n  generator\n  coroutine\nelsewhere")
