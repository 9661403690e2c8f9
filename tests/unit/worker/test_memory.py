"""The memory of a worker: above its limit the heaviest traces are decided, and no span is lost."""

from pathlib import Path

import anyio

from prela_stream import telemetry
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import encode_item
from prela_stream.model.decision import Trigger
from prela_stream.model.span import ItemKind
from prela_stream.worker.partition_data import PartitionStatus
from tests.support.workers import (
    DEADLINE,
    SPANS,
    checkpoint,
    decisions,
    kept_spans,
    local_log,
    make_worker,
    running,
    send_items,
)

PATIENT = AssemblyOptions(root_wait_ms=3_600_000, idle_ms=3_600_000, idle_without_heartbeats_ms=3_600_000)
LIMIT = 1 << 20
SPAN_BYTES = 50_000


def child(trace: int, number: int) -> bytes:
    """A span whose parent never arrives."""
    name = "x" * SPAN_BYTES
    ids = (trace.to_bytes(16, "big"), number.to_bytes(8, "big"), b"missing!")
    return encode_item(ItemKind.SPAN, *ids, 0, 1, 0, 0, 0, None, 0, 1, 1, name)


def _settled(status: PartitionStatus, spans: int) -> bool:
    """Whether all spans are applied, and what is held is below the limit."""
    return status.counters.consumed - status.counters.control >= spans and status.open_bytes <= LIMIT


async def test_above_the_limit_the_heaviest_traces_are_decided_and_nothing_is_lost(tmp_path: Path) -> None:
    sent = [child(trace, number) for trace in range(1, 81) for number in (1, 2)]
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport, assembly=PATIENT, max_open_bytes=LIMIT)
        async with running(worker):
            for begin in range(0, len(sent), 8):
                await send_items(transport, sent[begin : begin + 8])
            with anyio.fail_after(DEADLINE):
                while not _settled(status := worker.status()[SPANS], len(sent)):
                    await anyio.sleep(0.01)
        found = await decisions(transport)
        kept = await kept_spans(transport)
        counters = (await checkpoint(transport, status.position)).counters
    assert {one.trigger for one in found} == {Trigger.MEMORY}
    assert len({one.trace_id for one in found}) == len(found) >= 60
    assert not any(one.complete for one in found)
    assert (counters.kept, counters.kept + counters.open, counters.unaccounted()) == (len(kept), len(sent), 0)
    assert set(kept) <= set(sent)
    assert (
        telemetry.snapshot().value("prela_worker_decisions_total", verdict="kept", trigger="memory", policy="all") >= 60
    )
