"""The undecided traces of one partition, and when each of them is to be decided.

`TraceBuffer` is a function of the log: the caller passes each Record's log-append time, first to `due` and then to `add`, and
nothing else moves the clock. It holds bytes and a few numbers a span; whoever decides a trace decodes it again.
"""

from collections import deque
from collections.abc import Iterator, Mapping

import msgspec

from prela_stream.assembly.completeness import ENDED, FRESH, TRIGGERS, OpenTrace, Process
from prela_stream.assembly.deadlines import Deadlines
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import ItemBatch
from prela_stream.model.decision import Trigger
from prela_stream.model.span import COUNTED, PENDING, REMOTE_PARENT, ItemHead, ItemKind


class ReadyTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that is to be decided now. It has left the buffer."""

    trace_id: bytes
    trigger: Trigger
    complete: bool
    """Whether every counted span is there, and an answer to every context that was handed out."""
    first_offset: int
    """Offset of the Record that held its first item."""
    raws: list[bytes]
    """One item a span, the winning revision, in order of arrival. One without an end has its START or PENDING item."""
    resources: list[bytes]
    """The resource of each item; those of one process are one object."""
    lost: bool
    """A process has said that it dropped spans of this trace, or of some that it could not name while this one was open."""
    open_spans: int
    """How many of the spans have not ended."""
    due_ms: int
    """Stream time at which it was due: its deadline, or when it went over a limit. Never goes back from one trace to the next."""
    spans: int
    """How many of `raws` are SPAN items; the others are STARTs."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the items of one Record: `len(heads) = len(late) + duplicates + control + spans`."""

    late: list[int]
    """Places in the batch of span items whose trace is decided; they were not taken in."""
    duplicates: int
    """Span items that do not win their span: those of this Record, or the earlier ones that they replaced."""
    control: int
    """Items that are no spans, whatever their trace."""
    spans: int
    """Spans that are newly open."""


