"""What the outbox gives up, splits and divides again, and which traces are named as lost."""

import pytest

from prela_stream.codec.spans import decode_batch, decode_span
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.model.ids import partition_of
from prela_stream.model.semconv import TRUNCATED
from prela_stream.model.span import ItemKind, Resource, SpanData
from prela_stream.transport.options import TopicOptions
from tests.support.items import encode_span, make_item, span_id
from tests.support.memory_transport import MemoryTransport
from tests.support.processes import DEADLINE
from tests.unit.delivery.pipelines import QUICK, TOPICS, Clock, make_pipeline, options, until


@pytest.mark.parametrize(("every_fault", "outcome"), [("fail", "too_old"), ("unknown_lost", "unknown")])
async def test_after_the_deadline_a_batch_is_given_up_and_its_traces_are_named_as_lost(
    transport: MemoryTransport, clock: Clock, every_fault: str, outcome: str
) -> None:
    transport.every_send = "fail" if every_fault == "fail" else "unknown_lost"
    async with make_pipeline(transport, options(delivery_timeout_s=1_000)) as pipeline:
        for number in range(30):
            pipeline.record(*make_item(number))
        partitions = {partition_of(make_item(number)[0], TOPICS.partitions) for number in range(30)}
        await until(lambda: {partition for partition, _ in transport.tried} == partitions)
        clock.ahead += 1_000
        await until(lambda: (pipeline.ledger().dropped.too_old + pipeline.ledger().unknown) == 30)
        ledger = pipeline.ledger()
        assert (ledger.unknown if outcome == "unknown" else ledger.dropped.too_old) == 30
        assert ledger.balances
        transport.every_send = None
        await until(lambda: len({trace_id for _, trace_id in transport.lost()}) == 3)
        await until(lambda: pipeline.ledger().lost_traces == 0)
    traces = {make_item(number)[0] for number in range(30)}
    assert set(transport.lost()) == {(partition_of(trace_id, TOPICS.partitions), trace_id) for trace_id in traces}
    assert pipeline.ledger().lost_items_sent == len(transport.lost())


async def test_traces_dropped_by_a_full_queue_are_named_as_lost_with_the_next_batches(
    transport: MemoryTransport,
) -> None:
    async with make_pipeline(transport, options(max_queue_items=10)) as pipeline:
        for number in range(20):
            pipeline.record(*make_item(number, trace=number))
        result = await pipeline.aflush(DEADLINE)
        assert result.acknowledged == 9
        assert pipeline.ledger().dropped.queue_full == 11
        await until(lambda: len(transport.lost()) == 11)
    assert {trace_id for _, trace_id in transport.lost()} == {make_item(n, trace=n)[0] for n in range(9, 20)}
    assert pipeline.ledger().balances


async def test_more_lost_traces_than_can_be_named_warn_every_partition(transport: MemoryTransport) -> None:
    async with make_pipeline(transport, options(max_queue_items=10, max_lost_traces=3)) as pipeline:
        for number in range(20):
            pipeline.record(*make_item(number, trace=number))
        await until(lambda: len(transport.lost()) == 3 + 4)
    assert {partition for partition, trace_id in transport.lost() if trace_id is None} == {0, 1, 2, 3}


@pytest.mark.parametrize("there", [1, 3, 16])
async def test_a_wrong_number_of_partitions_splits_no_trace(
    transport: MemoryTransport, there: int, caplog: pytest.LogCaptureFixture
) -> None:
    """All producers must divide by the same number of partitions, so that of the topic overrides the setting."""
    transport.known[TOPICS.spans] = there
    async with make_pipeline(transport, options(max_lost_traces=0, batch_items=7)) as pipeline:
        for number in range(100):
            pipeline.record(*make_item(number, trace=number % 10))
        pipeline.refuse(make_item(100)[0])  # every partition is warned
        assert (await pipeline.aflush(DEADLINE)).complete
        for number in range(100, 200):
            pipeline.record(*make_item(number, trace=number % 10))
        assert (await pipeline.aflush(DEADLINE)).acknowledged == 100
    assert sorted(transport.spans()) == [span_id(number) for number in range(200)]
    warned = set()
    for partition, head in transport.heads():
        if head.kind == ItemKind.LOST:
            warned.add(partition)
        else:
            assert head.trace_id is not None
            assert partition == partition_of(head.trace_id, there)
    assert warned == set(range(there))
    assert caplog.text.count(f"topic {TOPICS.spans} has {there} partitions, not 4 (the setting topics.partitions)") == 1


