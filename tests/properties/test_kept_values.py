"""One strictness: what a worker accepts as kept is read by `kept_traces()`, by the store and by the lines, value by value."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.codec.bodies import check_bodies
from prela_stream.codec.sampled import KeptFragment, decode_kept, encode_kept
from prela_stream.codec.spans import decode_head, decode_span, encode_resource
from prela_stream.errors import CodecError
from prela_stream.model.span import Resource
from prela_stream.sinks import jsonl
from prela_stream.sinks.kept_trace import read_trace
from prela_stream.sinks.trace_rows import changes_of
from tests.support.items import encode_span
from tests.support.kept import decision, span

keys = st.text(max_size=4) | st.integers(-3, 3) | st.binary(max_size=2) | st.none() | st.booleans()
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
damage = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=2)


def is_accepted(raw: bytes) -> bool:
    """Whether a worker keeps this span, and does not write it to dlq."""
    try:
        head = decode_head(raw)
        check_bodies(head)
    except CodecError:
        return False
    return head.kind == 0 and head.trace_id == decision(1).trace_id and head.span_id is not None


@given(st.dictionaries(st.text(max_size=4), values, max_size=3), damage)
def test_what_is_counted_as_kept_can_be_read_everywhere(
    attributes: dict[str, Any], damage: list[tuple[int, int]]
) -> None:
    raw = bytearray(encode_span(span(1, 0, attributes=attributes)))
    for place, byte in damage:
        raw[place % len(raw)] = byte
    if not is_accepted(bytes(raw)):
        return
    made = KeptFragment(
        decision=decision(1),
        resources=[msgspec.Raw(encode_resource(Resource(service_name="travel")))],
        items=[(0, msgspec.Raw(bytes(raw)))],
    )
    trace = read_trace([decode_kept(encode_kept(made))])
    assert (len(trace.spans), trace.unreadable) == (1, 0)
    (row,) = changes_of([trace])[0].spans.values()
    stored = decode_span(row.item, trace.spans[0].resource)
    assert msgspec.msgpack.encode(stored) == msgspec.msgpack.encode(trace.spans[0])
    (line,) = json.loads(jsonl._line(trace))["spans"]
    assert line["attributes"] == json.loads(msgspec.json.encode(stored.attributes))


def test_the_check_is_not_empty() -> None:
    assert is_accepted(encode_span(span(1, 0)))
    assert not is_accepted(encode_span(span(1, 0, attributes={"extension": msgspec.msgpack.Ext(9, b"x")})))
    with pytest.raises(CodecError):
        check_bodies(decode_head(encode_span(span(1, 0)).replace(b"haystack", b"\xff" * 8)))
