"""The decisions of a partition during their late window: held in memory, and loaded from `decisions` after a restart.

A decision is *live* for `late_window_ms` of stream time: spans of its trace are late and inherit the verdict. For the same time
after that only the trace id is remembered, as *forgotten*: a trace with that id is decided again, with weight 0.

After a restart the log is read again from the low watermark, and the committed decisions must take effect at the same offsets as
before. An item at `offset` belongs to a loaded decision if `first_offset <= offset < cut_offset` (`covers`), and the decision is
live from `cut_offset` on. The caller loads all decisions before the first record, calls `expire` at each record as always, and
skips covered items. So the buffer uses the same lookup in a replay and after it: is this trace decided now?

A decision takes about 45 bytes, and a live one of a kept trace also its entry. Decisions are numbered in the order of their time.
`_Ring` has them by number, and `IdIndex` finds the number of a trace id. No call does more than about a millisecond of work.
"""

from array import array
from collections import deque
from collections.abc import Iterator
from typing import Final

from prela_stream.assembly.id_index import IdIndex
from prela_stream.assembly.loaded import NEVER, LoadedDecisions
from prela_stream.assembly.options import AssemblyOptions

DECISION_BYTES: Final = 64
"""What a decision counts where the memory of decisions is bounded, and the least that a live entry counts in addition."""
STEP = 512
"""Decisions that one call touches, about a millisecond."""
_EARLY: Final = 8
"""What a decision that is forgotten early counts as in a step, because the caller remembers its id."""
_BLOCK: Final = 1024
_KEY_BITS: Final = 0xFFFF_FFFF
_ALWAYS: Final = -NEVER


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
        self._index = IdIndex()
        self._ring = _Ring()
        self._live = 0
        """Number of the first live decision; those before it are forgotten."""
        self._entry_bytes = 0
        """Nominal bytes of the entries of live decisions."""
        self._next_ms = NEVER
        """Before this stream time there is nothing to do."""
        self._replaced: dict[int, bytes | None] = {}
        """Entries that replaced those in the ring, by number. Rarely any."""
        self._loaded = LoadedDecisions()
        self._arrived = False
        """A loaded decision took effect, and the memory is not yet within its bound."""
        self._left = 0
        """Decisions that the call may still touch."""

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
                self._next_ms = _ALWAYS  # the memory may be above its bound
                return
            index.remove(trace_id)  # it was forgotten
        if self._live < ring.end:
            decided_at_ms = max(decided_at_ms, ring.time(ring.end - 1))
        index.add(trace_id, ring.push(hash(trace_id) & _KEY_BITS, decided_at_ms, entry))
        self._next_ms = _ALWAYS if self.size > self._most_bytes else min(self._next_ms, decided_at_ms + self._window_ms)

    def expire(self, now_ms: int) -> list[bytes] | None:
        """Advance to stream time `now_ms`; amortised O(1) per decision. Call it for each record, between due and add.

        Returns:
            None if it is done. Otherwise the ids of the decisions that were forgotten early, because of `max_decided_bytes`:
            call it again with the same time, until it is done.
        """
        if now_ms < self._next_ms:
            return None
        early: list[bytes] = []
        self._left = STEP
        self._loaded.ready()
        if not self._advance(now_ms, early):
            return early
        self._next_ms = min(self._expiries(), default=NEVER)
        return early or None

    def _advance(self, now_ms: int, early: list[bytes]) -> bool:
        """Work until `_left` is 0. Returns whether it is done. It continues where it was, so the pieces change nothing."""
        loaded = self._loaded
        while self._left > 0:
            if self._arrived:  # a trace that was decided again is loaded again, so there may be more than there were
                if not self._forget_oldest(early):
                    return False
                self._arrived = False
            elif loaded.passes_ms < now_ms:
                loaded.remove()
                self._left -= 1
            elif (arrives_ms := loaded.arrives_ms) <= now_ms:
                if not self._forget(arrives_ms):
                    return False
                self.remember(*loaded.arrive(now_ms))
                self._left -= 1
                self._arrived = True
            else:
                return self._forget(now_ms) and self._forget_oldest(early) and loaded.free(STEP)
        return False

    def _expiries(self) -> Iterator[int]:
        """When something is to do: a decision takes effect, or no longer covers items, or is forgotten, or is removed."""
        yield self._loaded.arrives_ms
        yield self._loaded.passes_ms + 1
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

    def _forget_oldest(self, early: list[bytes]) -> bool:
        """Forget the oldest decisions completely, until at most `max_decided_bytes` are left; append their ids."""
        while self.size > self._most_bytes and self._ring.front < self._ring.end:
            if self._left <= 0:
                return False
            if self._ring.front == self._live:
                self._forget_first()
            if (trace_id := self._pop()) is not None:
                early.append(trace_id)
            self._left -= _EARLY
        return True

    def restore_clock(self, clock_ms: int) -> None:
        """The replay starts at this stream time. Call it before anything is loaded."""
        self._loaded = LoadedDecisions(clock_ms)

    def load(
        self, trace_id: bytes, entry: bytes | None, decided_at_ms: int, first_offset: int, cut_offset: int
    ) -> None:
        """Load a committed decision. Load all of them before the first record of a replay.

        Needed are the decisions made later than twice `late_window_ms` before the clock at which the replay starts.
        """
        self._loaded.load(trace_id, entry, decided_at_ms, first_offset, cut_offset)
        self._next_ms = _ALWAYS

    def end_load(self) -> bool:
        """Make the loaded decisions effective; see `base.Core`. Call it until it returns False."""
        self._next_ms = _ALWAYS
        self._loaded.ready()
        for _ in range(STEP):
            if self._loaded.arrives_ms == NEVER:
                return False
            self.remember(*self._loaded.arrive(_ALWAYS))
        return self._loaded.arrives_ms != NEVER

    def covers(self, trace_id: bytes, offset: int) -> bool:
        """Whether an item of this trace in the record at `offset` belongs to a loaded decision. False after the replay."""
        return self._loaded.covers(trace_id, offset)

    def _forget(self, now_ms: int) -> bool:
        ring, window_ms = self._ring, self._window_ms
        while self._live < ring.end and ring.time(self._live) + window_ms <= now_ms:
            if self._left <= 0:
                return False
            self._forget_first()
            self._left -= 1
        while ring.front < self._live and ring.time(ring.front) + 2 * window_ms <= now_ms:
            if self._left <= 0:
                return False
            self._pop()
            self._left -= 1
        return True

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
