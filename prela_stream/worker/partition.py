"""Everything a worker knows about one partition, and what it makes of the next Record. Pure: no waiting, no clock of its own.

The state is a function of the log: apply the same Records from the same checkpoint and the same decisions come out, whoever
does it and whenever. `tests/support/reference.py` says the same in a hundred obvious lines; a property holds the two together.
"""

from collections.abc import Sequence

import msgspec

from prela_stream.assembly.buffer import ReadyTrace, TraceBuffer
from prela_stream.assembly.decided import DecidedTraces
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.dlq import DeadLetter
from prela_stream.codec.spans import SPANS_FORMAT, BadItem, ItemBatch, decode_batch, encode_batch, encode_item
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.errors import PrelaError
from prela_stream.model.decision import Decision, decision_id_of
from prela_stream.model.span import ItemKind
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.transport.base import LogRecord, Record, TopicPartition
from prela_stream.transport.options import TopicOptions
from prela_stream.worker.checkpoint import Checkpoint, Counters
from prela_stream.worker.decoding import TraceDecoder, summarise
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.outputs import Outputs
from prela_stream.worker.tally import Tally

_EMPTY_RESOURCE = b"\x80"
_REASON_CHARACTERS = 500


class PoisonLimitError(PrelaError):
    """Too many items could not be read: most likely a producer speaks another format."""


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """One commit: what to write, and the offset and metadata that go with it."""

    records: Sequence[tuple[TopicPartition, Record]]
    offset: int
    """The low watermark L."""
    metadata: str
    tally: Tally
    """What to add to the metrics when the commit has landed."""


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a partition stands, for people and monitors."""

    position: int
    committed_position: int
    open_traces: int
    open_bytes: int
    pending_bytes: int
    replaying: bool
    clock_ms: int
    """Stream time."""
    applied_ms: int
    """Log-append time of the last record that was applied, 0 before the first."""
    oldest_ms: int | None
    """Stream time at which the oldest undecided trace began; None if none is open."""
    watermark_ms: int
    """Stream time just before the low watermark of the last commit, 0 before the first."""
    counters: Counters


def tick_record() -> Record:
    """A Record whose only content is its log-append time."""
    value = encode_batch(_EMPTY_RESOURCE, [encode_item(ItemKind.TICK)])
    return Record(value=value, headers=((FORMAT_HEADER, SPANS_FORMAT),))


class PartitionState:
    """One partition's open traces, remembered decisions, counters and pending output.

    Args:
        source: The partition of `spans`.
        topics: Names and sizes of the topics.
        assembly: Waits and limits.
        evaluator: The policies.
        options: Limits of the worker.
        start: Offset to begin at where nothing was committed yet.
    """

    def __init__(
        self,
        source: TopicPartition,
        *,
        topics: TopicOptions,
        assembly: AssemblyOptions,
        evaluator: Evaluator,
        options: WorkerOptions,
        start: int = 0,
    ) -> None:
        self._source = source
        self._topics = topics
        self._options = options
        self._evaluator = evaluator
        self._decided: DecidedTraces[Decision | None] = DecidedTraces(assembly)
        self._buffer = TraceBuffer(assembly, self._decided)
        self._traces = TraceDecoder(evaluator.reads)
        self._outputs = Outputs(source, topics, options.group)
        self._counters = Counters()
        self._tally = Tally()
        self._poison_seen = self._poison_items = 0
        self._committed_position = start
        self._replay_until = start
        self._decided_in_replay: set[bytes] = set()
        self._whole = True
        self._applied_ms = self._watermark_ms = 0
        self.position = start
        """Offset of the next Record to apply."""

    @property
    def counters(self) -> Counters:
        """What became of every item below the position. Not to be relied on while `replaying`."""
        return msgspec.structs.replace(self._counters, open=self._buffer.open_spans)

    @property
    def replaying(self) -> bool:
        """Whether Records below the last commit's position are still being applied again; nothing is committed meanwhile."""
        return self.position < self._replay_until

    @property
    def pending_bytes(self) -> int:
        """About how many bytes the next commit writes."""
        return self._outputs.bytes

    @property
    def has_news(self) -> bool:
        """Whether a commit may be made, and would say anything that the last one did not."""
        return (
            self._whole
            and not self.replaying
            and (self._outputs.bytes > 0 or self.position != self._committed_position)
        )

    def status(self) -> PartitionStatus:
        """How things stand."""
        return PartitionStatus(
            position=self.position,
            committed_position=self._committed_position,
            open_traces=self._buffer.open_traces,
            open_bytes=self._buffer.open_bytes,
            pending_bytes=self.pending_bytes,
            replaying=self.replaying,
            clock_ms=self._buffer.clock_ms,
            applied_ms=self._applied_ms,
            oldest_ms=None if (low := self._buffer.low_watermark()) is None else low[1],
            watermark_ms=self._watermark_ms,
            counters=self.counters,
        )

    def ms_to_next_deadline(self) -> int | None:
        """How much stream time is missing until the next open trace is due; None if none is open."""
        deadline = self._buffer.next_deadline_ms()
        return None if deadline is None else max(0, deadline - self._buffer.clock_ms)

    def resume_at(self, offset: int, checkpoint: Checkpoint) -> None:
        """Go on from a commit: replay from its low watermark `offset`, with the clock as it stood just before."""
        self._buffer.restore_clock(checkpoint.clock_before_ms)
        self._counters = checkpoint.counters
        self._watermark_ms = checkpoint.clock_before_ms
        self._replay_until = self._committed_position = checkpoint.position
        self.position = offset
        if not self.replaying:
            self._end_replay()  # all that was open is gone from the log

    def load(self, decision: Decision) -> None:
        """Take in a decision that was committed before; call in the order of the log."""
        self._decided.load(
            decision.trace_id,
            decision if decision.kept else None,
            decision.decided_at_ms,
            first_offset=decision.first_offset,
            cut_offset=decision.cut_offset,
        )

    def apply(self, record: LogRecord) -> None:
        """Apply the next Record: decide what is due by its time, then take its items in.

        Raises:
            PoisonLimitError: too large a share of recent items could not be read. This Record is applied all the same; after
                any other error it is in by half, and this state has no news any more: restore it from the log.
        """
        self._whole, replayed = False, self.replaying
        now = record.timestamp_ms
        fresh = record.offset >= self._replay_until
        for undecided in self._buffer.due(now):
            self._decide(undecided, cut=record.offset, fresh=fresh)
        self._decided.expire(self._buffer.clock_ms)
        batch = decode_batch(record.value or b"")
        if fresh:
            self._count(batch, record.offset)
        else:
            batch = self._without_covered(batch, record.offset)
        applied = self._buffer.add(batch, record.offset, now)
        if fresh:
            self._counters.duplicates += applied.duplicates
            self._counters.control += applied.control
        if applied.late:
            self._late(batch, applied.late, record.offset, fresh=fresh)
        for undecided in self._buffer.over_limits():
            self._decide(undecided, cut=record.offset + 1, fresh=fresh)
        self.position = record.offset + 1
        self._applied_ms = now
        if replayed and not self.replaying:
            self._end_replay()
        self._whole = True
        if fresh:
            self._watch_poison()

    def _end_replay(self) -> None:
        """Settings that changed since the commit may have decided what was open then. Which of the open traces' items are
        duplicates and which are late has changed with that; all other classes are as they were, so the rest is the duplicates.
        What retention took meanwhile, which is gone only where that was accepted, counts with them.
        """
        self._decided_in_replay.clear()
        self._counters.duplicates += self.counters.unaccounted()

    def freeze(self) -> Frozen:
        """Everything to commit now. What is frozen has left this state: if it does not land, restore from the log."""
        low = self._buffer.low_watermark()
        offset, clock_before = (self.position, self._buffer.clock_ms) if low is None else low
        checkpoint = Checkpoint(
            position=self.position,
            clock_before_ms=clock_before,
            clock_ms=self._buffer.clock_ms,
            partitions=self._topics.partitions,
            counters=self.counters,
        )
        self._committed_position, self._watermark_ms = self.position, clock_before
        tally, self._tally = self._tally, Tally()
        return Frozen(records=self._outputs.take(), offset=offset, metadata=checkpoint.encode(), tally=tally)

    def _decide(self, undecided: ReadyTrace, *, cut: int, fresh: bool) -> None:
        """Decide a trace. One that is decided in a replay had been open at the commit: the settings have changed since."""
        read = self._traces.read(undecided)
        for bad in read.poison if fresh else ():
            self._bury(bad, undecided.first_offset)
        if read.trace is None:
            return
        if not fresh:
            self._decided_in_replay.add(undecided.trace_id)
        verdict = self._evaluator.decide(read.trace)
        repeated = self._decided.was_forgotten(undecided.trace_id, undecided.due_ms)
        decision = Decision(
            trace_id=undecided.trace_id,
            decision_id=decision_id_of(
                self._source.topic, self._source.partition, undecided.trace_id, undecided.first_offset
            ),
            kept=verdict.kept,
            probability=verdict.probability,
            threshold=verdict.threshold,
            weight=0.0 if repeated else verdict.weight,
            policy=verdict.policy,
            reason=verdict.reason[:_REASON_CHARACTERS],
            trigger=undecided.trigger,
            complete=undecided.complete,
            first_offset=undecided.first_offset,
            cut_offset=cut,
            decided_at_ms=undecided.due_ms,
            policy_version=self._evaluator.policy_set.version,
            summary=summarise(read.trace),
            weight_biased=verdict.weight_biased,
            repeated=repeated,
        )
        self._outputs.decide(decision)
        readable = undecided.spans - len(read.poison)
        if decision.kept:
            self._outputs.keep(decision, read.raws, read.resources)
            self._counters.kept += readable
        else:
            self._counters.dropped += readable
        self._decided.remember(undecided.trace_id, decision if decision.kept else None, undecided.due_ms)
        self._tally.decided(decision)

    def _late(self, batch: ItemBatch, late: Sequence[int], offset: int, *, fresh: bool) -> None:
        """Send late spans after their trace. In a replay, those of a committed decision were sent already."""
        by_trace: dict[bytes, list[bytes]] = {}
        for place in late:
            trace_id = batch.heads[place].trace_id
            assert trace_id is not None
            if fresh or trace_id in self._decided_in_replay:
                by_trace.setdefault(trace_id, []).append(batch.raws[place])
        for trace_id, raws in by_trace.items():
            decision = self._decided[trace_id]
            if decision is None:
                self._counters.late_dropped += len(raws)
                self._tally.late(len(raws), kept=False)
            else:
                self._counters.late_kept += len(raws)
                self._tally.late(len(raws), kept=True)
                self._outputs.keep_late(decision, raws, batch.resource, offset)

    def _without_covered(self, batch: ItemBatch, offset: int) -> ItemBatch:
        """In a replay: the items of a Record that are in no decision that was committed."""
        covers = self._decided.covers
        keep = [
            place
            for place, head in enumerate(batch.heads)
            if head.trace_id is None or not covers(head.trace_id, offset)
        ]
        if len(keep) == len(batch.heads):
            return batch
        return msgspec.structs.replace(
            batch,
            heads=[batch.heads[place] for place in keep],
            raws=[batch.raws[place] for place in keep],
            indexes=[batch.indexes[place] for place in keep],
        )

    def _count(self, batch: ItemBatch, offset: int) -> None:
        items = len(batch.heads) + len(batch.bad) + batch.unknown
        self._counters.consumed += items
        self._counters.control += batch.unknown
        self._counters.dlq += len(batch.bad)
        self._tally.items(items)
        for bad in batch.bad:
            self._outputs.bury(self._letter(bad, offset))
        self._poison_items += items
        self._poison_seen += len(batch.bad)

    def _bury(self, bad: BadItem, offset: int) -> None:
        self._counters.dlq += 1
        self._outputs.bury(self._letter(bad, offset))

    def _letter(self, bad: BadItem, offset: int) -> DeadLetter:
        self._tally.poison()
        return DeadLetter(
            topic=self._source.topic,
            partition=self._source.partition,
            offset=offset,
            index=bad.index,
            reason=bad.reason,
            raw=bad.raw,
        )

    def _watch_poison(self) -> None:
        if self._poison_items < self._options.poison_window:
            return
        share = self._poison_seen / self._poison_items
        if share > self._options.poison_limit:
            msg = (
                f"{share:.0%} of the last {self._poison_items} items of {self._source} could "
                f"not be read (limit {self._options.poison_limit:.0%}); they are in {self._topics.dlq}. Look there for the "
                "reason; raise worker.poison_limit to go on all the same"
            )
            raise PoisonLimitError(msg)
        self._poison_items = self._poison_seen = 0
