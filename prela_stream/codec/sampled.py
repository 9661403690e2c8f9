"""The `sampled` topic: kept traces, as one record or several fragments, and their late spans."""

from typing import Final

import msgspec

from prela_stream.codec.versions import PREFIX, read_versioned
from prela_stream.model.decision import Decision
from prela_stream.model.plain import safe_text

SAMPLED_FORMAT: Final = b"sampled/1"


class KeptFragment(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One Record of the `sampled` topic: a kept trace, or a part of one that is larger than a Record, or its late spans.

    A trace is whole when fragments 0 … `last` with `late` false are there. `items` are pairs of an index into
    `resources` and an item's bytes exactly as the agent wrote them.
    """

    decision: Decision
    fragment: int = 0
    last: bool = True
    """No further fragment of the decided part follows. Always true for a late one."""
    late: bool = False
    """Spans that arrived after the decision; `fragment` then is the offset of their Record."""
    resources: list[msgspec.Raw] = []
    items: list[tuple[int, msgspec.Raw]] = []


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=safe_text)
_kept: Final = msgspec.msgpack.Decoder(KeptFragment)


def encode_kept(fragment: KeptFragment) -> bytes:
    """The value of a Record of `sampled`."""
    return PREFIX + _encoder.encode(fragment)


def decode_kept(value: bytes | memoryview) -> KeptFragment:
    """Read a Record of `sampled`; raises CodecError."""
    return read_versioned(_kept, value, "sampled")
