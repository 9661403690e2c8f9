"""The codec case by case: what is poison, what is skipped, what is tolerated, and that neighbours never pay."""

import struct
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from prela_stream.codec import rescue, spans
from prela_stream.codec.decisions import decode_decisions, encode_decisions
from prela_stream.codec.dlq import DeadLetter, decode_dead_letter, encode_dead_letter
from prela_stream.codec.projection import projection
from prela_stream.codec.sampled import KeptFragment, decode_kept, encode_kept
from prela_stream.codec.spans import (
    MAX_ITEMS,
    BadItem,
    ItemBatch,
    decode_batch,
    decode_head,
    decode_resource,
    decode_span,
    encode_batch,
    encode_item,
    encode_resource,
)
from prela_stream.errors import CodecError
from prela_stream.model.decision import Decision, TraceSummary, Trigger
from prela_stream.model.plain import plain
from prela_stream.model.span import ItemKind, Resource, SpanData, SpanEvent, SpanLink, SpanStatus, SpanType
from tests.support.items import encode_span

TRACE, SPAN, PARENT = b"t" * 16, b"s" * 8, b"p" * 8
GOOD = encode_item(ItemKind.SPAN, TRACE, SPAN, PARENT)
RESOURCE = encode_resource(Resource(service_name="shop", pid=7))
DEEP = b"\x91" * 100_000 + b"\x90"
pack = msgspec.msgpack.encode


def item(**changes: Any) -> bytes:
    """A span item with all fields; `changes` are values for field names."""
    fields: dict[str, Any] = {
        "kind": 0,
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_span_id": None,
        "flags": 1,
        "status": 1,
        "revision": 0,
        "child_count": 0,
        "inject_count": 0,
        "inject_ordinal": None,
        "span_type": 1,
        "start_ns": 1_700_000_000_000_000_000,
        "duration_ns": 5,
        "name": "chat",
        "randomness": None,
        "threshold": None,
        "attributes": {},
        "events": [],
        "links": [],
        "status_message": None,
    }
    assert set(changes) <= set(fields)
    return pack(list((fields | changes).values()))


def batch_of(*items: bytes) -> ItemBatch:
    return decode_batch(encode_batch(RESOURCE, items))


def between_good_ones(bad: bytes) -> ItemBatch:
    """A batch with `bad` between two good items, which must be returned whatever `bad` is."""
    batch = batch_of(GOOD, bad, GOOD)
    assert batch.resource == RESOURCE
    good = [i for i, index in enumerate(batch.indexes) if index != 1]
    assert [batch.raws[i] for i in good] == [GOOD, GOOD]
    assert [batch.heads[i].span_id for i in good] == [SPAN, SPAN]
    return batch


def test_a_batch_gives_back_each_item_and_the_resource() -> None:
    items = [item(name=f"n{i}") for i in range(3)]
    batch = batch_of(*items)
    assert (list(batch.raws), list(batch.indexes), batch.bad, batch.unknown) == (items, [0, 1, 2], [], 0)
    assert [decode_head(raw).name for raw in batch.raws] == ["n0", "n1", "n2"]
    assert decode_resource(batch.resource) == Resource(service_name="shop", pid=7)
    assert batch_of().raws == []


def test_a_batch_may_be_read_from_a_view_and_its_bytes_outlive_it() -> None:
    buffer = bytearray(encode_batch(RESOURCE, [GOOD]))
    batch = decode_batch(memoryview(buffer))
    raw = batch.raws[0]
    del batch
    buffer[:] = bytes(len(buffer))
    assert raw == GOOD


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "an empty value; expected a version byte and a MessagePack array"),
        (b"\x02\x92\x80\x90", "format version 2 is not known; this release reads version 1"),
        (b"{}", "format version 123 is not known; this release reads version 1"),
        (b"\x01", "Input data was truncated"),
        (b"\x01\x05", "Expected `array`, got `int`"),
        (b"\x01\x91\x80", "Expected `array` of at least length 2, got 1"),
        (b"\x01\x92\x80\x80", "Expected `array`, got `object` - at `$[1]`"),
        (b"\x01\xc1", "MessagePack data is malformed: invalid opcode '\\xc1' (byte 0)"),
    ],
)
def test_a_record_without_items_to_save_is_bad_as_a_whole(value: bytes, reason: str) -> None:
    batch = decode_batch(value)
    assert batch.bad == [BadItem(index=-1, raw=value, reason=reason)]
    assert (batch.heads, batch.raws, list(batch.indexes)) == ([], [], [])


