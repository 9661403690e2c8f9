"""A span that a generator opens is the parent of what the generator runs, and of nothing that its consumer does."""

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest

from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing import generators, parent
from prela_stream.tracing.carrying import ContextThreadPoolExecutor, wrap
from prela_stream.tracing.context import attach, new_trace_context
from prela_stream.tracing.decorator import trace
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import get_current_span, get_tracer

tracer = get_tracer()


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans
    gc.collect()
    assert not generators.watched, "a generator's frame is still watched"
    assert parent.get_raw() is None


def name_here() -> str | None:
    """The name of the current span."""
    span = get_current_span()
    return None if span is None else span.name


def leaf(name: str) -> None:
    """A span without children."""
    with tracer.span(name):
        pass


async def async_leaf(name: str) -> None:
    """As `leaf`, in a task or awaited."""
    with tracer.span(name):
        await asyncio.sleep(0)


def numbers(count: int = 3, name: str = "numbers") -> Generator[int, None, None]:
    """Opens a span around all its items, and one for each."""
    with tracer.span(name):
        for number in range(count):
            leaf(f"making {number}")
            yield number
            assert name_here() == name


async def chunks(count: int = 3, name: str = "chunks") -> AsyncGenerator[int, None]:
    """As `numbers`, with an await before each item."""
    async with tracer.span(name):
        for number in range(count):
            await async_leaf(f"making {number}")
            yield number
            assert name_here() == name


# --- the consumer ---


def test_what_a_loop_does_with_the_items_is_not_the_generators(captured: CapturedSpans) -> None:
    with tracer.span("root"):
        for number in numbers(2):
            assert name_here() == "root"
            leaf(f"using {number}")
    assert_tree(captured.spans, "root\n  numbers\n    making 0\n    making 1\n  using 0\n  using 1")
    assert captured.find("root").child_count == 3
    assert captured.find("numbers").child_count == 2


async def test_what_an_async_loop_does_with_the_items_is_not_the_generators(captured: CapturedSpans) -> None:
    with tracer.span("root"):
        async for number in chunks(2):
            assert name_here() == "root"
            await async_leaf(f"using {number}")
    assert_tree(captured.spans, "root\n  chunks\n    making 0\n    making 1\n  using 0\n  using 1")


def test_without_a_span_around_the_loop_each_use_is_a_root(captured: CapturedSpans) -> None:
    for number in numbers(2):
        assert get_current_span() is None
        leaf(f"using {number}")
    assert [span.name for span in captured.roots] == ["numbers", "using 0", "using 1"]


def test_no_generator_is_watched_after_a_break(captured: CapturedSpans) -> None:
    with tracer.span("root"):
        generator = numbers()
        for _ in generator:
            break
        leaf("after the break")
        generator.close()
        leaf("after the close")
    leaf("outside")
    assert captured.find("numbers").status == "SUCCESS"
    assert captured.find("root").child_count == 3
    assert [span.name for span in captured.roots] == ["root", "outside"]


async def test_a_broken_async_loop_whose_generator_the_loop_closes_elsewhere(captured: CapturedSpans) -> None:
    with tracer.span("root"):
        for _ in range(50):
            async for _ in chunks():
                break
            leaf("after the break")
        raw, depth = parent.get_raw(), 0
        while raw is not None:
            raw, depth = generators.previous_of(raw), depth + 1
        assert depth < 20  # what was closed in another context is not held for ever
    with anyio.fail_after(10):
        while len(captured.named("chunks")) < 50:
            await asyncio.sleep(0)
    assert captured.find("root").child_count == 100
    assert {span.status for span in captured.named("chunks")} == {"SUCCESS"}


def test_two_generators_in_step(captured: CapturedSpans) -> None:
    with tracer.span("root"):
        for number, _ in zip(numbers(2, "a"), numbers(2, "b"), strict=True):
            leaf(f"pair {number}")
    assert_tree(
        captured.spans,
        """
        root
          a
            making 0
            making 1
          b
            making 0
            making 1
          pair 0
          pair 1
        """,
    )


def test_items_made_under_a_later_span_of_the_consumer_are_still_the_generators(captured: CapturedSpans) -> None:
    generator = numbers(3)
    with tracer.span("root"):
        next(generator)
        with tracer.span("step"):
            next(generator)
            assert name_here() == "step"
            leaf("used in step")
        with attach(None):
            next(generator)
            assert get_current_span() is None
        assert name_here() == "root"
        generator.close()
        assert name_here() == "root"
    assert_tree(
        captured.spans,
        """
        root
          numbers
            making 0
            making 1
            making 2
          step
            used in step
        """,
    )


