"""Real worker processes on a real log: killed a hundred times, stopped, started. An oracle outside looks at what is left."""

import random
from collections import Counter
from pathlib import Path

import anyio
import msgspec
import pytest

from prela_stream.app import ready_transport
from prela_stream.codec import KeptFragment, decode_batch, decode_decisions, decode_head, decode_kept, encode_batch
from prela_stream.config import Settings, load_settings
from prela_stream.model.decision import Decision, Trigger
from prela_stream.model.ids import partition_of
from prela_stream.model.span import ItemKind
from prela_stream.transport.base import Record, Stored, TopicPartition, Transport
from prela_stream.worker.checkpoint import Checkpoint, read_checkpoint
from tests.programs import Faults, Send, simulate
from tests.reference import LogRecord, decide
from tests.support.processes import DEADLINE, Service

SETTINGS = """
directory = "{directory}"
policies_file = "{directory}/policies.toml"

[topics]
partitions = 3

[local]
session_timeout_ms = 400

[worker]
commit_interval_ms = 40

[assembly]
settle_ms = 60
remote_wait_ms = 120
root_wait_ms = 240
idle_ms = 500
idle_without_heartbeats_ms = 900
late_window_ms = 3_600_000
max_age_ms = 5_000
"""
HALF = '[[policy]]\nname = "half"\ntype = "probabilistic"\nprobability = 0.5\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "prela.toml"
    file.write_text(SETTINGS.format(directory=tmp_path), encoding="utf-8")
    (tmp_path / "policies.toml").write_text(HALF, encoding="utf-8")
    return file


class Load:
    """Sends the spans of random programs, and remembers what the log has acknowledged."""

    def __init__(self, transport: Transport, settings: Settings, rng: random.Random) -> None:
        self.transport = transport
        self.settings = settings
        self.rng = rng
        self.acknowledged: Counter[tuple[bytes, bytes]] = Counter()
        self.finished = False

    async def run(self) -> None:
        """Keep a few programs going at a time, until `finished`; then let those end."""
        going: list[tuple[bytes, list[Send]]] = []
        async with await self.transport.producer() as producer:
            while going or not self.finished:
                while len(going) < 6 and not self.finished:
                    trace_id = self.rng.randbytes(16)
                    going.append((trace_id, simulate(self.rng, Faults.any(self.rng), trace_id=trace_id).sends))
                trace_id, sends = self.rng.choice(going)
                count = self.rng.randrange(1, 6)
                items = [send.item for send in sends[:count] if send.resource == sends[0].resource]
                if items:
                    value = encode_batch(sends[0].resource, items)
                    partition = partition_of(trace_id, self.settings.topics.partitions)
                    await producer.send(TopicPartition(self.settings.topics.spans, partition), [Record(value=value)])
                    for head in decode_batch(value).heads:
                        if head.kind == ItemKind.SPAN and head.span_id:
                            self.acknowledged[trace_id, head.span_id] += 1
                del sends[: len(items)]
                going = [one for one in going if one[1]]
                await anyio.sleep(self.rng.random() * 0.02)  # the pace of the load, not a wait for anything


class Outcome(msgspec.Struct, kw_only=True):
    """What a read_committed reader finds in the log at the end."""

    spans: dict[int, list[Stored]] = {}
    decisions: dict[int, list[Decision]] = {}
    fragments: list[KeptFragment] = []
    checkpoints: dict[int, Checkpoint] = {}


async def read_all(transport: Transport, topic: str) -> list[Stored]:
    """Every Record of a topic."""
    found: list[Stored] = []
    async with await transport.consumer([topic]) as consumer:
        assigned = (await consumer.poll()).assigned
        ends = {part: await consumer.end_offset(part) for part in assigned}
        consumer.resume(*assigned)
        with anyio.fail_after(DEADLINE):
            while any([await consumer.position(part) < end for part, end in ends.items()]):
                found += (await consumer.poll(timeout=0.05)).records
    return found


async def checkpoint_of(transport: Transport, settings: Settings, partition: int) -> tuple[int, Checkpoint, int] | None:
    """Low watermark, checkpoint and end of one partition, as the group has committed them."""
    source = TopicPartition(settings.topics.spans, partition)
    committed = await transport.committed(settings.worker.group, source)
    async with await transport.consumer([source.topic]) as consumer:
        await consumer.poll(timeout=0.0)
        end = await consumer.end_offset(source)
    if committed is None:
        return None
    checkpoint = read_checkpoint(committed.metadata, partitions=settings.topics.partitions, where=str(source))
    return committed.offset, checkpoint, end


async def all_is_decided(transport: Transport, settings: Settings) -> None:
    """Wait until every partition's commit says that nothing is open and nothing unread."""
    with anyio.fail_after(DEADLINE):
        for partition in range(settings.topics.partitions):
            while True:
                found = await checkpoint_of(transport, settings, partition)
                if found and found[0] == found[1].position == found[2] and found[1].counters.open == 0:
                    break
                await anyio.sleep(0.1)