def test_a_record_cut_short_gives_what_came_before_the_cut() -> None:
    value = encode_batch(RESOURCE, [GOOD, item(name="x" * 50), GOOD])
    cut = value[: -len(GOOD) - 10]
    batch = decode_batch(cut)
    assert list(batch.raws) == [GOOD]
    assert [bad.index for bad in batch.bad] == [1]
    assert batch.bad[0].reason.startswith("the value at byte ")
    assert "is truncated" in batch.bad[0].reason
    assert cut.endswith(batch.bad[0].raw)


def test_what_follows_a_record_costs_none_of_its_items() -> None:
    batch = decode_batch(encode_batch(RESOURCE, [GOOD]) + b"junk")
    assert list(batch.raws) == [GOOD]
    assert batch.bad == [BadItem(index=1, raw=b"junk", reason="4 bytes after the end of the array")]


def test_a_count_that_is_a_lie_is_not_believed() -> None:
    value = b"\x01\x92" + RESOURCE + b"\xdd\xff\xff\xff\xff" + GOOD
    batch = decode_batch(value)
    assert list(batch.raws) == [GOOD]
    assert [(bad.index, bad.raw) for bad in batch.bad] == [(1, b"")]


def test_fields_after_the_envelope_and_after_an_item_are_skipped() -> None:
    longer = msgspec.msgpack.decode(item())
    value = b"\x01" + pack([{}, [[*longer, "new", {"deep": [1]}], longer], "more"])
    batch = decode_batch(value)
    assert (len(batch.heads), batch.bad) == (2, [])
    assert decode_span(batch.raws[0]) == decode_span(batch.raws[1])


@pytest.mark.parametrize("kind", [7, 200, -1, 2**64 - 1])
def test_unknown_kinds_are_skipped_and_counted_whatever_is_in_them(kind: int) -> None:
    batch = between_good_ones(pack([kind, "no id", {"any": "thing"}]))
    assert (batch.unknown, batch.bad, list(batch.indexes)) == (1, [], [0, 2])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"\x05", "Expected `array`, got `int`"),
        (b"\x90", "Expected `array` of at least length 1, got 0"),
        (b"\xc0", "Expected `array`, got `None`"),
        (pack({"kind": 0}), "Expected `array`, got `object`"),
        (pack(["SPAN", TRACE, SPAN]), "Expected `int`, got `str` - at `$[0]`"),
        (pack([True, TRACE, SPAN]), "Expected `int`, got `bool` - at `$[0]`"),
        (pack([0]), "an item of kind 0 needs a trace id of 16 bytes at index 1, got nil"),
        (pack([0, TRACE]), "an item of kind 0 needs a span id of 8 bytes at index 2, got nil"),
        (pack([2, None, SPAN]), "an item of kind 2 needs a trace id of 16 bytes at index 1, got nil"),
        (pack([0, TRACE[:15], SPAN]), "Expected `bytes` of length >= 16 - at `$[1]`"),
        (pack([0, TRACE + b"t", SPAN]), "Expected `bytes` of length <= 16 - at `$[1]`"),
        (pack([0, TRACE.decode(), SPAN]), "Expected `bytes | null`, got `str` - at `$[1]`"),
        (pack([0, TRACE, b""]), "Expected `bytes` of length >= 8 - at `$[2]`"),
        (pack([6, TRACE, b"x"]), "Expected `bytes` of length >= 8 - at `$[2]`"),
        (pack([0, TRACE, SPAN, b"p" * 9]), "Expected `bytes` of length <= 8 - at `$[3]`"),
        (item(status=4), "Expected `int` <= 3 - at `$[5]`"),
        (item(status=-1), "Expected `int` >= 0 - at `$[5]`"),
        (item(span_type=6), "Expected `int` <= 5 - at `$[10]`"),
        (item(flags=-1), "Expected `int` >= 0 - at `$[4]`"),
        (item(revision=2**31), f"Expected `int` <= {2**31 - 1} - at `$[6]`"),
        (item(child_count=-1), "Expected `int` >= 0 - at `$[7]`"),
        (item(child_count=2**63), f"Expected `int` <= {2**31 - 1} - at `$[7]`"),
        (item(inject_count=1.5), "Expected `int | null`, got `float` - at `$[8]`"),
        (item(inject_ordinal=-1), "Expected `int` >= 0 - at `$[9]`"),
        (item(start_ns=-1), "Expected `int` >= 0 - at `$[11]`"),
        (item(start_ns=2**63), f"Expected `int` <= {2**62 - 1} - at `$[11]`"),
        (item(duration_ns=2**62), f"Expected `int` <= {2**62 - 1} - at `$[12]`"),
        (item(duration_ns=-1), "Expected `int` >= 0 - at `$[12]`"),
        (item(name=None), "Expected `str`, got `None` - at `$[13]`"),
        (item(randomness=2**56), f"Expected `int` <= {2**56 - 1} - at `$[14]`"),
        (item(threshold=2**56), f"Expected `int` <= {2**56 - 1} - at `$[15]`"),
        (item(status_message=3), "Expected `str | null`, got `int` - at `$[19]`"),
        (item(name="chat").replace(b"chat", b"\xff\xfe\xfd\xfc"), "invalid start byte"),
        (item(attributes=0)[:-4] + DEEP + b"\x90\x90\xc0", "maximum recursion depth exceeded"),
    ],
)
def test_poison_costs_itself_alone_and_says_what_it_is(bad: bytes, reason: str) -> None:
    batch = between_good_ones(bad)
    assert [(found.index, found.raw) for found in batch.bad] == [(1, bad)]
    assert reason in batch.bad[0].reason
    with pytest.raises(CodecError):
        decode_span(bad)


