"""The decisions of a partition during their late window: held in memory, and loaded from `decisions` after a restart.

A decision is *live* for `late_window_ms` of stream time: spans of its trace are late and inherit the verdict. For the same time
after that only the trace id is remembered, as *forgotten*: a trace with that id is decided again, with weight 0.

After a restart the log is read again from the low watermark, and the committed decisions must take effect at the same offsets as
before. An item at `offset` belongs to a loaded decision if `first_offset <= offset < cut_offset` (`covers`), and the decision is
live from `cut_offset` on. The caller loads all decisions before the first record, calls `expire` at each record as always, and
skips covered items. So the buffer uses the same lookup in a replay and after it: is this trace decided now?
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

import msgspec

from prela_stream.assembly.options import AssemblyOptions

T = TypeVar("T")
DECISION_BYTES: Final = 64
"""What a decision counts where the memory of decisions is bounded. A kept one counts twice as much."""


class _Loaded(msgspec.Struct, Generic[T], frozen=True):
    decided_at_ms: int
    cut_offset: int
    first_offset: int
    trace_id: bytes
    entry: T


class DecidedTraces(Mapping[bytes, T], Generic[T]):
    """The live decisions by trace id, as a mapping. The caller defines the entries.

    The stream times passed to `remember` never decrease, and neither do those passed to `expire`.
    """

    def __init__(self, options: AssemblyOptions) -> None:
        self._window_ms = options.late_window_ms
        self._most_bytes = options.max_decided_bytes
        self._live: dict[bytes, T] = {}
        self._forgotten: dict[bytes, int] = {}
        # ids by decision time: one list for all decisions of one millisecond
        self._live_queue: deque[tuple[int, list[bytes]]] = deque()
        self._forgotten_queue: deque[tuple[int, list[bytes]]] = deque()
        self._kept = 0
        """Live entries that are not None."""
        self._loaded: deque[_Loaded[T]] = deque()
        self._in_order = True
        self._passing: deque[_Loaded[T]] = deque()
        self._ranges: dict[bytes, list[tuple[int, int]]] = {}

    def __getitem__(self, trace_id: bytes) -> T:
        """The entry of a live decision; raises KeyError if there is none."""
        return self._live[trace_id]

    def __contains__(self, trace_id: object) -> bool:
        """Whether spans of this trace are late now."""
        return trace_id in self._live

    def __iter__(self) -> Iterator[bytes]:
        """The trace ids of live decisions."""
        return iter(self._live)

    def __len__(self) -> int:
        """The number of live decisions."""
        return len(self._live)

    def remember(self, trace_id: bytes, entry: T, decided_at_ms: int) -> None:
        """Add a decision made at this stream time. If the trace has a live one, its entry is replaced and its time is kept."""
        if trace_id not in self._live:
            _enqueue(self._live_queue, decided_at_ms, trace_id)
            self._forgotten.pop(trace_id, None)
        self._kept += (entry is not None) - (self._live.get(trace_id) is not None)
        self._live[trace_id] = entry

    def expire(self, now_ms: int) -> list[bytes]:
        """Advance to stream time `now_ms`; amortised O(1) per decision. Call it for each record, between due and add.

        Returns:
            The ids of the decisions that were forgotten early, because of `max_decided_bytes`.
        """
        early: list[bytes] = []
        if not self._in_order:
            self._loaded = deque(sorted(self._loaded, key=lambda loaded: (loaded.decided_at_ms, loaded.cut_offset)))
            self._in_order = True
        while self._loaded and self._loaded[0].decided_at_ms <= now_ms:
            loaded = self._loaded.popleft()
            self._forget(loaded.decided_at_ms)
            self.remember(loaded.trace_id, loaded.entry, loaded.decided_at_ms)
            self._passing.append(loaded)
            if self.size > self._most_bytes:  # at once, because a trace that was decided again is loaded again
                early += self._forget_oldest()
        while self._passing and self._passing[0].decided_at_ms < now_ms:
            self._pass(self._passing.popleft())
        self._forget(now_ms)
        return early + self._forget_oldest() if self.size > self._most_bytes else early

    def was_forgotten(self, trace_id: bytes, now_ms: int) -> bool:
        """Whether the trace had a decision that expired less than `late_window_ms` before `now_ms`."""
        return now_ms < self._forgotten.get(trace_id, now_ms)

    @property
    def size(self) -> int:
        """Nominal bytes: `DECISION_BYTES` for each remembered decision, and as many again for a live entry that is not None."""
        return DECISION_BYTES * (len(self._live) + len(self._forgotten) + self._kept)

    def _forget_oldest(self) -> list[bytes]:
        """Forget the oldest decisions completely, until at most `max_decided_bytes` are left; their ids."""
        found: list[bytes] = []
        while self.size > self._most_bytes:
            queue = self._forgotten_queue or self._live_queue
            if not queue:
                break
            time_ms, trace_ids = queue[0]
            if not trace_ids:
                queue.popleft()
                continue
            trace_id = trace_ids.pop(0)
            if queue is self._live_queue:
                self._kept -= self._live.pop(trace_id) is not None
            elif self._forgotten.get(trace_id) == time_ms:
                del self._forgotten[trace_id]
            else:
                continue  # decided again
            found.append(trace_id)
        return found

    def load(self, trace_id: bytes, entry: T, decided_at_ms: int, first_offset: int, cut_offset: int) -> None:
        """Load a committed decision. Load all of them before the first record of a replay.

        Needed are the decisions made later than twice `late_window_ms` before the clock at which the replay starts.
        """
        self._loaded.append(_Loaded(decided_at_ms, cut_offset, first_offset, trace_id, entry))
        self._in_order = False
        self._ranges.setdefault(trace_id, []).append((first_offset, cut_offset))

    def covers(self, trace_id: bytes, offset: int) -> bool:
        """Whether an item of this trace in the record at `offset` belongs to a loaded decision. False after the replay."""
        ranges = self._ranges.get(trace_id)
        return ranges is not None and any(first <= offset < cut for first, cut in ranges)

    def _pass(self, loaded: _Loaded[T]) -> None:
        """Remove the range of a loaded decision. The clock is past the decision, so all items in the range have been read."""
        ranges = self._ranges[loaded.trace_id]
        ranges.remove((loaded.first_offset, loaded.cut_offset))
        if not ranges:
            del self._ranges[loaded.trace_id]

    def _forget(self, now_ms: int) -> None:
        window = self._window_ms
        live, forgotten = self._live_queue, self._forgotten_queue
        while live and live[0][0] + window <= now_ms:
            decided_at, trace_ids = live.popleft()
            until = decided_at + 2 * window
            for trace_id in trace_ids:
                self._kept -= self._live.pop(trace_id) is not None
                self._forgotten[trace_id] = until
            if trace_ids:
                forgotten.append((until, trace_ids))
        while forgotten and forgotten[0][0] <= now_ms:
            until, trace_ids = forgotten.popleft()
            for trace_id in trace_ids:
                if self._forgotten.get(trace_id) == until:
                    del self._forgotten[trace_id]


def _enqueue(queue: deque[tuple[int, list[bytes]]], time_ms: int, trace_id: bytes) -> None:
    if queue and queue[-1][0] >= time_ms:
        queue[-1][1].append(trace_id)
    else:
        queue.append((time_ms, [trace_id]))