@pytest.mark.parametrize("there", [2, 9])
async def test_a_topic_that_is_created_again_is_checked_again(transport: MemoryTransport, there: int) -> None:
    async with make_pipeline(transport) as pipeline:
        for number in range(100):
            pipeline.record(*make_item(number))
        assert (await pipeline.aflush(DEADLINE)).complete
        transport.log.clear()
        transport.known.clear()
        for number in range(100, 300):
            pipeline.record(*make_item(number))
        await until(lambda: transport.attempts > 0 and transport.topic_reads > 1)
        transport.known[TOPICS.spans] = there
        assert (await pipeline.aflush(DEADLINE)).complete
    assert sorted(transport.spans()) == [span_id(number) for number in range(100, 300)]
    for partition, head in transport.heads():
        assert head.trace_id is not None
        assert partition == partition_of(head.trace_id, there)


@pytest.mark.parametrize("reports_limit", [True, False])
async def test_a_topic_with_a_smaller_limit_than_configured_gets_smaller_records(
    transport: MemoryTransport, reports_limit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    transport.limit, transport.reports_limit = 5_000, reports_limit
    async with make_pipeline(transport) as pipeline:
        for number in range(200):
            pipeline.record(*make_item(number, padding=6_000 if number == 50 else 500))
        result = await pipeline.aflush(DEADLINE)
    assert (result.acknowledged, result.dropped, result.pending) == (199, 1, 0)
    assert pipeline.ledger().dropped.encode_error == 1
    assert make_item(50)[0] in {trace_id for _, trace_id in transport.lost()}, "workers know what is missing"
    assert sorted(transport.spans()) == [span_id(number) for number in range(200) if number != 50]
    assert caplog.text.count("because the items of a record") == 1
    assert "cannot be sent" not in caplog.text


async def test_an_item_larger_than_a_record_is_refused_and_its_neighbours_pass(transport: MemoryTransport) -> None:
    topics = TopicOptions(partitions=4, max_record_bytes=10_000)
    async with Pipeline(transport, PipelineSetup(topics=topics, options=QUICK, resource=Resource)) as pipeline:
        for number in range(30):
            pipeline.record(*make_item(number, padding=9_500 if number == 15 else 3_000))
        result = await pipeline.aflush(DEADLINE)
        assert (result.acknowledged, result.dropped) == (29, 1)
        assert pipeline.ledger().dropped.encode_error == 1
        await until(lambda: {trace_id for _, trace_id in transport.lost()} == {make_item(15)[0]})
    assert all(len(sent.record.value or b"") <= 10_000 for sent in transport.log)
    assert pipeline.ledger().balances


def large_span(number: int, size: int) -> tuple[bytes, bytes]:
    span = SpanData(
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        name="x",
        start_ns=1,
        duration_ns=1,
        attributes={"model": "m", "text": "t" * size},
    )
    return bytes.fromhex(span.trace_id), encode_span(span)


@pytest.mark.parametrize("known", ["setting", "topic"])
async def test_a_span_larger_than_a_record_is_cut_and_not_dropped(transport: MemoryTransport, known: str) -> None:
    """Whether the limit is known before the first attempt or only from the topic."""
    transport.limit = 10_000
    topics = TopicOptions(partitions=4, max_record_bytes=10_000 if known == "setting" else 1_000_000)
    async with Pipeline(transport, PipelineSetup(topics=topics, options=QUICK, resource=Resource)) as pipeline:
        for number in range(20):
            pipeline.record(*large_span(number, 50_000 if number % 2 else 100))
        assert (await pipeline.aflush(DEADLINE)).acknowledged == 20
        assert pipeline._ledger.queue.held_bytes == 0, "room was not freed"
        assert not pipeline._outbox.full
    items = [item for sent in transport.log for item in decode_batch(sent.record.value or b"").raws]
    spans = sorted((decode_span(item) for item in items), key=lambda span: span.span_id)
    assert len(spans) == 20
    for number, span in enumerate(spans):
        assert span.attributes["model"] == "m"
        assert (TRUNCATED in span.attributes) == bool(number % 2)
    assert transport.lost() == []
    assert all(len(sent.record.value or b"") <= 10_000 for sent in transport.log)