@pytest.mark.parametrize(
    "fields", [{"start_ns": 2**62 - 1, "duration_ns": 2**62 - 1}, {"start_ns": 0, "duration_ns": 0}]
)
def test_the_largest_and_smallest_times_can_be_computed_with(fields: dict[str, int]) -> None:
    span = decode_span(between_good_ones(item(**fields)).raws[1])
    assert span.end_ns is not None
    assert span.end_ns < 2**63
    assert span.started_at.tzinfo is UTC
    assert span.ended_at is not None


@pytest.mark.parametrize("kind", [ItemKind.TICK, ItemKind.LOST])
def test_control_items_that_need_no_ids(kind: ItemKind) -> None:
    head = between_good_ones(encode_item(kind)).heads[1]
    assert (head.kind, head.trace_id, head.span_id) == (kind, None, None)
    with pytest.raises(CodecError, match=f"an item of kind {kind:d} is not a span"):
        decode_span(encode_item(kind))


@pytest.mark.parametrize(
    "body", [b"\x05", b"\xa1\xff", b"\x81\x01\x02", b"\x81\xa1\xff\x00", b"\x91\x91", b"\xc7\x00\x63", b"\xc0"]
)
def test_heads_are_read_whatever_is_in_the_bodies(body: bytes) -> None:
    whole = item()
    raw = whole[:-4] + (b"\x90" if body == b"\x91\x91" else body) + whole[-3:]
    batch = between_good_ones(raw)
    assert (batch.bad, batch.heads[1].trace_id) == ([], TRACE)
    with pytest.raises(CodecError, match="cannot read attributes"):
        decode_span(batch.raws[1])
    attributes = decode_head(batch.raws[1]).attributes
    if body == b"\x81\xa1\xff\x00":  # only a key that is not declared is wrong
        assert projection(["k"])(attributes) == {}
    else:
        with pytest.raises(CodecError, match="cannot read attributes"):
            projection(["k"])(attributes)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (pack({"service.name": "a", "process.pid": "7"}), Resource(service_name="a", attributes={"process.pid": "7"})),
        (
            pack({"host.name": 3, "attributes": {"k": 1}, "process.pid": 9}),
            Resource(pid=9, attributes={"k": 1, "host.name": 3}),
        ),
        (pack({"attributes": [1], "service.name": "a"}), Resource(service_name="a", attributes={"attributes": [1]})),
        (pack({"prela.heartbeat_ms": 1.5}), Resource(attributes={"prela.heartbeat_ms": 1.5})),
        (pack({"unknown": 1}), Resource()),
        (b"\xc0", Resource(attributes={"prela.unreadable": "Expected `object`, got `None`"})),
    ],
)
def test_a_bad_resource_costs_no_span(raw: bytes, expected: Resource) -> None:
    batch = decode_batch(encode_batch(raw, [GOOD]))
    assert list(batch.raws) == [GOOD]
    assert decode_resource(batch.resource) == expected


def test_a_span_round_trips_with_everything_in_it() -> None:
    span = SpanData(
        trace_id="0" * 31 + "a",
        span_id="b" * 16,
        parent_span_id="c" * 16,
        name="chat 🦜",
        span_type=SpanType.LLM,
        status=SpanStatus.CANCELLED,
        status_message="stopped",
        start_ns=1,
        duration_ns=2,
        child_count=3,
        inject_count=4,
        inject_ordinal=5,
        flags=6,
        revision=7,
        randomness=2**56 - 1,
        threshold=0,
        attributes={"when": datetime(2026, 1, 2, tzinfo=UTC), "nested": {"a": [1, 2.5, None, b"x"]}, "big": 2**64 - 1},
        events=[SpanEvent("first token", 9, {"k": "v"})],
        links=[SpanLink(TRACE, SPAN, {"why": "retry"})],
        resource=Resource(service_name="shop"),
    )
    assert decode_span(encode_span(span), Resource(service_name="shop")) == span


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError


