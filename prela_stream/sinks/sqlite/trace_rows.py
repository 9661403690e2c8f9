"""From kept traces to the rows of the store: which report of a span is stored, and the columns of its trace. Pure.

All of it is a function of the set of spans and decisions, and not of their order: late spans and repeated traces give the same
rows in any order.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from prela_stream.model.decision import Decision
from prela_stream.model.span import ERROR, PENDING, SpanData
from prela_stream.sinks.kept_trace import KeptTrace, SpanItem
from prela_stream.sinks.span_items import rank_of
from prela_stream.sinks.sqlite.search import texts_of

_INT64: Final = (1 << 63) - 1


class SpanRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of `spans`."""

    span_id: bytes
    parent_id: bytes | None
    rank: int
    """Of two reports of one span the one with the higher rank is stored."""
    name: str
    span_type: int
    status: int
    start_ns: int
    end_ns: int
    """The start, for a span that has not ended."""
    resource: bytes
    """The resource map as received."""
    item: msgspec.Raw
    """The item as received: a view on its record."""


class TraceChange(msgspec.Struct, kw_only=True):
    """What one batch adds to one trace."""

    trace_id: bytes
    decisions: dict[bytes, Decision] = {}
    """By decision id; more than one if the trace was decided again after the late window."""
    spans: dict[bytes, SpanRow] = {}
    """By span id."""
    texts: dict[str, None] = {}
    """The texts for the full-text index, each once."""


class SpanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the spans of a trace. A start of 0 is a missing one and counts for nothing."""

    spans: int
    errors: int
    start_ns: int
    """The earliest start; 0 if no span has one."""
    end_ns: int
    """The latest end of the spans with a start."""
    root_name: str
    """Name of the root, or of the first span if there is no root."""
    root_start_ns: int
    """0 if there is no root, or if its start is missing."""
    root_duration_ns: int | None
    """None if there is no root, or if it has not ended."""


def changes_of(traces: Iterable[KeptTrace]) -> list[TraceChange]:
    """The traces of a batch by trace id: late spans change the same trace."""
    changes: dict[bytes, TraceChange] = {}
    for trace in traces:
        decision = trace.decision
        change = changes.get(decision.trace_id)
        if change is None:
            change = changes[decision.trace_id] = TraceChange(trace_id=decision.trace_id)
        change.decisions[decision.decision_id] = decision
        for span, item in zip(trace.spans, trace.items, strict=True):
            _add(change, span, item)
    return list(changes.values())


def _add(change: TraceChange, span: SpanData, item: SpanItem) -> None:
    head = item.head
    assert head.span_id is not None
    change.texts.update(dict.fromkeys(texts_of(span)))
    rank = rank_of(head)
    known = change.spans.get(head.span_id)
    if known is not None and known.rank >= rank:
        return
    change.spans[head.span_id] = SpanRow(
        span_id=head.span_id,
        parent_id=head.parent_span_id,
        rank=rank,
        name=head.name,
        span_type=head.span_type,
        status=head.status,
        start_ns=head.start_ns,
        end_ns=head.start_ns + (head.duration_ns or 0),
        resource=bytes(item.resource),
        item=item.raw,
    )


def facts_of(spans: Iterable[SpanRow]) -> SpanFacts:
    """The sums over all spans of a trace.

    The root is a span without a parent: an ended one before an open one, one with a start before one without. If there is none,
    the root is the only span whose parent is not in the trace: the parent is in another system.
    """
    rows = list(spans)
    placed = [row for row in rows if row.start_ns > 0]
    known = {row.span_id for row in rows}
    tops = [row for row in rows if row.parent_id is None or row.parent_id not in known]
    roots = [row for row in tops if row.parent_id is None] or (tops if len(tops) == 1 else [])
    root = min(
        roots, key=lambda row: (row.status == PENDING, row.start_ns <= 0, row.start_ns, row.span_id), default=None
    )
    first = root or min(rows, key=lambda row: (row.start_ns, row.span_id), default=None)
    return SpanFacts(
        spans=len(rows),
        errors=sum(row.status == ERROR for row in rows),
        start_ns=min((row.start_ns for row in placed), default=0),
        end_ns=max((row.end_ns for row in placed), default=0),
        root_name="" if first is None else first.name,
        root_start_ns=0 if root is None else max(root.start_ns, 0),
        root_duration_ns=None if root is None or root.status == PENDING else root.end_ns - root.start_ns,
    )


def primary(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions on one trace; the first one holds for the trace: kept before dropped, then the earliest."""
    return sorted(decisions, key=lambda one: (not one.kept, one.repeated, one.decided_at_ms, one.decision_id))


def times_of(decisions: Sequence[Decision], facts: SpanFacts) -> tuple[int, int]:
    """Start and duration of a trace, ns.

    They are those of the root if there is one. Else they cover all spans that are stored or in a summary. If the start is
    missing, the trace starts its duration before the decision, and not in 1970.
    """
    summaries = [one.summary for one in decisions if one.summary.start_ns > 0]
    starts = [one.start_ns for one in summaries] + ([facts.start_ns] if facts.start_ns else [])
    start = facts.root_start_ns or min(starts, default=0)
    ends = [one.start_ns + one.duration_ns for one in summaries] + ([facts.end_ns] if facts.start_ns else [])
    duration = facts.root_duration_ns
    if duration is None:
        duration = max(max(ends, default=start) - start, 0)
    return start or max(decisions[0].decided_at_ms * 1_000_000 - duration, 0), duration


def trace_columns(decisions: Sequence[Decision], facts: SpanFacts, label_chars: int) -> dict[str, object]:
    """The columns of a row of `traces`: from its spans, and from the summaries what only the worker knows.

    Args:
        decisions: At least one, as `primary` orders them. Their summaries are of different spans, so tokens add up.
        facts: Of all spans that are stored.
        label_chars: The length to which names are cut.
    """
    first = decisions[0]
    summaries = [one.summary for one in decisions]
    start, duration = times_of(decisions, facts)
    costs = [one.cost_usd for one in summaries if one.cost_usd is not None and math.isfinite(one.cost_usd)]
    input_tokens = _int64(sum(one.input_tokens for one in summaries))
    output_tokens = _int64(sum(one.output_tokens for one in summaries))
    return {
        "decision_id": first.decision_id,
        "root_name": (_first_text(one.root_name for one in summaries) or facts.root_name)[:label_chars],
        "service": _first_text(one.service for one in summaries)[:label_chars],
        "start_ns": _int64(start),
        "duration_ns": _int64(duration),
        "spans": facts.spans,
        "errors": _int64(max(facts.errors, sum(one.errors for one in summaries))),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "tokens": _int64(input_tokens + output_tokens),
        "cost_usd": sum(costs) if costs else None,
        "policy": first.policy[:label_chars],
        "kept_because": f"{first.policy}: {first.reason}",
        "weight": first.weight if math.isfinite(first.weight) else 0.0,
        "trigger": str(first.trigger),
        "complete": all(one.complete for one in decisions),
    }


def _first_text(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def _int64(value: int) -> int:
    """Within the 64 bits with a sign that SQLite stores; MessagePack may carry more."""
    return min(max(value, -_INT64 - 1), _INT64)
