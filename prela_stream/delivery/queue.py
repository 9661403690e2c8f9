"""The bounded queue between `record()` and the sender.

It is the only part of delivery that the application's threads use, so `put` is short: one lock, a few integers, one append. How
an item ends is counted in ``delivery/ledger.py``.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from prela_stream.delivery.batch import Entry
from prela_stream.delivery.options import Overflow
from prela_stream.errors import guard

Refusal = Literal["queue_full", "shutdown"]

RESERVED_SHARE: Final = 0.1
"""Share of the capacity that only reserved items (roots, control items) may use."""

_NEVER: Final = 1 << 62
_WAKE_GUARD: Final = guard("queue.wake")


class BoundedQueue:
    """Items for the sender, bounded by count and by bytes. Any thread may put; one sender takes.

    An item occupies room until `release`, so the bounds hold for everything that has no result yet, and not only for what has
    not been taken. A tenth of the capacity is kept for reserved items.

    Args:
        max_items: Most items that occupy room.
        max_bytes: Most bytes of these items.
        overflow: What happens to an item that finds no room. `drop_newest` drops it. `drop_oldest` drops the oldest items that
            have not been taken, reserved ones last. `block` waits for room for up to `block_timeout` seconds and then drops
            the item. A thread that runs an event loop never waits.
        block_timeout: Seconds; only for `block`.
        on_drop: Called under `lock` for each dropped item: its sequence (0 if it was never accepted), trace id and reason.
    """

    def __init__(
        self,
        *,
        max_items: int,
        max_bytes: int,
        overflow: Overflow,
        block_timeout: float,
        on_drop: Callable[[int, bytes | None, Refusal], None],
    ) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._reserved_items = int(max_items * RESERVED_SHARE)
        self._reserved_bytes = int(max_bytes * RESERVED_SHARE)
        self._overflow = overflow
        self._block_timeout = block_timeout
        self._on_drop = on_drop
        self._on_wake: Callable[[], object] = _nothing
        self.reset()

    def reset(self) -> None:
        """Empty and unlock the queue, in whatever state a fork copied it. Call it before the child has a second thread."""
        # Re-entrant: a signal handler or a finalizer may end a span while this very thread is inside `put`.
        self.lock: threading.RLock = threading.RLock()
        self._acquire, self._release = self.lock.acquire, self.lock.release
        self._room = threading.Condition(self.lock)
        self._entries: deque[Entry] = deque()
        self._spared: deque[Entry] = deque()  # reserved items that drop_oldest skipped; they are older than `_entries`
        self._append = self._entries.append
        self.accepted: int = 0
        """Items accepted so far; the sequence of the last one."""
        self.refused: int = 0
        """Items that were never accepted."""
        self._bytes_in = 0
        self._released = 0
        self._released_bytes = 0
        self._wake_at = _NEVER
        self.closed: bool = False
        self._set_limits()

    def __len__(self) -> int:
        return len(self._entries) + len(self._spared)

    @property
    def held_items(self) -> int:
        """Items that occupy room: those that can be taken, and those taken and not released."""
        return self.accepted - self._released

    @property
    def held_bytes(self) -> int:
        """Bytes of the items that occupy room."""
        return self._bytes_in - self._released_bytes

    def put(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
        """Queue an item, or drop it and count it. Never raises, and waits only where `overflow` is `block`."""
        size = len(item)
        # Bound methods of instance attributes: a local costs a third of a method call through `self`.
        acquire, release = self._acquire, self._release
        # `with` costs twice as much. The acquire is inside the try, so that an interrupt right after it still releases. The
        # RuntimeError is that of an interrupt before it, when there is nothing to release. There is no call between reading
        # the counters and writing them, so nothing can re-enter there.
        try:
            acquire()
            sequence = self.accepted + 1
            filled = self._bytes_in + size
            if sequence <= self._item_limit and filled <= self._byte_limit:
                self.accepted = sequence
                self._bytes_in = filled
                append = self._append
                append((sequence, trace_id, item, reserved))
            else:
                self._put_crowded(trace_id, item, reserved=reserved)
            if self.accepted < self._wake_at:
                return
            self._wake_at = _NEVER
        finally:
            try:  # noqa: SIM105 - suppress() costs as much as the whole rest
                release()
            except RuntimeError:
                pass
        self.wake()

    def take(self, limit: int) -> list[Entry]:
        """Take up to `limit` items, the oldest first. They occupy room until `release`."""
        with self.lock:
            taken: list[Entry] = []
            for entries in (self._spared, self._entries):
                taken += [entries.popleft() for _ in range(min(limit - len(taken), len(entries)))]
            return taken

    def release(self, items: int, size: int) -> None:
        """Free the room of taken items, in items and bytes."""
        with self.lock:
            self._released += items
            self._released_bytes += size
            self._set_limits()
            self._room.notify_all()

    def close(self) -> None:
        """From now on drop every item for `shutdown`. Items that were accepted can still be taken."""
        with self.lock:
            self.closed = True
            self._set_limits()
            self._room.notify_all()

    def attach(self, on_wake: Callable[[], object] | None) -> None:
        """Call `on_wake`, in any thread, when the sender has work; None: there is no sender."""
        self._on_wake = on_wake or _nothing

    def wake_at(self, items: int) -> bool:
        """Wake the sender when `items` can be taken; False if that many already can."""
        with self.lock:
            missing = items - len(self)
            self._wake_at = self.accepted + missing if missing > 0 else _NEVER
            return missing > 0

    def wake(self) -> None:
        """Wake the sender now."""
        with _WAKE_GUARD:
            self._on_wake()

    def _set_limits(self) -> None:
        """Translate the free room into the values of `accepted` and `_bytes_in` at which it ends: `put` makes two comparisons."""
        if self.closed:
            self._item_limit = self._byte_limit = -1
            return
        self._item_limit = self._released + self._max_items - self._reserved_items
        self._byte_limit = self._released_bytes + self._max_bytes - self._reserved_bytes

    def _fits(self, size: int, *, reserved: bool) -> bool:
        spare_items, spare_bytes = (self._reserved_items, self._reserved_bytes) if reserved else (0, 0)
        return (
            not self.closed
            and self.accepted + 1 <= self._item_limit + spare_items
            and self._bytes_in + size <= self._byte_limit + spare_bytes
        )

    def _put_crowded(self, trace_id: bytes, item: bytes, *, reserved: bool) -> None:
        size = len(item)
        if self._fits(size, reserved=reserved) or self._make_room(size, reserved=reserved):
            self.accepted += 1
            self._bytes_in += size
            self._append((self.accepted, trace_id, item, reserved))
        else:
            self.refused += 1
            self._on_drop(0, trace_id, "shutdown" if self.closed else "queue_full")

    def _make_room(self, size: int, *, reserved: bool) -> bool:
        if self.closed or self._overflow == "drop_newest":
            return False
        if self._overflow == "drop_oldest":
            return self._drop_oldest(size, reserved=reserved)
        return self._wait_for_room(size, reserved=reserved)

    def _drop_oldest(self, size: int, *, reserved: bool) -> bool:
        spare = self._reserved_bytes if reserved else 0
        if size > self._max_bytes - self._reserved_bytes + spare:
            return False  # it does not fit into the empty queue either, so nothing is dropped for it
        while not self._fits(size, reserved=reserved):
            if self._entries:
                entry = self._entries.popleft()
                if entry[3]:
                    self._spared.append(entry)
                    continue
            elif reserved and self._spared:
                entry = self._spared.popleft()
            else:
                return False
            sequence, trace_id, item, _ = entry
            self._released += 1
            self._released_bytes += len(item)
            self._set_limits()
            self._on_drop(sequence, trace_id, "queue_full")
        return True

    def _wait_for_room(self, size: int, *, reserved: bool) -> bool:
        if asyncio._get_running_loop() is not None:
            return False
        deadline = time.monotonic() + self._block_timeout
        self.wake()
        while not self._fits(size, reserved=reserved):
            left = deadline - time.monotonic()
            if self.closed or left <= 0:
                return False
            self._room.wait(left)
        return True


def _nothing() -> None:
    """There is no sender to wake."""
