"""The `dlq` topic: the bytes of items that could not be read, with their place and the reason."""

from typing import Final

import msgspec

from prela_stream.codec.versions import PREFIX, read_versioned
from prela_stream.model.plain import safe_text

DLQ_FORMAT: Final = b"dlq/1"


class DeadLetter(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One Record of the `dlq` topic: bytes that could not be read, and where they stood."""

    topic: str
    partition: int
    offset: int
    index: int
    """Place in the Record; -1: the Record as a whole."""
    reason: str
    raw: bytes


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=safe_text)
_dead: Final = msgspec.msgpack.Decoder(DeadLetter)


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """The value of a Record of `dlq`."""
    return PREFIX + _encoder.encode(letter)


def decode_dead_letter(value: bytes | memoryview) -> DeadLetter:
    """Read a Record of `dlq`; raises CodecError."""
    return read_versioned(_dead, value, "dlq")
