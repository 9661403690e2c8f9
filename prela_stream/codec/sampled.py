"""The `sampled` topic: kept traces, as one record or several fragments, and their late spans."""

from typing import Final

import msgspec

from prela_stream.codec.versions import PREFIX, read_versioned
from prela_stream.model.decision import Decision
from prela_stream.model.plain import safe_text

SAMPLED_FORMAT: Final = b"sampled/1"


class KeptFragment(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One record of the `sampled` topic: a kept trace, a part of a kept trace that is larger than a record, or late spans.

    A trace is whole if all fragments from 0 to the one with `last`, and with `late` false, were received. `items` are pairs of an
    index into `resources` and the bytes of an item as the agent wrote them.
    """

    decision: Decision
    fragment: int = 0
    last: bool = True
    """This is the last fragment of the decided part. Always true for late spans."""
    late: bool = False
    """The spans arrived after the decision. `fragment` is then the offset of their record."""
    resources: list[msgspec.Raw] = []
    items: list[tuple[int, msgspec.Raw]] = []


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=safe_text)
_kept: Final = msgspec.msgpack.Decoder(KeptFragment)


def encode_kept(fragment: KeptFragment) -> bytes:
    """The value of a record of `sampled`."""
    return PREFIX + _encoder.encode(fragment)


def decode_kept(value: bytes | memoryview) -> KeptFragment:
    """Decode a record of `sampled`; raises CodecError."""
    return read_versioned(_kept, value, "sampled")
