"""The committed decisions that a replay needs: until they take effect, and then until all items that they cover were read.

A decision takes about 75 bytes, and its entry. They normally arrive in the order of their time. Those that do not are in runs of
their own, each of which is in order, and are merged when they are read. So there is no moment at which all of them are sorted.
"""

from array import array
from bisect import bisect_left
from heapq import heapify, heappop, heapreplace
from typing import Final

from prela_stream.assembly.id_index import IdIndex

NEVER: Final = 1 << 63
"""Later than any stream time."""
_BLOCK: Final = 1024


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


class _Cursor:
    """Walks over the decisions of all runs in the order of (time, cut offset), and of loading if these are equal."""

    def __init__(self, runs: list[list[int]], blocks: list[_Block | None]) -> None:
        self._runs = runs
        self._blocks = blocks
        self._heads = [head for number in range(len(runs)) if (head := self._head(number, 0)) is not None]
        heapify(self._heads)
        self.time = self._heads[0][0] if self._heads else NEVER
        """Of the next decision; NEVER after the last one."""

    def _head(self, run: int, at: int) -> tuple[int, int, int, int] | None:
        blocks = self._runs[run]
        block = self._blocks[blocks[at // _BLOCK]] if at < len(blocks) * _BLOCK else None
        place = at % _BLOCK
        return None if block is None or place >= len(block.times) else (block.times[place], block.cuts[place], run, at)

    def next(self) -> tuple[_Block, int]:
        """The block and place of the next decision; moves on."""
        _, _, run, at = self._heads[0]
        block = self._blocks[self._runs[run][at // _BLOCK]]
        assert block is not None  # it is freed behind both cursors
        if (head := self._head(run, at + 1)) is not None:
            heapreplace(self._heads, head)
        else:
            heappop(self._heads)
        self.time = self._heads[0][0] if self._heads else NEVER
        return block, at % _BLOCK


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
        self._arriving = self._passing = _Cursor([], [])
        self._ready = True
        self._waiting = 0
        """Decisions between the two cursors: those that are in effect and may still cover items."""

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
        self._ready = False

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
        if not self._ready:
            self._arriving, self._passing = _Cursor(self._runs, self._blocks), _Cursor(self._runs, self._blocks)
            self._ready = True

    @property
    def arrives_ms(self) -> int:
        """When the next decision takes effect; NEVER if all are in effect."""
        return self._arriving.time

    @property
    def passes_ms(self) -> int:
        """The time of the first decision that is in effect and was not removed; NEVER if there is none."""
        return self._passing.time if self._waiting else NEVER

    def arrive(self) -> tuple[bytes, bytes | None, int]:
        """The id, the entry and the time of the next decision. It is in effect now."""
        block, place = self._arriving.next()
        self._waiting += 1
        return block.id(place), block.entry(place), block.times[place]

    def covers(self, trace_id: bytes, offset: int) -> bool:
        """Whether an item of this trace in the record at `offset` belongs to a decision. False after the replay."""
        return self._index.count > 0 and any(
            block.firsts[place] <= offset < block.cuts[place]
            for number in self._index.find_all(trace_id)
            if (block := self._blocks[number // _BLOCK]) is not None
            for place in (number % _BLOCK,)
        )

    def remove(self) -> None:
        """Remove the first decision. The clock is past it, so all items that it covers have been read."""
        block, place = self._passing.next()
        self._waiting -= 1
        if block.times[place] >= self._from_ms:
            self._index.remove(block.id(place), block.number * _BLOCK + place)
        if place == _BLOCK - 1:
            self._blocks[block.number] = None

    def free(self, most: int) -> bool:
        """If all decisions are removed, free so many parts of the index. Returns whether all of them are free."""
        if self._waiting or self._arriving.time != NEVER:
            return True
        if self._blocks:
            self._blocks, self._runs, self._lasts = [], [], []
        return self._index.free(most)
