"""Ids and randomness as W3C Trace Context and OpenTelemetry define them, and the partition of a trace.

Ids are raw bytes inside (16 for a trace, 8 for a span) and lower-case hex at every public surface.
"""

from functools import lru_cache

from prela_stream.errors import ConfigurationError

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
RANDOMNESS_BITS = 56
RANDOMNESS_RANGE = 1 << RANDOMNESS_BITS

_MASK32 = 0xFFFFFFFF
_MURMUR_M = 0x5BD1E995


def trace_id_from_hex(text: str) -> bytes:
    """The 16 bytes of a trace id written as 32 hex digits; raises ConfigurationError for anything else."""
    return _from_hex(text, TRACE_ID_BYTES, "trace id")


def span_id_from_hex(text: str) -> bytes:
    """The 8 bytes of a span id written as 16 hex digits; raises ConfigurationError for anything else."""
    return _from_hex(text, SPAN_ID_BYTES, "span id")


def _from_hex(text: str, size: int, what: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except (TypeError, ValueError):
        raw = b""
    if len(raw) != size or len(text) != 2 * size:
        msg = f"a {what} is {2 * size} hex digits, got {text!r}"
        raise ConfigurationError(msg)
    return raw


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
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _MURMUR_M & _MASK32
        k = (k ^ (k >> 24)) * _MURMUR_M & _MASK32
        h = (h * _MURMUR_M & _MASK32) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _MURMUR_M & _MASK32
    h = (h ^ (h >> 13)) * _MURMUR_M & _MASK32
    return h ^ (h >> 15)


@lru_cache(maxsize=16384)  # a trace has many spans; hashing 16 bytes in Python costs ten times the look-up
def partition_of(trace_id: bytes, partitions: int) -> int:
    """The partition of a trace: murmur2 of its 16 raw id bytes, made positive as Kafka does, modulo `partitions`."""
    return (murmur2(trace_id) & 0x7FFFFFFF) % partitions