def test_spans_of_one_generator_nest_and_a_consumers_span_may_end_between_them(captured: CapturedSpans) -> None:
    def steps() -> Iterator[str]:
        with tracer.span("outer"):
            yield "outer"
            with tracer.span("inner"):
                leaf("in inner")
                yield "inner"
                leaf("in inner again")
            leaf("in outer again")
            yield "outer again"

    generator = steps()
    next(generator)
    with tracer.span("consumer"):
        next(generator)
        leaf("by the consumer")
    assert get_current_span() is None
    next(generator)
    assert get_current_span() is None
    assert list(generator) == []
    assert_tree(
        captured.spans,
        """
        outer
          inner
            in inner
            in inner again
          in outer again
        consumer
          by the consumer
        """,
    )


# --- generators in generators ---


def test_a_generator_that_consumes_another_one(captured: CapturedSpans) -> None:
    def doubled() -> Iterator[int]:
        with tracer.span("doubled"):
            for number in numbers(2):
                leaf(f"doubling {number}")
                yield number
                yield number

    with tracer.span("root"):
        for _ in doubled():
            leaf("used")
    assert_tree(
        captured.spans,
        """
        root
          doubled
            numbers
              making 0
              making 1
            doubling 0
            doubling 1
          used
          used
          used
          used
        """,
    )


def test_yield_from(captured: CapturedSpans) -> None:
    def outer() -> Generator[int, None, str]:
        with tracer.span("outer"):
            yield from numbers(1)
            leaf("after")
            return "end"

    generator = outer()
    next(generator)
    leaf("by the consumer")
    with pytest.raises(StopIteration, match="end"):
        next(generator)
    assert_tree(captured.spans, "outer\n  numbers\n    making 0\n  after\nby the consumer")


def test_throw_is_handled_inside(captured: CapturedSpans) -> None:
    def stubborn() -> Generator[int, None, None]:
        with tracer.span("stubborn"):
            try:
                yield 1
            except KeyError:
                leaf("handling")
                yield 2

    with tracer.span("root"):
        generator = stubborn()
        next(generator)
        assert generator.throw(KeyError()) == 2
        leaf("by the consumer")
        with pytest.raises(ValueError, match="bad"):
            generator.throw(ValueError("bad"))
    assert_tree(captured.spans, "root\n  stubborn ERROR\n    handling\n  by the consumer")


async def test_athrow_and_aclose_in_another_task(captured: CapturedSpans) -> None:
    async def stubborn() -> AsyncGenerator[int, None]:
        async with tracer.span("stubborn"):
            try:
                yield 1
            except KeyError:
                await async_leaf("handling")
                yield 2
            finally:
                leaf("closing")

    async def elsewhere() -> None:
        with tracer.span("elsewhere"):
            assert await generator.athrow(KeyError()) == 2
            assert name_here() == "elsewhere"
            await generator.aclose()
            assert name_here() == "elsewhere"

    generator = stubborn()
    await anext(generator)
    leaf("by the consumer")
    await asyncio.create_task(elsewhere())
    assert get_current_span() is None
    assert_tree(captured.spans, "stubborn\n  handling\n  closing\nby the consumer\nelsewhere")


def test_traced_generators_inside_and_around(captured: CapturedSpans) -> None:
    @trace
    def traced() -> Iterator[int]:
        with tracer.span("with in traced"):
            leaf("inside")
            yield 1
            leaf("inside again")

    def outer() -> Iterator[int]:
        with tracer.span("outer"):
            for number in traced():
                leaf("outer's use")
                yield number

    for _ in outer():
        leaf("used")
    assert_tree(
        captured.spans,
        """
        outer
          traced
            with in traced
              inside
              inside again
          outer's use
        used
        """,
    )


# --- context managers made of generators ---


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
    """A context manager around a span."""
    with tracer.span(name):
        leaf(f"before {name}")
        yield
        leaf(f"after {name}")


@contextlib.asynccontextmanager
async def async_section(name: str) -> AsyncIterator[None]:
    """As `section`."""
    async with tracer.span(name):
        await async_leaf(f"before {name}")
        yield


class Holder:
    """Has a context manager as a method, built on another one."""

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[str]:
        """As `section`, once more around it."""
        with section(name), tracer.span(f"inner {name}"):
            yield name


