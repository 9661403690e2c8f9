"""Objects with any methods, as attributes, keys, names and results: no call raises, and every span keeps its other values."""

import datetime as dt
from collections import UserDict, UserList, deque
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prela_stream.codec.spans import decode_batch, encode_batch
from prela_stream.model.span import SpanStatus
from prela_stream.privacy.rules import Privacy
from prela_stream.propagation.w3c import inject
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.context import TraceContext, attach
from prela_stream.tracing.decorator import trace
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()

BASES: list[tuple[type, tuple[Any, ...]]] = [
    (object, ()),
    (str, ("text",)),
    (int, (7,)),
    (float, (1.5,)),
    (bytes, (b"b",)),
    (bytearray, (b"b",)),
    (dict, ({"k": "v"},)),
    (list, ([1, "a"],)),
    (tuple, ((1, "a"),)),
    (set, ({1},)),
    (deque, ([1],)),
    (UserDict, ({"k": "v"},)),
    (UserList, ([1],)),
    (dt.datetime, (2024, 1, 1)),
    (Exception, ("message",)),
]
METHODS = [
    *(
        "__repr__",
        "__str__",
        "__len__",
        "__iter__",
        "__getattr__",
        "__getattribute__",
        "__hash__",
        "__eq__",
        "__bool__",
    ),
    *("__lt__", "__ge__", "__le__", "__index__", "__int__", "__float__", "__bytes__", "__getitem__", "__contains__"),
    *(
        "keys",
        "items",
        "values",
        "__class__",
        "__dict__",
        "__reduce__",
        "encode",
        "isoformat",
        "shape",
        "dtype",
        "_fields",
    ),
    *("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__", "get_secret_value", "__length_hint__"),
]


def raising(error: type[Exception]) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        raise error

    return method


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def using_spans(*given: Any, **_: Any) -> Any:
    """It makes spans, with the object as an attribute."""
    with tracer.span("inner", attributes={"me": given[0] if given else None}):
        return "done"


BEHAVIOURS: st.SearchStrategy[Any] = (
    st.sampled_from(
        [RuntimeError, ValueError, TypeError, AttributeError, KeyError, OSError, RecursionError, MemoryError]
    ).map(raising)
    | st.sampled_from([None, 0, -1, "text", "\ud800", b"b", [], {}, (), {"a": 1}, object(), int, 10**30]).map(returning)
    | st.just(using_spans)
    | st.sampled_from([None, 5, "x", (), {"a": "b"}, property(raising(RuntimeError)), property(lambda self: self)])
)


@st.composite
def hostile(draw: st.DrawFn) -> Any:
    """An object whose class overrides some methods with others that fail, return anything or make spans."""
    base, arguments = draw(st.sampled_from(BASES))
    namespace = draw(st.dictionaries(st.sampled_from(METHODS), BEHAVIOURS, max_size=4))
    try:
        made = type("Hostile", (base,), namespace)
        return (
            base.__new__(made, *arguments) if base in (str, int, float, bytes, tuple, dt.datetime) else made(*arguments)
        )
    except Exception:  # noqa: BLE001 - Python cannot make this one
        return object()


def sent(captured: CapturedSpans, name: str) -> Any:
    """The one span of this name, read as a worker reads it."""
    batch = decode_batch(encode_batch(b"\x80", captured.items))
    assert batch.bad == []
    return captured.find(name)


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)


@given(value=hostile(), other=hostile())
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_hostile_value_costs_only_itself(value: Any, other: Any) -> None:
    with capture_spans() as captured:
        with tracer.span("outer", attributes={"first": 1}) as span:
            span.set_attribute("value", value)
            span.set_attribute("nested", {"inside": [value, {"deep": other}], "kept": "yes"})
            span.add_event("event", {"value": value, "kept": 2})
            span.add_link(span, {"value": other, "kept": 3})
            span.set_attribute("last", ["text"])
        found = sent(captured, "outer")
        assert captured.refused == []
    assert (found.attributes["first"], found.attributes["last"]) == (1, ["text"])
    assert found.attributes["nested"]["kept"] == "yes"
    assert "value" in found.attributes
    assert found.events[0].attributes["kept"] == 2
    assert found.links[0].attributes["kept"] == 3


