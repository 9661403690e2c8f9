"""A takeover loads the committed decisions in steps, between which other partitions are served, and into one state."""

import gc
import random
import weakref
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest

from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.decisions import encode_decisions
from prela_stream.model.decision import Decision, TraceSummary, Trigger, decision_id_of
from prela_stream.transport.base import Committed, TopicPartition
from prela_stream.worker import restore
from prela_stream.worker.checkpoint import Checkpoint, ItemCounters
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState
from tests.support.partition_driver import SOURCE, random_log
from tests.support.partition_driver import TOPICS as MANY
from tests.support.workers import KEEP_ALL, QUICK, SPANS, TOPICS, local_log, send

CLOCK_MS = 1_000_000
COUNT = 400


def decision(number: int) -> Decision:
    trace_id = number.to_bytes(16, "big")
    return Decision(
        trace_id=trace_id,
        decision_id=decision_id_of(SPANS.topic, SPANS.partition, trace_id, number),
        kept=number % 3 == 0,
        probability=1.0,
        threshold=0,
        weight=1.0,
        policy="all",
        reason="all",
        trigger=Trigger.COMPLETE,
        complete=True,
        first_offset=number,
        cut_offset=number + 1,
        decided_at_ms=CLOCK_MS,
        policy_version="1",
        summary=TraceSummary(root_name="r", service="s", start_ns=0, duration_ns=0, spans=1, shape_hash="0"),
    )


async def test_other_tasks_run_while_decisions_are_loaded(
    core: CoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_LOAD_STEP", 10)
    loaded: list[Decision] = []
    load = PartitionState.load

    def counting(state: PartitionState, one: Decision) -> None:
        loaded.append(one)
        load(state, one)

    monkeypatch.setattr(PartitionState, "load", counting)
    steps: list[int] = []

    async def watch() -> None:
        before = 0
        while True:
            steps.append(len(loaded) - before)
            before = len(loaded)
            await anyio.lowlevel.checkpoint()

    async with local_log(tmp_path) as transport:
        made = [decision(number) for number in range(COUNT)]
        to = TopicPartition(TOPICS.decisions, 0)
        await send(transport, *(encode_decisions(made[begin : begin + 100]) for begin in range(0, COUNT, 100)), to=to)
        checkpoint = Checkpoint(
            position=0, clock_before_ms=CLOCK_MS, clock_ms=CLOCK_MS, partitions=1, counters=ItemCounters()
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            state = await restore.restore(
                transport,
                SPANS,
                beginning=0,
                committed=Committed(offset=0, metadata=checkpoint.encode()),
                topics=TOPICS,
                assembly=QUICK,
                evaluator=KEEP_ALL,
                options=WorkerOptions(),
                core=core,
            )
            tasks.cancel_scope.cancel()
    assert [one.trace_id for one in loaded] == [one.trace_id for one in made]
    assert max(steps) <= 10
    assert not state.replaying
    assert msgspec.structs.asdict(state.counters) == msgspec.structs.asdict(ItemCounters())


def test_a_discarded_state_is_freed_at_once(core: CoreKind) -> None:
    """Else a restore would hold the decisions twice, until the next collection of old objects."""
    log = random_log(random.Random(1), programs=5, poison=True)
    options = WorkerOptions()
    state = PartitionState(SOURCE, topics=MANY, assembly=QUICK, evaluator=KEEP_ALL, options=options, core=core)
    state.apply(*log)
    assert state.freeze().records
    parts = [state, state._core, *vars(state._core).values()]
    found = [weakref.ref(part) for part in parts if type(part).__weakrefoffset__]
    del parts
    gc.disable()
    try:
        del state
        assert {one() for one in found} == {None}
    finally:
        gc.enable()