def test_under_contextmanager_the_span_is_the_parent_of_the_with_body(captured: CapturedSpans) -> None:
    with section("a"):
        leaf("in a")
        with Holder().section("b"):
            leaf("in b")
        leaf("in a again")
    leaf("outside")
    assert_tree(
        captured.spans,
        """
        a
          before a
          in a
          b
            before b
            inner b
              in b
            after b
          in a again
          after a
        outside
        """,
    )


async def test_under_asynccontextmanager_too_and_in_exit_stacks(captured: CapturedSpans) -> None:
    async with async_section("a"), contextlib.AsyncExitStack() as stack:
        await async_leaf("in a")
        await stack.enter_async_context(async_section("b"))
        stack.enter_context(section("c"))
        await stack.enter_async_context(tracer.span("d"))
        leaf("in d")
    leaf("outside")
    assert_tree(
        captured.spans,
        """
        a
          before a
          in a
          b
            before b
            c
              before c
              d
                in d
              after c
        outside
        """,
    )


def test_context_managers_and_exit_stacks_in_a_generator_are_the_generators(captured: CapturedSpans) -> None:
    def steps() -> Iterator[int]:
        with section("a"), contextlib.ExitStack() as stack:
            stack.enter_context(tracer.span("b"))
            leaf("in b")
            yield 1
            leaf("in b again")
            with attach(None), new_trace_context():
                leaf("another trace")
                yield 2

    with tracer.span("root"):
        for _ in steps():
            assert name_here() == "root"
            leaf("used")
    tree = captured.tree()
    assert "root\n  a\n    before a\n    b\n      in b\n      in b again\n    after a\n  used\n  used" in tree
    assert "another trace" in {span.name for span in captured.roots}


def test_scope_caller_is_current_for_the_code_that_resumes_the_generator(captured: CapturedSpans) -> None:
    def fixture() -> Iterator[str]:
        with (
            tracer.span("fixture", scope="caller"),
            attach(None, scope="caller"),
            new_trace_context("7" * 32, scope="caller"),
        ):
            yield "value"

    generator = fixture()
    next(generator)
    leaf("test")
    assert list(generator) == []
    assert captured.find("test").trace_id == "7" * 32
    assert get_current_span() is None


@pytest.fixture
def traced_fixture(captured: CapturedSpans) -> Iterator[str]:
    with tracer.span("whole test", scope="caller") as span:
        yield span.span_id


def test_with_scope_caller_a_fixture_spans_its_test(traced_fixture: str) -> None:
    span = get_current_span()
    assert span is not None
    assert span.span_id == traced_fixture


# --- tasks, threads and callbacks ---


async def test_a_task_is_a_child_of_the_code_that_created_it(captured: CapturedSpans) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def produce() -> AsyncIterator[int]:
        async with tracer.span("produce"):
            for number in range(3):
                tasks.append(asyncio.create_task(async_leaf(f"produced {number}")))
                yield number  # before the task has run
                await asyncio.sleep(0)  # here the consumer's task runs for the first time
                await asyncio.gather(async_leaf("gathered inside"))

    with tracer.span("root"):
        async for number in produce():
            tasks.append(asyncio.create_task(async_leaf(f"consumed {number}")))  # noqa: PERF401 - a plain loop is the case
        await asyncio.gather(*tasks)
    produce_span, root = captured.find("produce"), captured.find("root")
    assert {span.name for span in captured.children(produce_span)} == {
        "produced 0",
        "produced 1",
        "produced 2",
        "gathered inside",
    }
    assert {span.name for span in captured.children(root)} == {"produce", "consumed 0", "consumed 1", "consumed 2"}
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_a_task_factory_of_the_application_is_still_called(captured: CapturedSpans) -> None:
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def first(loop: asyncio.AbstractEventLoop, coroutine: object, **options: object) -> asyncio.Task[object]:
        made.append("first")
        return asyncio.Task(coroutine, loop=loop, **options)  # type: ignore[arg-type]  # what factories are given

    loop.set_task_factory(first)  # type: ignore[arg-type]  # narrower than the protocol's
    generator, other = chunks(1, "one"), chunks(2, "two")
    await anext(generator)
    hooked = loop.get_task_factory()
    assert hooked is not first
    assert hooked is not None

    def second(loop: asyncio.AbstractEventLoop, coroutine: object, **options: object) -> asyncio.Future[object]:
        made.append("second")
        return hooked(loop, coroutine, **options)  # type: ignore[arg-type]  # as above

    loop.set_task_factory(second)  # type: ignore[arg-type]  # as above
    await generator.aclose()
    assert loop.get_task_factory() is second
    await anext(other)
    await asyncio.create_task(async_leaf("task"))
    await other.aclose()
    assert loop.get_task_factory() is second
    assert made == ["second", "first"]
    loop.set_task_factory(None)


