"""Applies a log to a core as a worker does, and creates logs."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from prela_stream.assembly.base import ReadyTrace
from prela_stream.assembly.clock import StreamClock
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import decode_batch, decode_head, encode_batch
from prela_stream.model.span import SpanFields
from tests.support.cores import MAX_ITEM_BYTES, add, expire
from tests.support.reference import DecidedTrace, Outcome, ReadRecord


class Driver:
    """A core with the log of one partition. It checks the counters after every record.

    Args:
        kind: The core.
        options: Waits and limits.
    """

    def __init__(self, kind: CoreKind, options: AssemblyOptions) -> None:
        self._max_jump_ms = options.max_jump_ms
        self.core = kind.new(options, (), MAX_ITEM_BYTES)
        self.decided: list[DecidedTrace] = []
        self.late: list[tuple[int, int]] = []
        self.position = 0
        self._items = self._accounted = 0

    def apply(self, record: ReadRecord, *, replay: bool = False) -> None:
        """Apply a record and decide what is due."""
        core = self.core
        for ready in core.due(record.timestamp_ms):
            if ready is not None:
                self._decide(ready, record.offset)
        expire(core)
        applied = add(core, encode_batch(record.batch.resource, record.batch.raws), record.offset, replay=replay)
        self.late += [(record.offset, late.place) for late in applied.late]
        for ready in core.over_limits():
            if ready is not None:
                self._decide(ready, record.offset + 1)
        self.position = record.offset + 1
        assert applied.items == len(record.batch.heads)
        assert not applied.bad
        self._items += applied.items
        self._accounted += applied.control + applied.covered + len(applied.late)
        assert self._items == self._accounted + core.open_spans + core.duplicates
        assert (core.next_deadline_ms() is None) == (core.open_traces == 0)
        assert (core.low_watermark() is None) == (core.oldest_ms is None) == (core.open_traces == 0)

    def _decide(self, ready: ReadyTrace, cut: int) -> None:
        trace = ready.trace
        assert trace is not None
        self.core.remember(ready.trace_id, None, ready.due_ms)
        self._accounted += ready.spans
        heads = [decode_head(raw) for raw in ready.raws]
        assert [_fields(head) for head in heads] == [_fields(head) for head in trace.heads]
        assert sum(1 for head in heads if head.kind == 0) == ready.spans
        assert sum(1 for head in heads if head.kind == 1 or head.status == 0) == ready.open_spans
        self.decided.append(
            DecidedTrace(
                trace_id=ready.trace_id,
                trigger=trace.trigger,
                complete=trace.complete,
                basis=ready.basis,
                due_ms=ready.due_ms,
                first_offset=ready.first_offset,
                cut_offset=cut,
                lost=ready.lost,
                raws=tuple(ready.raws),
                resources=tuple(ready.resources),
                span_ids=frozenset(head.span_id for head in heads),
            )
        )

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


def _fields(head: SpanFields) -> tuple[object, ...]:
    """All fields but the body, which a core need not decode."""
    return tuple(getattr(head, name) for name in SpanFields.__struct_fields__)
