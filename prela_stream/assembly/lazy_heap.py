"""A heap from which entries that no longer count are removed a few at a time."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])
NEVER: Final = 1 << 63
"""A time after that of every entry."""
SLACK = 1_024
"""A small heap does not begin a new one before it has so many entries more than twice as many as count."""
_MOVED: Final = 8
"""So many entries move to the new heap for each one that is added."""


class LazyHeap(Generic[T]):
    """A heap of entries that may stop counting while they wait. It has at most about twice as many entries as count.

    If there are more, it begins a new heap. Each entry that is added then moves a few from the end of the old one, so that this
    remains a heap. To move a million entries at once takes half a second.

    Entries are tuples that begin with an integer, the time of the entry.

    Args:
        counts: Whether an entry still counts.
    """

    __slots__ = ("_counts", "_new", "_old", "soonest")

    def __init__(self, counts: Callable[[T], bool]) -> None:
        self._counts = counts
        self._new: list[T] = []
        self._old: list[T] = []
        self.soonest = NEVER
        """The time of the first entry; NEVER: there is none."""

    def __len__(self) -> int:
        """The number of entries, those that do not count included."""
        return len(self._new) + len(self._old)

    def push(self, entry: T, most: int) -> None:
        """Add an entry.

        Args:
            entry: It counts now.
            most: The most entries that can count now.
        """
        new = self._new
        heappush(new, entry)
        self.soonest = min(self.soonest, entry[0])
        if self._old:
            self._move()
        elif len(new) > 2 * most + SLACK:
            self._new, self._old = [], new

    def _move(self) -> None:
        old, new = self._old, self._new
        for _ in range(min(_MOVED, len(old))):
            entry = old.pop()
            if self._counts(entry):
                heappush(new, entry)
        first = self.first()
        self.soonest = NEVER if first is None else first[0]

    def first(self) -> T | None:
        """The smallest entry, which may not count; None if there is none."""
        new, old = self._new, self._old
        if not old:
            return new[0] if new else None
        return min(new[0], old[0]) if new else old[0]

    def pop(self) -> T:
        """Remove the smallest entry, and return it."""
        new, old = self._new, self._old
        popped = heappop(new if not old or (new and new[0] < old[0]) else old)
        first = self.first()
        self.soonest = NEVER if first is None else first[0]
        return popped
