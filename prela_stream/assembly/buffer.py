"""The undecided traces of one partition in the Python core, and when each of them has to be decided.

`TraceBuffer` is a function of the log: the caller passes the time of each record, first to `due` and then to `add`, and nothing
else moves the clock. It holds the bytes of each span and a few numbers.
"""

from collections import deque
from collections.abc import Container, Iterator
from heapq import heappop, heappush
from typing import Final

from prela_stream.assembly.completeness import COMPLETE, TRIGGERS, OpenTrace
from prela_stream.assembly.deadlines import Deadlines
from prela_stream.assembly.decoding import DueTrace
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.process import Process
from prela_stream.codec.spans import ItemBatch
from prela_stream.model.decision import Trigger
from prela_stream.model.span import FOREIGN, ItemHead, ItemKind

TOGETHER: Final = 16
"""So many traces take each stage together: the code of one stage fits into the processor's first cache, that of all does not."""
STEP = 64
"""So many traces are weighed, or taken out, in about a millisecond."""
MOST_COLLECTED = 512
"""A trace with more items that are not folded is folded at once, so that no later fold takes long."""


class Held:
    """What is held for the open traces. The buffer and its deadlines share it, so that they do not refer to each other."""

    def __init__(self) -> None:
        self.spans = 0
        """See `base.Core.open_spans`."""
        self.bytes = 0
        """See `base.Core.open_bytes`."""
        self.duplicates = 0
        """See `base.Core.duplicates`."""

    def fold(self, trace: OpenTrace) -> None:
        """Count what a trace has collected."""
        size = trace.bytes
        self.found(trace.fold(), trace.bytes - size)

    def found(self, duplicates: int, size: int) -> None:
        """Some spans turned out to be duplicates, and the items of their trace now take `size` bytes more."""
        self.duplicates += duplicates
        self.spans -= duplicates
        self.bytes += size