class Shout(str):
    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        raise RuntimeError


def nested(depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: 2**64, str(2**64)),
        (lambda: -(2**63) - 1, str(-(2**63) - 1)),
        (lambda: "a\ud800b", "a\\ud800b"),
        (lambda: {1: "x", "\udfff": 2, None: 3}, {"1": "x", "\\udfff": 2, "None": 3}),
        (lambda: (1, 2), [1, 2]),
        (lambda: {5}, [5]),
        (lambda: memoryview(b"ab"), b"ab"),
        (lambda: SpanType.LLM, "LLM"),
        (lambda: ItemKind.TICK, 6),
        (lambda: Shout("hi"), "hi"),
        (lambda: Shout("\ud800"), "\\ud800"),
        (lambda: 1 + 2j, "(1+2j)"),
        (lambda: float, "<class 'float'>"),
    ],
)
def test_plain_turns_anything_into_what_encodes(make: Callable[[], Any], expected: Any) -> None:
    found = plain({"value": make()})
    assert decode_span(encode_item(0, TRACE, SPAN, *item_tail(found))).attributes == {"value": expected}


def item_tail(attributes: Any) -> list[Any]:
    return [None, 0, 1, 0, None, None, None, 5, 0, 0, "", None, None, attributes]


def test_plain_ends_and_stays_small() -> None:
    assert len(encode_item(0, plain(nested(500)), plain(cycle()))) < 1000
    huge = plain(10**100_000)
    assert huge.startswith("0x")
    assert huge.endswith(" characters cut]")
    assert len(huge) < 1100


def test_what_has_no_text_form_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    assert plain(Hostile()) == "<Hostile: it has no text form>"
    assert plain(range(10**6, 10**2000)).endswith("… [1017 characters cut]")


def test_projection_reads_what_was_asked_and_nothing_else() -> None:
    raw = msgspec.Raw(pack({"a": 1, "b": None, "c": [{"d": 2}], "e": DEEP[:10]}))
    assert projection([])(raw) == {}
    assert projection(["c", "a", "zz", "b", "a"])(raw) == {"a": 1, "b": None, "c": [{"d": 2}]}
    odd = ["f0", "self", "a.b", "", "class", "ключ"]
    assert projection(odd)(msgspec.Raw(pack(dict.fromkeys(odd, 1)))) == dict.fromkeys(odd, 1)


def test_projection_of_a_key_that_is_not_ascii() -> None:
    key = "".join(["кл", "юч"])  # a string without a cached UTF-8 form
    assert projection([key])(msgspec.Raw(b"\x81\xa0\x01")) == {}
    assert projection(["".join(["ц", "ена"])])(msgspec.Raw(pack({"цена": 1}))) == {"цена": 1}


def decision(**changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "trace_id": TRACE,
        "decision_id": b"d" * 16,
        "kept": True,
        "probability": 0.25,
        "threshold": 3 << 54,
        "weight": 4.0,
        "policy": "rest",
        "reason": "probabilistic: 25 % of all traces",
        "trigger": Trigger.COMPLETE,
        "complete": True,
        "first_offset": 3,
        "cut_offset": 9,
        "decided_at_ms": 1_700_000_000_000,
        "policy_version": "0123456789abcdef",
        "summary": TraceSummary(root_name="agent", service="shop", spans=2, cost_usd=0.5, shape_hash="ab"),
    }
    return Decision(**(fields | changes))


@pytest.mark.parametrize("threshold", [0, 3 << 54, 1 << 56])
def test_decisions_round_trip(threshold: int) -> None:
    made = [decision(threshold=threshold), decision(trigger=Trigger.MAX_BYTES, weight_biased=True, repeated=True)]
    assert decode_decisions(encode_decisions(made)) == made
    assert decode_decisions(encode_decisions([])) == []


def test_kept_fragments_round_trip_with_items_as_they_came() -> None:
    made = KeptFragment(
        decision=decision(),
        fragment=2,
        last=False,
        resources=[msgspec.Raw(RESOURCE)],
        items=[(0, msgspec.Raw(GOOD)), (0, msgspec.Raw(item(attributes={"k": "v" * 1000})))],
    )
    found = decode_kept(encode_kept(made))
    assert (found.decision, found.fragment, found.last, found.late) == (made.decision, 2, False, False)
    assert [bytes(raw) for raw in found.resources] == [RESOURCE]
    assert [(index, bytes(raw)) for index, raw in found.items] == [(index, bytes(raw)) for index, raw in made.items]


