"""The phases of an assigned partition, with a real writer and a real consumer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import msgspec

from prela_stream.transport.base import Consumer, TopicPartition, Writer
from prela_stream.transport.local import LocalTransport
from prela_stream.worker.assignment import AssignedPartition
from prela_stream.worker.checkpoint import ItemCounters
from prela_stream.worker.fault_log import FaultLog
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.pace import Pace
from prela_stream.worker.partition import PartitionState
from prela_stream.worker.phase import Phase
from prela_stream.worker.ticks import Ticks
from tests.support.workers import DEADLINE, KEEP_ALL, QUICK, SPANS, TOPICS, local_log, send_items, whole_trace

OPTIONS = WorkerOptions(commit_interval_ms=1_000, tick_min_ms=5, commit_timeout_s=DEADLINE)


@asynccontextmanager
async def partition_of(
    transport: LocalTransport, options: WorkerOptions = OPTIONS
) -> AsyncIterator[tuple[AssignedPartition, Consumer]]:
    """The one partition of the log, assigned, with its task running."""

    async def restore(source: TopicPartition, writer: Writer) -> PartitionState:
        del writer
        return PartitionState(source, topics=TOPICS, assembly=QUICK, evaluator=KEEP_ALL, options=options)

    async with await transport.consumer([TOPICS.spans], group="g") as consumer, await transport.producer() as producer:
        assert SPANS in (await consumer.poll()).assigned
        partition = AssignedPartition(
            SPANS,
            options=options,
            consumer=consumer,
            ticks=Ticks(producer, DEADLINE),
            pace=Pace(),
            faults=FaultLog(),
            open_writer=partial(transport.writer, "g"),
            restore=restore,
        )
        assert partition.phase is Phase.TAKING_OVER
        assert not partition.park(), "there is no state to keep yet"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partition.run)
            yield partition, consumer
            await partition.give_up()
        await until(partition, Phase.ENDED)


async def until(partition: AssignedPartition, phase: Phase) -> None:
    with anyio.fail_after(DEADLINE):
        while partition.phase is not phase:
            await anyio.sleep(0.005)


async def apply_all(partition: AssignedPartition, consumer: Consumer) -> None:
    """Apply what one poll returns, and what a worker does after it."""
    for _ in partition.apply((await consumer.poll(timeout=0.02)).records):
        pass
    await partition.between_polls()


async def apply_spans(partition: AssignedPartition, consumer: Consumer, count: int) -> ItemCounters:
    """Apply records until this many spans are consumed. A tick confirms the time of the first record."""
    with anyio.fail_after(DEADLINE):
        while True:
            await apply_all(partition, consumer)
            status = partition.status()
            if status is not None and status.counters.consumed - status.counters.control >= count:
                return status.counters


async def test_a_partition_that_a_rebalance_returns_continues_with_its_state(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        async with partition_of(transport) as (partition, consumer):
            await until(partition, Phase.RESTORED)
            await partition.between_polls()
            assert partition.phase is Phase.RUNNING
            await apply_spans(partition, consumer, 3)
            assert partition.park()
            assert (partition.phase, partition.status()) == (Phase.PARKED, None)
            await send_items(transport, whole_trace(2))
            await apply_all(partition, consumer)  # has no effect: it is parked
            assert partition.unpark()
            await partition.between_polls()
            assert partition.phase is Phase.RUNNING
            counters = await apply_spans(partition, consumer, 6)
            assert (counters.duplicates, counters.late_kept, counters.unaccounted()) == (0, 0, 0), "a span came twice"


async def test_a_partition_that_is_fenced_while_it_is_parked_ends(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        async with partition_of(transport) as (partition, consumer):
            await until(partition, Phase.RESTORED)
            await partition.between_polls()
            await apply_spans(partition, consumer, 3)
            assert partition.park()
            async with await transport.writer("g", SPANS):  # before the next commit, which is a second later
                await until(partition, Phase.ENDED)
            assert not partition.unpark(), "its state is lost"


async def test_a_partition_that_is_fenced_while_it_runs_is_taken_over_again(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        async with partition_of(transport) as (partition, consumer):
            await until(partition, Phase.RESTORED)
            await partition.between_polls()
            async with await transport.writer("g", SPANS):
                with anyio.fail_after(DEADLINE):
                    while partition.phase is not Phase.TAKING_OVER:
                        await apply_all(partition, consumer)
            await until(partition, Phase.RESTORED)
            await partition.between_polls()
            assert partition.is_running


async def test_a_partition_that_returns_with_several_commits_to_make_makes_them(tmp_path: Path) -> None:
    """Between the return and the first record no commit is possible, and the event loop has to go on."""
    one_byte = msgspec.structs.replace(OPTIONS, commit_bytes=1)  # each decided trace is a commit
    async with local_log(tmp_path) as transport:
        await send_items(transport, [item for number in range(1, 6) for item in whole_trace(number)])
        async with partition_of(transport, one_byte) as (partition, consumer):
            await until(partition, Phase.RESTORED)
            await partition.between_polls()
            while partition.pending_bytes == 0:
                # a commit cannot begin between here and the return: nothing is awaited
                for _ in partition.apply((await consumer.poll(timeout=0.02)).records):
                    pass
                if partition.pending_bytes == 0:
                    await partition.between_polls()
            assert partition.park()
            assert partition.unpark()
            with anyio.fail_after(DEADLINE):
                while partition.pending_bytes:
                    assert partition.phase in (Phase.RESTORED, Phase.RUNNING, Phase.FULL)
                    await anyio.sleep(0.005)
                    await partition.between_polls()
