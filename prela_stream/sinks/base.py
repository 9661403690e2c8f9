"""The interfaces of a sink: `Sink` writes kept traces; `TraceReader` reads the ones that a store has written."""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.sinks.kept_trace import KeptTrace
from prela_stream.transport.base import TopicPartition

SortKey = Literal["newest", "oldest", "slowest", "costliest", "most_tokens", "most_spans"]


class SinkBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink receives at a time: the next records of one partition, in order."""

    source: TopicPartition
    traces: Sequence[KeptTrace] = ()
    """Whole kept traces, and late spans of traces that came before (`KeptTrace.late`). Never a part of a trace."""
    decisions: Sequence[Decision] = ()
    """Kept and dropped ones; empty for a sink that does not ask for them."""
    next_offset: int
    """The offset to continue from after this batch: the first record that a trace in progress needs, else the next record."""


class Sink(Protocol):
    """Writes kept traces somewhere. One task calls it, one batch at a time.

    The class docstring of a sink states its delivery guarantee: `exactly once` if it stores offsets with its data, else `at least
    once`. Its constructor takes its options and opens nothing.
    """

    wants_decisions: bool
    """Whether it receives the `decisions` topic too."""

    async def write(self, batch: SinkBatch) -> None:
        """Store the batch. After the return it is durable, and its offset may be committed.

        The same batch, or the same traces in other batches, may come again after a failure or a crash. Writing them again must
        have the effect of writing them once, for readers who identify a span by `(trace_id, span_id)` and a decision by its id.
        A batch may hold nothing but an offset.

        Raises:
            SinkError, OSError: The batch is not stored, for a reason that may pass: a full disk, a lock, a refused connection.
                The service calls again with the same batch after a pause.
            ConfigurationError: The options are wrong, as a file that belongs to another program. Ends the service if nothing
                was written before; else treated as a SinkError.
        """
        ...

    async def stored_offset(self, source: TopicPartition) -> int | None:
        """The `next_offset` of the last batch of `source`, for a sink that stores offsets with its data.

        None: nothing is stored, or the sink stores no offsets. Then the committed offset of the consumer group counts.
        Raises as `write`.
        """
        ...

    async def aclose(self) -> None:
        """Release everything. Safe to call twice."""
        ...


class TraceFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which traces to list. All conditions must hold; None means any."""

    since_ns: int | None = None
    """Started at or after, ns since the epoch."""
    until_ns: int | None = None
    """Started before, ns since the epoch."""
    service: str | None = None
    name: str | None = None
    """Root name, exact."""
    errors: bool | None = None
    """True: with at least one failed span. False: without."""
    min_duration_ms: float | None = None
    policy: str | None = None
    text: str | None = None
    """Words that all occur in the trace's names, attributes or events (full-text search)."""


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a trace list."""

    trace_id: str
    root_name: str
    service: str
    start_ns: int
    duration_ns: int
    spans: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    kept_because: str
    """Policy and reason."""
    weight: float
    trigger: str
    complete: bool
    stored: int
    """Mark of the last change of this trace: each change of the store has a higher mark than those before."""


class StoredTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A kept trace with its decision."""

    row: TraceRow
    decision: Decision
    spans: list[SpanData]


class TraceReader(Protocol):
    """Reads a store, also while another process writes it."""

    async def list_traces(
        self, where: TraceFilter, *, sort: SortKey = "newest", limit: int = 100, offset: int = 0
    ) -> list[TraceRow]:
        """Traces that match, sorted; at most `limit` after skipping `offset`."""
        ...

    async def get(self, trace_id: str) -> StoredTrace | None:
        """One trace by its id or a prefix of at least 4 hex digits that fits one trace only; None if there is none.

        Raises ConfigurationError if the prefix is no hex, too short, or fits several.
        """
        ...

    async def decision(self, trace_id: str) -> Decision | None:
        """The decision about a trace, kept or dropped; None if this store has not seen it."""
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
