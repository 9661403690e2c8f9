"""Ids and randomness as W3C Trace Context and OpenTelemetry define them, and the partition of a trace.

Inside the package ids are raw bytes (16 for a trace, 8 for a span). Public APIs show them as lower-case hex.
"""

from functools import lru_cache
from struct import Struct

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
RANDOMNESS_BITS = 56
RANDOMNESS_RANGE = 1 << RANDOMNESS_BITS

_MASK32 = 0xFFFFFFFF
_MURMUR_M = 0x5BD1E995
_WORD = Struct("<I")


def trace_randomness(trace_id: bytes) -> int:
    """The randomness of a trace: its id's last 56 bits, as an integer in [0, 2**56).

    Source: W3C Trace Context Level 2, "Randomness of trace-id"; OpenTelemetry "TraceState: Probability Sampling".
    """
    return int.from_bytes(trace_id[-7:], "big")


def murmur2(data: bytes) -> int:
    """32-bit murmur2 with Kafka's seed, as an unsigned integer; equal to `Utils.murmur2` of Kafka's Java client."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK32
    whole = length & ~3
    for (word,) in _WORD.iter_unpack(data[:whole]):
        k = word * _MURMUR_M & _MASK32
        k = (k ^ (k >> 24)) * _MURMUR_M & _MASK32
        h = (h * _MURMUR_M & _MASK32) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _MURMUR_M & _MASK32
    h = (h ^ (h >> 13)) * _MURMUR_M & _MASK32
    return h ^ (h >> 15)


@lru_cache(maxsize=16384)  # a trace has many spans; hashing 16 bytes in Python takes ten times as long as the cache
def partition_of(trace_id: bytes, partitions: int) -> int:
    """The partition of a trace: murmur2 of its 16 raw id bytes, made positive as Kafka does, modulo `partitions`."""
    return (murmur2(trace_id) & 0x7FFFFFFF) % partitions
