"""Decodes the bytes of a trace that is ready to be decided, for the policies and for its summary."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from prela_stream.codec.bodies import check_bodies
from prela_stream.codec.byte_cache import ByteCache
from prela_stream.codec.spans import BadItem, decode_head, decode_heads, decode_resource, kind_of, projection
from prela_stream.errors import CodecError
from prela_stream.model import semconv
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import SPAN_TYPE_CODES, ItemKind, SpanHead, SpanType
from prela_stream.model.trace import Trace

_LLM = SPAN_TYPE_CODES[SpanType.LLM]
SUMMARY_KEYS = frozenset(
    spelling
    for key in (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.COST_USD)
    for spelling in semconv.read_keys(key)
)
"""Attribute keys that every summary needs."""
cached_resource = ByteCache(decode_resource, 8 << 20, factor=4)
"""The decoded resource of a process. Spans of one process have equal resource bytes."""


class DecodedTrace(msgspec.Struct, frozen=True, kw_only=True):
    """See `base.ReadyTrace`. `raws` and `resources` belong to its readable spans, in the order of `trace.heads`."""

    trace: Trace | None
    trace_id: bytes
    basis: Basis
    first_offset: int
    due_ms: int
    spans: int
    open_spans: int
    lost: bool
    raws: Sequence[bytes]
    resources: Sequence[bytes]
    poison: Sequence[BadItem] = ()
    poison_spans: int = 0

    def with_checked_bodies(self) -> "DecodedTrace":
        """See `base.ReadyTrace`."""
        trace = self.trace
        if trace is None:
            return self
        problems: dict[int, str] = {}
        for index, head in enumerate(trace.heads):
            try:
                check_bodies(head)
            except CodecError as error:
                problems[index] = str(error)
        if not problems:
            return self
        good = [index for index in range(len(self.raws)) if index not in problems]
        bad = [BadItem(index=-1, raw=self.raws[index], reason=reason) for index, reason in problems.items()]
        poison = [*self.poison, *bad]
        resources = [self.resources[index] for index in good]
        return msgspec.structs.replace(
            self,
            trace=_trace(
                self.trace_id,
                trace.trigger,
                [trace.heads[index] for index in good],
                [trace.attributes[index] for index in good],
                resources,
                complete=trace.complete,
            ),
            raws=[self.raws[index] for index in good],
            resources=resources,
            poison=poison,
            poison_spans=_spans_of(poison),
        )


class TraceDecoder:
    """Decodes heads and the declared attributes only.

    Args:
        reads: Attribute keys that the policies declared.
    """

    def __init__(self, reads: Iterable[str]) -> None:
        reads = frozenset(reads)
        self._project = projection(reads | SUMMARY_KEYS)
        self._every_span = bool(reads)
        """Whether policies read attributes of any span. The summary reads those of LLM spans only."""

    def read(
        self,
        *,
        trace_id: bytes,
        trigger: Trigger,
        complete: bool,
        basis: Basis,
        raws: Sequence[bytes],
        resources: Sequence[bytes],
        first_offset: int,
        due_ms: int,
        spans: int,
        open_spans: int,
        lost: bool,
    ) -> DecodedTrace:
        """Decode a trace for the policies. Unreadable spans are excluded and returned as `poison`."""
        poison: list[BadItem] = []
        try:
            heads = decode_heads(raws)
            attributes = [self._attributes(head) for head in heads]
        except CodecError:
            heads, attributes, raws, resources, poison = self._one_by_one(raws, resources)
        return DecodedTrace(
            trace=_trace(trace_id, trigger, heads, attributes, resources, complete=complete),
            trace_id=trace_id,
            basis=basis,
            first_offset=first_offset,
            due_ms=due_ms,
            spans=spans,
            open_spans=open_spans,
            lost=lost,
            raws=raws,
            resources=resources,
            poison=poison,
            poison_spans=_spans_of(poison),
        )

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
                found = self._attributes(head)
            except CodecError as error:
                poison.append(BadItem(index=-1, raw=raw, reason=str(error)))
                continue
            heads.append(head)
            attributes.append(found)
            good.append(raw)
            their_resources.append(resource)
        return heads, attributes, good, their_resources, poison

    def _attributes(self, head: SpanHead) -> dict[str, Any]:
        return self._project(head.attributes) if self._every_span or head.span_type == _LLM else {}


def body_problem(raw: bytes) -> str | None:
    """Why the body of an item is not completely readable; None if it is."""
    try:
        check_bodies(decode_head(raw))
    except CodecError as error:
        return str(error)
    return None


def _spans_of(poison: Sequence[BadItem]) -> int:
    return sum(kind_of(bad.raw) == ItemKind.SPAN for bad in poison)


def _trace(
    trace_id: bytes,
    trigger: Trigger,
    heads: list[SpanHead],
    attributes: list[dict[str, Any]],
    resources: Sequence[bytes],
    *,
    complete: bool,
) -> Trace | None:
    if not heads:
        return None
    return Trace(
        trace_id=trace_id,
        heads=heads,
        attributes=attributes,
        resources=[cached_resource(resource) for resource in resources],
        trigger=trigger,
        complete=complete,
    )
