"""The native core: the Rust extension `prela_stream_native` behind the contract of `base`.

The extension takes a record as it is, unless any of it is unusual. Such a record, and a trace with such an item, is read by the
Python decoder and handed over item by item. So only one decoder decides what is poison.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, Final

import msgspec

from prela_stream.assembly import decoding
from prela_stream.assembly.base import TRACE_BYTES, Applied, CoreError, LateSpan, ReadyTrace
from prela_stream.assembly.completeness import TRIGGERS
from prela_stream.assembly.decoding import (
    DecodedTrace,
    DueTrace,
    TraceDecoder,
    cached_resource,
    decoded_resources,
    zeros,
)
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.decisions import DropFields
from prela_stream.codec.spans import BadItem, decode_heads, decode_pieces
from prela_stream.model import semconv
from prela_stream.model.decision import Basis, TraceSummary, Trigger
from prela_stream.model.span import Resource, SpanHead
from prela_stream.model.trace import NAME_CHARACTERS, UNSAMPLED, Trace

INTERFACE: Final = 11
"""The version of the extension's interface. An extension with another one is not used."""
DECIDED_STEP = 1024
"""Remembered decisions that one call touches: less than a millisecond."""
STEP: Final = 1024
"""Spans that one step reads, folds, or returns the facts of: about a millisecond."""
_TRIGGERS: Final = (*TRIGGERS, Trigger.MAX_SPANS, Trigger.MAX_BYTES, Trigger.MEMORY)
_BASES: Final = tuple(Basis)
_attributes: Final = msgspec.msgpack.Decoder(list[dict[str, Any]])


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
        return self._partition.clock_ms  # type: ignore[no-any-return] # as below: the extension has no annotations

    @property
    def open_traces(self) -> int:
        """See `base.Core`."""
        return self._partition.open_traces  # type: ignore[no-any-return]

    @property
    def open_spans(self) -> int:
        """See `base.Core`."""
        return self._partition.open_spans + self._taken  # type: ignore[no-any-return] # the extension has no types

    @property
    def open_bytes(self) -> int:
        """See `base.Core`."""
        return self._partition.open_bytes  # type: ignore[no-any-return]

    @property
    def duplicates(self) -> int:
        """See `base.Core`."""
        return self._partition.duplicates  # type: ignore[no-any-return]

    @property
    def oldest_ms(self) -> int | None:
        """See `base.Core`."""
        return self._partition.oldest_ms()  # type: ignore[no-any-return]

    def restore_clock(self, clock_ms: int) -> None:
        """See `base.Core`."""
        self._partition.restore_clock(clock_ms)

    def due(self, now_ms: int) -> Iterator[ReadyTrace | None]:
        """See `base.Core`."""
        return self._pieces() if self._partition.advance(now_ms) else iter(())

    def _pieces(self) -> Iterator[ReadyTrace | None]:
        decoder, partition = self._decoder, self._partition
        before = partition.open_spans + partition.duplicates
        while (piece := partition.next_due()) is not None:
            self._taken += before - partition.open_spans - partition.duplicates
            for facts in piece:
                is_small = facts.plain and facts.items <= decoding.LARGE
                ready = NativeReadyTrace(facts, decoder) if is_small else (yield from _ready(facts, decoder))
                self._taken -= ready.spans
                yield ready
            before = partition.open_spans + partition.duplicates
            yield None

    def expire(self) -> Sequence[bytes] | None:
        """See `base.Core`."""
        return self._partition.expire(DECIDED_STEP)  # type: ignore[no-any-return]

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
        self._adding = (
            iter(()) if applied else adding
        )  # it refers to this core, which has to be freed when it is discarded
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

    def over_limits(self) -> Iterator[ReadyTrace | None]:
        """See `base.Core`."""
        return self._until_none(self._partition.next_over_limits) if self._partition.begin_over_limits() else iter(())

    def _until_none(self, take: Callable[[], Any]) -> Iterator[ReadyTrace | None]:
        decoder = self._decoder
        while (piece := take()) is not None:
            for facts in piece:
                yield (yield from _ready(facts, decoder))
            yield None

    def heaviest(self, most_bytes: int) -> Iterator[ReadyTrace | None]:
        """See `base.Core`."""
        self._partition.begin_heaviest(most_bytes, TRACE_BYTES)
        return self._until_none(self._partition.next_heaviest)

    def low_watermark(self) -> tuple[int, int] | None:
        """See `base.Core`."""
        return self._partition.low_watermark()  # type: ignore[no-any-return]

    def next_deadline_ms(self) -> int | None:
        """See `base.Core`."""
        return self._partition.next_deadline_ms()  # type: ignore[no-any-return]

    def remember(self, trace_id: bytes, entry: bytes | None, decided_at_ms: int) -> None:
        """See `base.Core`."""
        self._partition.remember(trace_id, entry, decided_at_ms)

    def entry(self, trace_id: bytes) -> bytes | None:
        """See `base.Core`."""
        return self._partition.entry(trace_id)  # type: ignore[no-any-return]

    def was_forgotten(self, trace_id: bytes, now_ms: int) -> bool:
        """See `base.Core`."""
        return self._partition.was_forgotten(trace_id, now_ms)  # type: ignore[no-any-return]

    def load(
        self, trace_id: bytes, entry: bytes | None, decided_at_ms: int, first_offset: int, cut_offset: int
    ) -> None:
        """See `base.Core`."""
        self._partition.load(trace_id, entry, decided_at_ms, first_offset, cut_offset)

    def end_load(self) -> bool:
        """See `base.Core`."""
        return self._partition.end_load(DECIDED_STEP)  # type: ignore[no-any-return]


