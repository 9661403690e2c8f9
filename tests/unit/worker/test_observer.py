"""The gauges and the readiness of a worker, on a real local log."""

import sqlite3
from pathlib import Path

import anyio
import msgspec
import pytest

from prela_stream import telemetry
from prela_stream.measures import Metrics
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.local.consumer import LocalConsumer
from prela_stream.transport.options import LocalOptions
from prela_stream.transport.topics import topic_specs
from prela_stream.worker.service import Worker
from tests.support.workers import (
    DEADLINE,
    KEEP_ALL,
    SPANS,
    TOPICS,
    WHOLE_ONLY,
    checkpoint,
    dead_letters,
    decided,
    local_log,
    make_worker,
    running,
    send,
    send_items,
    whole_trace,
)

LAG_S = 60.0


async def refreshed(worker: Worker) -> Metrics:
    await worker.observer.refresh()
    return telemetry.snapshot()


async def test_open_traces_are_measured_until_they_are_decided(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport, assembly=WHOLE_ONLY)
        async with running(worker):
            root, *rest = reversed(whole_trace(1))
            await send_items(transport, rest)
            await checkpoint(transport, 1)
            await send_items(transport, whole_trace(2))  # a later trace is decided, and time passes
            await decided(transport, 1)
            found = await refreshed(worker)
            assert found.value("prela_worker_open_traces", partition="0") == 1
            assert found.value("prela_worker_open_bytes", partition="0") == sum(map(len, rest))
            assert found.value("prela_worker_oldest_undecided_age_seconds", partition="0") > 0
            await send_items(transport, [root])
            await decided(transport, 2)
            with anyio.fail_after(DEADLINE):
                while (found := await refreshed(worker)).value("prela_worker_watermark_age_seconds") or found.value(
                    "prela_worker_lag_records", partition="0"
                ):  # a tick may be on its way
                    await anyio.sleep(0.01)
            assert found.value("prela_worker_open_traces") == found.value("prela_worker_open_bytes") == 0
            assert found.value("prela_worker_oldest_undecided_age_seconds") == 0
            assert found.value("prela_worker_lag_records", partition="0") == 0
            assert worker.observer.problems(LAG_S) == []
        assert telemetry.snapshot()["prela_worker_open_traces"].samples == (), "the worker has no partition any more"
        assert worker.observer.problems(LAG_S) == ["the worker has not received its partitions from the consumer group"]


async def test_counts_of_a_partition_are_added_when_its_commit_has_landed(tmp_path: Path) -> None:
    before = telemetry.snapshot()

    def new(name: str, **labels: str) -> float:
        return telemetry.snapshot().value(name, **labels) - before.value(name, **labels)

    async with local_log(tmp_path) as transport:
        async with running(make_worker(transport, assembly=WHOLE_ONLY)):
            await send_items(transport, [*whole_trace(1), *whole_trace(2)])
            await decided(transport, 2)
            await send_items(transport, whole_trace(1, children=4)[:4])  # late, because the trace is decided
            await send(transport, b"this is no batch")
            with anyio.fail_after(DEADLINE):
                while not await dead_letters(transport):
                    await anyio.sleep(0.01)
        assert new("prela_worker_decisions_total", verdict="kept", trigger="complete", policy="all") == 2
        assert new("prela_worker_decision_latency_seconds") == 2
        assert new("prela_worker_late_spans_total", verdict="kept") == 4
        assert new("prela_worker_poison_items_total") == 1
        assert new("prela_worker_items_total") >= 6 + 4 + 1
        assert new("prela_worker_restores_total", start="beginning") == 1
        commits = new("prela_worker_commits_total", outcome="committed")
        assert commits == new("prela_worker_commit_duration_seconds", outcome="committed") >= 2
        async with running(make_worker(transport)):
            assert new("prela_worker_restores_total", start="committed") == 1
            assert new("prela_worker_replay_offsets") == 1


async def test_a_worker_that_is_behind_is_not_ready_and_reports_how_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LocalOptions(path=str(tmp_path / "log.db"))
    async with LocalTransport(options, clock=lambda: 1_000_000) as old:  # ticks too are stamped by this clock
        await old.create_topics(topic_specs(TOPICS))
        worker = make_worker(old)
        async with running(worker):
            await send_items(old, whole_trace(1))
            await checkpoint(old, 1)
            position = worker.status()[SPANS].position
            monkeypatch.setattr(
                worker._partitions[SPANS], "apply", lambda _record: iter(())
            )  # it applies nothing any more
            await send_items(old, whole_trace(2))
            found = await refreshed(worker)
            assert found.value("prela_worker_lag_records", partition="0") >= 1
            assert found.value("prela_worker_applied_age_seconds", partition="0") > 3_600
            (problem,) = worker.observer.problems(LAG_S)
            assert problem.startswith(f"{SPANS} is ")
            assert problem.endswith("records are not applied")
            assert worker.status()[SPANS].position == position


async def test_a_transport_that_cannot_be_read_makes_the_worker_not_ready(tmp_path: Path) -> None:
    patient = LocalOptions(path=str(tmp_path / "log.db"), session_timeout_ms=300)  # a poll writes three times in it
    impatient = msgspec.structs.replace(patient, busy_timeout_ms=100)
    async with LocalTransport(patient) as log, LocalTransport(impatient) as transport:
        await log.create_topics(topic_specs(TOPICS))
        worker = make_worker(transport, evaluator=KEEP_ALL)
        async with running(worker):
            before = telemetry.snapshot().value("prela_worker_read_errors_total")
            other = sqlite3.connect(patient.path, timeout=DEADLINE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with anyio.fail_after(DEADLINE):
                while not worker.observer.failure:
                    await anyio.sleep(0.01)
            (problem,) = worker.observer.problems(LAG_S)
            assert problem.startswith("the worker cannot read from the transport, and tries again: ")
            assert telemetry.snapshot().value("prela_worker_read_errors_total") > before
            other.execute("ROLLBACK")
            other.close()
            with anyio.fail_after(DEADLINE):
                while worker.observer.problems(LAG_S):
                    await anyio.sleep(0.01)


async def test_a_poll_that_does_not_end_makes_the_worker_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport)
        async with running(worker):
            assert worker.observer.problems(LAG_S) == []
            hangs = anyio.Event()
            monkeypatch.setattr(LocalConsumer, "poll", lambda _consumer, **_limits: hangs.wait())
            with anyio.fail_after(DEADLINE):
                while not (problems := worker.observer.problems(LAG_S)):
                    worker.observer._polled -= 100  # as if its last poll had ended that much earlier
                    await anyio.sleep(0.01)
            assert problems[0].startswith("the transport has not answered for 1")
