"""The Python core: the specification of a core in readable form, and what runs without the native extension."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec

from prela_stream.assembly import decoding
from prela_stream.assembly.base import TRACE_BYTES, Applied, LateSpan, ReadyTrace
from prela_stream.assembly.buffer import TraceBuffer
from prela_stream.assembly.decided import DecidedTraces
from prela_stream.assembly.decoding import SUMMARY_KEYS, DueTrace, TraceDecoder
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.item_reader import ItemReader
from prela_stream.codec.spans import ItemBatch


class PythonCore:
    """See `base.Core`.

    Args:
        options: Waits and limits.
        reads: Attribute keys that the policies declared.
        max_item_bytes: Most bytes of an item and its resource together.
    """

    name: Final = "python"

    def __init__(self, options: AssemblyOptions, reads: Sequence[str], max_item_bytes: int) -> None:
        self._decided = DecidedTraces(options)
        self._buffer = TraceBuffer(options, self._decided)
        self._decoder = TraceDecoder(reads)
        self._taken = 0
        """Spans of due traces that the buffer no longer holds, and the caller does not have yet."""
        self._reader = ItemReader({*reads, *SUMMARY_KEYS}, max_item_bytes)
        self._adding: Iterator[Applied | None] = iter(())

    @property
    def clock_ms(self) -> int:
        """See `base.Core`."""
        return self._buffer.clock_ms

    @property
    def open_traces(self) -> int:
        """See `base.Core`."""
        return self._buffer.open_traces

    @property
    def open_spans(self) -> int:
        """See `base.Core`."""
        return self._buffer.open_spans + self._taken

    @property
    def open_bytes(self) -> int:
        """See `base.Core`."""
        return self._buffer.open_bytes

    @property
    def duplicates(self) -> int:
        """See `base.Core`."""
        return self._buffer.duplicates

    @property
    def oldest_ms(self) -> int | None:
        """See `base.Core`."""
        return self._buffer.oldest_ms

    def restore_clock(self, clock_ms: int) -> None:
        """See `base.Core`."""
        self._buffer.restore_clock(clock_ms)
        self._decided.restore_clock(clock_ms)

    def due(self, now_ms: int) -> Iterable[ReadyTrace | None]:
        """See `base.Core`."""
        return self._pieces(self._buffer.take_due()) if self._buffer.advance(now_ms) else ()

    def _pieces(self, pieces: Iterator[list[DueTrace]]) -> Iterator[ReadyTrace | None]:
        read = self._decoder.read
        for piece in pieces:
            self._taken = sum([due.spans for due in piece])
            if piece and len(piece[-1].raws) > decoding.LARGE:  # the others are smaller
                yield from self._one_by_one(piece)
            else:
                for ready in [read(due) for due in piece]:
                    self._taken -= ready.spans
                    yield ready
            yield None

    def _one_by_one(self, piece: list[DueTrace]) -> Iterator[ReadyTrace | None]:
        for due in piece:
            for ready in self._read(due):
                if ready is not None:
                    self._taken -= ready.spans
                yield ready

    def _read(self, due: DueTrace | None) -> Iterator[ReadyTrace | None]:
        """The trace; before it None between steps."""
        if due is None:
            yield None
        else:
            ready = yield from self._decoder.read_in_steps(due)
            yield ready
            if len(due.raws) > decoding.LARGE:
                del due
                yield None
                yield from decoding.free(ready)

    def expire(self) -> Sequence[bytes] | None:
        """See `base.Core`."""
        return self._decided.expire(self._buffer.clock_ms)

    def add(self, value: bytes, offset: int, *, replay: bool = False) -> Applied | None:
        """See `base.Core`."""
        batch = self._reader.batch(value)
        if batch is None:
            return self._step(self._in_steps(value, offset, replay=replay))
        applied = self._apply(batch, offset, replay=replay)
        self._buffer.end(batch.resource)
        return applied

    def add_more(self) -> Applied | None:
        """See `base.Core`."""
        return self._step(self._adding)

    def _step(self, adding: Iterator[Applied | None]) -> Applied | None:
        applied = next(adding)
        # a finished generator would still refer to this core, which has to be freed when it is discarded
        self._adding = iter(()) if applied else adding
        return applied

    def _in_steps(self, value: bytes, offset: int, *, replay: bool) -> Iterator[Applied | None]:
        found: list[Applied] = []
        resource = b""
        for batch in self._reader.pieces(value):
            if batch is None:
                yield None
                continue
            if found:
                yield None
            resource = batch.resource
            found.append(self._apply(batch, offset, replay=replay))
        self._buffer.end(resource)
        if len(found) == 1:
            yield found[0]
            return
        yield None
        yield _sum(found)

    def _apply(self, whole: ItemBatch, offset: int, *, replay: bool) -> Applied:
        """Apply a piece of a record."""
        batch = self._without_covered(whole, offset) if replay else whole
        spans, late = self._buffer.add(batch, offset)
        items = len(whole.heads)
        held = len(batch.heads)
        control, covered = held - spans - len(late), items - held
        if late or whole.bad or whole.unknown:
            found, resource = [_late(batch, index) for index in late], batch.resource if late else None
            return Applied(items, control, spans, covered, found, resource, whole.bad, whole.unknown)
        return Applied(items, control, spans, covered)

    def _without_covered(self, batch: ItemBatch, offset: int) -> ItemBatch:
        covers = self._decided.covers
        open_items = [
            index
            for index, head in enumerate(batch.heads)
            if head.trace_id is None or not covers(head.trace_id, offset)
        ]
        if len(open_items) == len(batch.heads):
            return batch
        return msgspec.structs.replace(
            batch,
            heads=[batch.heads[index] for index in open_items],
            raws=[batch.raws[index] for index in open_items],
            indexes=[batch.indexes[index] for index in open_items],
        )

    def over_limits(self) -> Iterable[ReadyTrace | None]:
        """See `base.Core`."""
        return chain.from_iterable(map(self._read, self._buffer.take_large())) if self._buffer.has_large else ()

    def heaviest(self, most_bytes: int) -> Iterator[ReadyTrace | None]:
        """See `base.Core`."""
        return chain.from_iterable(map(self._read, self._buffer.heaviest(most_bytes, TRACE_BYTES)))

    def low_watermark(self) -> tuple[int, int] | None:
        """See `base.Core`."""
        return self._buffer.low_watermark()

    def next_deadline_ms(self) -> int | None:
        """See `base.Core`."""
        return self._buffer.next_deadline_ms()

    def remember(self, trace_id: bytes, entry: bytes | None, decided_at_ms: int) -> None:
        """See `base.Core`."""
        self._decided.remember(trace_id, entry, decided_at_ms)

    def entry(self, trace_id: bytes) -> bytes | None:
        """See `base.Core`."""
        return self._decided.entry(trace_id)

    def was_forgotten(self, trace_id: bytes, now_ms: int) -> bool:
        """See `base.Core`."""
        return self._decided.was_forgotten(trace_id, now_ms)

    def load(
        self, trace_id: bytes, entry: bytes | None, decided_at_ms: int, first_offset: int, cut_offset: int
    ) -> None:
        """See `base.Core`."""
        self._decided.load(trace_id, entry, decided_at_ms, first_offset, cut_offset)

    def end_load(self) -> bool:
        """See `base.Core`."""
        return self._decided.end_load()


def _late(batch: ItemBatch, index: int) -> LateSpan:
    trace_id = batch.heads[index].trace_id
    assert trace_id is not None  # only spans are late
    return LateSpan(trace_id, batch.indexes[index], bytes(batch.raws[index]))


def _sum(found: Sequence[Applied]) -> Applied:
    """The pieces of a record as one."""
    late_resource = next((one.late_resource for one in found if one.late), None)
    return Applied(
        sum(one.items for one in found),
        sum(one.control for one in found),
        sum(one.spans for one in found),
        sum(one.covered for one in found),
        [late for one in found for late in one.late],
        late_resource,
        [bad for one in found for bad in one.bad],
        sum(one.unknown for one in found),
    )
