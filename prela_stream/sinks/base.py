"""The two seams of a store: `Sink` writes kept traces, `TraceReader` reads them back."""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from prela_stream.codec.sampled import KeptFragment
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.transport.base import TopicPartition

SortKey = Literal["newest", "oldest", "slowest", "costliest", "most_tokens", "most_spans"]


class SinkBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink is given at a time: Records of one partition, read and in order."""

    source: TopicPartition
    fragments: Sequence[KeptFragment] = ()
    """Of `sampled`."""
    decisions: Sequence[Decision] = ()
    """Of `decisions`, kept and dropped; empty for a sink that does not ask for them."""
    next_offset: int
    """The offset to go on from once this batch is durable."""


class Sink(Protocol):
    """Writes kept traces somewhere. Called by one task, one batch at a time."""

    wants_decisions: bool
    """Whether it is given the `decisions` topic too."""

    async def write(self, batch: SinkBatch) -> None:
        """Store the batch. Returning means durable: only then is its offset committed.

        A batch may come again after a crash: writing it twice must have the effect of writing it once. The sink's docstring
        says whether it stores offsets with the data (exactly once) or relies on ids (at least once). An error that is
        raised stops the sink's service, nothing is committed, and the batch comes again.
        """
        ...

    async def stored_offset(self, source: TopicPartition) -> int | None:
        """Where to go on, for a sink that stores offsets with its data; None: the group's committed offset counts."""
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
    """Grows with each stored change; `TraceReader.tail` goes on after it."""


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
