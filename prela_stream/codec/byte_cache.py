"""A cache that is bounded in bytes: what it holds was written by producers, and one entry may be as large as a record."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_ENTRY_BYTES: Final = 200
"""Approximate size of an entry without its contents."""


class ByteCache(Generic[T]):
    """Remembers the results of a function of bytes. If it is full it starts again, because entries are few and cheap to compute.

    Args:
        compute: The function. Its results are assumed to be up to `factor` times as large as its argument.
        most_bytes: Most bytes of the arguments and results that are held.
        factor: See `compute`.
    """

    __slots__ = ("_bytes", "_compute", "_factor", "_found", "_most_bytes")

    def __init__(self, compute: Callable[[bytes], T], most_bytes: int, factor: int = 1) -> None:
        self._compute = compute
        self._most_bytes = most_bytes
        self._factor = factor + 1
        self._found: dict[bytes, T] = {}
        self._bytes = 0

    def __call__(self, key: bytes) -> T:
        """The result for these bytes."""
        found = self._found.get(key)
        if found is None:
            found = self._compute(key)
            size = len(key) * self._factor + _ENTRY_BYTES
            if self._bytes + size > self._most_bytes:
                self._found.clear()
                self._bytes = 0
            if size <= self._most_bytes:
                self._found[key] = found
                self._bytes += size
        return found

    @property
    def held_bytes(self) -> int:
        """Approximate bytes that are held."""
        return self._bytes
