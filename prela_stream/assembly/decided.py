"""The decisions of a partition during their late window: held in memory, and loaded from `decisions` after a restart.

A decision is *live* for `late_window_ms` of stream time: spans of its trace are late and inherit the verdict. For the same time
after that only the trace id is remembered, as *forgotten*: a trace with that id is decided again, with weight 0.

After a restart the log is read again from the low watermark, and the committed decisions must take effect at the same offsets as
before. An item at `offset` belongs to a loaded decision if `first_offset <= offset < cut_offset` (`covers`), and the decision is
live from `cut_offset` on. The caller loads all decisions before the first record, calls `expire` at each record as always, and
skips covered items. So the buffer uses the same lookup in a replay and after it: is this trace decided now?

A decision takes about 45 bytes, and a live one of a kept trace also its entry. Decisions are numbered in the order of their time.
`_Ring` has them by number, and `_Index` finds the number of a trace id.
"""

from array import array
from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from prela_stream.assembly.options import AssemblyOptions

DECISION_BYTES: Final = 64
"""What a decision counts where the memory of decisions is bounded, and the least that a live entry counts in addition."""
_BLOCK: Final = 1024
_ROW: Final = 24
"""Bytes of a row of the index: a trace id and a number."""
_ROWS: Final = 32
"""Rows of a bucket of the index, on average."""
_KEY_BITS: Final = 0xFFFF_FFFF
_NEVER: Final = 1 << 63


class _Loaded(msgspec.Struct, frozen=True, gc=False):
    decided_at_ms: int
    cut_offset: int
    first_offset: int
    trace_id: bytes
    entry: bytes | None