async def test_threads_that_a_generator_or_its_consumer_waits_for(captured: CapturedSpans) -> None:
    async def produce() -> AsyncIterator[int]:
        async with tracer.span("produce"):
            await asyncio.to_thread(leaf, "inside, asyncio")
            await anyio.to_thread.run_sync(leaf, "inside, anyio")
            yield 1

    with tracer.span("root"):
        async for _ in produce():
            await asyncio.to_thread(leaf, "outside, asyncio")
            await anyio.to_thread.run_sync(leaf, "outside, anyio")
    assert_tree(
        captured.spans,
        """
        root
          produce
            inside, asyncio
            inside, anyio
          outside, asyncio
          outside, anyio
        """,
    )


def test_wrap_and_executors_carry_the_current_span(captured: CapturedSpans) -> None:
    def produce() -> Iterator[int]:
        with tracer.span("produce"):
            wrapped.append(wrap(leaf))
            pool.submit(leaf, "submitted inside").result()
            yield 1

    wrapped = []
    with tracer.span("root"), ContextThreadPoolExecutor(1) as pool:
        for _ in produce():
            wrapped.append(wrap(leaf))
            pool.submit(leaf, "submitted outside").result()
        wrapped[0]("wrapped inside")
        wrapped[1]("wrapped outside")
    assert_tree(
        captured.spans,
        """
        root
          produce
            submitted inside
            wrapped inside
          submitted outside
          wrapped outside
        """,
    )


async def test_callbacks_after_the_item_are_the_consumers(captured: CapturedSpans) -> None:
    done = asyncio.Event()
    with tracer.span("root"):
        async for _ in chunks(1):
            asyncio.get_running_loop().call_soon(leaf, "callback")
            asyncio.get_running_loop().call_soon(done.set)
            await done.wait()
    assert [span.name for span in captured.children(captured.find("root"))] == ["chunks", "callback"]


def test_each_step_in_another_thread_and_context(captured: CapturedSpans) -> None:
    """As a web server streams a response that is a plain generator."""
    with tracer.span("request"), ThreadPoolExecutor(3) as pool:
        generator = numbers(3)
        for number in range(3):
            step = contextvars.copy_context()
            assert pool.submit(step.run, next, generator).result() == number
            leaf(f"sending {number}")
        pool.submit(contextvars.copy_context().run, generator.close).result()
    assert_tree(
        captured.spans,
        """
        request
          numbers
            making 0
            making 1
            making 2
          sending 0
          sending 1
          sending 2
        """,
    )


async def test_a_generator_that_several_tasks_resume(captured: CapturedSpans) -> None:
    async def take(generator: AsyncGenerator[int, None], name: str) -> None:
        with tracer.span(name):
            await anext(generator)
            await async_leaf(f"in {name}")

    generator = chunks(3)
    for name in ("first", "second", "third"):
        await asyncio.create_task(take(generator, name))
    await generator.aclose()
    assert_tree(
        captured.spans,
        """
        first
          chunks
            making 0
            making 1
            making 2
          in first
        second
          in second
        third
          in third
        """,
    )


def test_many_generators_at_once_in_many_threads(captured: CapturedSpans) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait(10)
        with tracer.span(f"thread {number}"):
            generators = [numbers(3, f"generator {number}") for _ in range(20)]
            for _ in range(3):
                for generator in generators:
                    next(generator)
                    leaf("used")
            for generator in generators:
                generator.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    by_id = {span.span_id: span for span in captured.spans}
    for span in captured.spans:
        above = by_id[span.parent_span_id].name if span.parent_span_id else None
        if span.name == "used":
            assert str(above).startswith("thread")
        elif span.name.startswith("making"):
            assert str(above).startswith("generator")
    assert {span.child_count for span in captured.spans if span.name.startswith("thread")} == {80}


def test_a_dropped_generator_is_forgotten(captured: CapturedSpans) -> None:
    async def first_item() -> AsyncGenerator[int, None]:
        generator = chunks()
        await anext(generator)
        return generator

    dropped = []

    def run() -> None:
        loop = asyncio.new_event_loop()
        dropped.append(loop.run_until_complete(first_item()))
        loop.close()  # without shutdown_asyncgens: what is in its `finally` never runs

    contextvars.copy_context().run(run)
    assert generators.watched
    dropped.clear()
    gc.collect()
    assert not generators.watched


