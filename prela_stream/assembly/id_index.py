"""Numbers by trace id, in little memory."""

from collections.abc import Iterator
from typing import Final

_ROW: Final = 24
"""Bytes of a row: a trace id and a number."""
_ROWS: Final = 32
"""Rows of a bucket, on average."""


class IdIndex:
    """The numbers of trace ids.

    A row is found by a search for its id in the bytes of its bucket. Buckets are split one at a time, so no pause is long.
    """

    def __init__(self) -> None:
        self._buckets = [bytearray()]
        self._level = 1
        """The greatest power of two that is not above the number of buckets."""
        self.count = 0

    def _bucket(self, key: int) -> bytearray:
        index = key & (2 * self._level - 1)
        return self._buckets[index if index < len(self._buckets) else index - self._level]

    def find(self, trace_id: bytes) -> int | None:
        """The number of an id that has at most one."""
        index = hash(trace_id) & (2 * self._level - 1)  # as `_bucket`
        buckets = self._buckets
        bucket = buckets[index if index < len(buckets) else index - self._level]
        at = bucket.find(trace_id)
        if at > 0 and at % _ROW:
            at = _row_of(bucket, trace_id)
        return None if at < 0 else int.from_bytes(bucket[at + 16 : at + _ROW], "little")

    def find_all(self, trace_id: bytes) -> Iterator[int]:
        """All numbers of an id."""
        bucket = self._bucket(hash(trace_id))
        at = bucket.find(trace_id)
        while at >= 0:
            if at % _ROW == 0:
                yield int.from_bytes(bucket[at + 16 : at + _ROW], "little")
            at = bucket.find(trace_id, at + 1)

    def add(self, trace_id: bytes, number: int) -> None:
        """Add a number."""
        self._bucket(hash(trace_id)).extend(trace_id + number.to_bytes(8, "little"))
        self.count += 1
        if self.count > _ROWS * len(self._buckets):
            self._split()

    def _split(self) -> None:
        level = self._level
        index = len(self._buckets) - level
        rows = self._buckets[index]
        parts = bytearray(), bytearray()
        for at in range(0, len(rows), _ROW):
            row = rows[at : at + _ROW]
            parts[hash(bytes(row[:16])) & level > 0].extend(row)
        self._buckets[index] = parts[0]
        self._buckets.append(parts[1])
        if len(self._buckets) == 2 * level:
            self._level = 2 * level

    def remove(self, trace_id: bytes, number: int | None = None) -> None:
        """Remove a number of an id; None: the only one."""
        bucket = self._bucket(hash(trace_id))
        at = _row_of(bucket, trace_id if number is None else trace_id + number.to_bytes(8, "little"))
        del bucket[at : at + _ROW]
        self.count -= 1

    def remove_first(self, key: int, number: int) -> bytes | None:
        """Remove the first number of all, whose id has this hash; returns the id, or None if the number was removed before.

        The numbers have to be added in their order.
        """
        bucket = self._bucket(key)
        if int.from_bytes(bucket[16:_ROW], "little") != number or not bucket:  # rows are in the order of their numbers
            return None
        trace_id = bytes(bucket[:16])
        del bucket[:_ROW]
        self.count -= 1
        return trace_id

    def free(self, most: int) -> bool:
        """Free so many buckets of an empty index. Returns whether all of them are free."""
        del self._buckets[max(1, len(self._buckets) - most) :]
        if len(self._buckets) > 1:
            return False
        self._level = 1
        return True


def _row_of(bucket: bytearray, begin: bytes) -> int:
    at = bucket.find(begin)
    while at > 0 and at % _ROW:
        at = bucket.find(begin, at + 1)
    return at
