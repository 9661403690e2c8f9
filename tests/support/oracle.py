"""An oracle outside of the workers: it sends known spans, reads the log, and compares it with the reference."""

import random
from collections import Counter
from typing import Protocol

import anyio
import msgspec

from prela_stream.app.adapters import group_of
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.sampled import KeptFragment, decode_kept
from prela_stream.codec.spans import decode_batch, decode_head, encode_batch
from prela_stream.config import Settings
from prela_stream.errors import TransportError
from prela_stream.model.decision import Decision
from prela_stream.model.ids import partition_of
from prela_stream.model.span import ItemKind
from prela_stream.transport.base import Committed, LogRecord, Producer, Record, TopicPartition, Transport
from prela_stream.worker.checkpoint import Checkpoint, read_checkpoint
from tests.support.processes import DEADLINE
from tests.support.programs import Faults, Send, simulate
from tests.support.reference import ReadRecord, decide

HALF = '[[policy]]\nname = "half"\ntype = "probabilistic"\nprobability = 0.5\n'
"""The policies that `hold_against_reference` evaluates."""
QUICK_ASSEMBLY = """
[assembly]
settle_ms = 60
remote_wait_ms = 120
root_wait_ms = 240
idle_ms = 500
idle_without_heartbeats_ms = 900
late_window_ms = 3_600_000
max_age_ms = 5_000
"""
_AGAIN_S = 0.1


class Outside(Protocol):
    """A view of the log from outside of the workers."""

    async def records(self, topic: str, partitions: int) -> list[LogRecord]:
        """All committed records of a topic."""
        ...

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """The committed offset of a group."""
        ...

    async def end(self, partition: TopicPartition) -> int:
        """The end offset of a read_committed reader."""
        ...


