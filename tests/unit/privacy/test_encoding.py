"""Any argument of the application: nothing raises into it, and the span arrives with what can be read."""

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import threading
import uuid
from collections import OrderedDict, UserDict, deque
from types import MappingProxyType
from typing import Any
from unittest import mock

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.codec.spans import decode_head
from prela_stream.privacy.encoding import DEFAULT_LIMIT
from prela_stream.privacy.rules import Privacy
from prela_stream.propagation.w3c import inject
from prela_stream.testing import capture_spans
from prela_stream.tracing.carrying import wrap
from prela_stream.tracing.context import TraceContext, attach, new_trace_context
from prela_stream.tracing.decorator import trace
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.tracer import Tracer, get_tracer, set_global_tracer
from tests.support.examples import examples

tracer = get_tracer()


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)


class Nasty:
    """Each of its methods raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no str")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")

    def __len__(self) -> int:
        raise RuntimeError("no len")

    def __iter__(self) -> Any:
        raise RuntimeError("no iter")


class NastyMapping(UserDict[str, Any]):
    def keys(self) -> Any:
        raise RuntimeError("no keys")

    def items(self) -> Any:
        raise RuntimeError("no items")


class Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "Text()"


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int


cycle: list[Any] = [1]
cycle.append(cycle)
released = memoryview(b"x")
released.release()

ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1 << 80,
    1.5,
    float("nan"),
    "",
    "text",
    "\ud800 lone",
    b"bytes",
    bytearray(b"x"),
    Text("sub"),
    Colour.RED,
    Nasty(),
    Nasty,
    NastyMapping(),
    [],
    [Nasty()],
    {},
    {"a": 1},
    {1: 2},
    {(1, 2): 3},
    {"\ud800": 1},
    {Nasty: 1},
    {Text("k"): Text("v")},
    {1, 2},
    cycle,
    object(),
    len,
    Point(1, Nasty()),
    dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    dt.timedelta(1),
    decimal.Decimal("1.5"),
    uuid.UUID(int=5),
    ValueError("x"),
    range(3),
    memoryview(b"abc"),
    MappingProxyType({"a": 1}),
    msgspec.Raw(b""),
    [msgspec.Raw(b"\x01\x02")],
    {"a": msgspec.Raw(b"\xa1\xff")},
    {Frozen(1): 2},
    [{"a": {Frozen(1): 2}}],
    TraceContext(),
    mock.Mock(spec=str),
    mock.MagicMock(spec=dict),
    released,
    deque([Nasty()]),
    {Colour.RED: {1: (Nasty(), cycle)}},
    type("Number", (int,), {"__lt__": lambda *_: 1 / 0, "__le__": lambda *_: 1 / 0, "__ge__": lambda *_: 1 / 0})(7),
]
odd = st.integers(0, len(ODD) - 1).map(ODD.__getitem__)  # sampled_from() would ask for hashes


@given(values=st.lists(odd, min_size=14, max_size=14))
@examples(200)
def test_no_argument_of_any_kind_raises_and_the_span_arrives(values: list[Any]) -> None:
    a, b, c, d, e, f, g, h, i, j, k, m, n, o = values
    if callable(a):
        a = str(a)  # `span` decorates functions and classes
    with capture_spans() as captured:
        with tracer.span(a, b, c, parent=d) as span:
            span.set_attribute(e, f)
            span.set_attributes(g)
            span.add_event(h, i, j)
            span.add_link(k, m)
            span.set_status(n, o)
            span.update_name(a)
            span.record_exception(b, c)
            inject(d, e)
            with attach(f), new_trace_context(g, baggage=h):
                pass
            child = tracer.start_span(i, parent=span)
            child.end(j)
            tracer.configure(max_item_bytes=k if type(k) is not int else DEFAULT_LIMIT)
            list(OpenSpans(tracer).heartbeats())
            tracer.defer().span(m, n, o).end()
            trace(k, m, n)
        assert span.is_ended
        spans = captured.spans
        assert span.span_id in {data.span_id for data in spans}
        assert child.span_id in {data.span_id for data in spans}
    tracer.configure(max_item_bytes=DEFAULT_LIMIT)


@given(values=st.lists(odd, min_size=4, max_size=4))
@examples(50)
def test_tracers_made_of_anything_work(values: list[Any]) -> None:
    service, exporter, sampler, other = values
    with capture_spans():
        made = Tracer(service_name=service, exporter=exporter, sampler=sampler)
        with made.span("x") as span:
            assert span.name == "x"
        tracer.configure(recorder=other, sampler=other)
        set_global_tracer(other)
        wrap(len)


def arrived(value: object, limit: int = DEFAULT_LIMIT) -> Any:
    """The attribute as a worker reads it."""
    with capture_spans() as captured:
        tracer.configure(max_item_bytes=limit)
        with tracer.span("x") as span:
            span.set_attribute("value", value)
        tracer.configure(max_item_bytes=DEFAULT_LIMIT)
    return captured.find("x").attributes["value"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Text("sub"), "sub"),
        (Colour.RED, "red"),
        (1 << 80, str(1 << 80)),
        ("\ud800", "\\ud800"),
        ({"\ud800": 1}, {"\\ud800": 1}),
        ({Text("k"): 1}, {"k": 1}),
        (type("Big", (int,), {})(5), 5),
        (type("Real", (float,), {})(1.5), 1.5),
        (OrderedDict(a=(1, {2})), {"a": [1, [2]]}),
        (Point(1, None), {"x": 1, "y": None}),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Nasty(), "<Nasty: it has no text form>"),
    ],
)
def test_values_that_messagepack_does_not_know(value: object, expected: object) -> None:
    assert arrived(value) == expected


def test_odd_keys_become_text() -> None:
    with capture_spans() as captured:  # noqa: SIM117 - shows the nesting
        with tracer.span("x", attributes={1: "a", Colour.RED: "b"}) as span:  # type: ignore[dict-item]
            span.set_attribute(None, "c")  # type: ignore[arg-type]
            span.set_attribute(Text("t"), "d")
    assert captured.find("x").attributes == {"1": "a", "red": "b", "None": "c", "t": "d"}


def test_a_name_that_cannot_be_encoded_arrives_also_in_the_start_item() -> None:
    with capture_spans() as captured:  # noqa: SIM117 - shows the nesting
        with tracer.span("bad \ud800"), tracer.span("child"):
            pass
    names = [decode_head(item).name for item in captured.items]
    assert names == ["bad \\ud800", "child", "bad \\ud800"]


def test_a_dict_that_another_thread_changes_does_not_lose_the_span() -> None:
    shared: dict[str, Any] = {"odd": object()}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"k{number % 50}"] = object()
            shared.pop(f"k{(number * 7) % 50}", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with capture_spans() as captured:
            for _ in range(300):
                with tracer.span("x", attributes={"shared": shared}):
                    pass
    finally:
        stop.set()
        thread.join()
    assert len(captured.spans) == 300


class Interrupting:
    """Reading it is interrupted, as a Ctrl-C in the middle would."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __repr__(self) -> str:
        raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interrupt_passes_and_the_span_keeps_its_other_attributes(error: type[BaseException]) -> None:
    with capture_spans() as captured:
        with pytest.raises(error), tracer.span("x", attributes={"model": "m", "odd": Interrupting(error)}) as span:
            span.add_event("step", {"odd": Interrupting(error)})
        assert span.is_ended
    (sent,) = captured.spans
    assert sent.attributes == {"model": "m", "odd": f"<Interrupting: {error.__name__} when it was read>"}
    assert [event.name for event in sent.events] == ["step"]
    assert captured.refused == []


