"""The records that docs/wire.md explains byte by byte, as types of this package."""

import msgspec

from prela_stream.codec.decisions import encode_decisions
from prela_stream.codec.dlq import DeadLetter, encode_dead_letter
from prela_stream.codec.sampled import KeptFragment, encode_kept
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.model.decision import Basis, Decision, TraceSummary, Trigger, decision_id_of, threshold_of, weight_of
from prela_stream.model.ids import partition_of
from prela_stream.model.span import (
    REMOTE_PARENT,
    ItemKind,
    Resource,
    SpanData,
    SpanEvent,
    SpanStatus,
    SpanType,
)
from prela_stream.model.tree import SpanTree
from tests.support.items import encode_span

START_NS = 1_700_000_000_000_000_000
RESOURCE = Resource(service_name="shop")
SPAN = SpanData(
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    name="chat",
    span_type=SpanType.LLM,
    status=SpanStatus.SUCCESS,
    start_ns=START_NS,
    duration_ns=1_000_000_000,
    child_count=0,
    inject_count=0,
    attributes={"gen_ai.request.model": "m"},
    events=[SpanEvent("first token", START_NS + 200_000_000, {"n": 1})],
)
TRACE_ID = bytes.fromhex(SPAN.trace_id)
SPAN_ID = bytes.fromhex(SPAN.span_id)
OTHER = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
PARTITIONS = 8
PARTITION = partition_of(TRACE_ID, PARTITIONS)


def _decision(trace_id: bytes, probability: float, summary: TraceSummary, *, kept: bool, offset: int) -> Decision:
    threshold = threshold_of(probability)
    return Decision(
        trace_id=trace_id,
        decision_id=decision_id_of("prela.spans", partition_of(trace_id, PARTITIONS), trace_id, offset),
        kept=kept,
        probability=probability,
        threshold=threshold,
        weight=weight_of(threshold) if kept else 0.0,
        policy="rest",
        reason=f"{probability:.1%} of all",
        trigger=Trigger.COMPLETE,
        complete=True,
        first_offset=offset,
        cut_offset=offset + 1,
        decided_at_ms=START_NS // 1_000_000 + 1_500,
        policy_version="4f1c",
        summary=summary,
        basis=Basis.COUNTS,
    )


KEPT = _decision(
    TRACE_ID,
    0.75,
    TraceSummary(
        root_name="chat",
        service="shop",
        start_ns=START_NS,
        duration_ns=1_000_000_000,
        spans=1,
        shape_hash=SpanTree([SPAN]).shape_hash(),
    ),
    kept=True,
    offset=41,
)
DROPPED = _decision(
    OTHER, 0.125, TraceSummary(root_name="plan", service="shop", spans=12, errors=1), kept=False, offset=7
)


def _control(kind: ItemKind, *more: object) -> bytes:
    ids = (TRACE_ID, SPAN_ID, OTHER[:8])
    return encode_item(kind, *ids, REMOTE_PARENT, 0, 0, None, None, 1, 0, START_NS, None, "plan", None, None, *more)


def _batch(*items: bytes) -> bytes:
    return encode_batch(encode_resource(RESOURCE), items)


RECORDS: dict[str, bytes] = {
    "A record of spans": _batch(encode_span(SPAN)),
    "Items that are no spans": _batch(
        _control(ItemKind.START),
        _control(ItemKind.HEARTBEAT),
        _control(ItemKind.SUSPEND, {"prela.suspend.reason": "approval"}, [], [], None),
        _control(ItemKind.RESUME),
        encode_item(ItemKind.LOST, TRACE_ID),
        encode_item(ItemKind.TICK),
    ),
    "A record of sampled": encode_kept(
        KeptFragment(
            decision=KEPT,
            resources=[msgspec.Raw(encode_resource(RESOURCE))],
            items=[(0, msgspec.Raw(encode_span(SPAN)))],
        )
    ),
    "A record of decisions": encode_decisions([DROPPED]),
    "A record of dlq": encode_dead_letter(
        DeadLetter(
            topic="prela.spans",
            partition=4,
            offset=17,
            index=1,
            reason="an item of kind 0 needs a trace id of 16 bytes at index 1, got nil",
            raw=b"\x93\x00\xc0\xc0",
            places=[(1, 1)],
        )
    ),
}
"""By the heading of the page."""
