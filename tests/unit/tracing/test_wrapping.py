"""A wrapper has the kind of its function, and what cannot be wrapped is returned unchanged."""

import functools
import inspect
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

import prela_stream as prela
from prela_stream import telemetry
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans


def unnamed(function: Any) -> Any:
    return prela.span()(function)


def named(function: Any) -> Any:
    return prela.tool("named")(function)


DECORATORS: dict[str, Any] = {
    "trace": prela.trace,
    "trace()": prela.trace(),
    "span": prela.span,
    "span()": unnamed,
    "agent": prela.agent,
    "llm": prela.llm,
    "tool": prela.tool,
    "tool(name)": named,
    "retrieval": prela.retrieval,
    "embedding": prela.embedding,
    "wrap": prela.wrap,
    "attach": prela.attach(None),
    "new_trace_context": prela.new_trace_context(),
    "session": prela.session("s1"),
    "capture_content": prela.capture_content(False),
}


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


def plain(*_: Any) -> int:
    return 1


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@types.coroutine
def old_coroutine() -> Iterator[None]:
    yield


KINDS: list[Any] = [inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction]


@pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)
@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator, functools.partial(coroutine)])
def test_inspect_finds_the_same_kind(function: Any, decorate: Any, captured: CapturedSpans) -> None:
    wrapper = decorate(function)
    assert wrapper is not function
    assert [kind(wrapper) for kind in KINDS] == [kind(function) for kind in KINDS]


@pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)
async def test_the_wrapper_gives_the_same_results(decorate: Any, captured: CapturedSpans) -> None:
    async def awaits(function: Any) -> None:
        await decorate(function)()

    assert decorate(plain)() == 1
    assert await decorate(coroutine)() == 1
    assert list(decorate(generator)()) == [1]
    assert [item async for item in decorate(async_generator)()] == [1]
    await awaits(old_coroutine)


async def test_a_mock_of_an_async_function(captured: CapturedSpans) -> None:
    traced: Any = prela.trace(AsyncMock(return_value=3))
    assert inspect.iscoroutinefunction(traced)
    assert await traced() == 3
    assert len(captured.spans) == 1


def test_no_private_type_is_in_a_public_signature() -> None:
    for kind in (prela.Tracer, prela.Span):
        for name, member in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                assert "._" not in str(inspect.signature(member)), name


def test_a_pytest_fixture_can_be_traced(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest, prela_stream as prela\n"
        "@pytest.fixture\n@prela.trace('fixture')\ndef resource(): yield 'RES'\n"
        "def test_it(resource): assert resource == 'RES'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout


class Methods:
    @prela.tool
    def method(self) -> "Methods":
        return self

    @prela.tool
    @classmethod
    def above(cls) -> type:
        return cls

    @classmethod
    @prela.tool
    def below(cls) -> type:
        return cls

    @prela.trace
    @staticmethod
    def static() -> int:
        return 1


def test_methods_of_every_kind(captured: CapturedSpans) -> None:
    one = Methods()
    assert one.method() is one
    assert (one.above(), Methods.below(), one.static()) == (Methods, Methods, 1)
    assert_tree(captured.spans, "method [TOOL]\nabove [TOOL]\nbelow [TOOL]\nstatic")


UNFIT = [
    property(plain),
    functools.cached_property(plain),
    functools.partialmethod(plain),
    functools.singledispatchmethod(plain),
    Methods,
    classmethod(property(plain)),  # type: ignore[arg-type]  # what the test is about
]


@pytest.mark.parametrize("decorate", list(DECORATORS.values())[:10])
@pytest.mark.parametrize("unfit", UNFIT, ids=lambda one: type(one).__name__)
def test_what_cannot_be_wrapped_stays_unchanged_with_one_error_in_the_log(
    unfit: Any, decorate: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    before = telemetry.SWALLOWED.value("trace", "TypeError")
    with capture_spans() as captured:
        assert decorate(unfit) is unfit
    assert telemetry.SWALLOWED.value("trace", "TypeError") == before + 1
    assert [record.levelname for record in caplog.records].count(
        "ERROR"
    ) == 1  # for each object, not only for the first
    assert captured.spans == []


def test_the_error_names_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")
    with pytest.raises(TypeError, match="put the decorator below @property"):
        prela.trace(property(plain))  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(TypeError, match="the class Methods: decorate its methods"):
        prela.tool(Methods)


def test_caches_keep_their_methods(captured: CapturedSpans) -> None:
    traced: Any = prela.trace(functools.lru_cache(plain))
    traced()
    traced()
    assert traced.cache_info().hits == 1
    traced.cache_clear()
    assert traced.cache_info().hits == 0
    assert len(captured.spans) == 2
