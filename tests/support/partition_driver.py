"""A partition's log, its commits and successive workers, in memory, with the guarantees of a transport."""

import random
from collections.abc import Iterator, Sequence

import msgspec

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.dlq import decode_dead_letter
from prela_stream.codec.sampled import KeptFragment, decode_kept
from prela_stream.codec.spans import decode_batch, decode_head, encode_batch
from prela_stream.model.decision import Decision
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.transport.base import LogRecord, Record, TopicPartition
from prela_stream.transport.options import TopicOptions
from prela_stream.worker.checkpoint import Checkpoint, read_checkpoint
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState
from tests.support.programs import Faults, Send, simulate
from tests.support.reference import ReadRecord

TOPICS = TopicOptions(partitions=3, max_record_bytes=20_000)
SOURCE = TopicPartition(TOPICS.spans, 1)


class Committed(msgspec.Struct, kw_only=True):
    """The committed output of one partition."""

    decisions: list[Decision] = []
    fragments: list[KeptFragment] = []
    dead: list[bytes] = []
    offset: int = 0
    metadata: str = ""


class Workers:
    """One partition that is processed by one worker after the other.

    Args:
        log: The partition.
        assembly: Waits and limits.
        evaluator: The policies.
        core: The core of every worker.
    """

    def __init__(
        self, log: Sequence[LogRecord], assembly: AssemblyOptions, evaluator: Evaluator, core: CoreKind
    ) -> None:
        self.log = log
        self.core = core
        self.assembly = assembly
        self.evaluator = evaluator
        self.committed = Committed()
        self.restarts = self.replayed = 0
        self.written: list[tuple[TopicPartition, Record]] = []
        """The records of all commits."""
        self.checkpoints: list[Checkpoint] = []
        self._next_offset = 0
        self.state = self._start()

    def _start(self) -> PartitionState:
        state = PartitionState(
            SOURCE,
            topics=TOPICS,
            assembly=self.assembly,
            evaluator=self.evaluator,
            options=WorkerOptions(),
            core=self.core,
        )
        if self.committed.metadata:
            checkpoint = read_checkpoint(self.committed.metadata, partitions=TOPICS.partitions, where="spans[1]")
            state.resume_at(self.committed.offset, checkpoint)
            horizon = checkpoint.clock_before_ms - 2 * self.assembly.late_window_ms
            for decision in self.committed.decisions:
                if decision.decided_at_ms >= horizon:
                    state.load(decision)
        self._next_offset = state.position
        return state

    def crash(self) -> None:
        """The worker dies with its uncommitted state, and another one takes over."""
        self.restarts += 1
        self.replayed += max(0, self.state.position - self.committed.offset)
        self.state = self._start()

    def step(self) -> bool:
        """Apply the next record; False at the end of the log."""
        found = False
        for _ in self.parts():
            found = True
        if found and not self.state.replaying:
            assert self.state.counters.unaccounted() == 0, self.state.counters
        return found

    def parts(self) -> Iterator[None]:
        """Apply the next record in steps, between which the worker may commit or crash; none at the end of the log."""
        record = next((record for record in self.log if record.offset >= self._next_offset), None)
        if record is not None:
            self._next_offset = record.offset + 1
            for _ in self.state.steps([record]):
                yield

    def relieve(self, most_bytes: int) -> int:
        """Decide traces for memory, as a worker does between two records; returns how many traces were taken out."""
        before = self.state.status().open_traces
        for _ in self.state.relieve(most_bytes):
            pass
        return before - self.state.status().open_traces

    def commit(self) -> None:
        """Commit everything, unless the worker is replaying."""
        if not self.state.replaying:
            self.commit_piece()
            while self.state.has_news:
                self.commit_piece()

    def commit_piece(self) -> None:
        """Make the next commit."""
        before = self._position()
        frozen = self.state.freeze()
        assert frozen.offset >= self.committed.offset, "the low watermark went back"
        self.written += frozen.records
        checkpoint = msgspec.json.decode(frozen.metadata, type=Checkpoint)
        assert checkpoint.counters.unaccounted() == 0, checkpoint
        self.checkpoints.append(checkpoint)
        for to, record in frozen.records:
            assert record.value is not None
            assert len(record.value) <= TOPICS.max_record_bytes
            if to.topic == TOPICS.decisions:
                self.committed.decisions += decode_decisions(record.value)
            elif to.topic == TOPICS.sampled:
                self.committed.fragments.append(decode_kept(record.value))
            else:
                self.committed.dead.append(decode_dead_letter(record.value).raw)
        self.committed.offset, self.committed.metadata = frozen.offset, frozen.metadata
        assert self._position() >= before

    def _position(self) -> int:
        if not self.committed.metadata:
            return 0
        return msgspec.json.decode(self.committed.metadata, type=Checkpoint).position

    def finish(self) -> Committed:
        """Apply the rest of the log and commit."""
        while self.step():
            pass
        self.commit()
        return self.committed


