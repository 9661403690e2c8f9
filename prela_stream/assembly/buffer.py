"""The undecided traces of one partition, and when each of them has to be decided.

`TraceBuffer` is a function of the log: the caller passes the time of each record, first to `due` and then to `add`, and nothing
else moves the clock. It holds the bytes of each span and a few numbers. The caller decodes the bytes again at the decision.
"""

from collections import deque
from collections.abc import Iterator, Mapping

import msgspec

from prela_stream.assembly.completeness import ENDED, FRESH, TRIGGERS, OpenTrace, Process
from prela_stream.assembly.deadlines import Deadlines
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import ItemBatch
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import COUNTED, FOREIGN, PENDING, REMOTE_PARENT, ItemHead, ItemKind


class DueTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that has to be decided now. The buffer no longer holds it."""

    trace_id: bytes
    trigger: Trigger
    complete: bool
    """Whether every counted span and an answer to every inject was received."""
    basis: Basis
    """The evidence for `complete`."""
    first_offset: int
    """Offset of the record with its first item."""
    raws: list[bytes]
    """One item per span, the highest revision, in order of arrival. A span without an end has its START or PENDING item."""
    resources: list[bytes]
    """The resource of each item. Items of one process share one object."""
    lost: bool
    """A process reported that it dropped spans of this trace, or dropped spans of unknown traces while this one was open."""
    open_spans: int
    """Number of spans that have not ended."""
    due_ms: int
    """Stream time of its deadline, or at which it exceeded a limit. Never decreases from one trace to the next."""
    spans: int
    """Number of SPAN items in `raws`; the others are STARTs."""


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """The result for the items of one record: `len(heads) = len(late) + duplicates + control + spans`."""

    late: list[int]
    """Indexes in `heads` of late spans. Their trace is decided, so the buffer does not hold them."""
    duplicates: int
    """Span items with a lower or equal revision of their span: items of this record, or earlier ones that it replaced."""
    control: int
    """Items that are not spans."""
    spans: int
    """Spans that the buffer holds in addition."""


class TraceBuffer:
    """Groups the items of one partition into traces.

    For each record the caller calls `due` with its time, then `add`, then `over_limits`.

    Args:
        options: Waits and limits.
        decided: Decided traces, whose spans are late and must not open the trace again. The caller brings it up to date with
            the clock before each `add`.
    """

    def __init__(self, options: AssemblyOptions, decided: Mapping[bytes, object]) -> None:
        self._options = options
        self._decided = decided
        self._deadlines = Deadlines(options)
        self._traces: dict[bytes | None, OpenTrace] = {}
        self._processes: dict[bytes, Process] = {}
        self._opened: deque[OpenTrace] = deque()
        self._touched: list[OpenTrace] = []
        self._over: list[OpenTrace] = []
        self._clock_before = 0
        self._spans = self._bytes = 0

    @property
    def clock_ms(self) -> int:
        """Stream time, ms since the epoch; 0 before the first record."""
        return self._deadlines.clock_ms

    @property
    def open_traces(self) -> int:
        """Number of undecided traces, including those without a span."""
        return len(self._traces)

    @property
    def open_spans(self) -> int:
        """Number of SPAN items held for undecided traces, one per span: the counter `open`."""
        return self._spans

    @property
    def open_bytes(self) -> int:
        """Bytes of the items held for undecided traces."""
        return self._bytes

    def restore_clock(self, clock_ms: int) -> None:
        """Set the clock of a new buffer to the stream time just before the next record."""
        self._deadlines.restore(clock_ms)
        self._clock_before = clock_ms

    def due(self, now_ms: int) -> Iterator[DueTrace]:
        """Move the clock to `now_ms` (never back), and remove every trace whose deadline is reached.

        Call it with the time of each record before `add`. The traces are removed when this returns; consume the iterator
        before `add`.

        Returns:
            The traces in order of (deadline, first offset, index of the first item in its record).
        """
        self._clock_before = self._deadlines.clock_ms
        found = self._deadlines.advance(now_ms)
        for _, trace, _ in found:
            self._close(trace)
        return (self._ready(trace, TRIGGERS[wait], deadline) for deadline, trace, wait in found if trace.spans)

    def add(self, batch: ItemBatch, offset: int, now_ms: int) -> Added:  # noqa: C901, PLR0912, PLR0915 - the one hot loop
        """Apply one record at the time that was passed to `due`; raises ValueError if `due` was not called with it."""
        if now_ms > self._deadlines.clock_ms:
            msg = f"call due({now_ms}) before add() of the record at offset {offset}; the clock is at {self.clock_ms}"
            raise ValueError(msg)
        process = self._processes.get(batch.resource) or self._processes.setdefault(
            batch.resource, Process(batch.resource)
        )
        late: list[int] = []
        spans = duplicates = control = size = 0
        raws = batch.raws
        traces = self._traces
        touched = self._touched
        for index, head in enumerate(batch.heads):
            if head.kind:
                control += 1
                self._control(head, raws[index], process, offset, batch.indexes[index])
                continue
            trace = traces.get(head.trace_id)
            if trace is None:
                trace = self._open(head.trace_id, process, offset, batch.indexes[index])
                if trace is None:
                    late.append(index)
                    continue
            if trace.touched != offset:
                trace.touched = offset
                touched.append(trace)
                if process is not trace.process:
                    trace.add_process(process, offset)
            flags = head.flags
            if flags & FOREIGN:
                trace.sources |= flags
            span_id: bytes = head.span_id  # type: ignore[assignment] # the codec rejects a span without an id
            raw = raws[index]
            held = trace.spans
            if span_id in held or head.status == PENDING:
                report = self._report(trace, head, raw, process)
                if report & FRESH:
                    spans += 1
                else:
                    duplicates += 1
                if not report & ENDED:
                    continue
            else:
                spans += 1
                held[span_id] = raw
                length = len(raw)
                trace.bytes += length
                size += length
                if span_id in trace.missing:
                    del trace.missing[span_id]
                if process is not trace.process:
                    trace.set_process(span_id, process)
                if trace.suspended:
                    trace.suspended.pop(span_id, None)
            # an ended span: count it (OpenTrace._uncount is the exact inverse)
            parent_id = head.parent_span_id
            remote = flags & REMOTE_PARENT
            if parent_id is None or (remote and head.inject_ordinal is None):
                trace.roots += 1
            else:
                if parent_id not in held:
                    if parent_id in trace.missing:
                        trace.missing[parent_id] += 1
                    else:
                        trace.name_missing(parent_id)
                if remote:
                    trace.answer(parent_id, head.inject_ordinal)  # type: ignore[arg-type] # None is a root, above
                elif flags & COUNTED:
                    surplus = trace.balance.get(parent_id)
                    if surplus and surplus != -1:
                        trace.balance[parent_id] = surplus + 1
                    else:
                        trace.add_to_balance(parent_id, 1)
            children = head.child_count
            if children:
                trace.add_to_balance(span_id, -children)
            elif children is None:
                trace.unknown += 1
            if head.inject_count:
                trace.expect(span_id, head.inject_count)
        self._spans += spans
        self._bytes += size
        self._over = self._deadlines.restart(touched)
        touched.clear()
        self._deadlines.compact(len(self._traces))
        if not process.traces:
            del self._processes[process.resource]
        return Added(late=late, duplicates=duplicates, control=control, spans=spans)

    def over_limits(self) -> list[DueTrace]:
        """Remove the traces that exceed `max_spans` or `max_bytes` since the last record, in order of their first item.

        Items of the same record that arrived after the limit are included, because a decision is always cut between records.
        """
        found = sorted(self._over, key=lambda trace: (trace.first_offset, trace.first_index))
        self._over = []
        result = []
        for trace in found:
            trigger = Trigger.MAX_BYTES if trace.size() <= self._options.max_spans else Trigger.MAX_SPANS
            self._close(trace)
            if trace.spans:
                result.append(self._ready(trace, trigger, self.clock_ms))
        return result

    def heaviest(self, most_bytes: int, trace_bytes: int) -> list[DueTrace]:
        """See `base.Core.heaviest`."""
        now = self.clock_ms
        found: list[OpenTrace] = []
        held = self._bytes + trace_bytes * len(self._traces)
        by_weight = sorted(
            self._traces.values(),
            key=lambda trace: (-trace.bytes * (now - trace.first_ms + 1), trace.first_offset, trace.first_index),
        )
        for trace in by_weight:
            if held <= most_bytes:
                break
            held -= trace.bytes + trace_bytes
            found.append(trace)
        found.sort(key=lambda trace: (trace.first_offset, trace.first_index))
        for trace in found:
            self._close(trace)
        return [self._ready(trace, Trigger.MEMORY, now) for trace in found if trace.spans]

    def low_watermark(self) -> tuple[int, int] | None:
        """Where a replay has to start to rebuild this buffer.

        Returns:
            The smallest offset of a first item of any open trace, and the stream time just before that record, for
            `restore_clock`. None if no trace is open.
        """
        oldest = self._oldest()
        return None if oldest is None else (oldest.first_offset, oldest.clock_before)

    @property
    def oldest_ms(self) -> int | None:
        """Stream time at the first item of the oldest open trace; None if no trace is open."""
        oldest = self._oldest()
        return None if oldest is None else oldest.first_ms

    def _oldest(self) -> OpenTrace | None:
        opened = self._opened
        while opened and opened[0].closed:
            opened.popleft()
        return opened[0] if opened else None

    def next_deadline_ms(self) -> int | None:
        """Stream time of the next deadline if no item arrives; None if no trace is open. It may be too early, never too late."""
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

    def _report(self, trace: OpenTrace, head: ItemHead, raw: bytes, process: Process) -> int:
        """Call `OpenTrace.report` and update the sums."""
        size = trace.bytes
        report = trace.report(head, raw, process)
        self._bytes += trace.bytes - size
        return report

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
            trace.touched = offset
            self._touched.append(trace)
            if process is not trace.process:
                trace.add_process(process, offset)
        if head.flags & FOREIGN:
            trace.sources |= head.flags
        if head.kind == ItemKind.LOST:
            trace.lost = True
        elif head.kind == ItemKind.START:
            self._report(trace, head, raw, process)
        elif head.span_id is not None:
            trace.wait(head.kind, head.span_id)

    def _close(self, trace: OpenTrace) -> None:
        trace.closed = True
        del self._traces[trace.trace_id]
        self._spans -= len(trace.spans) - trace.starts
        self._bytes -= trace.bytes
        for process in trace.processes():
            process.traces -= 1
            if not process.traces:
                del self._processes[process.resource]

    @staticmethod
    def _ready(trace: OpenTrace, trigger: Trigger, due_ms: int) -> DueTrace:
        ready = DueTrace(
            trace_id=trace.trace_id,
            trigger=trigger,
            complete=trace.is_complete(),
            basis=trace.basis(),
            first_offset=trace.first_offset,
            raws=list(trace.spans.values()),
            resources=trace.resources(),
            lost=trace.is_lost(),
            open_spans=len(trace.open),
            due_ms=due_ms,
            spans=len(trace.spans) - trace.starts,
        )
        trace.release()
        return ready
