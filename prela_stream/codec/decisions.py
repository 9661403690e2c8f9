"""The `decisions` topic: one entry for every decided trace, kept or dropped."""

from collections.abc import Sequence
from typing import Final

import msgspec

from prela_stream.codec.versions import PREFIX, read_versioned
from prela_stream.model.decision import Decision
from prela_stream.model.plain import safe_text

DECISIONS_FORMAT: Final = b"decisions/1"
_encoder: Final = msgspec.msgpack.Encoder(enc_hook=safe_text)
_decisions: Final = msgspec.msgpack.Decoder(list[Decision])


def encode_decisions(decisions: Sequence[Decision]) -> bytes:
    """The value of a record of `decisions`: all decisions of a commit, or as many as fit."""
    return PREFIX + _encoder.encode(decisions)


def decode_decisions(value: bytes | memoryview) -> list[Decision]:
    """Decode a record of `decisions`; raises CodecError."""
    return read_versioned(_decisions, value, "decisions")
