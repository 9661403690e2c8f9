"""Partitions that meet the same fault of the transport log one line."""

import logging
from pathlib import Path

import anyio
import pytest

from prela_stream.errors import TransportError
from prela_stream.transport.base import TopicPartition, Writer
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions
from prela_stream.worker.assignment import AssignedPartition
from prela_stream.worker.fault_log import FaultLog
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.pace import Pace
from prela_stream.worker.partition import PartitionState
from prela_stream.worker.ticks import Ticks
from tests.support.processes import DEADLINE

TEXT = "the log is not available"


def test_a_fault_is_new_once_until_a_commit_lands() -> None:
    faults = FaultLog()
    assert [faults.is_new(text) for text in ("a", "a", "b", "a")] == [True, False, True, False]
    faults.clear()
    assert faults.is_new("a")


def test_its_memory_is_bounded() -> None:
    faults = FaultLog()
    assert all(faults.is_new(str(number)) for number in range(10_000))
    assert len(faults._logged) <= 100


async def test_partitions_without_a_transport_log_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    attempts = 0

    async def no_writer(source: TopicPartition) -> Writer:
        nonlocal attempts
        attempts += 1
        raise TransportError(TEXT)

    async def restore(source: TopicPartition, writer: Writer) -> PartitionState:
        raise NotImplementedError

    faults = FaultLog()
    caplog.set_level(logging.WARNING, "prela_stream.worker")
    async with (
        LocalTransport(LocalOptions(path=str(tmp_path / "log.db"))) as transport,
        await transport.consumer([], group="g") as consumer,
        await transport.producer() as producer,
        anyio.create_task_group() as tasks,
    ):
        for number in range(4):
            partition = AssignedPartition(
                TopicPartition("spans", number),
                options=WorkerOptions(),
                consumer=consumer,
                ticks=Ticks(producer, DEADLINE),
                pace=Pace(),
                faults=faults,
                open_writer=no_writer,
                restore=restore,
            )
            tasks.start_soon(partition.run)
        with anyio.fail_after(DEADLINE):
            while attempts < 16:  # four times each: enough to be without progress
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    lines = [record.getMessage() for record in caplog.records if TEXT in record.getMessage()]
    assert [("makes no progress" in line) for line in lines] == [False, True]