def _described(resource: bytes) -> tuple[bool, str]:
    found = cached_resource(resource)
    return found.heartbeat_ms > 0, found.service_name[:NAME_CHARACTERS]


def _applied(found: Any) -> Applied:
    items, control, spans, covered, late, resource = found
    if late:
        late = [LateSpan(*one) for one in late]
    return Applied(items, control, spans, covered, late, resource)


def _ready(facts: Any, decoder: TraceDecoder) -> Generator[None, None, ReadyTrace]:
    if not facts.plain:
        return (yield from _decoded(facts, decoder))
    ready = NativeReadyTrace(facts, decoder)
    if facts.items > decoding.LARGE:
        yield from ready.trace.decode_in_steps()
    return ready


def _decoded(facts: Any, decoder: TraceDecoder) -> Generator[None, None, DecodedTrace]:
    """The trace as the Python decoder reads it. Yields about once in a millisecond."""
    raws: list[bytes] = []
    resources: list[bytes] = []
    for some, theirs in _pieces(facts):
        raws += some
        resources += theirs
        yield
    due = DueTrace(
        trace_id=facts.trace_id,
        trigger=_TRIGGERS[facts.trigger],
        complete=facts.complete,
        basis=_BASES[facts.basis],
        raws=raws,
        resources=resources,
        heads=None,
        first_offset=facts.first_offset,
        due_ms=facts.due_ms,
        spans=facts.spans,
        open_spans=facts.open_spans,
        lost=facts.lost,
    )
    return (yield from decoder.read_in_steps(due))


def _pieces(facts: Any) -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
    taken = 0
    while taken < facts.items:
        raws, resources = facts.piece(taken, STEP)
        taken += len(raws)
        yield raws, resources


def _cost(facts: Any) -> float | None:
    costs = facts.costs
    return None if costs is None else sum(sorted(costs), 0.0)


