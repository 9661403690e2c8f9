"""No error of this package reaches the application: every public function and method takes any value without raising."""

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prela_stream as prela
from prela_stream.errors import ConfigurationError
from prela_stream.testing import capture_spans
from prela_stream.tracing.tracer import get_tracer
from tests.unit.privacy.test_encoding import ODD

CHECKS_ITS_ARGUMENTS: dict[str, tuple[type[Exception], ...]] = {
    "init": (ConfigurationError, TypeError),
    "pipeline": (ConfigurationError, TypeError),
    "kept_traces": (ConfigurationError, TypeError),
    "decisions": (ConfigurationError, TypeError),
    "bridge_opentelemetry": (ConfigurationError, TypeError),
    "auto_instrument": (ConfigurationError, TypeError),
    "ProbabilitySampler": (ConfigurationError, TypeError),
    "RateLimitingSampler": (ConfigurationError, TypeError),
    "load_settings": (ConfigurationError, TypeError),
}
"""Functions that are called once, at the start of a program, and are documented to raise."""
FOR_SUBCLASSES = {"BaseSampler"}
"""The application writes their methods."""
MADE_BY_US = {"Pipeline", "SpanTree"}
"""The SDK and readers return them; a program does not create them."""
MADE: dict[str, Callable[[], Any]] = {
    "Tracer": prela.Tracer,
    "Span": lambda: get_tracer().start_span("span"),
    "TraceContext": prela.TraceContext,
    "AlwaysOffSampler": prela.AlwaysOffSampler,
    "AlwaysOnSampler": prela.AlwaysOnSampler,
    "ProbabilitySampler": lambda: prela.ProbabilitySampler(0.5),
    "RateLimitingSampler": lambda: prela.RateLimitingSampler(5),
    "ContextThreadPoolExecutor": lambda: prela.ContextThreadPoolExecutor(1),
}
"""How to create an object of each class."""
MADE_ELSEWHERE = {"Span", "ContextThreadPoolExecutor"}
"""A tracer creates the first, a constructor of the standard library the second."""
CALLED_BY_US = {"decide"}
"""Of samplers: the tracer calls it, with a trace id, and under a guard."""
WAITS = {"timeout"}
"""Arguments with a time to wait: this test does not wait 2^80 seconds."""
TIMES = [value for value in ODD if type(value) is not int or value <= 1]


def public(kind: type) -> bool:
    """Whether a public name is a class whose objects the application calls."""
    data = issubclass(kind, msgspec.Struct) or hasattr(kind, "__members__")
    return not data and not issubclass(kind, BaseException) and kind.__name__ not in FOR_SUBCLASSES | MADE_BY_US


NAMES = [name for name in prela.__all__ if callable(getattr(prela, name))]
FUNCTIONS = [name for name in NAMES if not isinstance(getattr(prela, name), type)]
CLASSES = [name for name in NAMES if isinstance(getattr(prela, name), type) and public(getattr(prela, name))]


def methods(kind: type) -> list[str]:
    """Public methods of this package, inherited ones included."""
    named = (name for name in dir(kind) if not name.startswith("_"))
    return [name for name in named if is_ours(inspect.getattr_static(kind, name))]


def is_ours(member: object) -> bool:
    """Whether a member of a class is a function of this package."""
    function = getattr(member, "__func__", member)
    return inspect.isfunction(function) and function.__module__.startswith("prela_stream")


METHODS = [(name, method) for name in CLASSES for method in methods(getattr(prela, name)) if method not in CALLED_BY_US]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Errors are swallowed, and files are written to a temporary folder."""
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    prela.shutdown(1)


def drawn(data: st.DataObject, name: str) -> Any:
    """Any value for a parameter of this name. By its index: hypothesis would ask values for their hash and their repr."""
    values = TIMES if name in WAITS else ODD
    return values[data.draw(st.integers(0, len(values) - 1), label=name)]


def call(function: Any, data: st.DataObject) -> Any:
    """Call a function with any value for each of its parameters; those with a default may be left out."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [drawn(data, parameter.name) for _ in range(data.draw(st.integers(0, 2)))]
        elif parameter.kind is parameter.VAR_KEYWORD:
            continue
        elif parameter.default is parameter.empty or data.draw(st.booleans()):
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) and not named:
                positional.append(drawn(data, parameter.name))
            elif parameter.kind is not parameter.POSITIONAL_ONLY:
                named[parameter.name] = drawn(data, parameter.name)
    return function(*positional, **named)


def use(result: Any) -> None:
    """Use a result: enter it, await it, iterate it, decorate with it."""
    if inspect.iscoroutine(result):
        asyncio.run(result)
    elif inspect.isgenerator(result):
        list(itertools.islice(result, 5))
        result.close()
    elif isinstance(result, prela.Span | contextlib._GeneratorContextManager):  # and no memoryview that was handed back
        with result:
            get_tracer().span("inside").end()
    elif isinstance(result, contextlib.AbstractAsyncContextManager):
        asyncio.run(entered(result))
    elif inspect.isfunction(result) and result.__name__ == "decorate":
        result(lambda: None)()


async def entered(manager: contextlib.AbstractAsyncContextManager[Any]) -> None:
    """Enter and leave it."""
    async with manager:
        get_tracer().span("inside").end()


def test_the_surface_was_found() -> None:
    assert {"init", "get_tracer", "trace", "inject", "flush", "capture_content"} <= set(FUNCTIONS)
    assert set(CLASSES) == set(MADE), "MADE needs an object of each public class"
    assert {("Span", "set_attribute"), ("Tracer", "span"), ("TraceContext", "set_baggage")} <= set(METHODS)


@pytest.mark.parametrize("name", [*FUNCTIONS, *(name for name in CLASSES if name not in MADE_ELSEWHERE)])
@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_functions_take_anything(name: str, data: st.DataObject) -> None:
    allowed = CHECKS_ITS_ARGUMENTS.get(name, ())
    with contextlib.suppress(*allowed):
        if name in ("init", "pipeline", "shutdown", "flush", "aflush", "ledger"):
            use(call(getattr(prela, name), data))
        else:
            with capture_spans():
                use(call(getattr(prela, name), data))
    get_tracer().configure(max_item_bytes=750_000)


@pytest.mark.parametrize(("kind", "method"), METHODS)
@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_methods_take_anything_before_and_after_the_end(kind: str, method: str, data: st.DataObject) -> None:
    with capture_spans():
        made = MADE[kind]()
        use(call(getattr(made, method), data))
        if kind == "Span":
            made.end()
            assert made.is_ended
            use(call(getattr(made, method), data))
        if kind == "ContextThreadPoolExecutor":
            made.shutdown()
    get_tracer().configure(max_item_bytes=750_000)


@pytest.mark.parametrize("kind", CLASSES)
def test_properties_can_be_read_before_and_after_the_end(kind: str) -> None:
    with capture_spans():
        made = MADE[kind]()
        for _ in range(2):
            for name, member in inspect.getmembers_static(type(made)):
                if isinstance(member, property) and not name.startswith("_"):
                    getattr(made, name)
            repr(made)
            if kind == "Span":
                made.end()
