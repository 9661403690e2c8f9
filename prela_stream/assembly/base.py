"""The contract of a core: the work per span of one partition, from the bytes of a record to traces that can be decided.

There are two. The Python core (`python_core`) is the specification in readable form. The native core (`native_core`) does the
same in Rust at a fraction of the cost. For any log both give the same traces at the same times, with the same facts.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from prela_stream.codec.decisions import DropFields
from prela_stream.codec.spans import BadItem
from prela_stream.errors import PrelaError
from prela_stream.model.decision import Basis
from prela_stream.model.trace import Trace

TRACE_BYTES: Final = 500
"""What an undecided trace counts in addition to its items where memory is bounded."""


class CoreError(PrelaError):
    """A core failed, and its state is unknown. Discard it and restore the partition from the log."""


class LateSpan(NamedTuple):
    """A span whose trace is decided."""

    trace_id: bytes
    place: int
    """Index of the item in its record."""
    raw: bytes


class Applied(NamedTuple):
    """What became of the items of one record."""

    items: int
    """Readable items of known kinds."""
    control: int
    """Items that are not spans."""
    spans: int
    """Spans that the core holds in addition. Some may turn out to be duplicates later; see `Core.duplicates`."""
    covered: int
    """Items of loaded decisions, which a replay does not apply. They are in no other class but `items`."""
    late: Sequence[LateSpan] = ()
    """Spans whose trace is decided, so the core does not hold them."""
    late_resource: bytes | None = None
    """The resource of the record if any span is late."""
    bad: Sequence[BadItem] = ()
    """Unreadable items."""
    unknown: int = 0
    """Items of kinds that this release does not know."""


class ReadyTrace(Protocol):
    """A trace that has to be decided now. The core no longer holds it.

    A large one is followed by None. Use it before you continue after that, because then its memory is freed.
    """

    @property
    def trace(self) -> Trace | None:
        """The trace as policies read it; None if none of its spans is readable."""
        ...

    @property
    def trace_id(self) -> bytes:
        """16 raw bytes."""
        ...

    @property
    def basis(self) -> Basis:
        """The evidence for `trace.complete`."""
        ...

    @property
    def first_offset(self) -> int:
        """Offset of the record with its first item."""
        ...

    @property
    def due_ms(self) -> int:
        """Stream time of its deadline, or at which it exceeded a limit. Never decreases from one trace to the next."""
        ...

    @property
    def spans(self) -> int:
        """Number of SPAN items, unreadable ones included; the other items are STARTs."""
        ...

    @property
    def open_spans(self) -> int:
        """Number of spans that have not ended."""
        ...

    @property
    def lost(self) -> bool:
        """A process reported that it dropped spans of this trace, or dropped spans of unknown traces while this one was open."""
        ...

    @property
    def raws(self) -> Sequence[bytes]:
        """One readable item per span, the highest revision, in order of arrival. An open span has its START or PENDING item."""
        ...

    @property
    def resources(self) -> Sequence[bytes]:
        """The resource of each item. Items of one process share one object."""
        ...

    @property
    def poison(self) -> Sequence[BadItem]:
        """The unreadable items."""
        ...

    @property
    def poison_spans(self) -> int:
        """Number of SPAN items in `poison`; the others are STARTs, which are counted as control items."""
        ...

    def dropped(self, fields: DropFields, cut: int, *, repeated: bool) -> bytes | None:
        """The encoded decision if this trace is dropped; None: the caller makes a `Decision` and encodes it.

        Args:
            fields: What this decision shares with others.
            cut: See `Decision.cut_offset`.
            repeated: See `Decision.repeated`.
        """
        ...

    def pieces(self) -> Iterable[tuple[Sequence[bytes], Sequence[bytes]]]:
        """`raws` and `resources` in pieces, each of about a millisecond of work. Most traces have one."""
        ...

    def with_checked_bodies(self) -> Generator[int, None, "ReadyTrace"]:
        """The same trace without the spans whose bodies are not completely readable. They are added to `poison`.

        The policies need some attributes only. A kept trace is written with all of them, so they have to be checked first.

        Yields:
            0 about once in a millisecond. For most traces nothing.
        """
        ...


class Core(Protocol):
    """The undecided traces of one partition, and its decisions in their late window.

    A core is a function of the log: for each record the caller calls `due` with the stream time of the record and consumes what
    it returns, then `expire` until it is done, then `add`, then `over_limits`. Nothing else moves the clock.

    Everything that may take long is done in steps of about a millisecond. Between two of them the caller can let other tasks run,
    read the properties, and call `remember`, `entry`, `was_forgotten` and `low_watermark`. It may also discard the core.

    Any method may raise CoreError.
    """

    @property
    def name(self) -> str:
        """`native` or `python`."""
        ...

    @property
    def clock_ms(self) -> int:
        """Stream time, ms since the epoch; 0 before the first record."""
        ...

    @property
    def open_traces(self) -> int:
        """Number of undecided traces, including those without a span."""
        ...

    @property
    def open_spans(self) -> int:
        """Number of SPAN items held for undecided traces: the counter `open`. A duplicate is held until it is found."""
        ...

    @property
    def open_bytes(self) -> int:
        """Bytes of the items held for undecided traces."""
        ...

    @property
    def duplicates(self) -> int:
        """Duplicates found so far: SPAN items with a lower or equal revision of their span, or replaced by a higher one."""
        ...

    @property
    def oldest_ms(self) -> int | None:
        """Stream time at the first item of the oldest open trace; None if no trace is open."""
        ...

    def restore_clock(self, clock_ms: int) -> None:
        """Set the clock of a new core to the stream time just before the next record."""
        ...

    def due(self, now_ms: int) -> Iterable[ReadyTrace | None]:
        """Move the clock to `now_ms` (never back), and remove every trace whose deadline is reached.

        Returns an empty tuple if there is none, as for most records.

        Yields:
            The traces in order of (deadline, first offset, index of the first item in its record). Between them None, about
            once in a millisecond, where the caller can let other tasks run.
        """
        ...

    def expire(self) -> Sequence[bytes] | None:
        """Bring the remembered decisions up to date with the clock and with `max_decided_bytes`.

        Returns None if it is done. Otherwise about a millisecond of work is done: the caller can let other tasks run, and has to
        call it again. It returns the ids of the traces whose decisions were forgotten early, possibly none. A decision counts 64
        bytes, that of a kept trace in its late window as many bytes more as its entry has, and at least 128.
        """
        ...

    def add(self, value: bytes, offset: int, *, replay: bool = False) -> Applied | None:
        """Apply the value of one record. In a replay the items of loaded decisions are skipped.

        Returns None if the first step did not finish it, as with many items: then call `add_more` until it returns the result.
        """
        ...

    def add_more(self) -> Applied | None:
        """Apply more of the record for which `add` returned None; None if it is still not finished."""
        ...

    def over_limits(self) -> Iterable[ReadyTrace | None]:
        """Remove the traces that exceed `max_spans` or `max_bytes` since the last record, in order of their first item.

        Returns an empty tuple if there is none.

        Items of the same record that arrived after the limit are included, because a decision is always cut between records.

        Yields:
            As `due`, None about once in a millisecond.
        """
        ...

    def heaviest(self, most_bytes: int) -> Iterator[ReadyTrace | None]:
        """Remove the traces with the most bytes x age, until the items take at most this, with `TRACE_BYTES` for each trace.

        Traces without a span are removed too, and not returned. The others are in order of their first item, with trigger
        MEMORY. Call it between two records, and consume all of it before the next one.

        Yields:
            As `due`, None about once in a millisecond.
        """
        ...

    def low_watermark(self) -> tuple[int, int] | None:
        """Where a replay has to start to rebuild this core: the smallest offset of a first item of any open trace, and the
        stream time just before that record, for `restore_clock`. None if no trace is open.
        """
        ...

    def next_deadline_ms(self) -> int | None:
        """Stream time of the next deadline if no item arrives; None if no trace is open. It may be too early, never too late."""
        ...

    def remember(self, trace_id: bytes, entry: bytes | None, decided_at_ms: int) -> None:
        """A trace was decided: its spans are late from now on. The entry of a dropped trace is None."""
        ...

    def entry(self, trace_id: bytes) -> bytes | None:
        """The entry of the live decision of a kept trace; None if the trace was dropped or is not decided."""
        ...

    def was_forgotten(self, trace_id: bytes, now_ms: int) -> bool:
        """Whether the trace had a decision that expired less than `late_window_ms` before `now_ms`."""
        ...

    def load(
        self, trace_id: bytes, entry: bytes | None, decided_at_ms: int, first_offset: int, cut_offset: int
    ) -> None:
        """Load a committed decision. Load all of them before the first record of a replay."""
        ...

    def end_load(self) -> bool:
        """Make the loaded decisions effective that are later than the clock. Call it before the first record after a replay.

        A commit can contain a part of the decisions that are due by the time of that record.

        Returns whether there are more: then about a millisecond of work is done, and the caller has to call it again.
        """
        ...
