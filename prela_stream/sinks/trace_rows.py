"""From kept traces to the rows of a store: which report of a span is stored, and the columns of its trace. Pure.

All of it is a function of the set of spans and decisions, and not of their order: late spans and repeated traces give the same
rows in any order. `Sums` can be extended by late spans without the other spans of the trace.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from prela_stream.model.decision import Decision
from prela_stream.model.span import CANCELLED, ERROR, PENDING, SpanData
from prela_stream.sinks.briefs import Brief, Labels, brief_of
from prela_stream.sinks.kept_trace import KeptTrace, SpanItem
from prela_stream.sinks.query import TraceRow, TraceStatus
from prela_stream.sinks.span_items import rank_of
from prela_stream.sinks.texts import texts_of

LABEL_CHARS: Final = 200
"""The length to which root names, services and policies are cut in the trace list, so that no hostile name fills its indexes."""
STATUSES: Final[tuple[TraceStatus, ...]] = ("success", "error", "cancelled", "pending")
"""Stored as the index."""

_INT64: Final = (1 << 63) - 1


class SpanRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored span."""

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
    brief: Brief
    item: msgspec.Raw
    """The item as received: a view on its record."""


class TraceChange(msgspec.Struct, kw_only=True):
    """What one batch adds to one trace."""

    trace_id: bytes
    decisions: dict[bytes, Decision] = {}
    """By decision id; more than one if the trace was decided again after the late window."""
    spans: dict[bytes, SpanRow] = {}
    """By span id."""
    texts: dict[bytes, list[str]] = {}
    """The texts for the full-text index, by span id."""
    labels: Labels = msgspec.field(default_factory=Labels)