@given(value=hostile(), other=hostile())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_hostile_names_keys_messages_and_results_raise_nothing(value: Any, other: Any) -> None:
    @trace(name="traced", capture_arguments=True, capture_result=True)
    def function(_: Any) -> Any:
        return other

    with capture_spans() as captured:
        with tracer.span("outer", attributes={"first": 1}) as span:
            span.set_attribute(value, 1)
            span.set_attributes(value)
            span.add_event(value, value)
            span.add_event("event", other)
            span.set_status("ERROR", value)
            span.record_exception(value)
            function(value)
            with tracer.span(value, attributes=other):
                pass
        found = sent(captured, "outer")
        assert captured.named("traced")
        assert captured.refused == []
    assert found.attributes["first"] == 1
    assert "event" in [event.name for event in found.events]


@given(value=hostile())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_hostile_values_pass_a_redaction_hook_as_plain_data(value: Any) -> None:
    def redact(span: Any) -> None:
        span.map_text(lambda text: text.replace("secret", "***"))

    with capture_spans() as captured:
        tracer.configure(privacy=Privacy(redact=redact))
        with tracer.span("outer", attributes={"value": value, "text": "a secret", "n": 1}):
            pass
        tracer.configure(privacy=Privacy())
        found = sent(captured, "outer")
    assert (found.attributes["text"], found.attributes["n"]) == ("a ***", 1)


@pytest.mark.parametrize("kind", [Span, TraceContext])
def test_a_mock_of_a_span_is_no_span(kind: type) -> None:
    fake: Any = mock.MagicMock(spec=kind)
    with capture_spans() as captured:
        with tracer.span("linked") as span:
            span.add_link(fake)
            inject({}, fake)
        with attach(fake), tracer.span("attached"):
            pass
        with tracer.span("child", parent=fake):
            pass
        found = [sent(captured, name) for name in ("linked", "attached", "child")]
    assert [(one.parent_span_id, one.links) for one in found] == [(None, [])] * 3


class WithoutHash(type):
    """Classes that compare by their names, as those of some object mappers do."""

    def __eq__(cls, other: object) -> bool:
        return isinstance(other, WithoutHash) and other.__qualname__ == cls.__qualname__

    __hash__ = None  # type: ignore[assignment]


class RaisingHash(type):
    """Classes whose metaclass fails on every question."""

    def __hash__(cls) -> int:
        raise LookupError

    def __eq__(cls, other: object) -> bool:
        raise LookupError

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise LookupError


@pytest.mark.parametrize("metaclass", [WithoutHash, RaisingHash])
def test_a_value_whose_metaclass_is_hostile(metaclass: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    value = metaclass("Odd", (), {})()

    @trace(name="traced", capture_arguments=True, capture_result=True)
    def function(_: Any) -> Any:
        return value

    with capture_spans() as captured:
        with tracer.span("outer", attributes={"first": 1, "value": value, "in a list": [1, value]}) as span:
            span.add_event("event", {"value": value, "other": 2})
            assert function(value) is value
        with tracer.tool("tool", arguments={"a": value}):
            pass
        outer = sent(captured, "outer")
        tool = sent(captured, "tool")
        assert [one.status for one in captured.named("traced")] == [SpanStatus.SUCCESS]
        assert captured.refused == []
    assert (outer.status, outer.attributes["first"]) == (SpanStatus.SUCCESS, 1)
    assert {"value", "in a list"} <= outer.attributes.keys()
    assert [event.name for event in outer.events] == ["event"]
    assert "gen_ai.tool.call.arguments" in tool.attributes
