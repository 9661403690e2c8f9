"""Reads an undecided trace's bytes for the policies, and sums it up for its decision."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from prela_stream.assembly.buffer import ReadyTrace
from prela_stream.codec.spans import BadItem, decode_head, decode_heads, decode_resource, projection
from prela_stream.errors import CodecError
from prela_stream.model import semconv
from prela_stream.model.decision import TraceSummary
from prela_stream.model.span import SPAN_TYPE_CODES, Resource, SpanHead, SpanType
from prela_stream.model.trace import Trace

_LLM = SPAN_TYPE_CODES[SpanType.LLM]
_NAME_CHARACTERS = 200
"""Names in a decision are cut to this: it has to fit its Record whatever an agent calls its spans."""
SUMMARY_KEYS = frozenset(
    spelling
    for key in (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.COST_USD)
    for spelling in semconv.read_keys(key)
)
"""Attributes that every summary needs, whatever the policies read."""


class ReadTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace read from its bytes; `raws` and `resources` are those of its readable spans, in the order of its heads."""

    trace: Trace | None
    """None if no span could be read."""
    raws: Sequence[bytes]
    resources: Sequence[bytes]
    poison: Sequence[BadItem]


class TraceDecoder:
    """Decodes heads and just the declared attributes; remembers resources by their bytes, for they repeat.

    Args:
        reads: Attribute keys that the policies declared.
    """

    _MOST_RESOURCES = 10_000

    def __init__(self, reads: Iterable[str]) -> None:
        reads = frozenset(reads)
        self._project = projection(reads | SUMMARY_KEYS)
        self._every_span = bool(reads)
        """Policies may look at any span; the summary only at LLM spans."""
        self._resources: dict[bytes, Resource] = {}

    def read(self, undecided: ReadyTrace) -> ReadTrace:
        """The trace as policies see it. Spans whose bytes turn out to be unreadable are left out and returned as poison."""
        try:
            heads = decode_heads(undecided.raws)
            attributes = [self._attributes(head) for head in heads]
            raws: Sequence[bytes] = undecided.raws
            sources: Sequence[bytes] = undecided.resources
            poison: list[BadItem] = []
        except CodecError:
            heads, attributes, raws, sources, poison = self._read_one_by_one(undecided)
        if not heads:
            return ReadTrace(trace=None, raws=raws, resources=sources, poison=poison)
        trace = Trace(
            trace_id=undecided.trace_id,
            heads=heads,
            attributes=attributes,
            resources=[self._resource(source) for source in sources],
            trigger=undecided.trigger,
            complete=undecided.complete,
        )
        return ReadTrace(trace=trace, raws=raws, resources=sources, poison=poison)

    def _read_one_by_one(
        self, undecided: ReadyTrace
    ) -> tuple[list[SpanHead], list[dict[str, Any]], list[bytes], list[bytes], list[BadItem]]:
        heads: list[SpanHead] = []
        attributes: list[dict[str, Any]] = []
        raws: list[bytes] = []
        sources: list[bytes] = []
        poison: list[BadItem] = []
        for raw, source in zip(undecided.raws, undecided.resources, strict=True):
            try:
                head = decode_head(raw)
                found = self._attributes(head)
            except CodecError as error:
                poison.append(BadItem(index=-1, raw=raw, reason=str(error)))
                continue
            heads.append(head)
            attributes.append(found)
            raws.append(raw)
            sources.append(source)
        return heads, attributes, raws, sources, poison

    def _attributes(self, head: SpanHead) -> dict[str, Any]:
        return self._project(head.attributes) if self._every_span or head.span_type == _LLM else {}

    def _resource(self, raw: bytes) -> Resource:
        resource = self._resources.get(raw)
        if resource is None:
            try:
                resource = decode_resource(raw)
            except CodecError:
                resource = Resource()  # a foreign producer's resource may be anything; its spans count all the same
            if len(self._resources) >= self._MOST_RESOURCES:
                self._resources.clear()
            self._resources[raw] = resource
        return resource


def summarise(trace: Trace) -> TraceSummary:
    """What a decision says about its trace. Tokens and cost count each leaf LLM call once."""
    tree = trace.tree
    totals = tree.totals(trace.attributes)
    first = tree.foremost
    assert first is not None  # a trace has at least one span
    return TraceSummary(
        root_name=trace.heads[first].name[:_NAME_CHARACTERS],
        service=trace.resources[first].service_name[:_NAME_CHARACTERS],
        start_ns=trace.start_ns,
        duration_ns=trace.duration_ns,
        spans=len(trace.heads),
        errors=trace.errors,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cost_usd=totals.cost_usd,
        shape_hash=tree.shape_hash(),
    )
