"""Overload makes a worker slower. It never makes it repeat work: commits keep their time, and a failed one gets more of it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from prela_stream import telemetry
from prela_stream.model.trace import Trace
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policy import Verdict
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition, Writer
from prela_stream.transport.local import LocalTransport
from prela_stream.worker.backoff import STALLED_AFTER, Backoff
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.pace import SLICE_BYTES, Pace
from tests.support.workers import (
    DEADLINE,
    KEEP_ALL,
    QUICK,
    SPANS,
    decided,
    decisions,
    local_log,
    make_worker,
    running,
    send_items,
    whole_trace,
)

DECISION_S = 0.02


class SlowEvaluator(Evaluator):
    """A policy that takes as long as the decision of a large trace."""

    def decide(self, trace: Trace) -> Verdict:
        time.sleep(DECISION_S)
        return super().decide(trace)


class SlowCommits:
    """A real transport whose commits take some turns of the event loop, or some time."""

    def __init__(self, transport: LocalTransport, *, turns: int = 0, seconds: float = 0.0) -> None:
        self._transport = transport
        self.turns = turns
        self.seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def writer(self, group: str, source: TopicPartition) -> Writer:
        return _SlowWriter(await self._transport.writer(group, source), self)


class _SlowWriter:
    def __init__(self, writer: Writer, plan: SlowCommits) -> None:
        self._writer = writer
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    @property
    def committed(self) -> Committed | None:
        return self._writer.committed

    async def commit(
        self, records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str = ""
    ) -> CommitOutcome:
        for _ in range(self._plan.turns):
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(self._plan.seconds)
        return await self._writer.commit(records, offset, metadata)


@pytest.mark.slow
async def test_a_commit_gets_its_turns_while_the_worker_catches_up(tmp_path: Path) -> None:
    """A poll of 20 records takes 0.4 s to apply. If a commit got one turn per poll, its 10 turns would exceed its 1 s."""
    at_once = msgspec.structs.replace(QUICK, max_spans=2)
    async with local_log(tmp_path) as transport:
        for number in range(100):
            await send_items(transport, whole_trace(number))
        slow = SlowCommits(transport, turns=10)
        failures = telemetry.WORKER_FAILURES.value()
        worker = make_worker(
            slow,
            assembly=at_once,
            evaluator=SlowEvaluator(KEEP_ALL.policy_set),
            commit_timeout_s=1.0,
            poll_bytes=20 * sum(map(len, whole_trace(1))),
        )
        async with running(worker):
            await decided(transport, 100)
        assert telemetry.WORKER_FAILURES.value() == failures
        assert len(await decisions(transport)) == 100


async def test_a_record_that_decides_many_traces_does_not_block_the_event_loop(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        for number in range(1, 51):
            await send_items(transport, whole_trace(number))
        gaps: list[float] = []

        async def watch() -> None:
            while True:
                before = time.monotonic()
                await anyio.lowlevel.checkpoint()
                gaps.append(time.monotonic() - before)

        worker = make_worker(transport, evaluator=SlowEvaluator(KEEP_ALL.policy_set))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            async with running(worker):
                await decided(transport, 50)
            tasks.cancel_scope.cancel()
    assert max(gaps) < 50 * DECISION_S / 2, "the decisions of one record were made in one turn"


async def test_a_commit_that_needs_more_time_than_it_has_gets_more(tmp_path: Path) -> None:
    """0.1 s and 0.2 s are too short, 0.8 s is enough. Without backoff, no commit would ever land."""
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        failures = telemetry.WORKER_FAILURES.value()
        worker = make_worker(SlowCommits(transport, seconds=0.3), commit_timeout_s=0.1)
        async with running(worker):
            await decided(transport, 1)
        assert telemetry.WORKER_FAILURES.value() > failures
        assert [one.trace_id[-1] for one in await decisions(transport)] == [1]


@pytest.mark.slow
async def test_a_partition_without_progress_is_reported_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        failures = telemetry.WORKER_FAILURES.value()
        worker = make_worker(SlowCommits(transport, seconds=3_600), commit_timeout_s=0.001)
        async with running(worker):
            with anyio.fail_after(DEADLINE):
                while telemetry.WORKER_FAILURES.value() < failures + STALLED_AFTER + 1:
                    await anyio.sleep(0.01)
            states = {labels[0]: value for metric, value, labels in worker.observer.collect() if len(labels) == 1}
            assert states["stalled"] == 1
            assert any(f"{SPANS} makes no progress" in problem for problem in worker.observer.problems(3_600))
    assert caplog.text.count(f"{SPANS} makes no progress") == 1


@pytest.mark.slow
async def test_a_stop_does_not_wait_for_a_commit_that_was_given_more_time(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        failures = telemetry.WORKER_FAILURES.value()
        worker = make_worker(SlowCommits(transport, seconds=3_600), commit_timeout_s=0.3, stop_timeout_s=1.0)
        async with running(worker):
            with anyio.fail_after(DEADLINE):  # the next commit has 16 times 0.3 s
                while telemetry.WORKER_FAILURES.value() < failures + 4:
                    await anyio.sleep(0.01)
                while worker._pace._commits == 0:
                    await anyio.sleep(0.01)
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 3.0


def test_the_limits_of_commits_follow_their_outcomes() -> None:
    backoff = Backoff(WorkerOptions(commit_bytes=4 << 20, commit_timeout_s=5.0), retry_s=0.5)
    assert (backoff.commit_bytes, backoff.most_pending_bytes, backoff.commit_timeout_s) == (4 << 20, 16 << 20, 5.0)
    for _ in range(2):
        backoff.unknown()
    assert (backoff.commit_bytes, backoff.most_pending_bytes, backoff.commit_timeout_s) == (1 << 20, 1 << 20, 20.0)
    backoff.landed(3.0)  # too slow for half the time
    assert backoff.commit_timeout_s == 20.0
    for _ in range(2):
        backoff.landed(0.5)
    assert (backoff.commit_bytes, backoff.commit_timeout_s) == (4 << 20, 5.0)
    for _ in range(50):
        backoff.unknown()
    assert (backoff.commit_bytes, backoff.commit_timeout_s) == (64 << 10, 60.0)


def test_limits_that_are_set_to_less_or_more_than_the_bounds_stay_as_they_are() -> None:
    backoff = Backoff(WorkerOptions(commit_bytes=100, commit_timeout_s=600.0), retry_s=0.5)
    backoff.unknown()
    assert (backoff.commit_bytes, backoff.commit_timeout_s) == (100, 600.0)


def test_the_pause_of_a_stalled_partition_grows_until_a_commit_lands() -> None:
    backoff = Backoff(WorkerOptions(), retry_s=0.5)
    pauses = []
    for _ in range(20):
        backoff.failed(restored=True)
        pauses.append(backoff.retry_s)
    assert pauses[: STALLED_AFTER + 2] == [0.5] * STALLED_AFTER + [1.0, 2.0]
    assert pauses[-1] == 30.0
    assert backoff.stalled
    backoff.landed(0.1)
    assert (backoff.stalled, backoff.retry_s) == (False, 0.5)


def test_the_pause_does_not_grow_while_no_restore_can_begin() -> None:
    backoff = Backoff(WorkerOptions(), retry_s=0.5)
    for _ in range(20):
        backoff.failed(restored=False)
    assert (backoff.stalled, backoff.retry_s) == (True, 0.5)


async def test_a_slice_ends_by_time_or_by_bytes() -> None:
    pace = Pace()
    await pace.rest()
    assert not pace.is_over(SLICE_BYTES // 2)
    assert pace.is_over(SLICE_BYTES)
    await pace.rest()
    with pace.committing():
        time.sleep(0.004)  # noqa: ASYNC251 - the elapsed time is what is tested
        assert pace.is_over()
    await pace.rest()
    time.sleep(0.02)  # noqa: ASYNC251 - as above
    assert pace.is_over()
