"""The codec over any input: what goes in comes out, bytes of any kind never raise, and neighbours are never lost."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from prela_stream.codec import rescue as framing
from prela_stream.codec.projection import projection
from prela_stream.codec.spans import (
    ItemBatch,
    decode_batch,
    decode_head,
    decode_resource,
    decode_span,
    encode_batch,
    encode_item,
)
from prela_stream.model.plain import plain
from prela_stream.model.span import ItemKind, SpanData, SpanEvent, SpanLink, SpanStatus, SpanType
from tests.support.items import encode_span

# Explaining a failure traces every line; over trees of values that takes minutes.
settings.register_profile("codec", max_examples=60, deadline=None, phases=set(Phase) - {Phase.explain})
limited = settings(settings.get_profile("codec"))

COUNTS = st.integers(0, 2**31 - 1)
TIMES = st.integers(0, 2**62 - 1)
BITS56 = st.none() | st.integers(0, 2**56 - 1)
TEXT = st.text(max_size=50)  # any Unicode but lone surrogates, which UTF-8 cannot hold
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | TEXT
    | st.binary(max_size=50)
    | st.datetimes(timezones=st.just(UTC), min_value=datetime(1700, 1, 1), max_value=datetime(2300, 1, 1)).map(
        lambda moment: moment.replace(fold=0)  # a fold has no meaning in UTC and is not on the wire
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
ATTRIBUTES = st.dictionaries(TEXT, VALUES, max_size=3)
IDS16, IDS8 = st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8)
SPANS = st.builds(
    SpanData,
    trace_id=IDS16.map(bytes.hex),
    span_id=IDS8.map(bytes.hex),
    parent_span_id=st.none() | IDS8.map(bytes.hex),
    name=TEXT,
    span_type=st.sampled_from(SpanType),
    status=st.sampled_from(SpanStatus),
    status_message=st.none() | TEXT,
    start_ns=TIMES,
    duration_ns=st.none() | TIMES,
    child_count=st.none() | COUNTS,
    inject_count=st.none() | COUNTS,
    inject_ordinal=st.none() | COUNTS,
    flags=COUNTS,
    revision=COUNTS,
    randomness=BITS56,
    threshold=BITS56,
    attributes=ATTRIBUTES,
    events=st.lists(st.builds(SpanEvent, TEXT, st.integers(-(2**63), 2**63), ATTRIBUTES), max_size=2),
    links=st.lists(st.builds(SpanLink, IDS16, IDS8, ATTRIBUTES), max_size=2),
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS
    | st.integers()
    | st.complex_numbers()
    | st.decimals()
    | st.text(st.characters(), max_size=10)
    | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3)
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([object(), len, int, SpanType.LLM, ItemKind.SPAN, ...]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(st.integers(), max_size=3)
        | st.dictionaries(SCALARS.filter(lambda key: key == key), inner, max_size=3)  # noqa: PLR0124 - not NaN
    ),
)


def same(one: Any, other: Any) -> bool:
    """Equality in which NaN is itself, 1 is not True and 0.0 is not -0.0."""
    return repr(one) == repr(other)


@limited
@given(SPANS)
def test_any_span_round_trips(span: SpanData) -> None:
    found = decode_span(encode_span(span))
    assert same(found, span)
    batch = decode_batch(encode_batch(b"\x80", [encode_span(span)]))
    assert (batch.bad, batch.unknown, len(batch.heads)) == ([], 0, 1)
    assert batch.heads[0].trace_id == bytes.fromhex(span.trace_id)


@limited
@given(ANYTHING)
def test_plain_makes_any_value_one_that_encodes_and_is_read_again(value: object) -> None:
    found = plain({"value": value})
    raw = encode_item(
        ItemKind.SPAN, b"t" * 16, b"s" * 8, *[None, 0, 1, 0, None, None, None, 5, 0, 0, ""], None, None, found
    )
    assert decode_batch(encode_batch(b"\x80", [raw])).bad == []
    assert same(decode_span(raw).attributes, found)


@limited
@given(VALUES)
def test_plain_leaves_what_encodes_as_it_is(value: object) -> None:
    assert same(plain(value), value)


@limited
@given(ATTRIBUTES, st.lists(TEXT, max_size=4), st.data())
def test_projection_equals_the_full_decode_of_its_keys(
    attributes: dict[str, Any], others: list[str], data: st.DataObject
) -> None:
    wanted = others + (data.draw(st.lists(st.sampled_from(sorted(attributes)))) if attributes else [])
    wanted = ["".join(key) for key in wanted]  # new string objects, as from a policy file
    raw = msgspec.Raw(msgspec.msgpack.encode(attributes))
    expected = {key: value for key, value in msgspec.msgpack.decode(raw).items() if key in wanted}
    assert same(sorted(projection(wanted)(raw).items()), sorted(expected.items()))


GOOD = st.builds(encode_span, SPANS)
FRAMED = VALUES.map(msgspec.msgpack.encode)
"""Whole MessagePack values of any kind."""
DEEP = st.integers(2, 100_000).map(lambda depth: b"\x91" * depth + b"\xc0")
ALMOST = st.tuples(GOOD, st.integers(0, 19), VALUES).map(
    lambda made: msgspec.msgpack.encode(
        [made[2] if index == made[1] else part for index, part in enumerate(msgspec.msgpack.decode(made[0]))]
    )
)
"""Spans with one field of any kind."""
LATER = st.tuples(GOOD, st.lists(VALUES, min_size=1, max_size=3)).map(
    lambda made: msgspec.msgpack.encode([*msgspec.msgpack.decode(made[0]), *made[1]])
)
"""Spans with fields of a later version."""


@limited
@given(st.lists(st.tuples(st.just(True), GOOD | LATER) | st.tuples(st.just(False), FRAMED | DEEP | ALMOST), max_size=6))
def test_bad_items_never_affect_others(items: list[tuple[bool, bytes]]) -> None:
    batch = decode_batch(encode_batch(b"\x80", [raw for _, raw in items]))
    found = dict(zip(batch.indexes, batch.raws, strict=True))
    assert all(found.get(index) == raw for index, (good, raw) in enumerate(items) if good)
    assert {bad.index: bad.raw for bad in batch.bad}.keys().isdisjoint(found)
    assert len(found) + len(batch.bad) + batch.unknown == len(items)
    assert all(bad.raw == items[bad.index][1] for bad in batch.bad)
    for head, raw in zip(batch.heads, batch.raws, strict=True):
        assert decode_head(raw).span_id == head.span_id


def check_never_raises(value: bytes) -> ItemBatch:
    batch = decode_batch(value)
    assert len(batch.heads) == len(batch.raws) == len(batch.indexes)
    for raw in batch.raws:
        head = decode_head(raw)
        assert (head.end_ns or 0) < 2**63
    decode_resource(batch.resource)
    return batch


@limited
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda junk: b"\x01\x92\x80" + junk))
def test_any_bytes_are_read_without_an_error(value: bytes) -> None:
    batch = check_never_raises(value)
    assert batch.heads or batch.bad or batch.unknown or value.startswith(b"\x01\x92")


@limited
@given(st.lists(GOOD, min_size=1, max_size=4), st.data())
def test_mutated_records_are_read_without_an_error(items: list[bytes], data: st.DataObject) -> None:
    value = bytearray(encode_batch(b"\x80", items))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    check_never_raises(bytes(value))


@limited
@given(st.lists(GOOD, min_size=1, max_size=4), st.data())
def test_a_record_cut_anywhere_keeps_every_item_before_the_cut(items: list[bytes], data: st.DataObject) -> None:
    value = encode_batch(b"\x80", items)
    size = data.draw(st.integers(0, len(value) - 1))
    batch = check_never_raises(value[:size])
    ends = [len(encode_batch(b"\x80", items[: count + 1])) for count in range(len(items))]
    whole = [raw for raw, end in zip(items, ends, strict=True) if end <= size]
    assert list(batch.raws) == whole
    header = len(value) - sum(map(len, items))
    assert [bad.index for bad in batch.bad] == [len(whole) if size >= header else -1]


def test_a_record_cut_in_its_head_is_bad_as_a_whole() -> None:
    value = encode_batch(b"\x80", [])
    for size in range(len(value)):
        assert [bad.index for bad in check_never_raises(value[:size]).bad] == [-1], size


@limited
@given(VALUES, st.binary(max_size=10), st.binary(max_size=10))
def test_framing_finds_the_end_of_any_value(value: object, before: bytes, after: bytes) -> None:
    raw = msgspec.msgpack.encode(value)
    assert framing.end_of(memoryview(before + raw + after), len(before)) == len(before) + len(raw)
