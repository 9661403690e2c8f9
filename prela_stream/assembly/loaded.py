"""The committed decisions that a replay needs: until they take effect, and then until all items that they cover were read.

A decision takes 45 to 75 bytes, and its entry. They normally arrive in the order of their time. Those that do not are in runs of
their own, each of which is in order, and are merged when they are read. So there is no moment at which all of them are sorted.
"""

from array import array
from bisect import bisect_left
from collections import deque
from heapq import heapify, heappop, heappush
from typing import Final

from prela_stream.assembly.id_index import IdIndex

NEVER: Final = 1 << 63
"""Later than any stream time."""
_BLOCK: Final = 1024
_UNKNOWN: Final = -NEVER


class _Block:
    """Decisions of one run that follow one another."""

    __slots__ = ("cuts", "ends", "entries", "firsts", "ids", "number", "times")

    def __init__(self, number: int) -> None:
        self.number = number
        """The place of the block among all."""
        self.ids = bytearray()
        self.times = array("q")
        self.firsts = array("q")
        self.cuts = array("q")
        self.ends = array("I")
        """The end of each entry in `entries`. That of a dropped trace is empty."""
        self.entries = bytearray()

    def id(self, place: int) -> bytes:
        return bytes(self.ids[16 * place : 16 * place + 16])

    def entry(self, place: int) -> bytes | None:
        return bytes(self.entries[self.ends[place - 1] if place else 0 : self.ends[place]]) or None


class LoadedDecisions:
    """Load all of them before the first one is read.

    Args:
        from_ms: The clock at which the replay starts. It does not read again what earlier decisions cover.
    """

    def __init__(self, from_ms: int = 0) -> None:
        self._from_ms = from_ms
        self._blocks: list[_Block | None] = []
        self._runs: list[list[int]] = []
        """The blocks of each run."""
        self._lasts: list[tuple[int, int]] = []
        """The negative of (time, cut offset) of the last decision of each run. They ascend."""
        self._index = IdIndex()
        """The decisions that cover items."""
        self._block = _Block(0)
        """The block of the next decision that takes effect."""
        self._run = self._at = 0
        """Run and place of the next decision that takes effect."""
        self._others: list[tuple[int, int, int, int]] = []
        """A heap with the next decision of each other run: time, cut offset, run, and place in the run."""
        self._waiting: deque[int] = deque()
        """Numbers of the decisions that are in effect and may still cover items."""
        self.arrives_ms = NEVER
        """When the next decision takes effect; NEVER if all are in effect."""
        self.passes_ms = NEVER
        """The time of the first decision that is in effect and may still cover items; NEVER if there is none."""

    def load(
        self, trace_id: bytes, entry: bytes | None, decided_at_ms: int, first_offset: int, cut_offset: int
    ) -> None:
        """Add a decision."""
        last = -decided_at_ms, -cut_offset
        run = bisect_left(self._lasts, last)  # the first one after whose last decision it is
        if run == len(self._lasts):
            self._lasts.append(last)
            self._runs.append([])
        self._lasts[run] = last
        block = self._last_block(self._runs[run])
        if decided_at_ms >= self._from_ms:
            self._index.add(trace_id, block.number * _BLOCK + len(block.times))
        block.ids += trace_id
        block.times.append(decided_at_ms)
        block.firsts.append(first_offset)
        block.cuts.append(cut_offset)
        if entry:
            block.entries += entry
        block.ends.append(len(block.entries))
        self.arrives_ms = _UNKNOWN

    def _last_block(self, run: list[int]) -> _Block:
        """The block of a run for its next decision."""
        block = self._blocks[run[-1]] if run else None
        if block is None or len(block.times) == _BLOCK:
            block = _Block(len(self._blocks))
            run.append(block.number)
            self._blocks.append(block)
        return block

    def ready(self) -> None:
        """Call it after loading, before anything is read."""
        if self.arrives_ms == _UNKNOWN:
            self._others = [head for run in range(len(self._runs)) if (head := self._head(run, 0)) is not None]
            heapify(self._others)
            self._next_run()

    def _head(self, run: int, at: int) -> tuple[int, int, int, int] | None:
        """The decision at a place of a run; None behind its end."""
        blocks, place = self._runs[run], at % _BLOCK
        block = self._blocks[blocks[at // _BLOCK]] if at < len(blocks) * _BLOCK else None
        return None if block is None or place >= len(block.times) else (block.times[place], block.cuts[place], run, at)

    def _next_run(self) -> None:
        """The next decision is the first one of `_others`."""
        if not self._others:
            self.arrives_ms = NEVER
            return
        self.arrives_ms, _, self._run, self._at = heappop(self._others)
        block = self._blocks[self._runs[self._run][self._at // _BLOCK]]
        assert block is not None  # it is freed when its last decision is removed
        self._block = block

    def arrive(self, now_ms: int) -> tuple[bytes, bytes | None, int]:
        """The id, the entry and the time of the next decision. It is in effect now, and removed if it is before `now_ms`."""
        block, at, time_ms = self._block, self._at, self.arrives_ms
        place = at % _BLOCK
        found = block.id(place), block.entry(place), time_ms
        self._at = at + 1
        if not self._others and place + 1 < len(block.times):
            self.arrives_ms = block.times[place + 1]
        else:
            if (head := self._head(self._run, at + 1)) is not None:
                heappush(self._others, head)
            self._next_run()
        if time_ms < now_ms and not self._waiting:
            self._remove(block, place)
        else:
            self._waiting.append(block.number * _BLOCK + place)
            self.passes_ms = min(self.passes_ms, time_ms)
        return found

    def covers(self, trace_id: bytes, offset: int) -> bool:
        """Whether an item of this trace in the record at `offset` belongs to a decision. False after the replay."""
        return self._index.count > 0 and any(
            block.firsts[place] <= offset < block.cuts[place]
            for number in self._index.find_all(trace_id)
            if (block := self._blocks[number // _BLOCK]) is not None
            for place in (number % _BLOCK,)
        )

    def remove(self) -> None:
        """Remove the first decision that is in effect. The clock is past it, so all items that it covers have been read."""
        block, place = self._row(self._waiting.popleft())
        self._remove(block, place)
        if self._waiting:
            block, place = self._row(self._waiting[0])
        self.passes_ms = block.times[place] if self._waiting else NEVER

    def _row(self, number: int) -> tuple[_Block, int]:
        block = self._blocks[number // _BLOCK]
        assert block is not None  # it is freed when its last decision is removed
        return block, number % _BLOCK

    def _remove(self, block: _Block, place: int) -> None:
        if block.times[place] >= self._from_ms:
            self._index.remove(block.id(place), block.number * _BLOCK + place)
        if place == _BLOCK - 1:
            self._blocks[block.number] = None

    def free(self, most: int) -> bool:
        """If all decisions are removed, free so many parts of the index. Returns whether all of them are free."""
        if self._waiting or self.arrives_ms != NEVER:
            return True
        if self._blocks:
            self._blocks, self._runs, self._lasts = [], [], []
        return self._index.free(most)
