"""The clocks of a partition, and the open traces in order of their deadlines.

There are two clocks. Stream time is the time of the log. The second clock is for missing heartbeats. It runs with stream time but
skips silence: a gap in the log longer than `silence_ms` counts as `silence_ms`, because no process could write during the gap.

Every item of a trace moves its deadline, nearly always to a later time. So the queue holds for each trace a deadline that is
never later than the real one. The real one is computed when the entry is due.
"""

from heapq import heapify, heappop, heappush

from prela_stream.assembly.completeness import LOST, SUSPENDED, OpenTrace
from prela_stream.assembly.options import AssemblyOptions

_Entry = tuple[int, int, int, OpenTrace]


class Deadlines:
    """The deadlines of the open traces. `AssemblyOptions` has the waits."""

    def __init__(self, options: AssemblyOptions) -> None:
        self._silence_ms = options.silence_ms
        self._lost_ms = options.lost_ms
        self._max_age_ms = options.max_age_ms
        self._max_bytes = options.max_bytes
        self._max_spans = options.max_spans
        # a LOST item without a trace id changes what a trace waits for; that must never move its deadline to an earlier time
        least = max(options.remote_wait_ms, options.settle_ms)
        self._waits = (  # indexed by what a trace waits for
            options.settle_ms, options.remote_wait_ms, max(options.root_wait_ms, least), options.idle_ms, 0, 0,
            options.idle_without_heartbeats_ms, max(options.otlp_root_wait_ms, least),
        )  # fmt: skip
        self._queue: list[_Entry] = []
        self._watched: list[_Entry] = []
        self._heard = 0
        self.clock_ms = 0

    def restore(self, clock_ms: int) -> None:
        """Set the clock. Call it before the first trace is opened."""
        self.clock_ms = clock_ms

    def restart(self, touched: list[OpenTrace]) -> list[OpenTrace]:
        """Restart the waits of traces that received items now.

        Returns:
            The traces that exceed a limit.
        """
        clock, heard, waits, queue = self.clock_ms, self._heard, self._waits, self._queue
        max_age_ms, max_bytes, max_spans = self._max_age_ms, self._max_bytes, self._max_spans
        over: list[OpenTrace] = []
        for trace in touched:
            trace.last_ms = clock
            trace.heard = heard
            awaited = trace.awaits()
            deadline = trace.first_ms + max_age_ms
            if awaited == LOST:
                self._watch(trace)
            elif awaited != SUSPENDED and (own := clock + waits[awaited]) < deadline:
                deadline = own
            if deadline < trace.pushed:
                trace.pushed = deadline
                heappush(queue, (deadline, trace.first_offset, trace.first_index, trace))
            if trace.bytes > max_bytes or len(trace.spans) + len(trace.suspended) > max_spans:
                over.append(trace)
        return over

    def advance(self, now_ms: int) -> list[tuple[int, OpenTrace, int]]:
        """Move the clock to `now_ms`, never back.

        Returns:
            The traces that are due, as (deadline, trace, what it waited for), in order of (deadline, first item). They are no
            longer in the queue.
        """
        clock, heard = self.clock_ms, self._heard
        if now_ms > clock:
            self.clock_ms = now_ms
            self._heard = heard + min(now_ms - clock, self._silence_ms)
        ahead = clock - heard
        found: list[tuple[int, int, int, OpenTrace, int]] = []
        while self._queue and self._queue[0][0] <= self.clock_ms:
            pushed, _, _, trace = heappop(self._queue)
            if trace.closed or pushed != trace.pushed:
                continue
            deadline, awaited = self._due(trace, ahead)
            if deadline <= self.clock_ms:
                self._take(trace, deadline, awaited, found)
            else:
                self._push(trace, deadline)
        while self._watched and self._watched[0][0] <= self._heard:
            trace = heappop(self._watched)[3]
            trace.watched = False
            if trace.closed or trace.awaits() != LOST:
                continue
            if trace.heard + self._lost_ms <= self._heard:
                self._take(trace, *self._due(trace, ahead), found)
            else:
                self._watch(trace)
        found.sort()
        return [(deadline, trace, awaited) for deadline, _, _, trace, awaited in found]

    def _due(self, trace: OpenTrace, ahead: int) -> tuple[int, int]:
        """The deadline of a trace, and which wait ends then. `ahead`: stream time minus the second clock before this step."""
        awaited = trace.awaits()
        oldest = trace.first_ms + self._max_age_ms
        if awaited == LOST:
            deadline = trace.heard + self._lost_ms
            if deadline > self._heard:  # during a silence the time of this deadline is not known yet
                return oldest, SUSPENDED
            deadline += ahead
        elif awaited == SUSPENDED:
            return oldest, SUSPENDED
        else:
            deadline = trace.last_ms + self._waits[awaited]
        return (deadline, awaited) if deadline <= oldest else (oldest, SUSPENDED)

    @staticmethod
    def _take(trace: OpenTrace, deadline: int, awaited: int, found: list[tuple[int, int, int, OpenTrace, int]]) -> None:
        trace.closed = True
        found.append((deadline, trace.first_offset, trace.first_index, trace, awaited))

    def _watch(self, trace: OpenTrace) -> None:
        if not trace.watched:
            trace.watched = True
            heappush(self._watched, (trace.heard + self._lost_ms, trace.first_offset, trace.first_index, trace))

    def _push(self, trace: OpenTrace, deadline: int) -> None:
        trace.pushed = deadline
        heappush(self._queue, (deadline, trace.first_offset, trace.first_index, trace))

    def next_ms(self) -> int | None:
        """Stream time of the next deadline if no item arrives; None if no trace is open."""
        queue, watched = self._queue, self._watched
        while queue and (queue[0][3].closed or queue[0][0] != queue[0][3].pushed):
            heappop(queue)
        while watched and watched[0][3].closed:
            heappop(watched)
        if not queue:
            return None
        if not watched:
            return queue[0][0]
        return min(queue[0][0], self.clock_ms + max(0, watched[0][0] - self._heard))

    def compact(self, traces: int) -> None:
        """Remove stale entries once they outnumber the others; `traces` is the number of open traces."""
        most = 2 * traces + 1024
        if len(self._queue) > most:
            self._queue = [entry for entry in self._queue if not entry[3].closed and entry[0] == entry[3].pushed]
            heapify(self._queue)
        if len(self._watched) > most:
            self._watched = [entry for entry in self._watched if not entry[3].closed]
            heapify(self._watched)