def test_dead_letters_round_trip() -> None:
    made = DeadLetter(topic="spans", partition=1, offset=2**40, index=-1, reason="…", raw=bytes(range(256)))
    assert decode_dead_letter(encode_dead_letter(made)) == made


READERS: list[tuple[Callable[[bytes], Any], bytes]] = [
    (decode_kept, encode_kept(KeptFragment(decision=decision()))),
    (lambda value: decode_decisions(value)[0], encode_decisions([decision()])),
    (
        decode_dead_letter,
        encode_dead_letter(DeadLetter(topic="a", partition=0, offset=0, index=0, reason="", raw=b"")),
    ),
]


@pytest.mark.parametrize(("read", "value"), READERS)
def test_fields_that_later_versions_append_are_skipped(read: Callable[[bytes], Any], value: bytes) -> None:
    parts = msgspec.msgpack.decode(value[1:])
    longer = [[*parts[0], "new"]] if len(parts) == 1 else [*parts, {"new": 1}]
    assert read(b"\x01" + pack(longer)) == read(value)


@pytest.mark.parametrize(("read", "value"), READERS)
@pytest.mark.parametrize("damage", ["empty", "version", "cut", "type"])
def test_damaged_values_raise_codec_errors(read: Callable[[bytes], Any], value: bytes, damage: str) -> None:
    damaged = {"empty": b"", "version": b"\x09" + value[1:], "cut": value[:-1], "type": b"\x01" + struct.pack(">B", 5)}
    with pytest.raises(CodecError):
        read(damaged[damage])


def test_a_record_with_too_many_items_is_one_bad_item_that_names_their_number() -> None:
    value = encode_batch(b"\x80", [b"\xc0"] * 100_000)
    batch = decode_batch(value)
    (bad,) = batch.bad
    assert (bad.index, bad.raw, bad.items, batch.heads) == (-1, value, 100_000, [])
    assert bad.reason == "a record has at most 16,384 items, this one has 100,000"
    assert len(decode_batch(encode_batch(b"\x80", [b"\xc0"] * MAX_ITEMS)).bad) == MAX_ITEMS


@pytest.mark.parametrize("end", [b"", b"\xc1"], ids=["truncated", "invalid"])
def test_a_damaged_record_with_too_many_items_or_values_is_one_bad_item(end: bytes) -> None:
    many = b"\x01\x92\x80\xdd" + (2_000_000).to_bytes(4, "big") + b"\xc0" * 1_000_000 + end
    deep = (
        b"\x01\x92\x80\xdd"
        + (3).to_bytes(4, "big")
        + b"\xdd"
        + (2_000_000).to_bytes(4, "big")
        + b"\xc0" * 1_000_000
        + end
    )
    for value in (many, deep):
        (bad,) = decode_batch(value).bad
        assert (bad.index, bad.raw) == (-1, value)


def test_a_declared_length_is_not_allocated() -> None:
    tracemalloc.start()
    try:
        for count in (b"\xdd", b"\xdf"):
            decode_batch(b"\x01\x92\x80" + count + (10**9).to_bytes(4, "big"))
        decode_batch(b"\x01\x92\x80\x91\xc6" + (10**9).to_bytes(4, "big"))
        decode_batch(b"\x01\x92\x80\xdd" + (4_000_000).to_bytes(4, "big") + b"\xc0" * 4_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 4_000_100, "the record is copied into the bad item once"


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("change", [lambda value: value, lambda value: value[:-1], lambda value: value + b"junk"])
def test_pieces_of_any_size_give_the_same_batch(
    monkeypatch: pytest.MonkeyPatch, size: int, change: Callable[[bytes], bytes]
) -> None:
    items = [GOOD, b"\xc0", item(name="x" * 300), encode_item(99), GOOD, b"\x91\x00", GOOD]
    value = change(encode_batch(RESOURCE, items))
    expected = decode_batch(value, 300)
    monkeypatch.setattr(spans, "PIECE_ITEMS", size)
    monkeypatch.setattr(rescue, "PIECE_STEPS", size)
    found = decode_batch(value, 300)
    pieces = list(spans.decode_pieces(value, 300))
    assert max(len(one.heads) + len(one.bad) for one in pieces if one) <= size + 1  # the rest of the bytes is one more
    assert (pieces.count(None) > 20 // size) == (value != encode_batch(RESOURCE, items))
    for name in ItemBatch.__struct_fields__:
        assert list_of(getattr(found, name)) == list_of(getattr(expected, name)), name


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, range | list | tuple) else value
