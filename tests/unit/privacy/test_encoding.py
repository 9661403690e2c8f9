"""Any argument of the application: nothing raises into it, and the span arrives with what can be read."""

import dataclasses
import datetime as dt
import decimal
import enum
import threading
import uuid
from collections import OrderedDict, UserDict
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prela_stream.codec.spans import decode_head
from prela_stream.model.semconv import TRUNCATED
from prela_stream.model.span import ItemKind
from prela_stream.privacy.encoding import DEFAULT_LIMIT
from prela_stream.propagation.w3c import inject
from prela_stream.testing import capture_spans
from prela_stream.tracing.carrying import wrap
from prela_stream.tracing.context import TraceContext, attach, new_trace_context
from prela_stream.tracing.decorator import trace
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.tracer import Tracer, get_tracer, set_global_tracer

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
]
odd = st.integers(0, len(ODD) - 1).map(ODD.__getitem__)  # sampled_from() would ask for hashes


@given(values=st.lists(odd, min_size=14, max_size=14))
@settings(max_examples=200, deadline=None)
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
@settings(max_examples=50, deadline=None)
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


def sizes(limit: int, attributes: dict[str, Any], **more: Any) -> tuple[int, dict[str, Any]]:
    with capture_spans() as captured:
        tracer.configure(max_item_bytes=limit)
        with tracer.span(more.get("name", "x"), attributes=attributes) as span:
            for number in range(more.get("events", 0)):
                span.add_event(f"event {number}", {"text": "e" * 500})
        tracer.configure(max_item_bytes=DEFAULT_LIMIT)
    items = [item for item in captured.items if decode_head(item).kind == ItemKind.SPAN]
    return len(items[0]), captured.spans[0].attributes


def test_the_largest_texts_are_cut_and_small_ones_kept() -> None:
    size, attributes = sizes(20_000, {"model": "m", "small": "s" * 3_000, "prompt": "p" * 100_000})
    assert 19_000 < size <= 20_000
    assert attributes["model"] == "m"
    assert attributes["small"] == "s" * 3_000
    assert attributes["prompt"].startswith("ppp")
    assert attributes["prompt"].endswith("bytes cut]")
    assert 103_000 < attributes[TRUNCATED] < 104_000


def test_of_messages_of_one_size_the_oldest_are_cut_first() -> None:
    messages = [{"role": "user", "content": f"{number} " + "m" * 5_000} for number in range(10)]
    size, attributes = sizes(30_000, {"messages": messages})
    lengths = [len(message["content"]) for message in attributes["messages"]]
    assert size <= 30_000
    assert lengths[0] < 1_100
    assert lengths[-4:] == [5_002] * 4
    assert messages[0]["content"] == "0 " + "m" * 5_000, "the application's own list was changed"


@given(
    limit=st.integers(4_096, 20_000),
    attributes=st.dictionaries(
        st.text(max_size=10) | st.integers(1, 9_000).map("k".__mul__),
        st.integers(0, 60_000).map("é".__mul__)
        | st.integers(0, 30_000).map(bytes)
        | st.integers(0, 9_000).map(lambda count: [0] * count)
        | st.dictionaries(st.text(max_size=5), st.integers(0, 20_000).map("x".__mul__), max_size=5),
        max_size=8,
    ),
    events=st.integers(0, 60),
    name=st.integers(1, 20_000).map("n".__mul__),
)
@settings(max_examples=100, deadline=None)
def test_an_item_never_exceeds_the_limit_and_always_arrives(
    limit: int, attributes: dict[str, Any], events: int, name: str
) -> None:
    size, _ = sizes(limit, attributes, events=events, name=name)
    assert size <= limit
