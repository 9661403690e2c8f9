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


class DropFields(msgspec.Struct, frozen=True, gc=False):
    """Encoded fields of a decision on a dropped trace that many of them share. What differs is in the trace.

    `source`: topic and partition as `decision_id_of` reads them. `verdict`: probability, threshold, weight, policy and reason.
    `version`: the version of the policies.
    """

    source: bytes
    verdict: bytes
    version: bytes
    weight_biased: bool


def encode_fields(*values: object) -> bytes:
    """Consecutive fields of a decision."""
    return b"".join(map(_encoder.encode, values))


def encode_decisions(decisions: Sequence[Decision | msgspec.Raw]) -> bytes:
    """The value of a record of `decisions`: all decisions of a commit, or as many as fit. `Raw` is an encoded one."""
    return PREFIX + _encoder.encode(decisions)


def decode_decisions(value: bytes | memoryview) -> list[Decision]:
    """Decode a record of `decisions`; raises CodecError."""
    return read_versioned(_decisions, value, "decisions")
