"""When each open trace is due, in stream time and in a second clock that skips silence.

While no records arrive, no heartbeat can arrive either. So the wait for heartbeats (trigger `lost`) is measured on the second
clock, where a gap in the log counts as at most `silence_ms`.

Each open trace has an entry in a queue, with a deadline that is never later than the real one: the time of its last item plus
the shortest wait. Items that arrive later do not move the entry. Only when an entry is reached, the items of its trace are
counted and the real deadline is computed. A trace that waits for heartbeats has an entry in a second queue, too.
"""

from collections.abc import Callable, Iterator, Sized
from heapq import heapify, heappop, heappush

from prela_stream.assembly.completeness import LOST, SUSPENDED, OpenTrace
from prela_stream.assembly.lazy_heap import LazyHeap
from prela_stream.assembly.options import AssemblyOptions

_Entry = tuple[int, int, int, OpenTrace]
STEP = 128
"""Traces that are checked in one step, or `_SPANS` times as many new spans: about a millisecond."""
_SPANS = 8
FEW = 2_048
"""So many traces are sorted in about a millisecond."""
_YOUNG_MS = 5_000
"""So long the items of a trace that receives more are held as they arrived, which takes more memory than their bytes."""


class Deadlines:
    """The deadlines of the open traces. `AssemblyOptions` has the waits.

    Args:
        options: Waits.
        fold: Counts what a trace has collected; see `OpenTrace.fold`.
        traces: The open traces; each has one entry.
    """

    def __init__(self, options: AssemblyOptions, fold: Callable[[OpenTrace], None], traces: Sized) -> None:
        self._fold = fold
        self._silence_ms = options.silence_ms
        self._lost_ms = options.lost_ms
        self._max_age_ms = options.max_age_ms
        # a LOST item without a trace id changes what a trace waits for; that must never move its deadline to an earlier time
        least = max(options.remote_wait_ms, options.settle_ms)
        self._waits = (  # indexed by what a trace waits for
            options.settle_ms, options.remote_wait_ms, max(options.root_wait_ms, least), options.idle_ms, 0, 0,
            options.idle_without_heartbeats_ms, max(options.otlp_root_wait_ms, least),
        )  # fmt: skip
        self._soonest_ms = min(
            options.lost_ms, *(wait for place, wait in enumerate(self._waits) if place not in (LOST, SUSPENDED))
        )
        self._queue: LazyHeap[_Entry] = LazyHeap(_is_real)
        self._watched: LazyHeap[_Entry] = LazyHeap(_is_open)
        self._traces = traces
        self._found: list[tuple[int, int, int, OpenTrace, int]] = []
        """What `find` found. A few are a list, in reverse order once all are found; more are a heap."""
        self._is_heap = False
        self._heard = 0
        self._ahead = 0
        """Stream time minus the second clock before the last step."""
        self.clock_ms = 0

    def restore(self, clock_ms: int) -> None:
        """Set the clock. Call it before the first trace is opened."""
        self.clock_ms = clock_ms

    def restart(self, trace: OpenTrace) -> None:
        """Restart the waits of a trace that receives an item now."""
        trace.last_ms = self.clock_ms
        trace.heard = self._heard
        soonest = self.clock_ms + self._soonest_ms
        if soonest < trace.pushed:  # an entry is never later than the age limit
            self._push(trace, min(soonest, trace.first_ms + self._max_age_ms))

    def advance(self, now_ms: int) -> bool:
        """Move the clock to `now_ms`, never back. Returns whether any trace may be due; then call `find`."""
        clock, heard = self.clock_ms, self._heard
        if now_ms > clock:
            self.clock_ms = now_ms
            self._heard = heard + min(now_ms - clock, self._silence_ms)
        self._ahead = clock - heard
        return self._queue.soonest <= self.clock_ms or self._watched.soonest <= self._heard

    def find(self) -> Iterator[None]:
        """Find the traces that are due; yields after each step of the work. `take` returns them when it is exhausted."""
        work = 0
        self._is_heap = False
        queue, watched = self._queue, self._watched
        while queue.soonest <= self.clock_ms:
            pushed, _, _, trace = queue.pop()
            work += 1
            if not trace.closed and pushed == trace.pushed:
                work += _SPANS + len(trace.new)
                self._check(trace)
            if work >= STEP * _SPANS:
                work = 0
                yield
        while watched.soonest <= self._heard:
            trace = watched.pop()[3]
            trace.watched = False
            work += 1
            if not trace.closed:
                work += _SPANS + len(trace.new)
                self._check_heartbeats(trace)
            if work >= STEP * _SPANS:
                work = 0
                yield
        if not self._is_heap:
            self._found.sort(reverse=True)

    def take(self, traces: int, spans: int) -> list[tuple[int, OpenTrace, int]]:
        """The next traces that are due, as (deadline, trace, what it waited for), in order of (deadline, first item).

        Up to so many traces, and fewer if they have about so many spans together. An empty list: there are no more.
        """
        found = self._found
        taken: list[tuple[int, OpenTrace, int]] = []
        while found and len(taken) < traces and spans > 0:
            deadline, _, _, trace, awaited = heappop(found) if self._is_heap else found.pop()
            taken.append((deadline, trace, awaited))
            spans -= len(trace.spans)
        return taken

    def _check(self, trace: OpenTrace) -> None:
        """Check a trace whose entry in the queue is reached, and which has no other."""
        soonest = min(trace.last_ms + self._soonest_ms, trace.first_ms + self._max_age_ms)
        if soonest > self.clock_ms:  # items arrived after the entry was made
            if self.clock_ms - trace.folded_ms > _YOUNG_MS:
                trace.folded_ms = self.clock_ms
                self._fold(trace)
                trace.age()
            self._push(trace, soonest)
            return
        self._fold(trace)
        awaits = trace.awaits()
        deadline, awaited = self._deadline(trace, awaits)
        if deadline <= self.clock_ms:
            self._mark(trace, deadline, awaited)
            return
        trace.age()
        if awaits == LOST:
            self._watch(trace)
        self._push(trace, deadline)

    def _check_heartbeats(self, trace: OpenTrace) -> None:
        self._fold(trace)
        awaits = trace.awaits()
        if awaits != LOST:
            return
        if trace.heard + self._lost_ms <= self._heard:
            self._mark(trace, *self._deadline(trace, awaits))
        else:
            trace.age()
            self._watch(trace)

    def _deadline(self, trace: OpenTrace, awaits: int) -> tuple[int, int]:
        """The deadline of a trace, and which wait ends then."""
        oldest = trace.first_ms + self._max_age_ms
        if awaits == LOST:
            deadline = trace.heard + self._lost_ms
            if deadline > self._heard:  # during a silence the time of this deadline is not known yet
                return oldest, SUSPENDED
            deadline += self._ahead
        elif awaits == SUSPENDED:
            return oldest, SUSPENDED
        else:
            deadline = trace.last_ms + self._waits[awaits]
        return (deadline, awaits) if deadline <= oldest else (oldest, SUSPENDED)

    def _mark(self, trace: OpenTrace, deadline: int, awaited: int) -> None:
        trace.closed = True
        one = (deadline, trace.first_offset, trace.first_index, trace, awaited)
        if self._is_heap:
            heappush(self._found, one)
            return
        self._found.append(one)
        if len(self._found) > FEW:  # to sort more takes too long
            self._is_heap = True
            heapify(self._found)

    def _watch(self, trace: OpenTrace) -> None:
        if not trace.watched:
            trace.watched = True
            entry = (trace.heard + self._lost_ms, trace.first_offset, trace.first_index, trace)
            self._watched.push(entry, len(self._traces))

    def _push(self, trace: OpenTrace, deadline: int) -> None:
        trace.pushed = deadline
        self._queue.push((deadline, trace.first_offset, trace.first_index, trace), len(self._traces))

    def next_ms(self) -> int | None:
        """Stream time of the next deadline if no item arrives; None if no trace is open. It may be too early."""
        if not self._traces:
            return None
        queue, watched = self._queue, self._watched
        self._ahead = self.clock_ms - self._heard
        work = 0
        while (first := queue.first()) is not None and work < STEP * _SPANS:
            pushed, _, _, trace = first
            work += 1
            if _is_real(first):
                work += _SPANS + len(trace.new)
                deadline = self._deadline_of(trace)
                if deadline <= pushed:
                    break
                queue.pop()
                self._push(trace, deadline)
            else:
                queue.pop()
        while (heard := watched.first()) is not None and heard[3].closed and work < STEP * _SPANS:
            work += 1
            watched.pop()
        assert first is not None  # each open trace has an entry
        return first[0] if heard is None else min(first[0], self.clock_ms + max(0, heard[0] - self._heard))

    def _deadline_of(self, trace: OpenTrace) -> int:
        self._fold(trace)
        trace.age()
        awaits = trace.awaits()
        if awaits == LOST:
            self._watch(trace)
        return self._deadline(trace, awaits)[0]


def _is_real(entry: _Entry) -> bool:
    """Whether an entry of the queue still counts: a trace may have a later one with an earlier deadline."""
    return not entry[3].closed and entry[0] == entry[3].pushed


def _is_open(entry: _Entry) -> bool:
    return not entry[3].closed