async def position_is(transport: Transport, settings: Settings, partition: int, position: int) -> None:
    """Wait until this position is committed."""
    with anyio.fail_after(DEADLINE):
        while (found := await checkpoint_of(transport, settings, partition)) is None or found[1].position < position:
            await anyio.sleep(0.05)


async def outcome_of(transport: Transport, settings: Settings) -> Outcome:
    """Read the log with no help of the workers."""
    found = Outcome()
    for partition in range(settings.topics.partitions):
        found.spans[partition], found.decisions[partition] = [], []
        committed = await checkpoint_of(transport, settings, partition)
        assert committed is not None
        found.checkpoints[partition] = committed[1]
    for record in await read_all(transport, settings.topics.spans):
        found.spans[record.partition].append(record)
    for record in await read_all(transport, settings.topics.decisions):
        found.decisions[record.partition] += decode_decisions(record.value or b"")
    found.fragments = [
        decode_kept(record.value or b"") for record in await read_all(transport, settings.topics.sampled)
    ]
    return found


def hold_against_reference(found: Outcome, settings: Settings) -> None:
    """I5, I3: the decisions are those of a sequential reader of the same log, each made once."""
    for partition, records in found.spans.items():
        log = [LogRecord(record.offset, record.timestamp_ms, decode_batch(record.value or b"")) for record in records]
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
    kept = {d.trace_id: d.kept for decisions in found.decisions.values() for d in decisions}
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


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_hundred_sigkills_lose_split_and_repeat_nothing(config: Path, tmp_path: Path) -> None:
    settings = load_settings(config, {})
    rng = random.Random(20)
    log = tmp_path / "worker.log"
    async with ready_transport(settings) as transport:
        load = Load(transport, settings, rng)
        workers = [Service("worker", "--config", str(config), log=log) for _ in range(2)]
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(load.run)
                for _ in range(100):
                    victim = rng.randrange(len(workers))
                    if rng.random() < 0.7:  # on a busy machine most would die before they have done anything
                        await workers[victim].says("worker is ready")
                    await anyio.sleep(rng.uniform(0.0, 0.5))  # the random moment
                    workers[victim].kill()
                    workers[victim] = Service("worker", "--config", str(config), log=log)
                load.finished = True
            await all_is_decided(transport, settings)
            codes = [await worker.stop(within=10.0) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        found = await outcome_of(transport, settings)
    assert codes == [0, 0]
    hold_against_reference(found, settings)
    hold_against_acknowledged(found, load.acknowledged)
    said = log.read_text(encoding="utf-8")
    replays = [int(line.split("replaying ")[1].split()[0]) for line in said.splitlines() if "replaying " in line]
    assert sum(count > 0 for count in replays) >= 20, "too few takeovers had anything to replay"
    triggers = {d.trigger for decisions in found.decisions.values() for d in decisions}
    assert {Trigger.COMPLETE, Trigger.ROOT_WAIT, Trigger.IDLE} <= triggers
    assert sum(f.late for f in found.fragments) > 0


async def test_a_stop_decides_nothing_and_the_next_worker_goes_on(config: Path, tmp_path: Path) -> None:
    patient = {
        "PRELA_ASSEMBLY_IDLE_WITHOUT_HEARTBEATS_MS": "600000",
        "PRELA_ASSEMBLY_ROOT_WAIT_MS": "600000",
        "PRELA_TOPICS_PARTITIONS": "1",
    }
    settings = load_settings(config, patient)
    rng = random.Random(3)
    async with ready_transport(settings) as transport, await transport.producer() as producer:
        trace_id = b"\x01" * 9 + b"\xff" * 7
        program = simulate(rng, Faults(), trace_id=trace_id)
        place = TopicPartition(settings.topics.spans, partition_of(trace_id, settings.topics.partitions))
        half = len(program.sends) // 2
        for send in program.sends[:half]:
            await producer.send(place, [Record(value=encode_batch(send.resource, [send.item]))])
        worker = Service("worker", "--config", str(config), log=tmp_path / "first.log", env=patient)
        await position_is(transport, settings, place.partition, half)
        assert await worker.stop(within=10.0) == 0
        found = await checkpoint_of(transport, settings, place.partition)
        assert found is not None
        assert found[1].counters.open > 0
        assert await read_all(transport, settings.topics.decisions) == []
        second = Service("worker", "--config", str(config), log=tmp_path / "second.log", env=patient)
        try:
            for send in program.sends[half:]:
                await producer.send(place, [Record(value=encode_batch(send.resource, [send.item]))])
            await all_is_decided(transport, settings)
        finally:
            assert await second.stop(within=10.0) == 0
        outcome = await outcome_of(transport, settings)
    (decision,) = outcome.decisions[place.partition]
    assert (decision.trigger, decision.complete, decision.kept) == (Trigger.COMPLETE, True, True)
    (fragment,) = outcome.fragments
    assert {decode_head(raw).span_id for _, raw in fragment.items} == set(program.spans)
