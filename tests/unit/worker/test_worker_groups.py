"""Several workers: a member of the group without partitions, and two groups on the same spans."""

from pathlib import Path

import anyio

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.versions import GROUP_HEADER
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import TopicPartition
from tests.support.workers import (
    DEADLINE,
    TOPICS,
    checkpoint,
    decided,
    local_log,
    make_worker,
    running,
    send_items,
    whole_trace,
)

PATIENT = AssemblyOptions(settle_ms=3_600_000, root_wait_ms=3_600_000, idle_without_heartbeats_ms=3_600_000)
KEEP_NONE = Evaluator(
    load_policies('[[policy]]\nname = "none"\ntype = "probabilistic"\nprobability = 0.0\n', source="t")
)


async def test_a_worker_without_partitions_becomes_ready(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        first, second = make_worker(transport), make_worker(transport)
        async with running(first), anyio.create_task_group() as tasks:
            ready = anyio.Event()
            tasks.start_soon(second.run, ready.set)
            with anyio.fail_after(DEADLINE):
                await ready.wait()
            assert sorted(len(worker.status()) for worker in (first, second)) == [0, 1]
            tasks.cancel_scope.cancel()


async def test_two_groups_on_the_same_spans_decide_independently_also_after_a_restart(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        async with running(make_worker(transport, assembly=PATIENT)):
            assert (await checkpoint(transport, 1)).counters.open > 0
        async with running(make_worker(transport, evaluator=KEEP_NONE, group="other")):
            assert [one.kept for one in await decided(transport, 1)] == [False]
        async with running(make_worker(transport)):
            assert [one.kept for one in await decided(transport, 2)] == [False, True]
        async with await transport.consumer([TOPICS.decisions]) as consumer:
            place = TopicPartition(TOPICS.decisions, 0)
            await consumer.poll(timeout=0.0)
            consumer.resume(place)
            records = (await consumer.poll()).records
    assert [dict(record.headers)[GROUP_HEADER] for record in records] == [b"other", b"sampler"]
