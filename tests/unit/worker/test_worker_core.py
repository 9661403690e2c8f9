"""A worker reports its core, decides the same with either, and survives a defect of the native one."""

from pathlib import Path

import pytest

from prela_stream import telemetry
from prela_stream.assembly.base import CoreError
from prela_stream.assembly.native_core import NativeCore
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind, choose_core
from prela_stream.measures import Collected
from prela_stream.worker.service import Worker
from tests.support.cores import MAX_ITEM_BYTES, core_named
from tests.support.workers import decided, local_log, make_worker, running, send_items, whole_trace


def core_gauge(worker: Worker) -> tuple[float, tuple[str, ...]]:
    found: list[Collected] = [one for one in worker.observer.collect() if one[0] is telemetry.WORKER_CORE]
    [(_, value, labels)] = found
    return value, labels


async def test_a_worker_shows_its_core_and_decides_with_it(tmp_path: Path, core: CoreKind) -> None:
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport, core=core.name)
        assert core_gauge(worker) == (1, (core.name, core.version))
        await send_items(transport, whole_trace(1))
        async with running(worker):
            [decision] = await decided(transport, 1)
    assert (decision.complete, decision.summary.spans) == (True, 3)


def test_a_panic_is_an_exception_and_the_core_stays_failed() -> None:
    core_named("native")
    core = choose_core("native").new(AssemblyOptions(), (), MAX_ITEM_BYTES)
    assert isinstance(core, NativeCore)
    for _ in range(2):
        with pytest.raises(CoreError, match="requested"):
            core._partition.panic()
    with pytest.raises(CoreError, match="requested"):
        core.add(b"", 1)
    with pytest.raises(CoreError, match="requested"):
        core.low_watermark()


async def test_after_a_defect_of_the_native_core_the_partition_is_restored_on_the_python_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core_named("native")
    real = NativeCore.add
    calls: list[int] = []

    def fails_once(self: NativeCore, value: bytes, offset: int, *, replay: bool = False) -> object:
        calls.append(offset)
        if len(calls) == 2:
            self._partition.panic()
        return real(self, value, offset, replay=replay)

    monkeypatch.setattr(NativeCore, "add", fails_once)
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport)
        await send_items(transport, whole_trace(1))
        await send_items(transport, whole_trace(2))
        async with running(worker):
            decisions = await decided(transport, 2)
    assert len(calls) == 2, "only the native core counts"
    assert core_gauge(worker) == (1, ("python", ""))
    assert sorted((one.complete, one.summary.spans) for one in decisions) == [(True, 3), (True, 3)]
