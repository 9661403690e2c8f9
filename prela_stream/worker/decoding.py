"""Decodes the bytes of a trace for the policies, and summarises it for its decision."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from prela_stream.assembly.buffer import ReadyTrace
from prela_stream.codec.bodies import check_bodies
from prela_stream.codec.spans import BadItem, decode_head, decode_heads, decode_resource, kind_of, projection
from prela_stream.errors import CodecError
from prela_stream.model import semconv
from prela_stream.model.decision import TraceSummary
from prela_stream.model.span import SPAN_TYPE_CODES, ItemKind, SpanHead, SpanType
from prela_stream.model.trace import Trace
from prela_stream.worker.byte_cache import ByteCache

_LLM = SPAN_TYPE_CODES[SpanType.LLM]
_NAME_CHARACTERS = 200
"""Names in a decision are cut to this length, so that a decision fits into its record."""
SUMMARY_KEYS = frozenset(
    spelling
    for key in (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.COST_USD)
    for spelling in semconv.read_keys(key)
)
"""Attribute keys that every summary needs."""


class ReadTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded trace. `raws` and `resources` belong to its readable spans, in the order of `trace.heads`."""

    trace: Trace | None
    """None if no span is readable."""
    raws: Sequence[bytes]
    resources: Sequence[bytes]
    poison: list[BadItem]
    """The unreadable items."""
    poison_spans: int = 0
    """Number of SPAN items in `poison`; the others are STARTs, which are counted as control items."""


def body_problem(raw: bytes) -> str | None:
    """Why the body of an item is not completely readable; None if it is."""
    try:
        check_bodies(decode_head(raw))
    except CodecError as error:
        return str(error)
    return None


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

    def read(self, ready: ReadyTrace) -> ReadTrace:
        """Decode a trace for the policies. Unreadable spans are excluded and returned as `poison`."""
        try:
            heads = decode_heads(ready.raws)
            attributes = [self._attributes(head) for head in heads]
        except CodecError:
            return self._read_one_by_one(ready)
        return _read_trace(ready, heads, attributes, ready.raws, ready.resources, [])

    def check_bodies(self, ready: ReadyTrace, read: ReadTrace) -> ReadTrace:
        """The same trace without the spans whose bodies are not completely readable. They are added to `poison`.

        The policies need some attributes only. A kept trace is written with all of them, so they have to be checked first.
        """
        assert read.trace is not None
        problems: dict[int, str] = {}
        for index, head in enumerate(read.trace.heads):
            try:
                check_bodies(head)
            except CodecError as error:
                problems[index] = str(error)
        if not problems:
            return read
        good = [index for index in range(len(read.raws)) if index not in problems]
        trace, raws = read.trace, read.raws
        bad = [BadItem(index=-1, raw=raws[index], reason=reason) for index, reason in problems.items()]
        return _read_trace(
            ready,
            [trace.heads[index] for index in good],
            [trace.attributes[index] for index in good],
            [raws[index] for index in good],
            [read.resources[index] for index in good],
            [*read.poison, *bad],
        )

    def _read_one_by_one(self, ready: ReadyTrace) -> ReadTrace:
        heads: list[SpanHead] = []
        attributes: list[dict[str, Any]] = []
        raws: list[bytes] = []
        resources: list[bytes] = []
        poison: list[BadItem] = []
        for raw, resource in zip(ready.raws, ready.resources, strict=True):
            try:
                head = decode_head(raw)
                found = self._attributes(head)
            except CodecError as error:
                poison.append(BadItem(index=-1, raw=raw, reason=str(error)))
                continue
            heads.append(head)
            attributes.append(found)
            raws.append(raw)
            resources.append(resource)
        return _read_trace(ready, heads, attributes, raws, resources, poison)

    def _attributes(self, head: SpanHead) -> dict[str, Any]:
        return self._project(head.attributes) if self._every_span or head.span_type == _LLM else {}


def _read_trace(
    ready: ReadyTrace,
    heads: list[SpanHead],
    attributes: list[dict[str, Any]],
    raws: Sequence[bytes],
    resources: Sequence[bytes],
    poison: list[BadItem],
) -> ReadTrace:
    spans = sum(kind_of(bad.raw) == ItemKind.SPAN for bad in poison)
    if not heads:
        return ReadTrace(trace=None, raws=raws, resources=resources, poison=poison, poison_spans=spans)
    trace = Trace(
        trace_id=ready.trace_id,
        heads=heads,
        attributes=attributes,
        resources=[_resource(resource) for resource in resources],
        trigger=ready.trigger,
        complete=ready.complete,
    )
    return ReadTrace(trace=trace, raws=raws, resources=resources, poison=poison, poison_spans=spans)


_resource = ByteCache(decode_resource, 8 << 20, factor=4)
"""The decoded resource of a process. Spans of one process have equal resource bytes."""


def summarize(trace: Trace, decided_at_ms: int) -> TraceSummary:
    """The summary of a trace for its decision. Tokens and cost count each leaf LLM call once."""
    tree = trace.tree
    totals = tree.totals(trace.attributes)
    first = tree.foremost
    assert first is not None  # a trace has at least one span
    return TraceSummary(
        root_name=trace.heads[first].name[:_NAME_CHARACTERS],
        service=trace.resources[first].service_name[:_NAME_CHARACTERS],
        start_ns=trace.start_ns or max(0, decided_at_ms * 1_000_000 - trace.duration_ns),
        duration_ns=trace.duration_ns,
        spans=len(trace.heads),
        errors=trace.errors,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cost_usd=totals.cost_usd,
        shape_hash=tree.shape_hash(),
        outside_parent=len(tree.outside_parent),
    )
