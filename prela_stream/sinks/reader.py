"""The interface of what reads a store."""

from types import TracebackType
from typing import Literal, Protocol, Self

from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.sinks.query import (
    DecidedTotals,
    Histograms,
    SessionRow,
    SortKey,
    StatisticKey,
    Statistics,
    StoredTrace,
    TraceOutline,
    TraceQuery,
    TraceRow,
)


class TraceReader(Protocol):
    """Reads a store, also while another process writes it. Any number of tasks may use one reader at once.

    Every method raises ConfigurationError for a wrong argument or if there is no store, SinkError if the store cannot be read,
    and QueryTimeoutError (a SinkError) if a query takes longer than the option `query_s` of the store.

    A trace id may be written as a prefix of at least 4 hex digits that fits one trace only. ConfigurationError is raised if it
    is no hex, too short, or fits several.
    """

    async def list_traces(
        self,
        where: TraceQuery,
        *,
        sort: SortKey = "newest",
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
    ) -> list[TraceRow]:
        """Traces that match, sorted; at most `limit`.

        Args:
            where: Which traces.
            sort: The order.
            limit: The most rows. Ask for one more than a page shows, to know whether there is a next page.
            offset: Skip this many rows.
            after: The `cursor` of a row of the same query and sort: begin below it. The cost does not depend on how many rows
                are above.
        """
        ...

    async def count(self, where: TraceQuery, *, at_most: int = 10_000) -> int:
        """How many traces match. Counting ends at `at_most`, so that this answer means "at least as many"."""
        ...

    async def histograms(self, where: TraceQuery, *, bars: int = 60) -> Histograms:
        """The traces that match over time, and over latency, by status; `bars` is the number of bars over time (1 to 1,000)."""
        ...

    async def sessions(self, where: TraceQuery, *, limit: int = 100, after: str | None = None) -> list[SessionRow]:
        """Sessions with a kept trace that matches, the most recent first; each row sums all traces of its session.

        The traces of one session are `list_traces(TraceQuery(session=…), sort="oldest")`.
        """
        ...

    async def statistics(self, where: TraceQuery, by: StatisticKey, *, limit: int = 100) -> Statistics:
        """The calls by model, or by tool, in the traces that match: how many, errors, tokens, cost and latency.

        Estimates by weight, with standard errors. Over at most 20,000 stored traces, the newest.
        """
        ...

    async def decided_totals(
        self, by: Literal["service", "policy"], *, since_ns: int | None = None, until_ns: int | None = None
    ) -> list[DecidedTotals]:
        """Exact sums over all decided traces that started in this time, kept and dropped; the most traces first."""
        ...

    async def get(self, trace_id: str) -> StoredTrace | None:
        """One kept trace with everything; None if there is none. Spans are ordered by start."""
        ...

    async def outline(self, trace_id: str) -> TraceOutline | None:
        """One trace without the bodies of its spans; of a dropped trace its decision. None if this store has not seen it."""
        ...

    async def span(self, trace_id: str, span_id: str) -> SpanData | None:
        """One span with everything; `trace_id` and `span_id` are complete. None if there is none."""
        ...

    async def decision(self, trace_id: str) -> Decision | None:
        """The decision about a trace, kept or dropped: policy, reason, trigger, probability, weight. None if there is none."""
        ...

    async def tail(self, after: int, *, limit: int = 100) -> list[TraceRow]:
        """Traces stored or extended after mark `after` (a row's `stored`; 0: from the start), oldest first."""
        ...

    async def newest_mark(self) -> int:
        """The mark of the last change, for `tail`; 0 if nothing is stored."""
        ...

    async def totals(self) -> dict[str, int]:
        """Counts of what is stored: `traces`, `spans`, `decisions`, `kept`, `dropped`."""
        ...

    async def aclose(self) -> None:
        """Release everything. Safe to call twice."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