class NativeReadyTrace:
    """See `base.ReadyTrace`. All of its items are readable."""

    __slots__ = ("_decoder", "_facts", "basis", "due_ms", "first_offset", "spans", "trace", "trace_id")

    poison: Sequence[BadItem] = ()
    poison_spans = 0

    def __init__(self, facts: Any, decoder: TraceDecoder) -> None:
        known = facts.facts()
        self._facts = facts
        self._decoder = decoder
        self.trace: NativeTrace = NativeTrace(facts, known)
        self.trace_id: bytes = known[0]
        self.basis = _BASES[known[3]]
        self.first_offset: int = known[4]
        self.due_ms: int = known[5]
        self.spans: int = known[6]

    @property
    def open_spans(self) -> int:
        """See `base.ReadyTrace`."""
        return self._facts.open_spans  # type: ignore[no-any-return]

    @property
    def lost(self) -> bool:
        """See `base.ReadyTrace`."""
        return self._facts.lost  # type: ignore[no-any-return]

    @property
    def raws(self) -> Sequence[bytes]:
        """See `base.ReadyTrace`."""
        return self._facts.raws()  # type: ignore[no-any-return]

    @property
    def resources(self) -> Sequence[bytes]:
        """See `base.ReadyTrace`."""
        return self._facts.resources()  # type: ignore[no-any-return]

    def dropped(self, fields: DropFields, cut: int, *, repeated: bool) -> bytes | None:
        """See `base.ReadyTrace`."""
        facts: Any = self._facts
        return facts.dropped(  # type: ignore[no-any-return] # the extension has no types
            fields.source, fields.verdict, fields.version, cut, _cost(facts), fields.weight_biased, repeated,
            self.trace.trigger, self.basis,
        )  # fmt: skip

    def pieces(self) -> Iterable[tuple[Sequence[bytes], Sequence[bytes]]]:
        """See `base.ReadyTrace`."""
        return _pieces(self._facts)

    def with_checked_bodies(self) -> Generator[int, None, ReadyTrace]:
        """See `base.ReadyTrace`."""
        facts: Any = self._facts
        checked = facts.check_bodies(0, STEP)
        while checked is not None:
            if checked == facts.items:
                return self
            yield 0
            checked = facts.check_bodies(checked, STEP)
        decoded = yield from zeros(_decoded(facts, self._decoder))
        return (yield from decoded.with_checked_bodies())


class NativeTrace(Trace):
    """A trace whose facts come from the extension. What a policy reads beyond them is decoded when it is read.

    Args:
        source: The trace in the extension.
        known: Its facts.
    """

    _tree = None

    def __init__(self, source: Any, known: tuple[Any, ...]) -> None:
        self._source = source
        self._read: dict[str, list[Any]] | None = None
        (
            self.trace_id, trigger, self.complete, _, _, _, _, self.statuses, self.start_ns, self.duration_ns,
            self.randomness, thresholds, self.errors,
        ) = known  # fmt: skip
        self.trigger = _TRIGGERS[trigger]
        self.head_thresholds = UNSAMPLED if thresholds is None else frozenset(thresholds)

    @property
    def heads(self) -> list[SpanHead]:
        """See `Trace`."""
        return self._once("heads", lambda: decode_heads(self._source.raws()))

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """See `Trace`."""
        return self._once("attributes", self._select)

    @property
    def resources(self) -> list[Resource]:
        """See `Trace`."""
        return self._once("resources", lambda: decoded_resources(self._source.resources()))

    def _select(self) -> list[dict[str, Any]]:
        selected = self._source.selected
        if len(selected) == 1:
            return _attributes.decode(selected[0])
        return [own for piece in selected for own in _attributes.decode(piece)] or [{} for _ in self.statuses]

    def decode_in_steps(self) -> Iterator[None]:
        """Decode the attributes of a large trace before a policy reads them. Yields about once in a millisecond."""
        found: list[dict[str, Any]] = []
        for piece in self._source.selected:
            found += _attributes.decode(piece)
            yield
        if found:
            self._read = {"attributes": found}

    def _once(self, name: str, read: Callable[[], list[Any]]) -> list[Any]:
        known = self._read
        if known is None:
            known = self._read = {}
        found = known.get(name)
        if found is None:
            found = known[name] = read()
        return found

    def summary(self, decided_at_ms: int) -> TraceSummary:
        """See `Trace`."""
        name, service, spans, tokens_in, tokens_out, shape_hash, outside_parent = self._source.summary()
        return TraceSummary(
            root_name=name[:NAME_CHARACTERS],
            service=service,
            start_ns=self.start_ns or max(0, decided_at_ms * 1_000_000 - self.duration_ns),
            duration_ns=self.duration_ns,
            spans=spans,
            errors=self.errors,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cost_usd=_cost(self._source),
            shape_hash=shape_hash,
            outside_parent=outside_parent,
        )
