"""Applies a log to TraceBuffer and DecidedTraces as a worker does, and creates logs."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from prela_stream.assembly.buffer import Applied, ReadyTrace, TraceBuffer
from prela_stream.assembly.clock import StreamClock
from prela_stream.assembly.completeness import _NOTHING
from prela_stream.assembly.decided import DecidedTraces
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import ItemBatch, decode_batch, decode_head, encode_batch
from tests.support.reference import DecidedTrace, Outcome, ReadRecord


class Driver:
    """The buffer and the decisions of one partition. It checks the counters after every record."""

    def __init__(self, options: AssemblyOptions) -> None:
        self._max_jump_ms = options.max_jump_ms
        self.decisions: DecidedTraces[int] = DecidedTraces(options)
        self.buffer = TraceBuffer(options, self.decisions)
        self.decided: list[DecidedTrace] = []
        self.late: list[tuple[int, int]] = []
        self.position = 0
        self.spans = self.duplicates = self.control = self.items = self.decided_spans = 0

    def apply(self, record: ReadRecord) -> Applied:
        """Apply a record and decide what is due."""
        for undecided in self.buffer.due(record.timestamp_ms):
            self._decide(undecided, record.offset)
        self.decisions.expire(self.buffer.clock_ms)
        applied = self.buffer.add(record.batch, record.offset, record.timestamp_ms)
        self.late += [(record.offset, record.batch.indexes[index]) for index in applied.late]
        for undecided in self.buffer.over_limits():
            self._decide(undecided, record.offset + 1)
        self.position = record.offset + 1
        self._balance(record, applied)
        return applied

    def _decide(self, undecided: ReadyTrace, cut: int) -> None:
        self.decisions.remember(undecided.trace_id, cut, undecided.due_ms)
        self.decided_spans += undecided.spans
        heads = [decode_head(raw) for raw in undecided.raws]
        assert sum(1 for head in heads if head.kind == 0) == undecided.spans
        assert sum(1 for head in heads if head.kind == 1 or head.status == 0) == undecided.open_spans
        self.decided.append(
            DecidedTrace(
                trace_id=undecided.trace_id,
                trigger=undecided.trigger,
                complete=undecided.complete,
                basis=undecided.basis,
                due_ms=undecided.due_ms,
                first_offset=undecided.first_offset,
                cut_offset=cut,
                lost=undecided.lost,
                raws=tuple(undecided.raws),
                resources=tuple(undecided.resources),
                span_ids=frozenset(head.span_id for head in heads),
            )
        )

    def _balance(self, record: ReadRecord, applied: Applied) -> None:
        self.items += len(record.batch.heads)
        self.spans += applied.spans
        self.duplicates += applied.duplicates
        self.control += applied.control
        assert self.items == self.spans + self.duplicates + self.control + len(self.late)
        assert self.spans == self.buffer.open_spans + self.decided_spans
        traces = self.buffer._traces.values()
        assert self.buffer.open_bytes == sum(len(raw) for trace in traces for raw in trace.spans.values())
        low = self.buffer.low_watermark()
        assert low == min(((trace.first_offset, trace.clock_before) for trace in traces), default=None)
        assert not _NOTHING
        resources = {process.resource for trace in traces for process in trace.processes()}
        assert resources == set(self.buffer._processes)
        deadline = self.buffer.next_deadline_ms()
        assert (deadline is None) == (not traces)

    def recount(self) -> None:
        """Reset the counters, after a replay or a change of `late`."""
        self.items, self.spans, self.duplicates, self.control = len(self.late) + self.buffer.open_spans, 0, 0, 0
        self.spans, self.decided_spans = self.buffer.open_spans, 0

    def run(self, log: Iterable[ReadRecord]) -> Outcome:
        """Apply a whole log and return the outcome."""
        clock = StreamClock(self._max_jump_ms)
        records = list(log)
        for record, following in zip_longest(records, records[1:]):
            next_stamp_ms = None
            if clock.needs_confirmation(record.timestamp_ms):
                if following is None:
                    break
                next_stamp_ms = following.timestamp_ms
            now = clock.advance(record.offset, record.timestamp_ms, next_stamp_ms)
            self.apply(ReadRecord(record.offset, now, record.batch))
        return Outcome(self.decided, self.late)


def without_covered(record: ReadRecord, decisions: DecidedTraces[int]) -> ReadRecord:
    """The part of a record that a replay applies: the items that belong to no committed decision."""
    batch = record.batch
    heads = batch.heads
    indexes = [
        index
        for index, head in enumerate(heads)
        if head.trace_id is None or not decisions.covers(head.trace_id, record.offset)
    ]
    kept = ItemBatch(
        resource=batch.resource,
        heads=[heads[index] for index in indexes],
        raws=[batch.raws[index] for index in indexes],
        indexes=indexes,
        bad=[],
        unknown=0,
    )
    return ReadRecord(record.offset, record.timestamp_ms, kept)


def make_log(records: Iterable[tuple[int, bytes, Sequence[bytes]]], start_ms: int = 1_000) -> list[ReadRecord]:
    """A log of records given as (ms since the previous record, resource, encoded items)."""
    log = []
    now = start_ms
    for offset, (gap, resource, items) in enumerate(records):
        now += gap
        batch = decode_batch(encode_batch(resource, items))
        assert not batch.bad
        log.append(ReadRecord(offset * 2, now, batch))  # offsets may have gaps
    return log
