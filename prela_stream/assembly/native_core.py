"""The native core: the Rust extension `prela_stream_native` behind the contract of `base`.

The extension takes a record as it is, unless any of it is unusual. Such a record, and a trace with such an item, is read by the
Python decoder and handed over item by item. So only one decoder decides what is poison.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, Final

import msgspec

from prela_stream.assembly import decoding
from prela_stream.assembly.base import TRACE_BYTES, Applied, CoreError, LateSpan, ReadyTrace
from prela_stream.assembly.decoding import TraceDecoder, cached_resource
from prela_stream.assembly.native_trace import NativeReadyTrace, ready_trace
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import BadItem, decode_pieces
from prela_stream.model import semconv
from prela_stream.model.trace import NAME_CHARACTERS

INTERFACE: Final = 11
"""The version of the extension's interface. An extension with another one is not used."""
DECIDED_STEP = 1024
"""Remembered decisions that one call touches: less than a millisecond."""
STEP: Final = 1024
"""Spans that one step reads, folds, or returns the facts of: about a millisecond."""


class NativeCore:
    """See `base.Core`.

    Args:
        native: The extension.
        options: Waits and limits.
        reads: Attribute keys that the policies declared.
        max_item_bytes: Most bytes of an item and its resource together.
    """

    name: Final = "native"

    def __init__(self, native: ModuleType, options: AssemblyOptions, reads: Sequence[str], max_item_bytes: int) -> None:
        self._max_item_bytes = max_item_bytes
        self._decoder = TraceDecoder(reads)
        self._taken = 0
        """Spans of due traces that the extension no longer holds, and the caller does not have yet."""
        self._adding: Iterator[Applied | None] = iter(())
        self._partition = native.Partition(
            msgspec.structs.asdict(options),
            _described,
            CoreError,
            reads=list(reads),
            max_item_bytes=max_item_bytes,
            input_tokens=list(semconv.read_keys(semconv.INPUT_TOKENS)),
            output_tokens=list(semconv.read_keys(semconv.OUTPUT_TOKENS)),
            cost=list(semconv.read_keys(semconv.COST_USD)),
            step=STEP,
        )

    @property
    def clock_ms(self) -> int:
        """See `base.Core`."""
        return self._partition.clock_ms  # type: ignore[no-any-return] # the extension has no types

    @property
    def open_traces(self) -> int:
        """See `base.Core`."""
        return self._partition.open_traces  # type: ignore[no-any-return] # the extension has no types

    @property
    def open_spans(self) -> int:
        """See `base.Core`."""
        return self._partition.open_spans + self._taken  # type: ignore[no-any-return] # the extension has no types

    @property
    def open_bytes(self) -> int:
        """See `base.Core`."""
        return self._partition.open_bytes  # type: ignore[no-any-return] # the extension has no types

    @property
    def duplicates(self) -> int:
        """See `base.Core`."""
        return self._partition.duplicates  # type: ignore[no-any-return] # the extension has no types

    @property
    def oldest_ms(self) -> int | None:
        """See `base.Core`."""
        return self._partition.oldest_ms()  # type: ignore[no-any-return] # the extension has no types

    def restore_clock(self, clock_ms: int) -> None:
        """See `base.Core`."""
        self._partition.restore_clock(clock_ms)

    def due(self, now_ms: int) -> Iterable[ReadyTrace | None]:
        """See `base.Core`."""
        return self._pieces() if self._partition.advance(now_ms) else ()

    def _pieces(self) -> Iterator[ReadyTrace | None]:
        decoder, partition = self._decoder, self._partition
        before = partition.open_spans + partition.duplicates
        while (piece := partition.next_due()) is not None:
            self._taken += before - partition.open_spans - partition.duplicates
            for facts in piece:
                if facts.plain and facts.items <= decoding.LARGE:
                    ready = NativeReadyTrace(facts, decoder)
                    self._taken -= ready.spans
                    yield ready
                    continue
                for other in ready_trace(facts, decoder):
                    if other is not None:
                        self._taken -= other.spans
                    yield other
            before = partition.open_spans + partition.duplicates
            yield None

    def expire(self) -> Sequence[bytes] | None:
        """See `base.Core`."""
        return self._partition.expire(DECIDED_STEP)  # type: ignore[no-any-return] # the extension has no types

    def add(self, value: bytes, offset: int, *, replay: bool = False) -> Applied | None:
        """See `base.Core`."""
        found = self._partition.add(value, offset, replay=replay)
        if found:
            return _applied(found)
        return self._step(self._in_steps(found, value, offset, replay=replay))

    def add_more(self) -> Applied | None:
        """See `base.Core`."""
        return self._step(self._adding)

    def _step(self, adding: Iterator[Applied | None]) -> Applied | None:
        applied = next(adding)
        # a finished generator would still refer to this core, which has to be freed when it is discarded
        self._adding = iter(()) if applied else adding
        return applied

    def _in_steps(self, found: Any, value: bytes, offset: int, *, replay: bool) -> Iterator[Applied | None]:
        while found is not None:
            yield None
            if found := self._partition.add_more():
                yield _applied(found)
        partition = self._partition
        bad: list[BadItem] = []
        unknown = pieces = 0
        for batch in decode_pieces(value, self._max_item_bytes):
            if batch is None:
                yield None
                continue
            if pieces:
                yield None
            else:
                partition.begin_items(batch.resource, offset, replay=replay)
            pieces += 1
            partition.add_items(list(zip(batch.indexes, batch.raws, strict=True)))
            bad += batch.bad
            unknown += batch.unknown
        if pieces > 1:
            yield None
        yield _applied(partition.end_items())._replace(bad=bad, unknown=unknown)

    def over_limits(self) -> Iterable[ReadyTrace | None]:
        """See `base.Core`."""
        return self._until_none(self._partition.next_over_limits) if self._partition.begin_over_limits() else ()

    def _until_none(self, take: Callable[[], Any]) -> Iterator[ReadyTrace | None]:
        decoder = self._decoder
        while (piece := take()) is not None:
            for facts in piece:
                yield from ready_trace(facts, decoder)
            yield None

    def heaviest(self, most_bytes: int) -> Iterator[ReadyTrace | None]:
        """See `base.Core`."""
        self._partition.begin_heaviest(most_bytes, TRACE_BYTES)
        return self._until_none(self._partition.next_heaviest)

    def low_watermark(self) -> tuple[int, int] | None:
        """See `base.Core`."""
        return self._partition.low_watermark()  # type: ignore[no-any-return] # the extension has no types

    def next_deadline_ms(self) -> int | None:
        """See `base.Core`."""
        return self._partition.next_deadline_ms()  # type: ignore[no-any-return] # the extension has no types

    def remember(self, trace_id: bytes, entry: bytes | None, decided_at_ms: int) -> None:
        """See `base.Core`."""
        self._partition.remember(trace_id, entry, decided_at_ms)

    def entry(self, trace_id: bytes) -> bytes | None:
        """See `base.Core`."""
        return self._partition.entry(trace_id)  # type: ignore[no-any-return] # the extension has no types

    def was_forgotten(self, trace_id: bytes, now_ms: int) -> bool:
        """See `base.Core`."""
        return self._partition.was_forgotten(trace_id, now_ms)  # type: ignore[no-any-return] # the extension has no types

    def load(
        self, trace_id: bytes, entry: bytes | None, decided_at_ms: int, first_offset: int, cut_offset: int
    ) -> None:
        """See `base.Core`."""
        self._partition.load(trace_id, entry, decided_at_ms, first_offset, cut_offset)

    def end_load(self) -> bool:
        """See `base.Core`."""
        return self._partition.end_load(DECIDED_STEP)  # type: ignore[no-any-return] # the extension has no types


def _described(resource: bytes) -> tuple[bool, str]:
    found = cached_resource(resource)
    return found.heartbeat_ms > 0, found.service_name[:NAME_CHARACTERS]


def _applied(found: Any) -> Applied:
    items, control, spans, covered, late, resource = found
    if late:
        late = [LateSpan(*one) for one in late]
    return Applied(items, control, spans, covered, late, resource)
