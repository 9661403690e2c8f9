"""What stands between `record()` and the sender: a queue with bounds, the memory of what it dropped, and the cutting of batches.

`BoundedQueue` is the only part that the application's threads touch, so it is built for a short way in: one lock, a few integers,
one append. `Batcher` is pure: time is an argument. What becomes of an item is not known here; see ``delivery/ledger.py``.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from prela_stream.errors import guard
from prela_stream.model.ids import partition_of

Overflow = Literal["drop_newest", "drop_oldest", "block"]
Refusal = Literal["queue_full", "shutdown"]

RESERVED_SHARE: Final = 0.1
"""Part of the room that only reserved items (roots, control items) may use."""

_NEVER: Final = 1 << 62
_WAKE_GUARD: Final = guard("queue.wake")


Entry = tuple[int, bytes | None, bytes, bool]
"""A queued item: sequence, trace id, bytes, reserved. The sequence counts accepted items from 1; 0 marks an item that the
pipeline made itself. A plain tuple: making a named one is a further call in Python."""


class LostTraces:
    """The traces that lost items and have not been told to the worker yet; beyond `limit` traces just "some trace"."""

    __slots__ = ("_limit", "_traces", "everywhere")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._traces: dict[bytes, None] = {}
        self.everywhere = False
        """Traces that cannot be named any more lost items."""

    def __bool__(self) -> bool:
        return self.everywhere or bool(self._traces)

    def __len__(self) -> int:
        return len(self._traces)

    def __contains__(self, trace_id: bytes) -> bool:
        return trace_id in self._traces

    def add(self, trace_id: bytes | None) -> None:
        """Remember that this trace lost an item; None stands for one that cannot be named."""
        if trace_id is None:
            self.everywhere = True
        elif trace_id not in self._traces:
            if len(self._traces) < self._limit:
                self._traces[trace_id] = None
            else:
                self.everywhere = True

    def take(self, limit: int) -> list[bytes]:
        """Forget and return up to `limit` traces, the oldest first."""
        taken = list(self._traces)[:limit] if limit < len(self._traces) else list(self._traces)
        for trace_id in taken:
            del self._traces[trace_id]
        return taken


class BoundedQueue:
    """Items on their way to the sender, bounded by count and by bytes. Any thread may put; one sender takes.

    An item keeps its room until `release`, so the bounds hold for everything that the pipeline has not settled yet, not only for
    what still stands in line. A tenth of the room is kept for reserved items.

    Args:
        max_items: Bound on unsettled items.
        max_bytes: Bound on their bytes.
        overflow: What happens to an item that finds no room. `drop_newest` drops it; `drop_oldest` drops the items that stand
            at the head of the line, reserved ones last; `block` waits for room, up to `block_timeout` seconds, and then drops
            it. A thread that runs an event loop never waits.
        block_timeout: Seconds; only for `block`.
        on_drop: Called under `lock` for each dropped item: its sequence (0 if it was never accepted), trace id and why.
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
        """Be empty and unlocked, whatever state this was copied in. For a forked child, before it has a second thread."""
        # Re-entrant: a signal handler or a finalizer may end a span while this very thread is inside `put`.
        self.lock = threading.RLock()
        self._acquire, self._release = self.lock.acquire, self.lock.release
        self._room = threading.Condition(self.lock)
        self._line: deque[Entry] = deque()
        self._passed_over: deque[Entry] = deque()  # reserved items that drop_oldest met at the head; they are next
        self._append = self._line.append
        self.accepted = 0
        """Items accepted so far; the sequence of the last one."""
        self.refused = 0
        """Items that were never accepted."""
        self._bytes_in = 0
        self._released = 0
        self._released_bytes = 0
        self._wake_at = _NEVER
        self.closed = False
        self._set_limits()

    def __len__(self) -> int:
        return len(self._line) + len(self._passed_over)

    @property
    def unsettled(self) -> int:
        """Items that hold room: those in line and those taken and not released."""
        return self.accepted - self._released

    @property
    def unsettled_bytes(self) -> int:
        """Bytes of the items that hold room."""
        return self._bytes_in - self._released_bytes

    def put(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
        """Queue an item, or drop it and count it. Never raises, and waits only where `overflow` is `block`."""
        size = len(item)
        # Bound methods of instance attributes: a local costs a third of a method call through `self`.
        acquire, release = self._acquire, self._release
        # Not `with`: that costs twice as much. The acquire stands inside the try so that an interrupt raised right after it still
        # releases; the RuntimeError is that of an interrupt before it, when there is nothing to release. And there is no call
        # between reading the counters and writing them, so nothing can re-enter there.
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
        """Up to `limit` items from the head of the line. They keep their room until `release`."""
        with self.lock:
            taken: list[Entry] = []
            for line in (self._passed_over, self._line):
                taken += [line.popleft() for _ in range(min(limit - len(taken), len(line)))]
            return taken

    def release(self, items: int, size: int) -> None:
        """Give back the room of taken items."""
        with self.lock:
            self._released += items
            self._released_bytes += size
            self._set_limits()
            self._room.notify_all()

    def close(self) -> None:
        """From now on every item is dropped for `shutdown`. What is in line stays."""
        with self.lock:
            self.closed = True
            self._set_limits()
            self._room.notify_all()

    def attach(self, on_wake: Callable[[], object] | None) -> None:
        """Have `on_wake` called, by any thread, when the sender is wanted; None: there is no sender."""
        self._on_wake = on_wake or _nothing

    def arm(self, items: int) -> bool:
        """Wake the sender when `items` are in line; False if that many already are."""
        with self.lock:
            missing = items - len(self)
            self._wake_at = self.accepted + missing if missing > 0 else _NEVER
            return missing > 0

    def wake(self) -> None:
        """Wake the sender now."""
        with _WAKE_GUARD:
            self._on_wake()

    def _set_limits(self) -> None:
        """Translate free room into the values of `accepted` and `_bytes_in` at which it ends: two compares decide in `put`."""
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
            return False  # it would not fit into the empty queue: nobody is dropped for it
        while not self._fits(size, reserved=reserved):
            if self._line:
                entry = self._line.popleft()
                if entry[3]:
                    self._passed_over.append(entry)
                    continue
            elif reserved and self._passed_over:
                entry = self._passed_over.popleft()
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
    """Nobody is there to be woken."""


class Batch(msgspec.Struct, kw_only=True):
    """Items of one partition that will be one Record."""

    partition: int
    created: float
    """When its first item came, seconds of the clock that `Batcher.add` was given."""
    entries: list[Entry] = []
    size: int = 0
    """Bytes of all items."""
    own: int = 0
    """Items that the pipeline made itself."""
    own_size: int = 0

    @property
    def recorded(self) -> int:
        """Items that were recorded, that is, not made by the pipeline."""
        return len(self.entries) - self.own

    @property
    def recorded_size(self) -> int:
        """Their bytes."""
        return self.size - self.own_size


class Batcher:
    """Groups items by partition and cuts batches by count, bytes and age. Pure.

    Args:
        partitions: Number of partitions of the topic.
        max_items: Most items of a batch.
        max_bytes: Most bytes of a batch; a larger item makes a batch alone.
        linger: Seconds that a batch waits for more items.
    """

    def __init__(self, *, partitions: int, max_items: int, max_bytes: int, linger: float) -> None:
        self.partitions = partitions
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._linger = linger
        self._open: dict[int, Batch] = {}
        self._full: list[Batch] = []

    def __bool__(self) -> bool:
        return bool(self._open or self._full)

    def add(self, entry: Entry, now: float, partition: int | None = None) -> None:
        """Add an item to its trace's partition, or to the one given: an item without a trace id has none of its own."""
        sequence, trace_id, item, _ = entry
        if partition is None:
            assert trace_id is not None  # see above
            partition = partition_of(trace_id, self.partitions)
        size = len(item)
        batch = self._open.get(partition)
        if batch is not None and batch.size + size > self._max_bytes:
            self._full.append(self._open.pop(partition))
            batch = None
        if batch is None:
            batch = self._open[partition] = Batch(partition=partition, created=now)
        batch.entries.append(entry)
        batch.size += size
        if sequence == 0:
            batch.own += 1
            batch.own_size += size
        if len(batch.entries) >= self._max_items or batch.size >= self._max_bytes:
            self._full.append(self._open.pop(partition))

    def cut(self, now: float, *, everything: bool = False) -> list[Batch]:
        """The batches that are full or have waited long enough, or all; they are no longer here."""
        cut, self._full = self._full, []
        for batch in list(self._open.values()):
            if everything or now - batch.created >= self._linger:
                cut.append(self._open.pop(batch.partition))
        return cut

    def due(self) -> float | None:
        """When `cut` will have something to return if nothing is added; None if nothing is here."""
        if self._full:
            return 0.0
        if not self._open:
            return None
        return min(batch.created for batch in self._open.values()) + self._linger