def random_log(rng: random.Random, *, programs: int, poison: bool, clocks: bool = False) -> list[LogRecord]:
    """Items of several programs, interleaved, in records of any size with pauses between them; some records are poison.

    With `clocks` some records are stamped with wrong times.
    """
    sends: list[tuple[float, Send]] = []
    for number in range(programs):
        program = simulate(
            rng, Faults.any(rng), trace_id=number.to_bytes(8, "big") + rng.randbytes(8), steps=rng.randrange(4, 25)
        )
        begin = rng.random() * 100
        for place, send in enumerate(program.sends):
            straggles = rng.random() * 150 if rng.random() < 0.05 else 0.0
            sends.append((begin + place * rng.random() * 2 + straggles, send))
    sends.sort(key=lambda pair: pair[0])
    log: list[LogRecord] = []
    now, offset, place = 1_000, 5, 0
    while place < len(sends):
        size = rng.choice((1, 1, 3, 10))
        first = sends[place][1]
        items = [send.item for _, send in sends[place : place + size] if send.resource == first.resource]
        place += len(items)
        value = encode_batch(first.resource, items)
        if poison and rng.random() < 0.1:
            value = rng.choice(
                (b"", b"\x07" + value, value[:-3], encode_batch(first.resource, [*items, b"\xc3", b"\x91\x00"]))
            )
        now += rng.choice((0, 1, 20, 70, 400))
        offset += rng.choice((1, 1, 2))
        log.append(_record(offset, now, value))
    if clocks:
        for _ in range(rng.randrange(4)):
            begin, length = rng.randrange(len(log)), rng.choice((1, 1, 2, 5))
            error_ms = rng.choice((-3_600_000, 20_000, 3_600_000, 36_000_000))
            log[begin : begin + length] = [
                msgspec.structs.replace(record, timestamp_ms=max(0, record.timestamp_ms + error_ms))
                for record in log[begin : begin + length]
            ]
    tick = encode_batch(b"\x80", [b"\x91\x06"])
    return [*log, _record(offset + 1, now + 10**9, tick), _record(offset + 2, now + 10**9, tick)]


def _record(offset: int, timestamp_ms: int, value: bytes) -> LogRecord:
    return LogRecord(
        topic=SOURCE.topic, partition=SOURCE.partition, offset=offset, timestamp_ms=timestamp_ms, value=value
    )


def as_read(log: Sequence[LogRecord]) -> list[ReadRecord]:
    """The same log for the reference."""
    return [ReadRecord(record.offset, record.timestamp_ms, decode_batch(record.value or b"")) for record in log]


def span_ids(fragments: Sequence[KeptFragment]) -> list[bytes | None]:
    """Ids of all spans in these fragments."""
    return [decode_head(raw).span_id for fragment in fragments for _, raw in fragment.items]