class _Index:
    """The number of the last decision of each trace id.

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
        index = hash(trace_id) & (2 * self._level - 1)  # as `_bucket`
        buckets = self._buckets
        bucket = buckets[index if index < len(buckets) else index - self._level]
        at = bucket.find(trace_id)
        if at > 0 and at % _ROW:
            at = _row_of(bucket, trace_id)
        return None if at < 0 else int.from_bytes(bucket[at + 16 : at + _ROW], "little")

    def add(self, trace_id: bytes, number: int) -> None:
        """Add an id that is not in the index."""
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

    def remove(self, trace_id: bytes) -> None:
        bucket = self._bucket(hash(trace_id))
        at = _row_of(bucket, trace_id)
        del bucket[at : at + _ROW]
        self.count -= 1

    def remove_first(self, key: int, number: int) -> bytes | None:
        """Remove the first number of all, whose id has this hash; returns the id, or None if that was decided again."""
        bucket = self._bucket(key)
        if int.from_bytes(bucket[16:_ROW], "little") != number or not bucket:  # rows are in the order of their numbers
            return None
        trace_id = bytes(bucket[:16])
        del bucket[:_ROW]
        self.count -= 1
        return trace_id


def _row_of(bucket: bytearray, trace_id: bytes) -> int:
    at = bucket.find(trace_id)
    while at > 0 and at % _ROW:
        at = bucket.find(trace_id, at + 1)
    return at


class _Block:
    """Decisions that follow one another."""

    __slots__ = ("ends", "entries", "keys", "times")

    def __init__(self) -> None:
        self.keys = array("I")
        """The hash of each trace id."""
        self.times = array("q")
        self.ends = array("I")
        """The end of each entry in `entries`. That of a dropped trace is empty."""
        self.entries = bytearray()


class _Ring:
    """Decisions by number. The first ones are removed."""

    def __init__(self) -> None:
        self._blocks: deque[_Block] = deque()
        self._base = 0
        """Number of the first decision of the first block."""
        self.front = self.end = 0

    def _block(self, number: int) -> _Block:
        return self._blocks[(number - self._base) // _BLOCK]

    def time(self, number: int) -> int:
        return self._block(number).times[number % _BLOCK]

    def key(self, number: int) -> int:
        return self._block(number).keys[number % _BLOCK]

    def entry(self, number: int) -> bytes | None:
        block, place = self._block(number), number % _BLOCK
        return bytes(block.entries[block.ends[place - 1] if place else 0 : block.ends[place]]) or None

    def push(self, key: int, time_ms: int, entry: bytes | None) -> int:
        if self.end % _BLOCK == 0:
            self._blocks.append(_Block())
        block = self._blocks[-1]
        block.keys.append(key)
        block.times.append(time_ms)
        if entry:
            block.entries += entry
        block.ends.append(len(block.entries))
        self.end += 1
        return self.end - 1

    def pop(self) -> None:
        self.front += 1
        if self.front % _BLOCK == 0:
            self._blocks.popleft()
            self._base = self.front

    def free_before(self, number: int) -> None:
        """Free the entries of a block all of whose decisions are before this one."""
        if number % _BLOCK == 0 and number > self._base:
            self._block(number - 1).entries = bytearray()


class DecidedTraces:
    """The decisions of one partition. The caller defines their entries; that of a dropped trace is None.

    The stream times passed to `remember` never decrease, and neither do those passed to `expire`.
    """

    def __init__(self, options: AssemblyOptions) -> None:
        self._window_ms = options.late_window_ms
        self._most_bytes = options.max_decided_bytes
        self._index = _Index()
        self._ring = _Ring()
        self._live = 0
        """Number of the first live decision; those before it are forgotten."""
        self._entry_bytes = 0
        """Nominal bytes of the entries of live decisions."""
        self._next_ms = _NEVER
        """Before this stream time no decision expires."""
        self._replaced: dict[int, bytes | None] = {}
        """Entries that replaced those in the ring, by number. Rarely any."""
        self._loaded: deque[_Loaded] = deque()
        self._in_order = True
        self._passing: deque[_Loaded] = deque()
        self._ranges: dict[bytes, list[tuple[int, int]]] = {}

    def __contains__(self, trace_id: object) -> bool:
        """Whether spans of this trace are late now."""
        number = self._index.find(trace_id)  # type: ignore[arg-type] # only ids are looked up
        return number is not None and number >= self._live

    def __len__(self) -> int:
        """The number of live decisions."""
        return self._ring.end - self._live

    def entry(self, trace_id: bytes) -> bytes | None:
        """The entry of a live decision; None for a dropped trace, and if there is none."""
        number = self._index.find(trace_id)
        return None if number is None or number < self._live else self._entry_of(number)

    def _entry_of(self, number: int) -> bytes | None:
        return self._replaced[number] if number in self._replaced else self._ring.entry(number)

    def remember(self, trace_id: bytes, entry: bytes | None, decided_at_ms: int) -> None:
        """Add a decision made at this stream time. If the trace has a live one, its entry is replaced and its time is kept."""
        ring, index = self._ring, self._index
        number = index.find(trace_id)
        self._entry_bytes += _nominal(entry)
        if number is not None:
            if number >= self._live:
                self._entry_bytes -= _nominal(self._entry_of(number))
                self._replaced[number] = entry
                return
            index.remove(trace_id)  # it was forgotten
        if self._live < ring.end:
            decided_at_ms = max(decided_at_ms, ring.time(ring.end - 1))
        self._next_ms = min(self._next_ms, decided_at_ms + self._window_ms)
        index.add(trace_id, ring.push(hash(trace_id) & _KEY_BITS, decided_at_ms, entry))

    def expire(self, now_ms: int) -> list[bytes]:
        """Advance to stream time `now_ms`; amortised O(1) per decision. Call it for each record, between due and add.

        Returns:
            The ids of the decisions that were forgotten early, because of `max_decided_bytes`.
        """
        early: list[bytes] = []
        if now_ms < self._next_ms and not (self._loaded or self._passing) and self.size <= self._most_bytes:
            return early
        if self._loaded:
            self._sort()
        while self._loaded and self._loaded[0].decided_at_ms <= now_ms:
            loaded = self._loaded.popleft()
            self._forget(loaded.decided_at_ms)
            self._arrive(loaded)
            early += self._forget_oldest()  # at once, because a trace that was decided again is loaded again
        while self._passing and self._passing[0].decided_at_ms < now_ms:
            self._pass(self._passing.popleft())
        self._forget(now_ms)
        early += self._forget_oldest()
        self._next_ms = min(self._expiries(), default=_NEVER)
        return early

    def _expiries(self) -> Iterator[int]:
        """When the first live decision is forgotten, and when the first forgotten one is removed."""
        ring, window_ms = self._ring, self._window_ms
        if self._live < ring.end:
            yield ring.time(self._live) + window_ms
        if ring.front < self._live:
            yield ring.time(ring.front) + 2 * window_ms

    def was_forgotten(self, trace_id: bytes, now_ms: int) -> bool:
        """Whether the trace had a decision that expired less than `late_window_ms` before `now_ms`."""
        if self._ring.front == self._live:
            return False  # none is forgotten
        number = self._index.find(trace_id)
        return number is not None and number < self._live and now_ms < self._ring.time(number) + 2 * self._window_ms

    @property
    def size(self) -> int:
        """Nominal bytes: `DECISION_BYTES` for each remembered decision, and as many or its size for a live entry."""
        return DECISION_BYTES * self._index.count + self._entry_bytes

    def _forget_oldest(self) -> list[bytes]:
        """Forget the oldest decisions completely, until at most `max_decided_bytes` are left; their ids."""
        found: list[bytes] = []
        while self.size > self._most_bytes and self._ring.front < self._ring.end:
            if self._ring.front == self._live:
                self._forget_first()
            if (trace_id := self._pop()) is not None:
                found.append(trace_id)
        return found

    def load(
        self, trace_id: bytes, entry: bytes | None, decided_at_ms: int, first_offset: int, cut_offset: int
    ) -> None:
        """Load a committed decision. Load all of them before the first record of a replay.

        Needed are the decisions made later than twice `late_window_ms` before the clock at which the replay starts.
        """
        self._loaded.append(_Loaded(decided_at_ms, cut_offset, first_offset, trace_id, entry))
        self._in_order = False
        self._ranges.setdefault(trace_id, []).append((first_offset, cut_offset))

    def end_load(self) -> None:
        """Make all loaded decisions effective; see `base.Core`."""
        self._sort()
        while self._loaded:
            self._arrive(self._loaded.popleft())

    def _sort(self) -> None:
        if not self._in_order:
            self._loaded = deque(sorted(self._loaded, key=lambda loaded: (loaded.decided_at_ms, loaded.cut_offset)))
            self._in_order = True

    def _arrive(self, loaded: _Loaded) -> None:
        self.remember(loaded.trace_id, loaded.entry, loaded.decided_at_ms)
        self._passing.append(loaded)

    def covers(self, trace_id: bytes, offset: int) -> bool:
        """Whether an item of this trace in the record at `offset` belongs to a loaded decision. False after the replay."""
        ranges = self._ranges.get(trace_id)
        return ranges is not None and any(first <= offset < cut for first, cut in ranges)

    def _pass(self, loaded: _Loaded) -> None:
        """Remove the range of a loaded decision. The clock is past the decision, so all items in the range have been read."""
        ranges = self._ranges[loaded.trace_id]
        ranges.remove((loaded.first_offset, loaded.cut_offset))
        if not ranges:
            del self._ranges[loaded.trace_id]

    def _forget(self, now_ms: int) -> None:
        ring, window_ms = self._ring, self._window_ms
        while self._live < ring.end and ring.time(self._live) + window_ms <= now_ms:
            self._forget_first()
        while ring.front < self._live and ring.time(ring.front) + 2 * window_ms <= now_ms:
            self._pop()

    def _forget_first(self) -> None:
        """The first live decision is forgotten."""
        self._entry_bytes -= _nominal(self._entry_of(self._live))
        self._replaced.pop(self._live, None)
        self._live += 1
        self._ring.free_before(self._live)

    def _pop(self) -> bytes | None:
        """Remove the first decision. Returns its id, unless that was decided again."""
        number = self._ring.front
        trace_id = self._index.remove_first(self._ring.key(number), number)
        self._ring.pop()
        return trace_id


def _nominal(entry: bytes | None) -> int:
    """What the entry of a live decision counts."""
    return 0 if entry is None else max(len(entry), DECISION_BYTES)
