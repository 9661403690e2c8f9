"""What `ItemReader` accepts, and that it decodes everything else as `decode_batch` does."""

import random
from typing import Any

import msgspec
import pytest

from prela_stream.codec.bodies import check_bodies
from prela_stream.codec.item_reader import ItemReader, ReadItem, are_plain
from prela_stream.codec.spans import decode_batch, decode_head, encode_batch, encode_item, encode_resource
from prela_stream.errors import CodecError
from prela_stream.model.span import COUNTED, ItemKind, Resource, SpanFields
from tests.support.any_log import an_item

RESOURCE = encode_resource(Resource(service_name="shop"))
TRACE, SPAN, PARENT = b"t" * 16, b"s" * 8, b"p" * 8
READER = ItemReader(["tokens", "цена"], max_item_bytes=5_000)


def span(attributes: Any = msgspec.UNSET, events: Any = (), links: Any = (), message: Any = None, **more: Any) -> bytes:
    body = {"tokens": 5, "other": [1, {"a": 2}]} if attributes is msgspec.UNSET else attributes
    ids = more.get("ids", (TRACE, SPAN, PARENT))
    head = (COUNTED, 2, 3, 4, 5, 6, 1, 10**18, 10**9, "chat", 7, 8)
    return encode_item(more.get("kind", 0), *ids, *head, body, events, links, message)


def test_an_accepted_record_has_views_and_the_selected_attributes() -> None:
    event = ["exception", 5, {"message": "x"}]
    items = [span(), span({"цена": 1.5, "k": None}, [event], [[TRACE, SPAN, {}]], "failed"), span(kind=ItemKind.START)]
    value = encode_batch(RESOURCE, items)
    batch, expected = READER.batch(value), decode_batch(value)
    assert batch is not None
    assert list(READER.pieces(value)) == [batch]
    assert batch.views
    assert not expected.views
    assert [bytes(raw) for raw in batch.raws] == expected.raws == items
    assert (batch.resource, batch.indexes, batch.bad, batch.unknown) == (RESOURCE, range(3), (), 0)
    assert [head.attributes for head in batch.heads if isinstance(head, ReadItem)] == [
        {"tokens": 5}, {"цена": 1.5}, {"tokens": 5},
    ]  # fmt: skip
    for read, head in zip(batch.heads, expected.heads, strict=True):
        for name in SpanFields.__struct_fields__:
            assert getattr(read, name) == getattr(head, name), name
    assert READER.items(batch.raws) == batch.heads


@pytest.mark.parametrize(
    "other",
    [
        b"\x91\x00",
        b"\xc0",
        span(ids=(None, SPAN, PARENT)),
        span(ids=(TRACE, None, PARENT)),
        span(ids=(TRACE[1:], SPAN, PARENT)),
        span(kind=99),
        encode_item(ItemKind.TICK),
        encode_item(ItemKind.LOST, TRACE),
        span(7),
        span({5: 6}),
        span(events=None),
        span(links={}),
        span(message=3),
        span({"big": "x" * 6_000}),
        span()[:-1],
    ],
)
def test_a_record_with_another_item_is_decoded_as_decode_batch_does(other: bytes) -> None:
    for items in ([other], [span(), other, span()]):
        value = encode_batch(RESOURCE, items)
        assert READER.batch(value) is None
        assert list(READER.pieces(value)) == [decode_batch(value, 5_000)]


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x02\x92", b"\x01", b"\x01\x92\x80", b"\x01\x92\x80\x90junk"])
def test_an_unreadable_record_is_reported_as_decode_batch_does(value: bytes) -> None:
    assert READER.batch(value) is None
    (batch,) = READER.pieces(value)
    assert batch is not None
    assert batch == decode_batch(value, 5_000)
    assert batch.bad


def test_items_that_are_not_accepted_are_an_error() -> None:
    with pytest.raises(CodecError, match="cannot read items"):
        READER.items([span(), span(7)])
    assert decode_head(span(7)).attributes  # it is an item all the same


def test_a_plain_item_has_a_readable_body() -> None:
    plain = 0
    for seed in range(3_000):
        rng = random.Random(seed)
        raw = an_item(rng)
        if are_plain([raw]):
            plain += 1
            check_bodies(decode_head(raw))
    assert 100 < plain < 2_900
