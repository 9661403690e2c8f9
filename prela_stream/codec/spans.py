"""The `spans` topic: records of span items and control items.

Spans are decoded in two steps. Assembly reads `ItemHead`s and keeps the bytes of each item. At the decision the items are decoded
again as `SpanHead`s, with only the attributes that the policies declare. One unreadable item never affects the others.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec

from prela_stream.codec import rescue
from prela_stream.codec.bodies import attributes_decoder, events_decoder, is_readable, links_decoder
from prela_stream.codec.versions import PREFIX, READ_ERRORS, check_version, read
from prela_stream.errors import CodecError
from prela_stream.model.plain import is_plain, plain, safe_text
from prela_stream.model.span import (
    EMPTY_ARRAY,
    SPAN_STATUSES,
    SPAN_TYPES,
    ItemHead,
    ItemKind,
    Resource,
    SpanData,
    SpanFields,
    SpanHead,
)
from prela_stream.transport.base import UNREAD, why_unread

SPANS_FORMAT: Final = b"spans/1"
MAX_ITEMS: Final = 16_384
"""Most items of a record. A record with more is poison: decoded, an item of one byte takes 300 bytes of memory."""

PIECE_ITEMS = 256
"""Most items of a piece of a record: about a millisecond of work, up to three if they are unreadable."""

_KNOWN_KINDS: Final = frozenset(int(kind) for kind in ItemKind)
_NO_IDS: Final = frozenset({int(ItemKind.TICK), int(ItemKind.LOST)})
_NO_RESOURCE: Final = b"\x80"


class BadItem(msgspec.Struct, frozen=True, kw_only=True):
    """An unreadable item, or with index -1 an unreadable record."""

    index: int
    raw: bytes
    reason: str
    items: int = 1
    """For a record, the number of items that it declares, if that is known."""


class ItemBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The decoded record of the `spans` topic. `heads[i]` and `raws[i]` are the same item.

    `raws` are copies, unless `views` is true. A view keeps the whole record in memory, and so does each `SpanHead`.
    """

    resource: bytes
    """The resource map as MessagePack bytes, for `decode_resource`."""
    heads: Sequence[SpanFields]
    raws: Sequence[bytes]
    indexes: Sequence[int]
    """Index of each item in the record."""
    bad: Sequence[BadItem] = ()
    unknown: int = 0
    """Number of skipped items with a kind that this version does not know."""
    views: bool = False
    """Whether `raws` are views of the record, and `heads` have decoded attributes; see `ItemReader`."""


class _Envelope(msgspec.Struct, array_like=True):
    resource: msgspec.Raw
    items: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ITEMS)]


class _Outline(msgspec.Struct, array_like=True):
    resource: msgspec.Raw
    items: msgspec.Raw


class _KindOnly(msgspec.Struct, array_like=True, gc=False):
    kind: int


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=safe_text)
_outline: Final = msgspec.msgpack.Decoder(_Outline)
envelope_decoder: Final = msgspec.msgpack.Decoder(_Envelope)
_kind_only: Final = msgspec.msgpack.Decoder(_KindOnly)
_span_head: Final = msgspec.msgpack.Decoder(SpanHead)
_span_heads: Final = msgspec.msgpack.Decoder(list[SpanHead])
_text: Final = msgspec.msgpack.Decoder(str)
_any: Final = msgspec.msgpack.Decoder()
_resource: Final = msgspec.msgpack.Decoder(Resource)


encode_fields: Final = _encoder.encode
"""As `encode_item`, of a tuple with the kind and the fields, for code that encodes every span."""


def encode_item(kind: int, *fields: object) -> bytes:
    """An item of the `spans` topic. `fields` are those of `SpanHead` after `kind`, in order; trailing fields may be omitted."""
    return _encoder.encode((kind, *fields))


def encode_resource(resource: Resource) -> bytes:
    """The resource map that precedes the items of a record. Its values are made safe in the same way as attributes."""
    with suppress(ValueError, OverflowError):  # lone surrogates, for instance in a file name that is not UTF-8
        if is_plain(resource.attributes):
            return _encoder.encode(resource)
    return _encoder.encode(plain(resource))


def encode_batch(resource: bytes, items: Sequence[bytes]) -> bytes:
    """The value of a record of `spans`: items from `encode_item` under one encoded resource."""
    count = len(items)
    return b"".join((PREFIX, b"\x92", resource, b"\xdd", count.to_bytes(4, "big"), *items))


def decode_batch(value: bytes | memoryview, max_item_bytes: int | None = None) -> ItemBatch:
    """Decode the heads and the bytes of each item of a record of `spans`. Never raises: unreadable parts are in `bad`.

    Every returned item can be decoded with `decode_head`, and its numbers are in the ranges of docs/wire.md. Its attributes,
    events and links are not checked here. The memory for it is bounded before it is allocated: a record with more than
    `MAX_ITEMS` items is unreadable as a whole.

    Args:
        value: The value of the record.
        max_item_bytes: Most bytes of an item and the resource together. A larger item could not be written as kept.
    """
    found = list(filter(None, decode_pieces(value, max_item_bytes)))
    if len(found) == 1:
        return found[0]
    return ItemBatch(
        resource=found[0].resource,
        heads=[head for one in found for head in one.heads],
        raws=[raw for one in found for raw in one.raws],
        indexes=[index for one in found for index in one.indexes],
        bad=[bad for one in found for bad in one.bad],
        unknown=sum(one.unknown for one in found),
    )