@pytest.mark.parametrize("privacy", [Privacy(capture_content=False), Privacy(withhold=("secret",))])
def test_after_an_interrupt_nothing_passes_the_privacy_rules(privacy: Privacy) -> None:
    attributes = {"secret": "4711", "gen_ai.request.model": "m", "odd": Interrupting(KeyboardInterrupt)}
    with capture_spans() as captured:
        tracer.configure(privacy=privacy)
        with pytest.raises(KeyboardInterrupt), tracer.span("x", attributes=attributes):
            pass
        tracer.configure(privacy=Privacy())
    (sent,) = captured.spans
    assert sent.attributes["gen_ai.request.model"] == "m"
    assert not any(b"4711" in item for item in captured.items)


def test_a_span_that_cannot_be_encoded_at_all_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prela_stream.tracing.span.encode_slow", explode)
    monkeypatch.setattr("prela_stream.tracing.items.encode_rest", explode)
    with capture_spans() as captured, tracer.span("x", attributes={"odd": object()}) as span:
        pass
    assert captured.refused == [span.trace_id]
    assert captured.spans == []


def explode(*_: object) -> bytes:
    raise RecursionError


def test_under_strict_an_error_is_let_out_and_the_span_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")
    with (
        capture_spans() as captured,
        pytest.raises(RuntimeError),
        tracer.span("x", attributes={"odd": Nasty()}) as span,
    ):
        pass
    assert captured.refused == [span.trace_id]


def test_a_value_whose_text_form_makes_spans_is_read_once() -> None:
    class Traced:
        def __repr__(self) -> str:
            with tracer.span("query", attributes={"of": self}):
                return "a row"

    with capture_spans() as captured:
        with tracer.span("x", attributes={"row": Traced(), "n": 1}):
            pass
        assert captured.find("x").attributes == {"row": "a row", "n": 1}
        assert len(captured.spans) <= 4


@given(values=st.dictionaries(st.sampled_from("abcd"), odd, min_size=1))
@examples(200)
def test_a_value_never_costs_its_neighbours(values: dict[str, Any]) -> None:
    with capture_spans() as captured:
        with tracer.span("x", attributes={"first": 1, **values, "last": {"k": ["v"]}}) as span:
            span.add_event("e", {**values, "last": 2})
            span.add_link(span, {**values, "last": 3})
        (sent,) = captured.spans
    assert (sent.attributes["first"], sent.attributes["last"]) == (1, {"k": ["v"]})
    assert set(sent.attributes) == {"first", *values, "last"}
    assert sent.events[0].attributes["last"] == 2
    assert sent.links[0].attributes["last"] == 3


def test_a_result_is_stored_by_its_fields() -> None:
    class Doc(pydantic.BaseModel):
        title: str
        text: str

    class Plan(pydantic.BaseModel):
        goal: str
        docs: list[Doc]

    plan = Plan(goal="g", docs=[Doc(title="first", text="x" * 1_200), Doc(title="second", text="y")])

    @trace(capture_result=True)
    def make() -> Plan:
        return plan

    with capture_spans() as captured:
        make()
        with tracer.span("direct") as span:
            span.set_attribute("plan", plan)
    assert captured.find("make").attributes["prela.function.result"] == plan.model_dump()
    assert captured.find("direct").attributes["plan"] == plan.model_dump()


def test_an_interrupt_while_an_exception_is_read_leaves_no_span_open() -> None:
    class UnreadableError(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with capture_spans() as captured:
        with pytest.raises(KeyboardInterrupt), tracer.span("x") as span:
            raise UnreadableError
        assert span.is_ended
        with tracer.span("next") as following:
            assert following.parent_span_id is None, "the interrupted span is still current"
    assert [sent.name for sent in captured.spans] == ["x", "next"]
