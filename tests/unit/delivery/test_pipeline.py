"""The pipeline as a whole: batching, closing, errors of the block."""

import time

import anyio
import anyio.lowlevel
import pytest

from prela_stream.codec.spans import SPANS_FORMAT, decode_batch, decode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.model.ids import partition_of
from prela_stream.tracing.recorder import Recorder
from tests.support.items import make_item, span_id
from tests.support.memory_transport import MemoryTransport
from tests.support.processes import DEADLINE
from tests.unit.delivery.pipelines import TOPICS, make_pipeline, options, until


async def test_items_arrive_in_their_partition_with_header_and_resource(transport: MemoryTransport) -> None:
    one_slice = options(linger_ms=60_000, slice_us=60_000_000)  # a slice that ends early cuts a further batch
    async with make_pipeline(transport, one_slice) as pipeline:
        recorder: Recorder = pipeline
        for number in range(100):
            recorder.record(*make_item(number))
        result = await pipeline.aflush(DEADLINE)
        assert result.complete
        assert result.acknowledged == 100
        for sent in transport.log:
            assert sent.to.topic == TOPICS.spans
            assert sent.record.key is None
            assert sent.record.headers == ((FORMAT_HEADER, SPANS_FORMAT),)
            assert sent.record.value is not None
            assert decode_resource(decode_batch(sent.record.value).resource).service_name == "agent"
        for partition, head in transport.heads():
            assert head.trace_id is not None
            assert partition == partition_of(head.trace_id, TOPICS.partitions)
        assert sorted(transport.spans()) == [span_id(number) for number in range(100)]
        assert len(transport.log) <= 4, "items of a partition share a record"


async def test_leaving_the_block_delivers_what_is_queued(transport: MemoryTransport) -> None:
    async with make_pipeline(transport, options(linger_ms=60_000)) as pipeline:
        for number in range(500):
            pipeline.record(*make_item(number))
    assert len(transport.spans()) == 500
    ledger = pipeline.ledger()
    assert ledger.acknowledged == ledger.recorded == 500
    assert ledger.balances
    assert transport.opened == transport.closed == 1


async def test_items_wait_for_others_no_longer_than_the_linger(transport: MemoryTransport) -> None:
    async with make_pipeline(transport, options(linger_ms=30)) as pipeline:
        began = time.monotonic()
        pipeline.record(*make_item(1))
        await until(lambda: bool(transport.log))
        assert time.monotonic() - began >= 0.03


async def test_a_full_batch_does_not_wait(transport: MemoryTransport) -> None:
    async with make_pipeline(transport, options(linger_ms=60_000, batch_items=10)) as pipeline:
        for number in range(10):
            pipeline.record(*make_item(number))
        await until(lambda: len(transport.spans()) == 10)


async def test_an_item_that_could_not_be_encoded_is_counted_and_its_trace_named_as_lost(
    transport: MemoryTransport,
) -> None:
    async with make_pipeline(transport) as pipeline:
        pipeline.refuse(make_item(5)[0])
        await until(lambda: len(transport.lost()) == 1)
        ledger = pipeline.ledger()
        assert (ledger.recorded, ledger.dropped.encode_error) == (1, 1)
        assert ledger.balances


async def test_closing_with_a_hanging_transport_is_bounded_and_counted(transport: MemoryTransport) -> None:
    transport.every_send = "hang"
    async with make_pipeline(transport, options(shutdown_timeout_s=0.1, send_timeout_s=1_000)) as pipeline:
        for number in range(100):
            pipeline.record(*make_item(number))
        await until(lambda: pipeline.ledger().in_flight > 0)
        began = time.monotonic()
    assert time.monotonic() - began < 15
    ledger = pipeline.ledger()
    assert ledger.unknown > 0, "what was in flight may have arrived"
    assert ledger.unknown + ledger.dropped.shutdown == 100
    assert ledger.balances


async def test_a_pipeline_whose_task_is_cancelled_still_delivers(transport: MemoryTransport) -> None:
    recorded = anyio.Event()

    async def run() -> None:
        async with make_pipeline(transport, options(linger_ms=60_000)) as pipeline:
            pipeline.record(*make_item(1))
            recorded.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await recorded.wait()
        tasks.cancel_scope.cancel()
    assert transport.spans() == [span_id(1)]


async def test_an_error_of_the_block_is_raised_unchanged(transport: MemoryTransport) -> None:
    async def fail() -> None:
        async with make_pipeline(transport) as pipeline:
            pipeline.record(*make_item(1))
            msg = "raised by the application"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="raised by the application"):
        await fail()
    assert transport.spans() == [span_id(1)]


async def test_items_recorded_after_the_close_are_counted(transport: MemoryTransport) -> None:
    async with make_pipeline(transport) as pipeline:
        await pipeline.aclose()
        await anyio.lowlevel.checkpoint()
        pipeline.record(*make_item(1))
        pipeline.refuse(make_item(2)[0])
        await pipeline.aclose()
    ledger = pipeline.ledger()
    assert (ledger.dropped.shutdown, ledger.dropped.encode_error) == (1, 1)
    assert ledger.balances