class Top(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A span that may be the root of its trace. The smallest is the root."""

    open: bool
    no_start: bool
    start_ns: int
    span_id: bytes
    name: str
    status: int
    end_ns: int


class First(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The span that names a trace without a root: the smallest."""

    start_ns: int
    span_id: bytes
    name: str


class Sums(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Sums over the spans of a trace. A start of 0 is a missing one and counts for nothing."""

    spans: int = 0
    errors: int = 0
    start_ns: int = 0
    """The earliest start; 0 if no span has one."""
    end_ns: int = 0
    """The latest end of the spans with a start."""
    first: First | None = None
    root: Top | None = None
    """The root among the spans without a parent: an ended one before an open one, one with a start before one without."""


class SpanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the columns of a trace need of its spans."""

    sums: Sums
    root: Top | None
    """That of the sums. If there is none: the only span whose parent is not in the trace, because it is in another system."""

    @property
    def root_name(self) -> str:
        """Name of the root, or of the first span if there is no root."""
        named = self.root or self.sums.first
        return "" if named is None else named.name

    @property
    def root_start_ns(self) -> int:
        """0 if there is no root, or if its start is missing."""
        return 0 if self.root is None else max(self.root.start_ns, 0)

    @property
    def root_duration_ns(self) -> int | None:
        """None if there is no root, or if it has not ended."""
        return None if self.root is None or self.root.open else self.root.end_ns - self.root.start_ns


def changes_of(traces: Iterable[KeptTrace]) -> list[TraceChange]:
    """The traces of a batch by trace id: late spans change the same trace."""
    changes: dict[bytes, TraceChange] = {}
    for trace in traces:
        decision = trace.decision
        change = changes.get(decision.trace_id)
        if change is None:
            change = changes[decision.trace_id] = TraceChange(trace_id=decision.trace_id)
        change.decisions[decision.decision_id] = decision
        change.labels.add_service(decision.summary.service)
        for span, item in zip(trace.spans, trace.items, strict=True):
            add_span(change, span, item)
    return list(changes.values())


def add_span(change: TraceChange, span: SpanData, item: SpanItem) -> None:
    """Add a report of a span to a change."""
    head = item.head
    assert head.span_id is not None
    change.labels.add(span)
    texts = texts_of(span)
    rank = rank_of(head)
    known = change.spans.get(head.span_id)
    change.texts[head.span_id] = texts if known is None else change.texts[head.span_id] + texts
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
        brief=brief_of(span, len(item.raw)),
        item=item.raw,
    )


def top_of(row: SpanRow) -> Top:
    """A span as a candidate for the root."""
    return Top(row.status == PENDING, row.start_ns <= 0, row.start_ns, row.span_id, row.name, row.status, row.end_ns)


def extended(sums: Sums, rows: Iterable[SpanRow]) -> Sums:
    """The sums with further spans, none of which they contain."""
    spans, errors, start, end = sums.spans, sums.errors, sums.start_ns, sums.end_ns
    first, root = sums.first, sums.root
    for row in rows:
        spans += 1
        errors += row.status == ERROR
        if row.start_ns > 0:
            start = min(start or row.start_ns, row.start_ns)
            end = max(end, row.end_ns)
        if first is None or (row.start_ns, row.span_id) < (first.start_ns, first.span_id):
            first = First(row.start_ns, row.span_id, row.name)
        if row.parent_id is None:
            top = top_of(row)
            root = top if root is None else min(root, top)
    return Sums(spans=spans, errors=errors, start_ns=start, end_ns=end, first=first, root=root)


def with_better_report(sums: Sums, old: SpanRow, new: SpanRow) -> Sums | None:
    """The sums after `new` has replaced `old`, an earlier report of the same span; None if that needs the other spans."""
    if (old.parent_id is None) != (new.parent_id is None):
        return None
    if old.start_ns > 0 and not (0 < new.start_ns <= old.start_ns and new.end_ns >= old.end_ns):
        return None
    if sums.root is not None and sums.root.span_id == old.span_id and top_of(new) > sums.root:
        return None
    first = sums.first
    if first is not None and first.span_id == old.span_id:
        if new.start_ns > first.start_ns:
            return None
        first = None
    without = msgspec.structs.replace(
        sums,
        spans=sums.spans - 1,
        errors=sums.errors - (old.status == ERROR),
        first=first,
        root=None if sums.root is not None and sums.root.span_id == old.span_id else sums.root,
    )
    return extended(without, [new])


def tops_of(rows: dict[bytes, SpanRow]) -> list[SpanRow]:
    """The spans whose parent is not among them."""
    return [row for row in rows.values() if row.parent_id is None or row.parent_id not in rows]


def facts_of(rows: dict[bytes, SpanRow]) -> SpanFacts:
    """The facts of a trace with these spans."""
    sums = extended(Sums(), rows.values())
    if sums.root is not None:
        return SpanFacts(sums=sums, root=sums.root)
    tops = tops_of(rows)
    return SpanFacts(sums=sums, root=top_of(tops[0]) if len(tops) == 1 else None)


def primary(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions on one trace; the first one holds for the trace: kept before dropped, then the earliest."""
    return sorted(decisions, key=lambda one: (not one.kept, one.repeated, one.decided_at_ms, one.decision_id))


def times_of(decisions: Sequence[Decision], facts: SpanFacts) -> tuple[int, int]:
    """Start and duration of a trace, ns.

    They are those of the root if there is one. Else they cover all spans that are stored or in a summary. If the start is
    missing, the trace starts its duration before the decision, and not in 1970.
    """
    summaries = [one.summary for one in decisions if one.summary.start_ns > 0]
    sums = facts.sums
    starts = [one.start_ns for one in summaries] + ([sums.start_ns] if sums.start_ns else [])
    start = facts.root_start_ns or min(starts, default=0)
    ends = [one.start_ns + one.duration_ns for one in summaries] + ([sums.end_ns] if sums.start_ns else [])
    duration = facts.root_duration_ns
    if duration is None:
        duration = max(max(ends, default=start) - start, 0)
    return start or max(decisions[0].decided_at_ms * 1_000_000 - duration, 0), duration


def status_of(errors: int, root: Top | None) -> TraceStatus:
    """The status of a trace."""
    if errors:
        return "error"
    if root is None or root.open:
        return "pending"
    return "cancelled" if root.status == CANCELLED else "success"


def trace_columns(decisions: Sequence[Decision], facts: SpanFacts) -> dict[str, object]:
    """The columns of a row of `traces`: from its spans, and from the summaries what only the worker knows.

    Args:
        decisions: At least one, as `primary` orders them. Their summaries are of different spans, so tokens add up.
        facts: Of all spans that are stored.
    """
    first = decisions[0]
    summaries = [one.summary for one in decisions]
    start, duration = times_of(decisions, facts)
    costs = [one.cost_usd for one in summaries if one.cost_usd is not None and math.isfinite(one.cost_usd)]
    input_tokens = int64(sum(one.input_tokens for one in summaries))
    output_tokens = int64(sum(one.output_tokens for one in summaries))
    errors = int64(max(facts.sums.errors, sum(one.errors for one in summaries)))
    return {
        "decision_id": first.decision_id,
        "root_name": (_first_text(one.root_name for one in summaries) or facts.root_name)[:LABEL_CHARS],
        "service": _first_text(one.service for one in summaries)[:LABEL_CHARS],
        "start_ns": int64(start),
        "duration_ns": int64(duration),
        "spans": facts.sums.spans,
        "errors": errors,
        "status": STATUSES.index(status_of(errors, facts.root)),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "tokens": int64(input_tokens + output_tokens),
        "cost_usd": sum(costs) if costs else None,
        "policy": first.policy[:LABEL_CHARS],
        "kept_because": f"{first.policy}: {first.reason}",
        "weight": first.weight if math.isfinite(first.weight) else 0.0,
        "trigger": str(first.trigger),
        "complete": all(one.complete for one in decisions),
    }


def row_of_decision(decision: Decision) -> TraceRow:
    """The row of a dropped trace: what its decision contains."""
    summary = decision.summary
    return TraceRow(
        trace_id=decision.trace_id_hex,
        root_name=summary.root_name,
        service=summary.service,
        start_ns=summary.start_ns,
        duration_ns=summary.duration_ns,
        spans=summary.spans,
        errors=summary.errors,
        input_tokens=summary.input_tokens,
        output_tokens=summary.output_tokens,
        cost_usd=summary.cost_usd,
        kept_because=f"{decision.policy}: {decision.reason}",
        weight=decision.weight if math.isfinite(decision.weight) else 0.0,
        trigger=str(decision.trigger),
        complete=decision.complete,
        stored=0,
        kept=False,
        status="error" if summary.errors else "success",
        policy=decision.policy,
        services=(summary.service,) if summary.service else (),
    )


def _first_text(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def duration_bar(duration_ns: int) -> int:
    """The bar of the latency histogram that holds a duration: four for each doubling, -1 for less than a nanosecond."""
    return math.floor(4 * math.log2(duration_ns)) if duration_ns > 0 else -1


def bar_start(bar: int) -> int:
    """The smallest duration in a bar, ns."""
    return 0 if bar < 0 else math.ceil(2 ** (bar / 4))


def int64(value: int) -> int:
    """Within the 64 bits with a sign that SQLite stores; MessagePack may carry more."""
    return min(max(value, -_INT64 - 1), _INT64)
