"""The span of a function lasts as long as the object that the function returned."""

import asyncio
import concurrent.futures
import gc
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self
from unittest.mock import MagicMock

import pytest

import prela_stream as prela
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


def trace_if(wanted: bool) -> Callable[[Any], Any]:
    """`@trace`, or a decorator that changes nothing."""
    return prela.trace if wanted else lambda function: function


def inside() -> None:
    with tracer.span("inside"):
        pass


async def coroutine() -> int:
    await asyncio.sleep(0)
    inside()
    return 7


def generator() -> Iterator[int]:
    inside()
    yield 7


async def async_generator() -> AsyncIterator[int]:
    inside()
    yield 7


class Awaitable:
    def __await__(self) -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        inside()
        return 7


class Slotted:
    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, int]:
        return coroutine().__await__()


class Request:
    """As the requests of aiohttp: awaited, or entered."""

    __slots__ = ("closed",)

    def __await__(self) -> Generator[Any, Any, int]:
        return coroutine().__await__()

    async def __aenter__(self) -> Self:
        inside()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True


class Stream:
    def __init__(self, error: BaseException | None = None) -> None:
        self.left = [7]
        self.error = error or StopAsyncIteration()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        if self.left:
            inside()
            return self.left.pop()
        raise self.error

    async def aclose(self) -> None:
        pass


async def read(stream: Any) -> list[int]:
    return [item async for item in stream]


async def awaited(value: Any) -> list[int]:
    return [await value]


async def iterated(values: Any) -> list[int]:
    return list(values)


RETURNED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "coroutine": (coroutine, awaited),
    "generator": (generator, iterated),
    "async generator": (async_generator, read),
    "awaitable": (Awaitable, awaited),
    "awaitable with slots": (Slotted, awaited),
    "async iterator": (Stream, read),
    "task": (lambda: asyncio.ensure_future(coroutine()), awaited),
    "anext": (lambda: anext(async_generator()), awaited),
}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("make", "use"), RETURNED.values(), ids=RETURNED)
async def test_the_span_ends_with_the_returned_object(
    make: Callable[[], Any], use: Callable[[Any], Any], is_async: bool, captured: CapturedSpans
) -> None:
    @prela.trace
    def call() -> Any:
        return make()

    @prela.trace("call")
    async def async_call() -> Any:
        return make()

    with tracer.span("caller"):
        returned = await async_call() if is_async else call()
        assert captured.spans == []
        with tracer.span("consumer"):
            assert await use(returned) == [7]
    assert_tree(captured.spans, "caller\n  call\n    inside\n  consumer")


@pytest.mark.parametrize("is_above", [False, True])
def test_a_context_manager_has_a_span_as_long_as_its_block(is_above: bool, captured: CapturedSpans) -> None:
    @trace_if(is_above)
    @contextmanager
    @trace_if(not is_above)
    def opened() -> Iterator[int]:
        inside()
        yield 7

    for _ in range(2):
        with opened() as value:
            assert (value, captured.named("opened"), prela.get_current_span()) == (7, [], None)
        assert [one.status.name for one in captured.named("opened")] == ["SUCCESS"]
        captured.clear()
    with pytest.raises(ValueError, match="of the block"), opened():
        raise ValueError("of the block")
    assert [one.status.name for one in captured.named("opened")] == ["ERROR"]
    captured.clear()
    decorated = opened()(inside)
    assert captured.spans == []
    decorated()
    assert len(captured.named("opened")) == 1


@pytest.mark.parametrize("is_above", [False, True])
async def test_an_async_context_manager_has_a_span_as_long_as_its_block(
    is_above: bool, captured: CapturedSpans
) -> None:
    @trace_if(is_above)
    @asynccontextmanager
    @trace_if(not is_above)
    async def opened() -> AsyncIterator[int]:
        yield 7

    async with opened() as value:
        assert (value, captured.spans) == (7, [])
    assert [one.name for one in captured.spans] == ["opened"]


async def test_an_object_with_slots_keeps_its_identity_and_its_other_methods(captured: CapturedSpans) -> None:
    request = Request()
    make: Any = prela.trace("call")(lambda: request)
    async with make() as entered:
        assert entered is request
        assert [span.name for span in captured.spans] == ["inside"]
    assert (type(request), request.closed) == (Request, True)
    assert captured.find("call").status == "SUCCESS"
    assert await make() == 7
    assert [span.name for span in captured.spans].count("call") == 2


async def test_an_object_keeps_its_identity_class_and_fields(captured: CapturedSpans) -> None:
    stream = Stream()
    make: Any = prela.trace(lambda: stream)
    returned = make()
    assert returned is stream
    assert isinstance(returned, Stream)
    assert await read(returned) == [7]
    assert (type(stream), set(vars(stream))) == (Stream, {"left", "error"})


async def test_errors_are_recorded_and_raised(captured: CapturedSpans) -> None:
    with pytest.raises(ValueError, match="torn"):
        await read(prela.trace(lambda: Stream(ValueError("torn")))())
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert prela.trace(lambda: future)() is future
    future.set_exception(KeyError("gone"))
    with pytest.raises(KeyError):
        await future
    cancelled = asyncio.ensure_future(coroutine())
    prela.trace(lambda: cancelled)()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.sleep(0)
    found = [(span.status, span.attributes["error.type"]) for span in captured.spans if span.name == "<lambda>"]
    assert found == [("ERROR", "ValueError"), ("ERROR", "KeyError"), ("CANCELLED", "CancelledError")]


def test_a_future_of_a_thread(captured: CapturedSpans) -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    traced: Any = prela.trace("call", capture_result=True)(lambda: future)
    assert traced() is future
    assert captured.spans == []
    future.set_result(7)
    assert captured.find("call").attributes["prela.function.result"] == 7


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("make", [coroutine, generator, async_generator, Awaitable, Stream])
def test_the_span_ends_if_the_object_is_dropped(make: Callable[[], Any], captured: CapturedSpans) -> None:
    def call() -> Any:
        return make()

    returned = prela.trace(call)()
    assert captured.spans == []
    del returned
    gc.collect()
    assert [span.name for span in captured.spans] == ["call"]


async def test_closing_an_iterator_ends_the_span(captured: CapturedSpans) -> None:
    def call() -> Stream:
        return Stream()

    stream = prela.trace(call)()
    assert await anext(stream) == 7
    await stream.aclose()
    assert captured.find("call").status == "SUCCESS"


def test_a_mock_is_an_ordinary_result(captured: CapturedSpans) -> None:
    mock = MagicMock()
    assert prela.trace("call")(lambda: mock)() is mock
    assert len(captured.spans) == 1
