"""Decompresses batches of zstd into memory of the right size.

The decoder of aiokafka lets its output grow and then copies it. A worker that catches up spends a twelfth of its time on that.
"""

import sys
from collections.abc import Callable
from typing import Any, Final

import cramjam
from aiokafka.record.default_records import DefaultRecordBatch

from prela_stream.transport.kafka.client.batches import zstd_bound

_NAME: Final = "zstd_decode"
_LEAST: Final = 256 << 10
_MOST: Final = 32 << 20
"""Other batches are left to aiokafka: a small one is copied quickly, and memory for a large one may be for nothing."""

Decode = Callable[[Any], bytes | bytearray]


class ZstdDecode:
    """Takes the place of aiokafka's decoder, and gives it what it cannot decode: it has the right error.

    Args:
        other: The decoder of aiokafka.
    """

    def __init__(self, other: Decode) -> None:
        self._other = other

    def __call__(self, payload: Any) -> bytes | bytearray:
        """The decompressed payload."""
        try:
            bound = zstd_bound(memoryview(payload))
            if _LEAST <= bound <= _MOST:
                found = bytearray(bound)
                del found[cramjam.zstd.decompress_into(payload, found) :]
                return found
        except (IndexError, cramjam.DecompressionError):
            pass
        return self._other(payload)


def use_sized_decompression() -> None:
    """Let every consumer of this process decompress so. Nothing changes if this version of aiokafka has no such function."""
    module = sys.modules[DefaultRecordBatch.__module__]
    decode = getattr(module, _NAME, None)
    if decode is not None and not isinstance(decode, ZstdDecode):
        setattr(module, _NAME, ZstdDecode(decode))
