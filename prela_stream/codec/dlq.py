"""The `dlq` topic: the bytes of unreadable items with their topic, partition, offset, index and the reason."""

from typing import Final

import msgspec

from prela_stream.codec.versions import PREFIX, read_versioned
from prela_stream.model.plain import safe_text

DLQ_FORMAT: Final = b"dlq/1"


class DeadLetter(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One record of the `dlq` topic: unreadable bytes, and where they came from."""

    topic: str
    partition: int
    offset: int
    index: int
    """Index of the first item in its record. -1: the whole record, or spans found unreadable at their decision, when `offset` is
    that of the trace's first item."""
    reason: str
    raw: bytes
    """The bytes of the items, one after the other."""
    count: int = 1
    """Number of items. For a whole record, the number that it declares, if that is known."""
    places: list[tuple[int, int]] = []
    """Where the items are in their record, as (first index, number of consecutive items), in order. Empty with index -1."""


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=safe_text)
_dead: Final = msgspec.msgpack.Decoder(DeadLetter)


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """The value of a record of `dlq`."""
    return PREFIX + _encoder.encode(letter)


def decode_dead_letter(value: bytes | memoryview) -> DeadLetter:
    """Decode a record of `dlq`; raises CodecError."""
    return read_versioned(_dead, value, "dlq")
