"""A trace of the native core: its facts come from the extension. What a policy reads beyond them is decoded when it is read."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from prela_stream.assembly import decoding
from prela_stream.assembly.base import ReadyTrace
from prela_stream.assembly.completeness import TRIGGERS
from prela_stream.assembly.decoding import (
    DecodedTrace,
    DueTrace,
    TraceDecoder,
    decoded_resources,
    zeros,
)
from prela_stream.codec.decisions import DropFields
from prela_stream.codec.spans import BadItem, decode_head, decode_heads
from prela_stream.model.decision import Basis, TraceSummary, Trigger
from prela_stream.model.span import Resource, SpanHead
from prela_stream.model.trace import NAME_CHARACTERS, UNSAMPLED, Trace

STEP = 1024
"""Items that one step checks, or takes out of the extension: about a millisecond."""
_TRIGGERS: Final = (*TRIGGERS, Trigger.MAX_SPANS, Trigger.MAX_BYTES, Trigger.MEMORY)
_BASES: Final = tuple(Basis)
_attributes: Final = msgspec.msgpack.Decoder(list[dict[str, Any]])


def ready_trace(facts: Any, decoder: TraceDecoder) -> Iterator[ReadyTrace | None]:
    """The trace of these facts. Before it None about once in a millisecond if it is large or unusual; see `base.ReadyTrace`."""
    is_large = facts.items > decoding.LARGE
    if not facts.plain:
        decoded = yield from _decoded(facts, decoder)
        yield decoded
        if is_large:
            yield None
            yield from decoding.free(decoded)
        return
    ready = NativeReadyTrace(facts, decoder)
    if is_large:
        yield from ready.trace.decode_in_steps()
    yield ready
    if is_large:
        yield None
        yield from ready.trace.free()


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
        return self._facts.open_spans  # type: ignore[no-any-return] # the extension has no types

    @property
    def lost(self) -> bool:
        """See `base.ReadyTrace`."""
        return self._facts.lost  # type: ignore[no-any-return] # the extension has no types

    @property
    def raws(self) -> Sequence[bytes]:
        """See `base.ReadyTrace`."""
        return self._facts.raws()  # type: ignore[no-any-return] # the extension has no types

    @property
    def resources(self) -> Sequence[bytes]:
        """See `base.ReadyTrace`."""
        return self._facts.resources()  # type: ignore[no-any-return] # the extension has no types

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

    def name_of(self, index: int) -> str:
        """See `Trace`."""
        if self._read is not None and "heads" in self._read:
            return self.heads[index].name
        return decode_head(self._source.piece(index, 1)[0][0]).name

    def read_heads(self) -> Iterator[None]:
        """See `Trace`."""
        return self._in_steps("heads", lambda raws, _: decode_heads(raws))

    def read_resources(self) -> Iterator[None]:
        """See `Trace`."""
        return self._in_steps("resources", lambda _, resources: decoded_resources(resources))

    def _in_steps(self, name: str, decode: Callable[[Sequence[bytes], Sequence[bytes]], list[Any]]) -> Iterator[None]:
        if self._read is not None and name in self._read:
            return
        found: list[Any] = []
        for raws, resources in _pieces(self._source):
            found += decode(raws, resources)
            yield
        self._once(name, lambda: found)

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
            self._once("attributes", lambda: found)

    def free(self) -> Iterator[None]:
        """Free what was decoded of a large trace that is decided. Yields about once in a millisecond."""
        for one in (self._read or {}).values():
            while one:
                del one[-decoding.LARGE :]
                yield

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
