"""The state of one partition, and how a record changes it. Pure: it never waits and reads no clock.

The state is a function of the log: from the same checkpoint the same records give the same decisions, in any worker at any time.
`tests/support/reference.py` is the specification in plain code, and a property test compares both.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from prela_stream.assembly.base import TRACE_BYTES
from prela_stream.assembly.clock import ClockJump, StreamClock
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind, choose_core
from prela_stream.model.decision import Decision
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.transport.base import LogRecord, TopicPartition
from prela_stream.transport.options import TopicOptions
from prela_stream.worker.checkpoint import Checkpoint, ItemCounters
from prela_stream.worker.deciding import Deciding
from prela_stream.worker.intake import DeadLetters, Intake, NewRecords
from prela_stream.worker.late import LateSpans
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.outputs import Outputs
from prela_stream.worker.packing import PackedDecisions
from prela_stream.worker.partition_data import PartitionStatus, PendingCommit
from prela_stream.worker.poison import PoisonWatch
from prela_stream.worker.remembered import Remembered
from prela_stream.worker.replay import Replay
from prela_stream.worker.shifts import Shifts
from prela_stream.worker.tally import Tally

_COMMIT_RECORDS = 2_000
"""A commit with this many records is sealed."""


class PartitionState:
    """The open traces, remembered decisions, counters and pending output of one partition.

    Args:
        source: The partition of `spans`.
        topics: Names and sizes of the topics.
        assembly: Waits and limits.
        evaluator: The policies.
        options: Limits of the worker.
        core: The core that does the work per span; None: the one that `options` choose.
        start: Offset of the first record if nothing was committed yet.
    """

    def __init__(
        self,
        source: TopicPartition,
        *,
        topics: TopicOptions,
        assembly: AssemblyOptions,
        evaluator: Evaluator,
        options: WorkerOptions,
        core: CoreKind | None = None,
        start: int = 0,
    ) -> None:
        self._source = source
        self._topics = topics
        self._options = options
        self._clock = StreamClock(assembly.max_jump_ms)
        self._shifts = Shifts()
        self._unconfirmed: LogRecord | None = None
        """The last record, if its time needs confirmation by the next one."""
        self._core = (core or choose_core(options.core)).new(assembly, evaluator.reads, topics.max_record_bytes)
        self._duplicates = 0
        """Duplicates of the core that are in the counters, or that a replay found again."""
        self._remembered = Remembered(self._core, assembly)
        self._packed = PackedDecisions(source)
        self._outputs = Outputs(source, topics, options.group)
        self._deciding = Deciding(
            source,
            evaluator,
            core=self._core,
            packed=self._packed,
            remembered=self._remembered,
            outputs=self._outputs,
        )
        self._committed_position = start
        self._replay: Replay | None = None
        self._sealed: deque[PendingCommit] = deque()
        """Commits that are complete; later output is not part of them."""
        self._sealed_bytes = 0
        self.commit_bytes = options.commit_bytes
        """The size at which a commit is sealed."""
        self._between_records = True
        self._low_before: tuple[int, int] | None = None
        """The low watermark before the record whose due traces are being decided."""
        self._poison = PoisonWatch(source, topics, options)
        self._applied_ms = self._watermark_ms = 0
        self.position = start
        """Offset of the next record to apply."""
        self._use_counters(ItemCounters())

    def _use_counters(self, counters: ItemCounters) -> None:
        self._counters = counters
        self._dead_letters = DeadLetters(self._source, self._outputs, counters)
        self._late = LateSpans(self._core, self._packed, self._outputs, self._dead_letters, counters)
        self._new = NewRecords(counters, self._dead_letters, self._options.poison_window)
        self._deciding.use(counters, self._dead_letters)

    @property
    def counters(self) -> ItemCounters:
        """The class of every item below the position. Not consistent in a replay, nor while a record is applied in part."""
        self._count_duplicates()
        return msgspec.structs.replace(self._counters, open=self._core.open_spans + self._deciding.undecided_spans)

    def _count_duplicates(self) -> None:
        found = self._core.duplicates
        if self._replay is None:
            self._counters.duplicates += found - self._duplicates
        self._duplicates = found

    @property
    def replaying(self) -> bool:
        """Whether records below the position of the last commit are applied again. No commit is possible until they are."""
        return self._replay is not None

    @property
    def pending_bytes(self) -> int:
        """Approximate size of all commits that are to be made, bytes."""
        return self._sealed_bytes + self._outputs.bytes

    @property
    def open_bytes(self) -> int:
        """Bytes of the items of undecided traces, and `TRACE_BYTES` for each of these traces."""
        return self._core.open_bytes + TRACE_BYTES * self._core.open_traces

    @property
    def has_news(self) -> bool:
        """Whether a commit is possible and would contain anything new."""
        return bool(self._sealed) or (
            self._can_commit and (self._outputs.bytes > 0 or self.position != self._committed_position)
        )

    @property
    def is_sealed(self) -> bool:
        """Whether a commit has reached its size. It has to be made at once, and others follow."""
        return bool(self._sealed)

    @property
    def _can_commit(self) -> bool:
        """Not inside of a record, except between the traces that are due by its time: they precede its items."""
        if self.replaying or self._deciding.is_writing:
            return False
        return self._between_records or self._low_before is not None

    @property
    def stopping(self) -> bool:
        """Whether too large a share of recent items was unreadable, and the worker has to stop for that reason.

        The next commit reports it; apply no more records.
        """
        return self._poison.stops and self._poison.found is not None

    def status(self) -> PartitionStatus:
        """The state of the partition in numbers."""
        return PartitionStatus(
            position=self.position,
            open_traces=self._core.open_traces,
            open_bytes=self._core.open_bytes,
            pending_bytes=self.pending_bytes,
            replaying=self.replaying,
            clock_ms=self._core.clock_ms,
            applied_ms=self._applied_ms,
            oldest_ms=self._core.oldest_ms,
            watermark_ms=self._watermark_ms,
            counters=self.counters,
        )

    def ms_to_next_deadline(self) -> int | None:
        """Stream time until something is due if no record arrives, ms; None if nothing is.

        It is 0 if a record needs the next one to confirm its time: a tick does that. It is not known inside of a record.
        """
        if not self._between_records:
            return None
        if self._unconfirmed is not None:
            return 0
        deadline = self._core.next_deadline_ms()
        return None if deadline is None else max(0, deadline - self._core.clock_ms)

    def resume_at(self, offset: int, checkpoint: Checkpoint) -> None:
        """Continue from a commit: replay from its low watermark `offset`, with the clock of the checkpoint."""
        self._clock.restore(checkpoint.clock_before_ms, checkpoint.shift_before_ms)
        if checkpoint.shift_before_ms:
            self._shifts.add(offset - 1, checkpoint.shift_before_ms)
        self._core.restore_clock(checkpoint.clock_before_ms)
        self._watermark_ms = checkpoint.clock_before_ms
        self._use_counters(checkpoint.counters)
        self._committed_position = checkpoint.position
        self._new.discards_before = checkpoint.discarded
        self.position = offset
        self._replay = Replay(checkpoint.position)
        if offset >= checkpoint.position:
            self._end_replay()

    def load(self, decision: Decision) -> None:
        """Load a committed decision. Load decisions in the order of the log."""
        entry = self._packed.pack(decision) if decision.kept else None
        self._core.load(decision.trace_id, entry, decision.decided_at_ms, decision.first_offset, decision.cut_offset)
        self._remembered.loaded = True

    def apply(self, *records: LogRecord) -> None:
        """Apply the next records in one go; see `steps`."""
        for _ in self.steps(records):
            pass

    def steps(self, records: Iterable[LogRecord]) -> Iterator[int]:
        """Apply the next records: for each, decide the traces that are due by its time, then add its items to the open traces.

        A record whose time needs confirmation is applied together with the next one; the position stays before it.

        It yields so often that the caller can let other tasks run: 0 inside of a record, and after it its size, at least 1.
        Inside of a record it is applied in part. A commit is possible between the traces that are due by its time. A commit that
        reaches `commit_bytes` is sealed at once, so that none is larger. If it raises, discard this state and restore it from
        the log.
        """
        for record in records:
            self._between_records = False
            earlier, self._unconfirmed = self._unconfirmed, None
            if earlier is not None and earlier.offset < record.offset:
                yield from self._apply_at(earlier, self._advance(earlier, record.timestamp_ms))
            if self._clock.needs_confirmation(record.timestamp_ms):
                self._unconfirmed = record
            else:
                yield from self._apply_at(record, self._advance(record))
            self._between_records = True
            self._seal_if_full()
            yield max(1, len(record.value or b""))
            if self.stopping:
                return

    def take_clock_jumps(self) -> list[ClockJump]:
        """The jumps of log-append time that stream time did not follow since the last call."""
        found, self._clock.jumps = self._clock.jumps, []
        return found

    def _advance(self, record: LogRecord, next_stamp_ms: int | None = None) -> int:
        now = self._clock.advance(record.offset, record.timestamp_ms, next_stamp_ms)
        if self._clock.shift_ms != self._shifts.last_ms:
            self._shifts.add(record.offset, self._clock.shift_ms)
        return now

    def _apply_at(self, record: LogRecord, now: int) -> Iterator[int]:
        intake = self._begin_record(record)
        core, decide = self._core, self._deciding.decide
        if self._remembered.loaded and self._replay is None:
            yield from self._forget(self._remembered.end_load())
        self._low_before = self._low_watermark()
        if due := core.due(now):
            yield from decide(due, intake, record.offset, self._seal_if_full)
        self._low_before = None
        if (early := core.expire()) is not None:
            yield from self._forget(self._remembered.forget(early))
        applied = core.add(record.value or b"", record.offset, replay=self._replay is not None)
        while applied is None:
            yield 0
            applied = core.add_more()
        intake.applied(applied, record.offset)
        if applied.late or applied.bad:
            yield from self._late.forward(applied, record.offset, intake)
        if large := core.over_limits():
            yield from decide(large, intake, record.offset + 1, self._seal_if_full)
        self._end_record(record)

    def _begin_record(self, record: LogRecord) -> Intake:
        if self._replay is not None and record.offset >= self._replay.until:
            self._end_replay()
        self._new.discards = 0
        return self._replay or self._new

    def _end_record(self, record: LogRecord) -> None:
        self._applied_ms = record.timestamp_ms
        self.position = record.offset + 1
        self._new.discards = 0
        if self._replay is None:
            self._new.discards_before = 0
        elif self.position >= self._replay.until:
            self._end_replay()
        self._poison.check(self._new.unreadable_share())

    def _forget(self, steps: Iterator[int]) -> Iterator[int]:
        for decisions in steps:
            if decisions and self._replay is None:
                self._dead_letters.tally.forgotten(decisions)
            yield 0

    def relieve(self, most_bytes: int) -> Iterator[int]:
        """Decide the traces with the most bytes x age, until `open_bytes` is at most this. Not in a replay.

        The cut is the position. It yields about once in a millisecond, as `steps` does.
        """
        if self.replaying or not self._between_records:
            return
        self._between_records = False
        yield from self._deciding.decide(self._core.heaviest(most_bytes), self._new, self.position, self._seal_if_full)
        self._between_records = True
        self._seal_if_full()

    def _end_replay(self) -> None:
        """Continue with new records.

        If settings changed since the commit, the replay may have decided traces that were open then. The split between
        duplicates and late spans then differs. All other counters are unchanged, so the remainder counts as duplicates. It
        includes items of records that retention deleted, if `accept_truncation` allowed that. It also subtracts the duplicates of
        open traces that were found before the commit: they are found again.
        """
        self._count_duplicates()
        self._replay = None
        self._counters.duplicates += self.counters.unaccounted()

    def _low_watermark(self) -> tuple[int, int]:
        """The low watermark L, and the stream time just before it."""
        return self._core.low_watermark() or (self.position, self._core.clock_ms)

    def _seal_if_full(self) -> None:
        outputs = self._outputs
        if (outputs.bytes >= self.commit_bytes or outputs.count >= _COMMIT_RECORDS) and self._can_commit:
            self._sealed.append(self._next_commit())
            self._sealed_bytes += self._sealed[-1].bytes

    def freeze(self) -> PendingCommit:
        """Take out what has to be committed next: up to `commit_bytes`, and the trace or the record that exceeds them.

        Commits have to land in this order. If one does not, discard this state and restore it from the log.
        """
        if self._sealed:
            pending = self._sealed.popleft()
            self._sealed_bytes -= pending.bytes
            return pending
        return self._next_commit()

    def _next_commit(self) -> PendingCommit:
        offset, clock_before = self._low_before or self._low_watermark()
        size = self._outputs.bytes
        checkpoint = Checkpoint(
            shift_before_ms=self._shifts.before(offset),
            position=self.position,
            clock_before_ms=clock_before,
            clock_ms=self._core.clock_ms,
            partitions=self._topics.partitions,
            counters=self.counters,
            discarded=self._new.discards,
        )
        self._committed_position, self._watermark_ms = self.position, clock_before
        tally, self._dead_letters.tally = self._dead_letters.tally, Tally()
        return PendingCommit(
            records=self._outputs.take(),
            bytes=size,
            offset=offset,
            metadata=checkpoint.encode(),
            position=self.position,
            poison=self._poison.found,
            poison_known=self._poison.known,
            tally=tally,
        )