def decode_pieces(value: bytes | memoryview, max_item_bytes: int | None = None) -> Iterator[ItemBatch | None]:
    """As `decode_batch`, in pieces of up to `PIECE_ITEMS` items. There is at least one, and all have the same resource.

    Yields:
        The pieces, in order. Before them None, about once in a millisecond of other work.
    """
    view = memoryview(value)
    try:
        check_version(view)
        envelope = envelope_decoder.decode(view[1:])
    except CodecError as error:
        yield _whole(view, str(error), why_unread(view)[1] if view and view[0] == UNREAD else 1)
    except READ_ERRORS as error:
        if len(view) > MAX_ITEMS and (problem := _count_problem(view)):
            yield _whole(view, *problem)
        else:
            yield from _rescue(view, str(error), max_item_bytes)
    else:
        resource, items = bytes(envelope.resource), envelope.items
        for start in pieces_of(items):
            yield decode_piece(resource, items, start, max_item_bytes)


def pieces_of(items: Sequence[object]) -> range:
    """Where each piece of the items of a record starts. An empty record has one."""
    return range(0, len(items) or 1, PIECE_ITEMS)


def decode_piece(
    resource: bytes, items: Sequence[msgspec.Raw | memoryview], start: int, max_item_bytes: int | None = None
) -> ItemBatch:
    """The piece of these items that starts at `start`; see `decode_batch`."""
    part = items[start : start + PIECE_ITEMS]
    if max_item_bytes is not None and sum(map(len, part)) + len(resource) > max_item_bytes:
        return _decode_one_by_one(resource, part, start, max_item_bytes)
    try:
        heads = _span_heads.decode(joined(part))
    except READ_ERRORS:
        return _decode_one_by_one(resource, part, start)
    for head in heads:
        if (head.trace_id is None or head.span_id is None or head.kind not in _KNOWN_KINDS) and (
            head.kind not in _NO_IDS
        ):
            return _decode_one_by_one(resource, part, start)
    raws = [bytes(raw) for raw in part]
    indexes = range(start, start + len(raws))
    return ItemBatch(resource=resource, heads=heads, raws=raws, indexes=indexes, bad=[], unknown=0)


def joined(items: Sequence[bytes | msgspec.Raw | memoryview]) -> bytes:
    """The items as one MessagePack array."""
    return b"".join((b"\xdd", len(items).to_bytes(4, "big"), *items))


def _whole(view: memoryview, problem: str, items: int = 1) -> ItemBatch:
    """A record of which no item is readable."""
    whole = BadItem(index=-1, raw=bytes(view), reason=problem, items=items)
    return ItemBatch(resource=_NO_RESOURCE, heads=[], raws=[], indexes=(), bad=[whole], unknown=0)


def _count_problem(view: memoryview) -> tuple[str, int] | None:
    """Why the record has too many items, and how many; None if it has not. Nothing is allocated per item."""
    try:
        _, count = rescue.array_at(memoryview(_outline.decode(view[1:]).items), 0)
    except (rescue.FramingError, *READ_ERRORS):
        return None  # no array, or more is wrong: the caller reports it
    return (f"a record has at most {MAX_ITEMS:,} items, this one has {count:,}", count) if count > MAX_ITEMS else None


def _rescue(view: memoryview, problem: str, max_item_bytes: int | None) -> Iterator[ItemBatch | None]:
    """The readable items of a record that msgspec rejects: truncated, nested too deep, or with bytes after its end."""
    try:
        parts = yield from rescue.split(view, 1, MAX_ITEMS)
    except rescue.FramingError:
        yield _whole(view, problem)
        return
    resource, items = bytes(parts.first), parts.items
    for start in pieces_of(items):
        batch = _decode_one_by_one(resource, items[start : start + PIECE_ITEMS], start, max_item_bytes)
        if parts.problem is not None and start + PIECE_ITEMS >= len(items):
            rest = BadItem(index=len(items), raw=bytes(parts.rest), reason=parts.problem)
            batch = msgspec.structs.replace(batch, bad=[*batch.bad, rest])
        yield batch


