"""Flushes that wait: each counts how the items end that were recorded before it. The caller holds the ledger's lock."""

from collections.abc import Callable, Sequence

import msgspec

from prela_stream.delivery.batch import Outcome
from prela_stream.errors import guard

_NOTIFY_GUARD = guard("pipeline.flush")


class FlushResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the items ended that were queued or in flight when the flush began. Later items are not counted."""

    acknowledged: int
    dropped: int
    unknown: int
    pending: int
    """Without a result when the time was over."""

    @property
    def complete(self) -> bool:
        """Whether every one of them was acknowledged."""
        return not (self.dropped or self.unknown or self.pending)


class PendingFlush:
    """One flush: the items without a result up to a sequence number, and how they end."""

    __slots__ = ("acknowledged", "dropped", "last", "notify", "pending", "unknown")

    def __init__(self, last: int, pending: int) -> None:
        self.last = last
        self.pending = pending
        self.acknowledged = self.dropped = self.unknown = 0
        self.notify: Callable[[], object] | None = None
        """Called when nothing is pending any more, by the thread that counts the last item."""

    def count(self, items: int, outcome: Outcome) -> bool:
        """Count items of this flush that have ended; returns whether none is left."""
        self.pending -= items
        if outcome == "acknowledged":
            self.acknowledged += items
        elif outcome == "unknown":
            self.unknown += items
        else:
            self.dropped += items
        return self.pending == 0

    def result(self) -> FlushResult:
        """The counts so far."""
        return FlushResult(
            acknowledged=self.acknowledged, dropped=self.dropped, unknown=self.unknown, pending=self.pending
        )


class PendingFlushes:
    """The flushes that wait. Call `notify` with what the methods return after the lock is released."""

    def __init__(self) -> None:
        self._flushes: list[PendingFlush] = []

    def __bool__(self) -> bool:
        return bool(self._flushes)

    def add(self, last: int, pending: int) -> PendingFlush:
        """A flush of `pending` items, the last of which has the sequence number `last`."""
        flush = PendingFlush(last, pending)
        if pending:
            self._flushes.append(flush)
        return flush

    def remove(self, flush: PendingFlush) -> FlushResult:
        """End a flush, complete or not."""
        if flush in self._flushes:
            self._flushes.remove(flush)
        return flush.result()

    def count(self, sequences: Sequence[int], outcome: Outcome) -> list[PendingFlush]:
        """Count ended items in each flush that waits for them; returns the flushes that are complete now."""
        if not self._flushes:
            return []
        complete = [
            flush
            for flush in self._flushes
            if (items := sum(0 < sequence <= flush.last for sequence in sequences)) and flush.count(items, outcome)
        ]
        self._flushes = [flush for flush in self._flushes if flush not in complete]
        return complete

    def shut_down(self) -> list[PendingFlush]:
        """Count everything pending as dropped; returns all flushes, which are complete now."""
        for flush in self._flushes:
            flush.count(flush.pending, "shutdown")
        ended, self._flushes = self._flushes, []
        return ended


def notify(flushes: Sequence[PendingFlush]) -> None:
    """Wake the callers of complete flushes."""
    for flush in flushes:
        with _NOTIFY_GUARD:
            if flush.notify is not None:
                flush.notify()
