"""The rows of a batch for the SQLite store, without what only its transaction knows: the numbers of traces and resources. Pure.

Most of the work of a batch is here, so that it can be done while the batch before it is written.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from prela_stream.codec.decisions import encode_decisions
from prela_stream.model.decision import Decision
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.briefs import encode_brief
from prela_stream.sinks.calls import KINDS, CallSums, calls_of
from prela_stream.sinks.texts import join_texts
from prela_stream.sinks.trace_rows import (
    LABEL_CHARS,
    STATUSES,
    SpanFacts,
    SpanRow,
    TraceChange,
    changes_of,
    duration_bar,
    facts_of,
    int64,
    primary,
    times_of,
    tops_of,
    trace_columns,
)

TRACE_COLUMNS: Final = (
    "trace_id", "decision_id", "root_name", "service", "start_ns", "duration_ns", "duration_bar", "spans", "errors", "status",
    "input_tokens", "output_tokens", "tokens", "cost_usd", "policy", "kept_because", "weight", "trigger", "complete", "session",
    "decided_at_ms", "listed", "sums",
)  # fmt: skip
"""Those that do not depend on what is stored."""
SPAN_COLUMNS: Final = (
    "span_id", "parent_id", "rank", "name", "span_type", "status", "start_ns", "end_ns", "top", "brief", "item",
)  # fmt: skip
"""Those that do not depend on what is stored."""

_encoder: Final = msgspec.msgpack.Encoder()

Row = tuple[Any, ...]


class TraceRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a trace that is not stored yet, and the change from which a stored trace is extended."""

    change: TraceChange
    decisions: list[Row]
    trace: Row
    """Values of TRACE_COLUMNS."""
    spans: list[tuple[bytes, Row]]
    """The resource map of each span, and values of SPAN_COLUMNS."""
    calls: list[Row]
    """Without the trace."""
    text: str
    labels: str


class BatchRows(msgspec.Struct, frozen=True, kw_only=True):
    """What the store needs of a batch."""

    decisions: list[Row]
    """Of the topic of decisions; those of the traces are with their traces."""
    traces: list[TraceRows]


def batch_rows(batch: SinkBatch) -> BatchRows:
    """The rows of a batch."""
    return BatchRows(
        decisions=decision_rows(batch.decisions), traces=[rows_of(one) for one in changes_of(batch.traces)]
    )


def rows_of(change: TraceChange) -> TraceRows:
    """The rows of a trace that consists of this change."""
    decisions = primary(change.decisions.values())
    listed = change.labels.listed()
    line = trace_line(change.trace_id, decisions, facts_of(change.spans), listed)
    tops = {row.span_id for row in tops_of(change.spans)}
    return TraceRows(
        change=change,
        decisions=decision_rows(change.decisions.values(), has_spans=True),
        trace=tuple([line[name] for name in TRACE_COLUMNS]),
        spans=[(row.resource, span_values(row, row.span_id in tops)) for row in change.spans.values()],
        calls=[call_values(key, sums) for key, sums in calls_of(change.spans).items()],
        text=join_texts(text for texts in change.texts.values() for text in texts),
        labels=" ".join(sorted(change.labels.tokens())),
    )


def trace_line(
    trace_id: bytes, decisions: Sequence[Decision], facts: SpanFacts, listed: dict[str, list[str]]
) -> dict[str, object]:
    """The values of TRACE_COLUMNS by name."""
    _, duration = times_of(decisions, facts)
    return {
        **trace_columns(decisions, facts),
        "trace_id": trace_id,
        "duration_bar": duration_bar(duration),
        "decided_at_ms": min(decisions[0].decided_at_ms, 1 << 62),
        "session": next(iter(listed.get("session", ())), None),
        "listed": _encoder.encode(listed),
        "sums": _encoder.encode(facts.sums),
    }


def span_values(row: SpanRow, top: bool) -> Row:
    """The values of SPAN_COLUMNS."""
    return (
        row.span_id, row.parent_id, row.rank, row.name, row.span_type, row.status, row.start_ns, row.end_ns, top,
        encode_brief(row.brief), row.item,
    )  # fmt: skip


def call_values(key: tuple[Any, str], sums: CallSums) -> Row:
    """A row of `calls`, without its trace."""
    return (
        KINDS.index(key[0]), key[1], sums.calls, sums.errors, int64(sums.input_tokens), int64(sums.output_tokens), sums.priced,
        sums.cost_usd, sums.packed(),
    )  # fmt: skip


def decision_rows(decisions: Iterable[Decision], *, has_spans: bool = False) -> list[Row]:
    """Rows of `decisions`."""
    return [_decision_values(one, has_spans) for one in decisions]


def _decision_values(one: Decision, has_spans: bool) -> Row:
    summary = one.summary
    status = STATUSES.index("error" if summary.errors else "success")
    tokens = int64(int64(summary.input_tokens) + int64(summary.output_tokens))
    return (
        one.trace_id, one.decision_id, one.kept, has_spans, min(one.decided_at_ms, 1 << 62), summary.root_name[:LABEL_CHARS],
        summary.service[:LABEL_CHARS], int64(summary.start_ns), int64(summary.duration_ns), int64(summary.spans), status,
        int64(summary.input_tokens), int64(summary.output_tokens), tokens, summary.cost_usd, one.policy[:LABEL_CHARS],
        encode_decisions([one]),
    )  # fmt: skip