def _decode_one_by_one(
    resource: bytes, items: Iterable[msgspec.Raw | memoryview], start: int, max_item_bytes: int | None = None
) -> ItemBatch:
    heads: list[SpanHead] = []
    raws: list[bytes] = []
    indexes: list[int] = []
    bad: list[BadItem] = []
    unknown = 0
    for index, item in enumerate(items, start):
        raw = bytes(item)
        try:
            if _kind_only.decode(raw).kind not in _KNOWN_KINDS:
                unknown += 1
                continue
            head = _span_head.decode(raw)
            problem = _id_problem(head)
            if problem is None and max_item_bytes is not None and len(raw) + len(resource) > max_item_bytes:
                problem = (
                    f"an item and its resource have at most {max_item_bytes:,} bytes (topics.max_record_bytes), these have "
                    f"{len(raw) + len(resource):,}"
                )
            if problem:
                raise CodecError(problem)
        except (CodecError, *READ_ERRORS) as error:
            bad.append(BadItem(index=index, raw=raw, reason=str(error)))
            continue
        heads.append(head)
        raws.append(raw)
        indexes.append(index)
    return ItemBatch(resource=resource, heads=heads, raws=raws, indexes=indexes, bad=bad, unknown=unknown)


def _id_problem(head: ItemHead) -> str | None:
    """Which id this item lacks, or None. The decoder has checked the lengths."""
    if head.kind in _NO_IDS or not (head.trace_id is None or head.span_id is None):
        return None
    which = "a trace id of 16 bytes at index 1" if head.trace_id is None else "a span id of 8 bytes at index 2"
    return f"an item of kind {head.kind} needs {which}, got nil"


def decode_head(raw: bytes | msgspec.Raw) -> SpanHead:
    """An item with its large parts left as bytes (views of `raw`); raises CodecError."""
    return read(_span_head, raw, "item")


def decode_heads(raws: Sequence[bytes]) -> list[SpanHead]:
    """As `decode_head` for all items of a trace in one call; raises CodecError if any of them is unreadable."""
    return read(_span_heads, joined(raws), "items")


def kind_of(raw: bytes) -> int:
    """The kind of an item from `decode_batch`, also if the rest of the item is nested too deep to decode."""
    return raw[rescue.array_at(memoryview(raw), 0)[0]]


def decode_resource(raw: bytes | msgspec.Raw) -> Resource:
    """The resource of a record. Never raises: a value that does not fit the type of its key is moved to `attributes`.

    A process with an invalid resource does not lose its spans. Attributes that cannot be written as JSON become text.
    """
    try:
        return _with_readable_attributes(_resource.decode(raw))
    except READ_ERRORS as error:
        problem = str(error)
    good: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    try:
        found = attributes_decoder.decode(raw)
    except READ_ERRORS:
        found = _readable_entries(raw)
        rest["prela.unreadable"] = problem
    for key, value in found.items():
        try:
            msgspec.convert({key: value}, Resource)
        except READ_ERRORS:
            rest[key] = value
        else:
            good[key] = value
    resource = msgspec.convert(good, Resource)
    return _with_readable_attributes(msgspec.structs.replace(resource, attributes={**rest, **resource.attributes}))


def _readable_entries(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in rescue.entries(memoryview(raw)):
        with suppress(*READ_ERRORS):
            found[_text.decode(key)] = _any.decode(value)
    return found


def readable_resource(raw: bytes) -> bytes:
    """The resource as it may be stored: these bytes, or if a part of them cannot be read by every reader, what can be."""
    try:
        if is_readable(attributes_decoder.decode(raw)):
            return raw
    except READ_ERRORS:
        pass
    return encode_resource(decode_resource(raw))


def _with_readable_attributes(resource: Resource) -> Resource:
    found = resource.attributes
    readable = {key: value if is_readable(value) else safe_text(value) for key, value in found.items()}
    return resource if readable == found else msgspec.structs.replace(resource, attributes=readable)


def decode_span(raw: bytes | msgspec.Raw, resource: Resource | None = None) -> SpanData:
    """A span item as `SpanData`; raises CodecError, also if the item is not a span or its body is unreadable."""
    return span_of(decode_head(raw), resource)


def span_of(head: SpanHead, resource: Resource | None = None) -> SpanData:
    """As `decode_span` for an item of which the head is decoded; raises CodecError in the same cases."""
    if head.trace_id is None or head.span_id is None:
        msg = f"an item of kind {head.kind} is not a span"
        raise CodecError(msg)
    return SpanData(
        trace_id=head.trace_id.hex(),
        span_id=head.span_id.hex(),
        parent_span_id=None if head.parent_span_id is None else head.parent_span_id.hex(),
        name=head.name,
        span_type=SPAN_TYPES[head.span_type],
        status=SPAN_STATUSES[head.status],
        status_message=head.status_message,
        start_ns=head.start_ns,
        duration_ns=head.duration_ns,
        child_count=head.child_count,
        inject_count=head.inject_count,
        inject_ordinal=head.inject_ordinal,
        flags=head.flags,
        revision=head.revision,
        randomness=head.randomness,
        threshold=head.threshold,
        attributes=read(attributes_decoder, head.attributes, "attributes"),
        events=[] if head.events is EMPTY_ARRAY else read(events_decoder, head.events, "events"),
        links=[] if head.links is EMPTY_ARRAY else read(links_decoder, head.links, "links"),
        resource=resource or Resource(),
    )