class TraceBuffer:
    """Puts the items of one partition together into traces.

    Each Record goes first to `due`, with its log-append time, and then to `add`; afterwards the caller asks `over_limits`.

    Args:
        options: How long to wait, how much to hold.
        decided: The traces whose late spans must not open a new one; asked about a trace only where it is not open. It has to be
            up to date with the clock at each `add`.
    """

    def __init__(self, options: AssemblyOptions, decided: Mapping[bytes, object]) -> None:
        self._options = options
        self._decided = decided
        self._deadlines = Deadlines(options)
        self._traces: dict[bytes | None, OpenTrace] = {}
        self._processes: dict[bytes, Process] = {}
        self._begun: deque[OpenTrace] = deque()
        self._touched: list[OpenTrace] = []
        self._over: list[OpenTrace] = []
        self._clock_before = 0
        self._spans = self._bytes = 0

    @property
    def clock_ms(self) -> int:
        """Stream time: the largest log-append time so far, ms since the epoch; 0 before the first Record."""
        return self._deadlines.clock_ms

    @property
    def open_traces(self) -> int:
        """Undecided traces, those included of which no span has come."""
        return len(self._traces)

    @property
    def open_spans(self) -> int:
        """SPAN items held for undecided traces, one a span: what counters call open."""
        return self._spans

    @property
    def open_bytes(self) -> int:
        """Bytes of the items held for undecided traces."""
        return self._bytes

    def restore_clock(self, clock_ms: int) -> None:
        """Set the clock of a new buffer to where it stood just before the Record that comes next."""
        self._deadlines.restore(clock_ms)
        self._clock_before = clock_ms

    def due(self, now_ms: int) -> Iterator[ReadyTrace]:
        """Move the clock to `now_ms` (never back), and take out every trace whose deadline that reaches.

        Call it with each Record's log-append time before `add`, and consume the result before `add`: the traces have left the
        buffer when this returns.

        Returns:
            The traces in order of (deadline, first offset, place of the first item in its Record).
        """
        self._clock_before = self._deadlines.clock_ms
        found = self._deadlines.advance(now_ms)
        for _, trace, _ in found:
            self._close(trace)
        return (self._undecided(trace, TRIGGERS[wait], deadline) for deadline, trace, wait in found if trace.spans)

    def add(self, batch: ItemBatch, offset: int, now_ms: int) -> Applied:  # noqa: C901, PLR0912, PLR0915 - the one hot loop
        """Apply one Record, at the time that `due` was given; raises ValueError if it was not."""
        if now_ms > self._deadlines.clock_ms:
            msg = f"due({now_ms}) comes before add() of the Record at offset {offset}; the clock stands at {self.clock_ms}"
            raise ValueError(msg)
        process = self._processes.get(batch.resource) or self._processes.setdefault(
            batch.resource, Process(batch.resource)
        )
        late: list[int] = []
        spans = duplicates = control = size = 0
        raws = batch.raws
        traces = self._traces
        touched = self._touched
        for position, head in enumerate(batch.heads):
            if head.kind:
                control += 1
                self._control(head, raws[position], process, offset, batch.indexes[position])
                continue
            trace = traces.get(head.trace_id)
            if trace is None:
                trace = self._begin(head.trace_id, process, offset, batch.indexes[position])
                if trace is None:
                    late.append(position)
                    continue
            if trace.touched != offset:
                trace.touched = offset
                touched.append(trace)
                if process is not trace.process:
                    trace.meet(process, offset)
            span_id: bytes = head.span_id  # type: ignore[assignment] # the codec lets no span pass without an id
            raw = raws[position]
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
            # an ended span: count it (OpenTrace._take_back is the exact reverse)
            parent_id = head.parent_span_id
            flags = head.flags
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
        return Applied(late=late, duplicates=duplicates, control=control, spans=spans)

    def over_limits(self) -> list[ReadyTrace]:
        """Take out the traces that the last Record made larger than `max_spans` or `max_bytes`, in order of their beginning.

        Items that came after the limit in the same Record are in: a decision is always cut between Records.
        """
        found = sorted(self._over, key=lambda trace: (trace.first_offset, trace.first_index))
        self._over = []
        result = []
        for trace in found:
            trigger = Trigger.MAX_BYTES if trace.room() <= self._options.max_spans else Trigger.MAX_SPANS
            self._close(trace)
            if trace.spans:
                result.append(self._undecided(trace, trigger, self.clock_ms))
        return result

    def low_watermark(self) -> tuple[int, int] | None:
        """Where a replay has to begin to rebuild this buffer.

        Returns:
            The offset of the Record that holds the first item of the open trace that began first, and the stream time just before
            that Record, for `restore_clock`; None if nothing is open.
        """
        begun = self._begun
        while begun and begun[0].closed:
            begun.popleft()
        return (begun[0].first_offset, begun[0].clock_before) if begun else None

    def next_deadline_ms(self) -> int | None:
        """Stream time before which no trace will be due unless items come; None if nothing is open. Never late, maybe early."""
        return self._deadlines.next_ms()

    def _begin(self, trace_id: bytes | None, process: Process, offset: int, index: int) -> OpenTrace | None:
        """A new open trace; None if this one is decided."""
        assert trace_id is not None
        if trace_id in self._decided:
            return None
        trace = OpenTrace(
            trace_id, process, offset=offset, index=index, now_ms=self.clock_ms, clock_before=self._clock_before
        )
        self._traces[trace_id] = trace
        if len(self._begun) > 2 * len(self._traces) + 1024:
            self._begun = deque(begun for begun in self._begun if not begun.closed)
        self._begun.append(trace)
        return trace

    def _report(self, trace: OpenTrace, head: ItemHead, raw: bytes, process: Process) -> int:
        """`OpenTrace.report`, with the sums kept."""
        size = trace.bytes
        report = trace.report(head, raw, process)
        self._bytes += trace.bytes - size
        return report

    def _control(self, head: ItemHead, raw: bytes, process: Process, offset: int, index: int) -> None:
        """Take in an item that is no span."""
        trace_id = head.trace_id
        if head.kind == ItemKind.TICK:
            return
        if trace_id is None:
            # for all traces open now and in this Record; they look here when they are asked
            process.lost_offset = offset
            return
        trace = self._traces.get(trace_id) or self._begin(trace_id, process, offset, index)
        if trace is None:
            return
        if trace.touched != offset:
            trace.touched = offset
            self._touched.append(trace)
            if process is not trace.process:
                trace.meet(process, offset)
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
    def _undecided(trace: OpenTrace, trigger: Trigger, due_ms: int) -> ReadyTrace:
        undecided = ReadyTrace(
            trace_id=trace.trace_id,
            trigger=trigger,
            complete=trace.is_complete(),
            first_offset=trace.first_offset,
            raws=list(trace.spans.values()),
            resources=trace.resources(),
            lost=trace.is_lost(),
            open_spans=len(trace.open),
            due_ms=due_ms,
            spans=len(trace.spans) - trace.starts,
        )
        trace.release()
        return undecided