def test_a_generator_frees_its_variables_although_contexts_hold_its_entry(captured: CapturedSpans) -> None:
    class Big:
        pass

    def holds() -> Iterator[contextvars.Context]:
        big = Big()
        alive.append(weakref.ref(big))
        with tracer.span("holds"), tracer.span("twice"):
            yield contextvars.copy_context()

    alive: list[weakref.ref[Big]] = []
    contexts = [context for _ in range(3) for context in holds()]
    gc.collect()
    assert [reference() for reference in alive] == [None] * 3
    contexts[0].run(leaf, "later")
    assert captured.find("later").parent_span_id is None


def test_the_last_span_of_a_generator_is_current_in_a_context_that_holds_the_first(captured: CapturedSpans) -> None:
    def steps() -> Iterator[int]:
        with tracer.span("first"):
            yield 1
            with tracer.span("second"):
                yield 2
                assert name_here() == "second"
                yield 3

    generator = steps()
    next(generator)
    contextvars.copy_context().run(next, generator)
    assert next(generator) == 3


def test_a_function_that_a_generator_calls_may_consume_another_one(captured: CapturedSpans) -> None:
    def consume() -> None:
        with tracer.span("consume"):
            for _ in numbers(1):
                leaf("used")

    def outer() -> Iterator[int]:
        with tracer.span("outer"):
            consume()
            yield 1

    next(outer())
    assert captured.find("used").parent_span_id == captured.find("consume").span_id
    assert captured.find("numbers").parent_span_id == captured.find("consume").span_id


def test_spans_of_a_generator_that_end_out_of_order(captured: CapturedSpans) -> None:
    def enter(name: str) -> Span:
        span = tracer.span(name)
        span.__enter__()  # stays current when this function returns
        return span

    def steps() -> Iterator[str | None]:
        first = tracer.span("first")
        first.__enter__()
        second = tracer.span("second")
        second.__enter__()
        third = enter("third")
        second.__exit__(None, None, None)
        yield name_here()
        third.__exit__(None, None, None)
        yield name_here()
        fourth = tracer.span("fourth")
        fourth.__enter__()
        first.__exit__(None, None, None)
        yield name_here()
        fourth.__exit__(None, None, None)
        yield name_here()

    with tracer.span("root"):
        assert [(name, name_here()) for name in steps()] == [
            ("third", "root"),
            ("first", "root"),
            ("fourth", "root"),
            ("root", "root"),
        ]


def test_what_a_generator_left_open_is_found_below_what_its_consumer_opened(captured: CapturedSpans) -> None:
    def steps() -> Generator[int, None, None]:
        with tracer.span("steps"), contextlib.ExitStack() as stack:
            open_in(stack)
            yield 1
            assert name_here() == "opened"
            yield 2

    def open_in(stack: contextlib.ExitStack) -> None:
        span = tracer.span("opened")
        span.__enter__()
        stack.push(span)

    generator, other = steps(), numbers(2)
    next(generator)
    next(other)
    with tracer.span("consumer"):
        assert next(generator) == 2
        assert name_here() == "consumer"
        generator.close()
    other.close()


async def test_a_task_may_end_the_span_of_the_generator_that_made_it(captured: CapturedSpans) -> None:
    async def ends(span: Span) -> str | None:
        assert name_here() == "generator"
        span.__exit__(None, None, None)
        return name_here()

    async def steps() -> AsyncIterator[str | None]:
        span = tracer.span("generator")
        span.__enter__()
        yield await asyncio.create_task(ends(span))
        yield name_here()

    with tracer.span("root"):
        assert [name async for name in steps()] == ["root", "root"]


def test_the_task_factory_is_restored_when_a_generator_is_dropped(captured: CapturedSpans) -> None:
    async def steps() -> AsyncGenerator[int, None]:
        yield 1
        with tracer.span("dropped"):
            yield 2

    async def step(generator: AsyncGenerator[int, None]) -> int:
        return await anext(generator)

    def run() -> None:
        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        generator = steps()
        assert first.run_until_complete(step(generator)) == 1
        first.close()  # it is the one that would have closed the generator
        assert second.run_until_complete(step(generator)) == 2
        assert second.get_task_factory() is not None
        del generator
        gc.collect()
        factories.append(second.get_task_factory())
        second.close()

    factories: list[object] = []
    contextvars.copy_context().run(run)
    gc.collect()
    assert factories == [None]
    assert not generators.watched
