"""A span that is too large: what is cut, in which order, and how it is marked."""

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.codec.spans import decode_head, decode_span
from prela_stream.model.semconv import DROPPED_ATTRIBUTES, DROPPED_EVENTS, TRUNCATED
from prela_stream.model.span import ItemKind, SpanData
from prela_stream.privacy.encoding import DEFAULT_LIMIT
from prela_stream.testing import capture_spans
from prela_stream.tracing.tracer import get_tracer
from tests.support.examples import examples

tracer = get_tracer()


def cut(limit: int, attributes: dict[str, Any], **more: Any) -> tuple[int, SpanData]:
    """Size and content of the span item that is sent under this limit."""
    with capture_spans() as captured:
        tracer.configure(max_item_bytes=limit)
        with tracer.span(more.get("name", "x"), attributes=attributes) as span:
            for number in range(more.get("events", 0)):
                span.add_event(f"event {number}", more.get("event", {"text": "e" * 500}))
        tracer.configure(max_item_bytes=DEFAULT_LIMIT)
    items = [item for item in captured.items if decode_head(item).kind == ItemKind.SPAN]
    return len(items[0]), decode_span(items[0])


def prose(length: int) -> str:
    """Text that people read."""
    return ("the quick brown fox " * (length // 20 + 1))[:length]


def test_the_largest_texts_are_cut_and_small_ones_kept() -> None:
    size, span = cut(20_000, {"model": "m", "small": "s" * 3_000, "prompt": "p" * 100_000})
    assert 19_000 < size <= 20_000
    assert span.attributes["model"] == "m"
    assert span.attributes["small"] == "s" * 3_000
    assert span.attributes["prompt"].startswith("ppp")
    assert span.attributes["prompt"].endswith("bytes cut]")
    assert 103_000 < span.attributes[TRUNCATED] < 104_000


def test_of_messages_of_one_size_the_oldest_are_cut_first() -> None:
    messages = [{"role": "user", "content": f"{number} " + "m" * 5_000} for number in range(10)]
    size, span = cut(30_000, {"messages": messages})
    lengths = [len(message["content"]) for message in span.attributes["messages"]]
    assert size <= 30_000
    assert lengths[0] < 1_100
    assert lengths[-4:] == [5_002] * 4
    assert messages[0]["content"] == "0 " + "m" * 5_000, "the application's own list was changed"


def test_numbers_and_bytes_are_cut_before_any_text() -> None:
    vector = [random.random() for _ in range(1_536)]
    attributes = {
        "prompt": prose(9_500),
        "vectors": [vector, vector],
        "scores": {f"token {number}": number / 7 for number in range(1_000)},
        "ragged": [[1, 2], [3] * 1_000],
        "image": b"\x00" * 10_000,
        "usage": {"input": 3, "output": 4},
    }
    size, span = cut(10_000, attributes)
    assert size <= 10_000
    assert span.attributes["prompt"] == attributes["prompt"]
    assert span.attributes["usage"] == {"input": 3, "output": 4}
    assert span.attributes["vectors"] == "[list of float, shape (2, 1536)]"
    assert span.attributes["scores"] == "[dict of 1000 entries with numbers]"
    assert span.attributes["ragged"] == "[list of int, shape (2,)]"
    assert span.attributes["image"] == "[bytes, 10000 bytes]"


def test_of_numbers_only_as_much_is_cut_as_is_necessary() -> None:
    size, span = cut(10_000, {"large": [0.5] * 2_000, "medium": [0.5] * 500, "small": [0.5] * 100})
    assert size <= 10_000
    assert span.attributes["large"] == "[list of float, shape (2000,)]"
    assert span.attributes["medium"] == [0.5] * 500
    assert span.attributes["small"] == [0.5] * 100


def test_encoded_text_is_cut_before_prose() -> None:
    attributes = {
        "answer": prose(20_000),
        "chinese": "你好世界" * 500,
        "blob": "QUJD" * 4_000,
        "vector": json.dumps([0.125] * 3_000),
    }
    size, span = cut(35_000, attributes)
    assert size <= 35_000
    assert span.attributes["answer"] == attributes["answer"]
    assert span.attributes["chinese"] == attributes["chinese"]
    assert span.attributes["blob"].endswith("bytes cut]")
    assert span.attributes["vector"].endswith("bytes cut]")


def test_a_long_conversation_of_short_messages_keeps_the_newest() -> None:
    messages = [{"role": "user", "content": f"message {number}"} for number in range(2_000)]
    size, span = cut(20_000, {"messages": messages, "model": "m"})
    kept = span.attributes["messages"]
    assert size <= 20_000
    assert kept[-1] == messages[-1]
    assert kept[1:] == messages[-len(kept) + 1 :]
    assert len(kept) > 200
    assert "older elements" in kept[0][TRUNCATED]


def test_whole_values_become_notes_and_the_others_are_kept() -> None:
    wide = {f"key {number}": f"short text {number}" for number in range(2_000)}
    size, span = cut(
        10_000, {"wide": wide, "model": "m", "words": prose(2_000)}, events=3, event={"wide": wide, "n": 1}
    )
    assert size <= 10_000
    assert span.attributes["wide"].startswith("[dict, ")
    assert span.attributes["wide"].endswith(" bytes cut]")
    assert span.attributes["model"] == "m"
    assert span.attributes["words"].startswith(prose(900))
    assert [event.attributes["n"] for event in span.events] == [1, 1, 1]


def test_what_is_dropped_is_counted() -> None:
    size, span = cut(5_000, {f"{number} {'k' * 300}": "v" for number in range(100)}, events=50)
    assert size <= 5_000
    left = [key for key in span.attributes if "k" * 300 in key]
    assert span.attributes[DROPPED_ATTRIBUTES] == 100 - len(left)
    size, span = cut(5_000, {}, events=500, event={"a": "b"})
    assert size <= 5_000
    assert span.attributes[DROPPED_EVENTS] == 500 - len(span.events)
    assert span.events[-1].name == "event 499"


@given(
    limit=st.integers(4_096, 20_000),
    attributes=st.dictionaries(
        st.text(max_size=10) | st.integers(1, 9_000).map("k".__mul__),
        st.integers(0, 60_000).map("é".__mul__)
        | st.integers(0, 30_000).map(bytes)
        | st.integers(0, 9_000).map(lambda count: [0] * count)
        | st.integers(0, 900).map(lambda count: [{"a": "b" * (number % 50)} for number in range(count)])
        | st.dictionaries(st.text(max_size=5), st.integers(0, 20_000).map("x".__mul__), max_size=5),
        max_size=8,
    ),
    events=st.integers(0, 60),
    name=st.integers(1, 20_000).map("n".__mul__),
)
@examples(100)
def test_an_item_never_exceeds_the_limit_and_always_arrives(
    limit: int, attributes: dict[str, Any], events: int, name: str
) -> None:
    size, _ = cut(limit, attributes, events=events, name=name)
    assert size <= limit
