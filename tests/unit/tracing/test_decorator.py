"""`@trace` on every kind of function."""

import functools
import inspect
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any

import pytest

from prela_stream.model.span import SpanType
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.decorator import trace
from prela_stream.tracing.tracer import Tracer, get_current_span, get_tracer


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


def test_bare_and_with_arguments(captured: CapturedSpans) -> None:
    @trace
    def bare(x: int) -> int:
        """Doubles."""
        return 2 * x

    @trace("named", span_type=SpanType.TOOL, attributes={"a": 1})
    def named() -> int:
        return bare(x=2)

    assert named() == 4
    assert_tree(captured.spans, "named [TOOL]\n  bare")
    assert captured.find("named").attributes == {"function.name": "named", "function.module": __name__, "a": 1}
    assert (bare.__name__, bare.__doc__) == ("bare", "Doubles.")


async def test_coroutine_functions_stay_coroutine_functions(captured: CapturedSpans) -> None:
    @trace
    async def work() -> str:
        span = get_current_span()
        assert span is not None
        return span.name

    assert inspect.iscoroutinefunction(work)
    assert await work() == "work"
    assert captured.find("work").status == "SUCCESS"


async def test_errors_go_through(captured: CapturedSpans) -> None:
    @trace
    async def work() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        await work()
    assert captured.find("work").status == "ERROR"


def test_generator_is_current_while_it_runs_and_not_in_its_consumer(captured: CapturedSpans) -> None:
    tracer = get_tracer()

    @trace
    def numbers() -> Generator[int, str, str]:
        with tracer.span("inside"):
            pass
        sent = yield 1
        assert sent == "go on"
        try:
            yield 2
        except KeyError:
            yield 3
        return "end"

    with tracer.span("consumer"):
        generator = numbers()
        assert next(generator) == 1
        with tracer.span("between"):
            pass
        assert generator.send("go on") == 2
        assert generator.throw(KeyError()) == 3
        with pytest.raises(StopIteration) as stopped:
            next(generator)
    assert stopped.value.value == "end"
    assert_tree(captured.spans, "consumer\n  numbers\n    inside\n  between")


def test_a_generator_that_is_left_early_succeeds_and_cleans_up(captured: CapturedSpans) -> None:
    cleaned = []

    @trace
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            cleaned.append(get_current_span())

    generator = numbers()
    next(generator)
    generator.close()  # type: ignore[attr-defined]  # a generator in fact
    assert captured.find("numbers").status == "SUCCESS"
    assert [span.name for span in cleaned if span] == ["numbers"]


async def test_async_generator(captured: CapturedSpans) -> None:
    tracer = get_tracer()

    @trace(span_type=SpanType.LLM)
    async def chunks() -> AsyncGenerator[int, None]:
        for number in range(3):
            with tracer.span("chunk"):
                pass
            try:
                yield number
            except KeyError:
                yield -1

    assert inspect.isasyncgen(chunks())
    with tracer.span("consumer"):
        generator = chunks()
        assert await anext(generator) == 0
        assert await generator.athrow(KeyError()) == -1
        async for _ in generator:
            with tracer.span("used"):
                pass
        left = chunks()
        await anext(left)
        await left.aclose()
    assert_tree(
        captured.spans,
        """
        consumer
          chunks [LLM]
            chunk
            chunk
            chunk
          used
          used
          chunks [LLM]
            chunk
        """,
    )


def test_a_tracer_may_be_given(captured: CapturedSpans) -> None:
    own = CapturedSpans()

    @trace("x", tracer=Tracer(exporter=own))
    def work() -> None: ...

    work()
    assert captured.spans == []
    assert own.find("x").name == "x"


class Service:
    @trace(capture_arguments=True, capture_result=True)
    def method(self, x: int, *more: int, flag: bool = False, **options: object) -> list[int]:
        return [x, *more]

    @trace("above", capture_arguments=True)
    @classmethod
    def above(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @classmethod
    @trace("below", capture_arguments=True)
    def below(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @trace
    @staticmethod
    def static(x: int) -> int:
        return x

    @trace("coroutine", span_type=SpanType.TOOL, capture_arguments=True, capture_result=True)
    async def coroutine(self, query: str) -> dict[str, str]:
        return {"page": query}


async def test_methods_of_every_kind_with_arguments_and_results(captured: CapturedSpans) -> None:
    service = Service()
    assert service.method(1, 2, flag=True, colour="red") == [1, 2]
    assert (Service.above(1), service.below(2), Service.static(3)) == ("Service1", "Service2", 3)
    assert await service.coroutine("reefs") == {"page": "reefs"}
    method = captured.find("method").attributes
    assert method["prela.function.arguments"] == {"x": 1, "more": [2], "flag": True, "options": {"colour": "red"}}
    assert method["prela.function.result"] == [1, 2]
    assert captured.find("above").attributes["prela.function.arguments"] == {"x": 1}
    assert captured.find("below").attributes["prela.function.arguments"] == {"x": 2}
    assert "prela.function.arguments" not in captured.find("static").attributes
    tool = captured.find("coroutine").attributes
    assert (tool["gen_ai.tool.call.arguments"], tool["gen_ai.tool.call.result"]) == (
        {"query": "reefs"},
        {"page": "reefs"},
    )


def test_arguments_are_recorded_as_they_were_at_the_call(captured: CapturedSpans) -> None:
    @trace(capture_arguments=True)
    def consume(items: list[int]) -> None:
        items.clear()

    consume([1, 2])
    assert captured.find("consume").attributes["prela.function.arguments"] == {"items": [1, 2]}


def test_arguments_that_do_not_fit_are_the_functions_error_alone(captured: CapturedSpans) -> None:
    @trace(capture_arguments=True)
    def one(x: int) -> int:
        return x

    with pytest.raises(TypeError, match="positional argument"):
        one(1, 2)  # type: ignore[call-arg]
    assert captured.find("one").attributes["prela.function.arguments"] == {"args": [1, 2], "kwargs": {}}
    assert captured.find("one").status == "ERROR"


async def test_generators_record_their_arguments_and_what_they_return(captured: CapturedSpans) -> None:
    @trace(capture_arguments=True, capture_result=True)
    def count(to: int) -> Generator[int, None, str]:
        yield from range(to)
        return "done"

    @trace(capture_arguments=True)
    async def later(to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    assert list(count(2)) == [0, 1]
    assert [number async for number in later(2)] == [0, 1]
    assert captured.find("count").attributes["prela.function.arguments"] == {"to": 2}
    assert captured.find("count").attributes["prela.function.result"] == "done"
    assert captured.find("later").attributes["prela.function.arguments"] == {"to": 2}


async def test_objects_that_are_called(captured: CapturedSpans) -> None:
    class Later:
        async def __call__(self) -> str:
            span = get_current_span()
            assert span is not None
            return span.name

    assert await trace(Later())() == "Later"
    assert trace(functools.partial(int, base=2))("101") == 5
    assert [span.name for span in captured.spans] == ["Later", "partial"]


def test_a_class_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    assert trace(Service) is Service
    assert trace("name")(Service) is Service


@pytest.mark.parametrize("name", ["capture_arguments", "capture_result"])
def test_a_switch_that_is_no_bool_is_off_and_warned_of(
    captured: CapturedSpans, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    wrong: Any = {name: f"yes, {name}"}
    trace("x", **wrong)(len)([1])
    assert set(captured.find("x").attributes) == {"function.name", "function.module"}
    assert [record.levelname for record in caplog.records if name in record.getMessage()] == ["WARNING"]
