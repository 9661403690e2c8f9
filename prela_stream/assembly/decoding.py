"""Decodes the bytes of a trace that is ready to be decided, for the policies and for its summary."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from prela_stream.codec.bodies import check_bodies
from prela_stream.codec.byte_cache import ByteCache
from prela_stream.codec.decisions import DropFields
from prela_stream.codec.item_reader import ItemReader, ReadItem, are_plain
from prela_stream.codec.projection import projection
from prela_stream.codec.spans import BadItem, decode_head, decode_heads, decode_resource, kind_of
from prela_stream.errors import CodecError
from prela_stream.model import semconv
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.large_trace import large_trace
from prela_stream.model.span import SPAN_TYPE_CODES, ItemKind, Resource, SpanFields, SpanHead, SpanType
from prela_stream.model.structure import is_whole
from prela_stream.model.trace import Trace
from prela_stream.model.tree import free_tree

T = TypeVar("T")
_LLM = SPAN_TYPE_CODES[SpanType.LLM]
SUMMARY_KEYS = frozenset(
    spelling
    for key in (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.COST_USD)
    for spelling in semconv.read_keys(key)
)
"""Attribute keys that every summary needs."""
RUN_ITEMS, RUN_BYTES = 256, 256 << 10
"""So many items, of so many bytes, are checked or written in about a millisecond."""
LARGE = 512
"""A trace with more spans is decoded in steps."""
cached_resource = ByteCache(decode_resource, 8 << 20, factor=4)
"""The decoded resource of a process. Spans of one process have equal resource bytes."""


def decoded_resources(raws: Sequence[bytes]) -> list[Resource]:
    """The resource of each span. Most traces are from one process."""
    first = raws[0]
    if raws.count(first) == len(raws):
        return [cached_resource(first)] * len(raws)
    return [cached_resource(raw) for raw in raws]


def runs(items: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """The begin and the end of each part of these items that takes about a millisecond to check or to write."""
    count = len(items)
    if count <= RUN_ITEMS and sum(map(len, items)) <= RUN_BYTES:
        yield 0, count
        return
    start = size = 0
    for index, item in enumerate(items):
        size += len(item)
        if index + 1 - start >= RUN_ITEMS or size > RUN_BYTES:
            yield start, index + 1
            start, size = index + 1, 0
    if start < count:
        yield start, count


class DueTrace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A trace that has to be decided now, as bytes. `base.ReadyTrace` describes the fields."""

    trace_id: bytes
    trigger: Trigger
    complete: bool
    basis: Basis
    first_offset: int
    raws: Sequence[bytes]
    """Or views of their records."""
    resources: Sequence[bytes]
    heads: list[ReadItem] | None
    """The decoded `raws`, if they still are."""
    parents: tuple[int, ...] = ()
    """The index of the parent of each of `heads`; see `structure.parents_of`."""
    lost: bool
    open_spans: int
    due_ms: int
    spans: int


class DecodedTrace(msgspec.Struct, frozen=True, gc=False):
    """See `base.ReadyTrace`. `items` and `resources` belong to its readable spans, in the order of `trace.heads`."""

    trace_id: bytes
    basis: Basis
    first_offset: int
    due_ms: int
    spans: int
    open_spans: int
    lost: bool
    trace: Trace | None
    items: Sequence[bytes]
    """Or views of their records."""
    resources: Sequence[bytes]
    poison: Sequence[BadItem] = ()
    poison_spans: int = 0

    @property
    def raws(self) -> Sequence[bytes]:
        """See `base.ReadyTrace`."""
        return [bytes(item) for item in self.items]

    def dropped(self, fields: DropFields, cut: int, *, repeated: bool) -> bytes | None:  # noqa: ARG002 - the contract
        """See `base.ReadyTrace`: the caller encodes it."""
        return None

    def pieces(self) -> Iterable[tuple[Sequence[bytes], Sequence[bytes]]]:
        """See `base.ReadyTrace`."""
        items, resources = self.items, self.resources
        if len(items) <= RUN_ITEMS and sum(map(len, items)) <= RUN_BYTES:
            return [([bytes(item) for item in items], resources)]
        return (([bytes(item) for item in items[start:end]], resources[start:end]) for start, end in runs(items))

    def with_checked_bodies(self) -> Generator[int, None, "DecodedTrace"]:
        """See `base.ReadyTrace`."""
        trace = self.trace
        if trace is None:
            return self
        problems: dict[int, str] = {}
        for start, end in runs(self.items):
            if start:
                yield 0
            items = self.items[start:end]
            for index, head in enumerate(() if are_plain(items) else decode_heads(items), start):
                try:
                    check_bodies(head)
                except CodecError as error:
                    problems[index] = str(error)
        if not problems:
            return self
        good = [index for index in range(len(self.items)) if index not in problems]
        bad = [BadItem(index=-1, raw=bytes(self.items[index]), reason=reason) for index, reason in problems.items()]
        poison = [*self.poison, *bad]
        resources = [self.resources[index] for index in good]
        heads, attributes = [trace.heads[index] for index in good], [trace.attributes[index] for index in good]
        if len(good) > LARGE:
            rest: Trace | None = yield from zeros(_large_trace(trace, heads, attributes, resources))
        else:
            rest = _trace(trace, heads, attributes, resources)
        return msgspec.structs.replace(
            self,
            trace=rest,
            items=[self.items[index] for index in good],
            resources=resources,
            poison=poison,
            poison_spans=_spans_of(poison),
        )


