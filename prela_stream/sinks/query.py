"""What is asked of a store, and what it answers: queries, rows, light spans, histograms and statistics. No logic of a store."""

from typing import Literal

import msgspec

from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData, SpanStatus, SpanType

SortKey = Literal["newest", "oldest", "slowest", "costliest", "most_tokens", "most_spans"]
TraceStatus = Literal["success", "error", "cancelled", "pending"]
"""`error`: a span failed. Else the status of the root; `pending` if it has not ended, or if there is no root."""
StatisticKey = Literal["model", "tool"]


class TraceQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which traces. All conditions must hold; None means any.

    A decision on a dropped trace does not contain its session, user, model, tool, error type, attributes or texts, and only one
    service. A query with one of these conditions matches no dropped trace.
    """

    dropped: bool = False
    """Dropped traces, of which only the decision is stored. False: kept traces."""
    since_ns: int | None = None
    """Started at or after, ns since the epoch."""
    until_ns: int | None = None
    """Started before, ns since the epoch."""
    service: str | None = None
    """Of any span. For a dropped trace: of its root."""
    name: str | None = None
    """Root name; `*` matches any characters and `?` one."""
    status: TraceStatus | None = None
    errors: bool | None = None
    """True: with at least one failed span. False: without."""
    session: str | None = None
    """The `gen_ai.conversation.id` of any span."""
    user: str | None = None
    """The `user.id` of any span."""
    model: str | None = None
    """The requested or the answering model of any span."""
    tool: str | None = None
    """The tool of any span."""
    error_type: str | None = None
    """The `error.type` of any span."""
    attributes: tuple[str, ...] = ()
    """`key=value` of any span or resource, each. True and False are written `true` and `false`."""
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None
    """Shorter than this."""
    min_tokens: int | None = None
    """Input and output tokens together."""
    min_cost_usd: float | None = None
    policy: str | None = None
    """Name of the policy that decided."""
    text: str | None = None
    """Words that all occur in the names, attributes or events of the trace; a word may end in `*`."""


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a trace list."""

    trace_id: str
    root_name: str
    service: str
    """Of the root."""
    start_ns: int
    duration_ns: int
    spans: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    kept_because: str
    """Policy and reason; of a dropped trace too."""
    weight: float
    trigger: str
    complete: bool
    stored: int
    """Mark of the last change of this trace: each change of the store has a higher mark than those before. 0: dropped."""
    kept: bool = True
    status: TraceStatus = "success"
    policy: str = ""
    services: tuple[str, ...] = ()
    """Every service, in the order of the alphabet; at most 16."""
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    error_types: tuple[str, ...] = ()
    session: str | None = None
    """The first of the alphabet, if there are several."""
    user: str | None = None
    cursor: str = ""
    """Pass it as `after` to continue a list of the same query and sort below this row."""


class LightSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A span without its attributes, events and links, and with what a tree or a waterfall shows of them."""

    span_id: str
    parent_span_id: str | None
    name: str
    span_type: SpanType
    status: SpanStatus
    start_ns: int
    duration_ns: int | None
    """None while the span is open."""
    flags: int = 0
    inject_ordinal: int | None = None
    service: str = ""
    status_message: str = ""
    """At most 500 characters."""
    error_type: str = ""
    agent: str = ""
    model: str = ""
    tool: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    finish_reason: str = ""
    resends: int = 0
    """`http.request.resend_count`: how often the request was sent again."""
    http_status: int | None = None
    events: int = 0
    links: int = 0
    bytes: int = 0
    """Size of the span as it was received."""


class StoredTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A kept trace with its decision."""

    row: TraceRow
    decision: Decision
    spans: list[SpanData]


class TraceOutline(msgspec.Struct, frozen=True, kw_only=True):
    """A kept trace with light spans, or a dropped trace without spans."""

    row: TraceRow
    decision: Decision
    spans: list[LightSpan]
    """By start; none if the trace was dropped."""


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """The kept traces of one session in sum."""

    session: str
    user: str | None
    first_ns: int
    """Start of its first trace, ns since the epoch."""
    last_ns: int
    """Start of its last trace."""
    traces: int
    spans: int
    errors: int
    """Traces with at least one failed span."""
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    services: tuple[str, ...]
    cursor: str = ""
    """Pass it as `after` to continue below this row."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar of a histogram: `low` <= value < `high`."""

    low: int
    high: int
    counts: dict[TraceStatus, int]
    """Traces by status; a status without traces is missing."""

    @property
    def total(self) -> int:
        """Traces in this bar."""
        return sum(self.counts.values())


class Histograms(msgspec.Struct, frozen=True, kw_only=True):
    """How the traces of a query are distributed over time and over latency. Counts are of stored traces, without weights."""

    time: list[Bar]
    """By start, ns since the epoch; equally wide, without gaps."""
    duration: list[Bar]
    """By duration, ns; each bar is wider than the one before by the same factor. From the first bar with a trace to the last."""
    traces: int
    """How many traces match."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number, and how far it may be from the truth."""

    value: float
    error: float
    """Standard error. 0: exact."""


class StatisticRow(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one model, or of one tool."""

    name: str
    stored: int
    """Calls in the stored traces, without weights."""
    calls: Estimate
    errors: Estimate
    input_tokens: Estimate
    output_tokens: Estimate
    cost_usd: Estimate | None
    """None if no call has a cost."""
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of calls over all traces, estimated from the kept ones by their weights.

    A weight is 1 / probability of the decision. So a sum over kept spans, each times the weight of its trace, estimates the sum
    before sampling without bias (Horvitz and Thompson), except for traces that a policy drops with certainty. Its variance is the
    sum of weight * (weight - 1) * (the trace's own sum)**2. The error of a quantile is that of the distribution there (Woodruff).
    """

    rows: list[StatisticRow]
    """By estimated calls, the most first."""
    traces: int
    """How many kept traces these rows rest on."""
    matching: int
    """How many kept traces match. If it is more, the newest `traces` of them were used."""
    exact: bool
    """Nothing was estimated: every trace of this time was kept, each with certainty (weight 1)."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over traces. Exact, because every decision contains them, also on a dropped trace."""

    traces: int
    spans: int
    errors: int
    """Traces with at least one failed span."""
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class DecidedTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over all decided traces of one group. `kept` and `dropped` together are the traffic before tail sampling."""

    name: str
    """The service, or the policy."""
    kept: Totals
    dropped: Totals