class TraceBuffer:
    """Groups the items of one partition into traces.

    For each record the caller calls `due` with its time, then `add`, then `over_limits`.

    Args:
        options: Waits and limits.
        decided: Decided traces, whose spans are late and must not open the trace again. The caller brings it up to date with
            the clock before each `add`.
    """

    def __init__(self, options: AssemblyOptions, decided: Container[bytes]) -> None:
        self._most_spans, self._most_bytes = options.max_spans, options.max_bytes
        self._decided = decided
        self._traces: dict[bytes | None, OpenTrace] = {}
        self._held = Held()
        self._deadlines = Deadlines(options, self._held.fold, self._traces)
        self._processes: dict[bytes, Process] = {}
        self._opened: deque[OpenTrace] = deque()
        self._large: list[OpenTrace] = []
        """The traces that may exceed a limit since the last record."""
        self._clock_before = 0

    @property
    def open_spans(self) -> int:
        """See `base.Core`."""
        return self._held.spans

    @property
    def open_bytes(self) -> int:
        """See `base.Core`."""
        return self._held.bytes

    @property
    def duplicates(self) -> int:
        """See `base.Core`."""
        return self._held.duplicates

    @property
    def clock_ms(self) -> int:
        """See `base.Core`."""
        return self._deadlines.clock_ms

    @property
    def open_traces(self) -> int:
        """See `base.Core`."""
        return len(self._traces)

    def restore_clock(self, clock_ms: int) -> None:
        """See `base.Core`."""
        self._deadlines.restore(clock_ms)
        self._clock_before = clock_ms

    def advance(self, now_ms: int) -> bool:
        """Move the clock to `now_ms`, never back. Returns whether any trace may be due; then call `take_due`."""
        self._clock_before = self._deadlines.clock_ms
        return self._deadlines.advance(now_ms)

    def take_due(self) -> Iterator[list[DueTrace]]:
        """Remove every trace whose deadline is reached, some at a time.

        The traces are in the order of `base.Core.due`. An empty list comes after each step of the work to find them.
        """
        for _ in self._deadlines.find():
            yield []
        while due := self._deadlines.take(TOGETHER, MOST_COLLECTED):
            for _, trace, _ in due:
                self._close(trace)
            yield [
                self._leaving(trace, TRIGGERS[wait], deadline, complete=wait == COMPLETE or trace.is_complete())
                for deadline, trace, wait in due
                if trace.spans
            ]
            self._trim()

    def add(self, batch: ItemBatch, offset: int) -> tuple[int, list[int]]:
        """Collect the items of a record, or a piece of them, at the time that was passed to `due`. After the last one call `end`.

        Returns:
            The number of spans that the buffer holds in addition, and the indexes in `batch.heads` of late spans. Their trace is
            decided, so the buffer does not hold them.
        """
        process = self._processes.get(batch.resource) or self._processes.setdefault(
            batch.resource, Process(batch.resource)
        )
        late: list[int] = []
        heads, traces = batch.heads, self._traces
        ids = [None if head.kind else head.trace_id for head in heads]  # None for an item that is not a span
        count, spans, end = len(ids), 0, 0
        while end < count:
            start, trace_id = end, ids[end]
            end += 1
            while end < count and ids[end] == trace_id:  # the spans of a trace often follow one another
                end += 1
            if trace_id is None:
                for index in range(start, end):
                    self._control(heads[index], batch.raws[index], process, offset, batch.indexes[index])
                continue
            trace = traces.get(trace_id) or self._open(trace_id, process, offset, batch.indexes[start])
            if trace is None:
                late += range(start, end)
                continue
            if trace.touched != offset:
                self._touch(trace, process, offset)
            self._collect(trace, batch, start, end, process)
            spans += end - start
        self._held.spans += spans
        return spans, late

    def end(self, resource: bytes) -> None:
        """The record of this process has no more items."""
        if not self._processes[resource].traces:
            del self._processes[resource]

    def _collect(self, trace: OpenTrace, batch: ItemBatch, start: int, end: int, process: Process) -> None:
        """Hold SPAN items of a trace that follow one another."""
        if trace.new_process is not process:
            self._held.fold(trace)
            trace.new_process = process
        if not batch.views:
            trace.are_read = False
        raws = batch.raws[start:end]
        trace.new += batch.heads[start:end]
        trace.new_raws += raws
        size = sum(map(len, raws))
        trace.bytes += size
        self._held.bytes += size
        if trace.bytes > self._most_bytes or trace.size() + len(trace.new) > self._most_spans:
            self._large.append(trace)
        if len(trace.new) > MOST_COLLECTED:
            self._held.fold(trace)
            trace.age()

    @property
    def has_large(self) -> bool:
        """Whether any trace may exceed a limit since the last record; then call `take_large`."""
        return bool(self._large)

    def take_large(self) -> Iterator[DueTrace | None]:
        """See `base.Core.over_limits`."""
        most_spans, most_bytes = self._most_spans, self._most_bytes
        large, self._large = dict.fromkeys(self._large), []
        ordered = sorted(large, key=lambda trace: (trace.first_offset, trace.first_index))
        for place, trace in enumerate(ordered):
            if place % STEP == 0:
                yield None
            self._held.fold(trace)  # without duplicates it may be within the limits
            size = trace.size()
            if size > most_spans or trace.bytes > most_bytes:
                self._close(trace)
                if trace.spans:
                    trigger = Trigger.MAX_SPANS if size > most_spans else Trigger.MAX_BYTES
                    yield self._leaving(trace, trigger, self.clock_ms, complete=trace.is_complete())

    def heaviest(self, most_bytes: int, trace_bytes: int) -> Iterator[DueTrace | None]:
        """See `base.Core.heaviest`."""
        now = self.clock_ms
        by_weight: list[tuple[int, int, int, OpenTrace]] = []
        for trace in self._traces.values():
            folded = len(trace.new)
            self._held.fold(trace)  # duplicates take memory, and do not count
            trace.age()
            weight = trace.bytes * (now - trace.first_ms + 1)
            heappush(by_weight, (-weight, trace.first_offset, trace.first_index, trace))
            if folded > STEP or len(by_weight) % STEP == 0:
                yield None
        held = self.open_bytes + trace_bytes * len(self._traces)
        found: list[tuple[int, int, OpenTrace]] = []
        while by_weight and held > most_bytes:
            *_, trace = heappop(by_weight)
            held -= trace.bytes + trace_bytes
            heappush(found, (trace.first_offset, trace.first_index, trace))
            if len(found) % STEP == 0:
                yield None
        while found:
            *_, trace = heappop(found)
            complete = trace.is_complete()
            self._close(trace)
            yield self._leaving(trace, Trigger.MEMORY, now, complete=complete) if trace.spans else None
            self._trim()

    def low_watermark(self) -> tuple[int, int] | None:
        """See `base.Core`."""
        oldest = self._oldest()
        return None if oldest is None else (oldest.first_offset, oldest.clock_before)

    @property
    def oldest_ms(self) -> int | None:
        """See `base.Core`."""
        oldest = self._oldest()
        return None if oldest is None else oldest.first_ms

    def _trim(self) -> None:
        """Release a few closed traces, so that `_oldest` need not release all of them at once."""
        opened = self._opened
        for _ in range(2 * TOGETHER):
            if not opened or not opened[0].closed:
                return
            opened.popleft()

    def _oldest(self) -> OpenTrace | None:
        opened = self._opened
        while opened and opened[0].closed:
            opened.popleft()
        return opened[0] if opened else None

    def next_deadline_ms(self) -> int | None:
        """See `base.Core`."""
        return self._deadlines.next_ms()

    def _open(self, trace_id: bytes | None, process: Process, offset: int, index: int) -> OpenTrace | None:
        """Open a trace; None if it is decided."""
        assert trace_id is not None
        if trace_id in self._decided:
            return None
        trace = OpenTrace(
            trace_id, process, offset=offset, index=index, now_ms=self.clock_ms, clock_before=self._clock_before
        )
        self._traces[trace_id] = trace
        if len(self._opened) > 2 * len(self._traces) + 1024:
            self._opened = deque(opened for opened in self._opened if not opened.closed)
        self._opened.append(trace)
        return trace

    def _touch(self, trace: OpenTrace, process: Process, offset: int) -> None:
        """The first item of a trace in the record at `offset`."""
        trace.touched = offset
        if process is not trace.process:
            trace.add_process(process, offset)
        self._deadlines.restart(trace)

    def _control(self, head: ItemHead, raw: bytes, process: Process, offset: int, index: int) -> None:
        """Apply an item that is not a span."""
        trace_id = head.trace_id
        if head.kind == ItemKind.TICK:
            return
        if trace_id is None:
            # it concerns all traces that are open now or in this record; `OpenTrace.is_lost` reads it
            process.lost_offset = offset
            return
        trace = self._traces.get(trace_id) or self._open(trace_id, process, offset, index)
        if trace is None:
            return
        if trace.touched != offset:
            self._touch(trace, process, offset)
        if head.flags & FOREIGN:
            trace.sources |= head.flags
        if head.kind != ItemKind.HEARTBEAT:
            size = trace.bytes
            self._held.found(trace.control(head, raw, process), trace.bytes - size)
            if trace.bytes > self._most_bytes or trace.size() > self._most_spans:
                self._large.append(trace)

    def _close(self, trace: OpenTrace) -> None:
        trace.closed = True
        del self._traces[trace.trace_id]
        self._held.spans -= len(trace.spans) - trace.starts
        self._held.bytes -= trace.bytes
        for process in trace.processes():
            process.traces -= 1
            if not process.traces:
                del self._processes[process.resource]

    @staticmethod
    def _leaving(trace: OpenTrace, trigger: Trigger, due_ms: int, *, complete: bool) -> DueTrace:
        due = DueTrace(
            trace_id=trace.trace_id,
            trigger=trigger,
            complete=complete,
            basis=trace.basis(),
            first_offset=trace.first_offset,
            raws=trace.items,
            resources=trace.resources(),
            heads=trace.heads,
            parents=trace.parents,
            lost=not complete and trace.is_lost(),
            open_spans=len(trace.open),
            due_ms=due_ms,
            spans=len(trace.spans) - trace.starts,
        )
        trace.release()
        return due