class ThroughTransport:
    """Reads the log through the transport under test."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def records(self, topic: str, partitions: int) -> list[LogRecord]:
        """See `Outside.records`."""
        found: list[LogRecord] = []
        async with await self._transport.consumer([topic]) as consumer:
            assigned = (await consumer.poll()).assigned
            assert len(assigned) == partitions
            ends = {part: await consumer.end_offset(part) for part in assigned}
            consumer.resume(*assigned)
            with anyio.fail_after(DEADLINE):
                while any([await consumer.position(part) < end for part, end in ends.items()]):
                    found += (await consumer.poll(timeout=0.05)).records
        return found

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """See `Outside.committed`."""
        return await self._transport.committed(group, partition)

    async def end(self, partition: TopicPartition) -> int:
        """See `Outside.end`."""
        async with await self._transport.consumer([partition.topic]) as consumer:
            await consumer.poll(timeout=0.0)
            return await consumer.end_offset(partition)


class Load:
    """Sends the spans of random programs and records which are acknowledged."""

    def __init__(self, transport: Transport, settings: Settings, rng: random.Random, *, pace_s: float = 0.02) -> None:
        self.transport = transport
        self.settings = settings
        self.rng = rng
        self.pace_s = pace_s
        self.acknowledged: Counter[tuple[bytes, bytes]] = Counter()
        self.repeated = 0
        """Repeated sends, which may have written duplicates."""
        self.finished = False

    async def run(self) -> None:
        """Run a few programs at a time until `finished`; then let them end."""
        going: list[tuple[bytes, list[Send]]] = []
        async with await self.transport.producer() as producer:
            while going or not self.finished:
                await self._step(producer, going)
                await anyio.sleep(self.rng.random() * self.pace_s)  # the pace of the load, not a wait

    async def _step(self, producer: Producer, going: list[tuple[bytes, list[Send]]]) -> None:
        while len(going) < 6 and not self.finished:
            trace_id = self.rng.randbytes(16)
            going.append((trace_id, simulate(self.rng, Faults.any(self.rng), trace_id=trace_id).sends))
        trace_id, sends = self.rng.choice(going)
        count = self.rng.randrange(1, 6)
        items = [send.item for send in sends[:count] if send.resource == sends[0].resource]
        if items:
            await self._send(producer, trace_id, encode_batch(sends[0].resource, items))
        del sends[: len(items)]
        going[:] = [one for one in going if one[1]]

    async def _send(self, producer: Producer, trace_id: bytes, value: bytes) -> None:
        place = TopicPartition(self.settings.topics.spans, partition_of(trace_id, self.settings.topics.partitions))
        while True:
            try:
                await producer.send(place, [Record(value=value)])
                break
            except TransportError:  # as an SDK does: repeat until acknowledged
                self.repeated += 1
                await anyio.sleep(_AGAIN_S)
        for head in decode_batch(value).heads:
            if head.kind == ItemKind.SPAN and head.span_id:
                self.acknowledged[trace_id, head.span_id] += 1


class Outcome(msgspec.Struct, kw_only=True):
    """The committed content of the log at the end."""

    spans: dict[int, list[LogRecord]] = {}
    decisions: dict[int, list[Decision]] = {}
    fragments: list[KeptFragment] = []
    checkpoints: dict[int, Checkpoint] = {}
    waits_ms: list[int] = []
    """For each decision, the time from its deadline until it was in the log."""

    @property
    def all_decisions(self) -> list[Decision]:
        """The decisions of all partitions."""
        return [decision for decisions in self.decisions.values() for decision in decisions]


async def checkpoint_of(outside: Outside, settings: Settings, partition: int) -> tuple[int, Checkpoint, int] | None:
    """Low watermark, checkpoint and end of one partition, as the group has committed them."""
    source = TopicPartition(settings.topics.spans, partition)
    committed = await outside.committed(group_of(settings, settings.worker.group), source)
    end = await outside.end(source)
    if committed is None:
        return None
    checkpoint = read_checkpoint(committed.metadata, partitions=settings.topics.partitions, where=str(source))
    return committed.offset, checkpoint, end


async def all_is_decided(outside: Outside, settings: Settings) -> None:
    """Wait until the checkpoint of every partition has no open items and nothing is left to read."""
    for partition in range(settings.topics.partitions):
        with anyio.fail_after(DEADLINE):
            while True:
                found = await checkpoint_of(outside, settings, partition)
                if found and found[0] == found[1].position == found[2] and found[1].counters.open == 0:
                    break
                await anyio.sleep(0.1)


async def position_is(outside: Outside, settings: Settings, partition: int, position: int) -> None:
    """Wait until this position is committed."""
    with anyio.fail_after(DEADLINE):
        while (found := await checkpoint_of(outside, settings, partition)) is None or found[1].position < position:
            await anyio.sleep(0.05)


async def outcome_of(outside: Outside, settings: Settings) -> Outcome:
    """Read the log with no help of the workers."""
    topics = settings.topics
    found = Outcome()
    for partition in range(topics.partitions):
        found.spans[partition], found.decisions[partition] = [], []
        committed = await checkpoint_of(outside, settings, partition)
        assert committed is not None
        found.checkpoints[partition] = committed[1]
    for record in await outside.records(topics.spans, topics.partitions):
        found.spans[record.partition].append(record)
    for record in await outside.records(topics.decisions, topics.partitions):
        decisions = decode_decisions(record.value or b"")
        found.decisions[record.partition] += decisions
        found.waits_ms += [record.timestamp_ms - decision.decided_at_ms for decision in decisions]
    sampled = await outside.records(topics.sampled, topics.sampled_partitions)
    found.fragments = [decode_kept(record.value or b"") for record in sampled]
    return found


def hold_against_reference(found: Outcome, settings: Settings) -> None:
    """I5, I3: the decisions are those of a sequential reader of the same log, each made once."""
    for partition, records in found.spans.items():
        log = [ReadRecord(record.offset, record.timestamp_ms, decode_batch(record.value or b"")) for record in records]
        expected = decide(log, settings.assembly)
        made = found.decisions[partition]
        assert [(d.trace_id, d.trigger, d.complete, d.decided_at_ms, d.first_offset, d.cut_offset) for d in made] == [
            (d.trace_id, d.trigger, d.complete, d.due_ms, d.first_offset, d.cut_offset) for d in expected.decided
        ]
        for decision in made:
            assert decision.kept == (int.from_bytes(decision.trace_id[-7:], "big") >= 1 << 55)
            assert decision.weight == (2.0 if decision.kept else 0.0)
        assert len({d.trace_id for d in made}) == len(made)
        assert found.checkpoints[partition].counters.unaccounted() == 0


def hold_against_acknowledged(found: Outcome, acknowledged: Counter[tuple[bytes, bytes]]) -> None:
    """I2, I4: every acknowledged span is in a kept trace or under a recorded drop; no kept trace lacks one."""
    kept = {d.trace_id: d.kept for d in found.all_decisions}
    assert {trace_id for trace_id, _ in acknowledged} <= kept.keys(), "acknowledged, and never decided"
    stored: Counter[tuple[bytes, bytes]] = Counter()
    for fragment in found.fragments:
        assert kept[fragment.decision.trace_id], "a fragment of a dropped trace"
        heads = [decode_head(raw) for _, raw in fragment.items]
        stored.update((h.trace_id, h.span_id) for h in heads if h.trace_id and h.span_id and h.kind == ItemKind.SPAN)
    lacking = {key for key in acknowledged if kept[key[0]] and key not in stored}
    assert lacking == set()
    assert set(stored) <= set(acknowledged)
    parts = Counter((f.decision.decision_id, f.fragment, f.late) for f in found.fragments)
    assert max(parts.values()) == 1, "a fragment was written twice"
