"""Flushes: what they count and when they return."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel

from prela_stream.delivery.ledger import Ledger
from prela_stream.delivery.options import PipelineOptions
from prela_stream.model.span import ItemKind
from tests.support.items import make_item
from tests.support.memory_transport import MemoryTransport
from tests.support.processes import DEADLINE
from tests.unit.delivery.pipelines import make_pipeline, options, until


async def test_a_flush_counts_only_what_was_recorded_before_it(transport: MemoryTransport) -> None:
    transport.faults.append("hang")
    async with make_pipeline(transport, options(send_timeout_s=0.2)) as pipeline:
        for number in range(10):
            pipeline.record(*make_item(number))
        await until(lambda: pipeline.ledger().in_flight == 10)
        flush = asyncio.create_task(pipeline.aflush(DEADLINE))
        await asyncio.sleep(0)
        for number in range(10, 30):
            pipeline.record(*make_item(number))
        assert (await flush).acknowledged == 10


async def test_a_flush_waits_in_a_thread_and_returns_at_once_on_the_pipelines_loop(transport: MemoryTransport) -> None:
    async with make_pipeline(transport, options(linger_ms=60_000)) as pipeline:
        pipeline.record(*make_item(1))
        assert pipeline.flush(DEADLINE).pending == 1
        assert (await anyio.to_thread.run_sync(pipeline.flush, DEADLINE)).acknowledged == 1


async def test_a_cancelled_flush_leaves_nothing_behind(transport: MemoryTransport) -> None:
    transport.every_send = "fail"
    async with make_pipeline(transport, options(shutdown_timeout_s=0.01)) as pipeline:
        pipeline.record(*make_item(1))
        with anyio.move_on_after(0.02):
            await pipeline.aflush(DEADLINE)
        assert not pipeline._ledger.flushing


async def test_64_threads_record_while_flushes_run_and_the_ledger_always_balances(transport: MemoryTransport) -> None:
    each = 300
    transport.faults.extend(["fail", "unknown_stored", "unknown_lost"] * 10)
    stop = threading.Event()
    balances: list[bool] = []

    async with make_pipeline(transport, options(max_queue_items=2_000, backoff_max_ms=2)) as pipeline:

        def record(thread: int) -> None:
            for number in range(each):
                pipeline.record(*make_item(thread * each + number))
                if number % 100 == 50:  # `watch` may run only after everything has ended
                    balances.append(pipeline.ledger().balances)

        def watch() -> None:
            while not stop.is_set():
                balances.append(pipeline.ledger().balances)

        def flush_often() -> None:
            while not stop.is_set():
                assert pipeline.flush(DEADLINE).pending == 0

        def load() -> None:
            with ThreadPoolExecutor(64) as threads:
                list(threads.map(record, range(64)))
            stop.set()

        async with anyio.create_task_group() as tasks:
            for job in (load, watch, flush_often):
                tasks.start_soon(anyio.to_thread.run_sync, job)
        result = await pipeline.aflush(DEADLINE)
        assert result.pending == 0
        ledger = pipeline.ledger()

    assert len(balances) >= 64 * each // 100
    assert all(balances)
    assert ledger.recorded == 64 * each
    assert ledger.acknowledged + ledger.dropped.queue_full == 64 * each
    assert len(set(transport.spans())) == ledger.acknowledged
    kinds = {head.kind for _, head in transport.heads()}
    assert kinds <= {ItemKind.SPAN, ItemKind.LOST}


def test_a_flush_ends_when_its_last_items_make_room_for_newer_ones() -> None:
    ledger = Ledger(PipelineOptions(max_queue_items=10, overflow="drop_oldest"))
    for number in range(9):
        ledger.queue.put(*make_item(number))
    with ThreadPoolExecutor(1) as threads:
        flush = threads.submit(ledger.flush, DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while not ledger.flushing:
            assert time.monotonic() < deadline
        for number in range(9, 18):
            ledger.queue.put(*make_item(number))
        result = flush.result(DEADLINE)
    assert (result.dropped, result.pending) == (9, 0)
    assert ledger.snapshot().queued == 9
