"""The traces whose decisions were forgotten early, in an approximate set that is bounded in bytes.

A trace that is in the set was decided before, so a second decision on it has weight 0. With a probability of at most 1e-4 a trace
that never was in the set is found in it, and is not counted by its weight. That is the only bias that the set causes.

It is two Bloom filters: ids are added to the younger one, and if that is full or old, it replaces the older one.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

_BITS_PER_ID: Final = 22
_HASHES: Final = 15
"""With 22 bits per id and 15 hashes the error rate of one filter is 2.6e-5."""


class ForgottenTraces:
    """The ids of one partition.

    Args:
        most_bytes: Memory of both filters. It is allocated when the first id is added.
        age_ms: Stream time after which a filter is replaced.
    """

    def __init__(self, most_bytes: int, age_ms: int) -> None:
        self._bits = max(64, most_bytes * 8 // 2)
        self._capacity = max(1, self._bits // _BITS_PER_ID)
        self._age_ms = age_ms
        self._young = self._old = bytearray()
        self._count = self._began_ms = 0

    def add(self, trace_ids: Iterable[bytes], now_ms: int) -> None:
        """Add ids at this stream time."""
        for trace_id in trace_ids:
            if not self._young or self._count >= self._capacity or now_ms - self._began_ms >= self._age_ms:
                self._old, self._young = self._young, bytearray(self._bits // 8 + 1)
                self._count, self._began_ms = 0, now_ms
            for place in self._places(trace_id):
                self._young[place >> 3] |= 1 << (place & 7)
            self._count += 1

    def __contains__(self, trace_id: bytes) -> bool:
        """Whether this id was probably added."""
        if not self._young:
            return False
        places = self._places(trace_id)
        return any(
            one and all(one[place >> 3] >> (place & 7) & 1 for place in places) for one in (self._young, self._old)
        )

    def _places(self, trace_id: bytes) -> list[int]:
        digest = blake2b(trace_id, digest_size=16).digest()
        place, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
        return [(place + number * step) % self._bits for number in range(_HASHES)]