def free(ready: DecodedTrace) -> Iterator[None]:
    """Free the memory of a large trace that is decided, which takes as long as to decode it. Yields as `read_in_steps`."""
    lists: list[Any] = [ready.items, ready.resources]
    if (trace := ready.trace) is not None:
        lists += [trace.heads, trace.attributes, trace.resources]
        yield from free_tree(trace.tree, LARGE)
    for one in lists:
        while one:
            del one[-LARGE:]
            yield


class TraceDecoder:
    """Decodes heads and the declared attributes only.

    Args:
        reads: Attribute keys that the policies declared.
    """

    def __init__(self, reads: Iterable[str]) -> None:
        reads = frozenset(reads)
        self._reader = ItemReader(reads | SUMMARY_KEYS)
        self._project = projection(reads | SUMMARY_KEYS)
        self._every_span = bool(reads)
        """Whether policies read attributes of any span. The summary reads those of LLM spans only."""

    def read(self, due: DueTrace) -> DecodedTrace:
        """Decode a trace for the policies. Unreadable spans are excluded and returned as `poison`."""
        raws, resources = due.raws, due.resources
        items = due.heads
        parents = due.parents if items is not None and is_whole(due.parents) else None
        try:
            items = self._reader.items(raws) if items is None else items
        except CodecError:
            heads, attributes, raws, resources, poison = self._one_by_one(raws, resources)
            trace = _trace(due, heads, attributes, resources)
            return _decoded(due, trace, raws, resources, poison, _spans_of(poison))
        attributes = [item.attributes for item in items]
        return _decoded(due, _trace(due, items, attributes, resources, parents), raws, resources)

    def read_in_steps(self, due: DueTrace) -> Generator[None, None, DecodedTrace]:
        """As `read`. Yields about once in a millisecond if the trace is large."""
        if len(due.raws) <= LARGE:
            return self.read(due)
        heads: list[SpanFields] = []
        attributes: list[dict[str, Any]] = []
        items: list[bytes] = []
        resources: list[bytes] = []
        poison: list[BadItem] = []
        for start, end in runs(due.raws):
            raws, theirs = due.raws[start:end], due.resources[start:end]
            try:
                some = self._reader.items(raws)
            except CodecError:
                others, more, raws, theirs, bad = self._one_by_one(raws, theirs)
                heads += others
                attributes += more
                poison += bad
            else:
                heads += some
                attributes += [item.attributes for item in some]
            items += raws
            resources += theirs
            yield
        trace = None
        if heads:
            trace = yield from _large_trace(due, heads, attributes, resources)
        return _decoded(due, trace, items, resources, poison, _spans_of(poison))

    def _one_by_one(
        self, raws: Sequence[bytes], resources: Sequence[bytes]
    ) -> tuple[list[SpanHead], list[dict[str, Any]], list[bytes], list[bytes], list[BadItem]]:
        heads: list[SpanHead] = []
        attributes: list[dict[str, Any]] = []
        good: list[bytes] = []
        their_resources: list[bytes] = []
        poison: list[BadItem] = []
        for raw, resource in zip(raws, resources, strict=True):
            try:
                head = decode_head(raw)
                found = self._project(head.attributes) if self._every_span or head.span_type == _LLM else {}
            except CodecError as error:
                poison.append(BadItem(index=-1, raw=bytes(raw), reason=str(error)))
                continue
            heads.append(head)
            attributes.append(found)
            good.append(raw)
            their_resources.append(resource)
        return heads, attributes, good, their_resources, poison


def body_problem(raw: bytes) -> str | None:
    """Why the body of an item is not completely readable; None if it is."""
    try:
        check_bodies(decode_head(raw))
    except CodecError as error:
        return str(error)
    return None


def _spans_of(poison: Sequence[BadItem]) -> int:
    return sum(kind_of(bad.raw) == ItemKind.SPAN for bad in poison)


def _decoded(
    due: DueTrace, trace: Trace | None, items: Sequence[bytes], resources: Sequence[bytes], *poison: Any
) -> DecodedTrace:
    return DecodedTrace(
        due.trace_id, due.basis, due.first_offset, due.due_ms, due.spans, due.open_spans, due.lost, trace, items,
        resources, *poison,
    )  # fmt: skip


def _trace(
    due: DueTrace | Trace,
    heads: Sequence[SpanFields],
    attributes: list[dict[str, Any]],
    resources: Sequence[bytes],
    parents: tuple[int, ...] | None = None,
) -> Trace | None:
    if not heads:
        return None
    return Trace(
        trace_id=due.trace_id,
        heads=heads,
        attributes=attributes,
        resources=decoded_resources(resources),
        trigger=due.trigger,
        complete=due.complete,
        parents=parents,
    )


def zeros(steps: Generator[None, None, T]) -> Generator[int, None, T]:
    """The same steps, which yield 0."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        yield 0


def _large_trace(
    due: DueTrace | Trace, heads: Sequence[SpanFields], attributes: list[dict[str, Any]], resources: Sequence[bytes]
) -> Generator[None, None, Trace]:
    decoded: list[Resource] = []
    for start in range(0, len(resources), RUN_ITEMS):
        decoded += decoded_resources(resources[start : start + RUN_ITEMS])
        yield
    return (
        yield from large_trace(
            trace_id=due.trace_id,
            heads=heads,
            attributes=attributes,
            resources=decoded,
            trigger=due.trigger,
            complete=due.complete,
        )
    )
