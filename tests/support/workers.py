"""Workers in the test process on a real local log, and readers of their output."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.dlq import decode_dead_letter
from prela_stream.codec.sampled import decode_kept
from prela_stream.codec.spans import encode_batch, encode_item
from prela_stream.model.decision import Decision
from prela_stream.model.span import COUNTED, ItemKind
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import Record, TopicPartition, Transport
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.local.transport import wall_ms
from prela_stream.transport.options import LocalOptions, TopicOptions
from prela_stream.transport.topics import topic_specs
from prela_stream.worker.checkpoint import Checkpoint
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.service import Worker
from tests.support import processes

TOPICS = TopicOptions(partitions=1)
SPANS = TopicPartition(TOPICS.spans, 0)
QUICK = AssemblyOptions(settle_ms=20, remote_wait_ms=40, root_wait_ms=60, idle_ms=100, idle_without_heartbeats_ms=200)
WHOLE_ONLY = msgspec.structs.replace(QUICK, root_wait_ms=60_000, idle_ms=60_000, idle_without_heartbeats_ms=60_000)
"""As quick with traces that are whole. The others wait for longer than a test does: no disk that stalls decides them."""
KEEP_ALL = Evaluator(load_policies('[[policy]]\nname = "all"\ntype = "always"\n', source="test"))
DEADLINE = processes.DEADLINE


@asynccontextmanager
async def local_log(folder: Path, topics: TopicOptions = TOPICS) -> AsyncIterator[LocalTransport]:
    """A log with its topics. Members leave their groups by themselves alone: no test takes as long as their session."""
    async with LocalTransport(LocalOptions(path=str(folder / "log.db"), session_timeout_ms=120_000)) as transport:
        await transport.create_topics(topic_specs(topics))
        yield transport


def make_worker(
    transport: Transport,
    *,
    topics: TopicOptions = TOPICS,
    assembly: AssemblyOptions = QUICK,
    evaluator: Evaluator = KEEP_ALL,
    **options: object,
) -> Worker:
    """A worker that commits every 20 ms and keeps everything. A disk that stalls makes none of its commits unknown."""
    patient = {"commit_timeout_s": DEADLINE, "stop_timeout_s": DEADLINE}
    chosen = msgspec.convert({"commit_interval_ms": 20, "tick_min_ms": 10, **patient, **options}, WorkerOptions)
    return Worker(transport, topics=topics, evaluator=evaluator, options=chosen, assembly=assembly)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    """The worker at work for the length of the block, then stopped cleanly."""
    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()
        tasks.start_soon(worker.run, ready.set)
        with anyio.fail_after(DEADLINE):
            await ready.wait()
        yield
        tasks.cancel_scope.cancel()


async def checkpoint(transport: Transport, position: int, source: TopicPartition = SPANS) -> Checkpoint:
    """Wait until this position is committed; returns the checkpoint."""
    with anyio.fail_after(DEADLINE):
        while True:
            found = await transport.committed("sampler", source)
            if found is not None:
                read = msgspec.json.decode(found.metadata, type=Checkpoint)
                if read.position >= position:
                    return read
            await anyio.sleep(0.01)


def whole_trace(number: int, children: int = 2) -> list[bytes]:
    """Items of a root and its children, as an SDK that counts sends them."""
    trace_id = number.to_bytes(16, "big")
    root = b"root" + number.to_bytes(4, "big")
    items = [
        encode_item(ItemKind.SPAN, trace_id, bytes([child]) * 8, root, COUNTED, 1, 0, 0, 0, None, 2, 1_000, 5, "tool")
        for child in range(1, children + 1)
    ]
    return [*items, encode_item(ItemKind.SPAN, trace_id, root, None, 0, 1, 0, children, 0, None, 0, 900, 200, "agent")]


async def send(transport: Transport, *values: bytes, to: TopicPartition = SPANS) -> None:
    """Append records with these values."""
    async with await transport.producer() as producer:
        await producer.send(to, [Record(value=value) for value in values])


async def send_items(transport: Transport, items: Sequence[bytes], to: TopicPartition = SPANS) -> None:
    """Append one record of these items."""
    await send(transport, encode_batch(b"\x80", items), to=to)


async def values(transport: Transport, topic: str) -> list[bytes]:
    """All values of a topic."""
    found: list[bytes] = []
    async with await transport.consumer([topic]) as consumer:
        assigned = (await consumer.poll(timeout=0.0)).assigned
        ends = {part: await consumer.end_offset(part) for part in assigned}
        consumer.resume(*assigned)
        with anyio.fail_after(DEADLINE):
            while any([await consumer.position(part) < end for part, end in ends.items()]):
                found += [record.value or b"" for record in (await consumer.poll(timeout=0.05)).records]
    return found


async def decisions(transport: Transport, topics: TopicOptions = TOPICS) -> list[Decision]:
    """All decisions in the log."""
    return [one for value in await values(transport, topics.decisions) for one in decode_decisions(value)]


async def decided(transport: Transport, count: int, topics: TopicOptions = TOPICS) -> list[Decision]:
    """Wait until there are this many decisions."""
    with anyio.fail_after(DEADLINE):
        while len(found := await decisions(transport, topics)) < count:
            await anyio.sleep(0.01)
    return found


async def kept_spans(transport: Transport) -> list[bytes]:
    """The items of all kept traces, in the order of the log."""
    return [bytes(raw) for value in await values(transport, TOPICS.sampled) for _, raw in decode_kept(value).items]


async def dead_letters(transport: Transport) -> list[tuple[int, int, bytes, str]]:
    """Offset, index, bytes and reason of every dead letter."""
    letters = [decode_dead_letter(value) for value in await values(transport, TOPICS.dlq)]
    return [(letter.offset, letter.index, letter.raw, letter.reason) for letter in letters]


async def beginning(transport: Transport) -> int:
    """Offset of the first record of `spans` that the log still has."""
    async with await transport.consumer([TOPICS.spans]) as consumer:
        await consumer.poll(timeout=0.0)
        return await consumer.beginning_offset(SPANS)


async def end(transport: Transport) -> int:
    """Offset of the next record of `spans`."""
    async with await transport.consumer([TOPICS.spans]) as consumer:
        await consumer.poll(timeout=0.0)
        return await consumer.end_offset(SPANS)


async def pass_retention(folder: Path, items: Sequence[bytes]) -> int:
    """Send items stamped an hour later, so that retention deletes the earlier spans; returns the first remaining offset."""
    options = LocalOptions(path=str(folder / "log.db"))
    async with LocalTransport(options, clock=lambda: wall_ms() + 3_600_000) as later:
        await send_items(later, items)  # retention runs with a write
        with anyio.fail_after(DEADLINE):
            while (begin := await beginning(later)) == 0:
                await anyio.sleep(0.01)
    return begin
