"""Attempts to send on a transport with faults: what is sent again, and what is logged."""

import logging

import pytest

from prela_stream.codec.spans import decode_batch, decode_resource
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.errors import TransportError
from prela_stream.model.ids import partition_of
from prela_stream.model.semconv import TRUNCATED
from prela_stream.model.span import Resource
from prela_stream.transport.base import Transport
from tests.support.items import make_item, span_id
from tests.support.memory_transport import MemoryTransport, Sent
from tests.support.processes import DEADLINE
from tests.unit.delivery.pipelines import QUICK, TOPICS, Clock, make_pipeline, options, until


async def test_failed_sends_are_repeated_without_duplicates(transport: MemoryTransport) -> None:
    transport.faults.extend(["fail"] * 5)
    async with make_pipeline(transport) as pipeline:
        for number in range(50):
            pipeline.record(*make_item(number))
        await until(lambda: pipeline.ledger().acknowledged == 50)
    assert len(transport.spans()) == len(set(transport.spans())) == 50
    assert transport.opened == 1, "after an error that stored nothing the producer is kept"


async def test_unknown_outcomes_are_repeated_on_a_new_producer(transport: MemoryTransport) -> None:
    transport.faults.extend(["unknown_stored", "unknown_lost"])
    async with make_pipeline(transport) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: pipeline.ledger().acknowledged == 1)
    assert transport.spans() == [span_id(1)] * 2, "stored once without an acknowledgement, and once with one"
    assert transport.opened == transport.closed == 3
    assert transport.lost() == []


async def test_an_attempt_that_hangs_is_cut_off_and_repeated(transport: MemoryTransport) -> None:
    transport.faults.append("hang")
    async with make_pipeline(transport, options(send_timeout_s=0.05)) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: pipeline.ledger().acknowledged == 1)


async def test_an_error_that_no_transport_may_raise_stops_nothing(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")
    transport.faults.append("surprise")
    async with make_pipeline(transport) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: pipeline.ledger().acknowledged == 1)


async def test_a_partition_that_fails_does_not_delay_the_others(
    transport: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prela_stream")
    transport.partition_faults[3] = "fail"
    async with make_pipeline(transport) as pipeline:
        items = [make_item(number) for number in range(400)]
        for item in items:
            pipeline.record(*item)
        elsewhere = sum(partition_of(trace_id, 4) < 3 for trace_id, _ in items)
        assert 0 < elsewhere < 400
        await until(lambda: pipeline.ledger().acknowledged == elsewhere)
        assert pipeline.ledger().balances
        pipeline.record(*next(make_item(n) for n in range(400, 500) if partition_of(make_item(n)[0], 4) == 0))
        await until(lambda: pipeline.ledger().acknowledged == elsewhere + 1)
        del transport.partition_faults[3]
        await until(lambda: pipeline.ledger().acknowledged == 401)
    assert caplog.text.count("cannot be sent (the broker refused)") == 1, (
        "logged once, although other partitions succeed"
    )
    assert caplog.text.count("accepts spans again") == 1


async def test_an_outage_is_logged_again_after_one_whose_spans_were_given_up(
    transport: MemoryTransport, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prela_stream")
    failing, healthy = (next(i for i in map(make_item, range(1_000)) if partition_of(i[0], 4) == p) for p in (3, 0))
    async with make_pipeline(transport, options(delivery_timeout_s=1_000)) as pipeline:
        for times in (1, 2):
            transport.partition_faults[3] = "fail"
            pipeline.record(*failing)
            await until(lambda: caplog.text.count("cannot be sent (the broker refused)") == times)  # noqa: B023 - the loop waits for it
            clock.ahead += 1_000
            await until(lambda: pipeline.ledger().dropped.too_old == times)  # noqa: B023 - as above
            transport.partition_faults.clear()
            pipeline.record(*healthy)
            assert (await pipeline.aflush(DEADLINE)).complete
            # A flush waits for recorded items only; the LOST item that the partition refused is sent a backoff later.
            await until(lambda: caplog.text.count("accepts spans again") >= times)  # noqa: B023 - as above
            assert caplog.text.count("cannot be sent (the broker refused)") == times
            assert caplog.text.count("accepts spans again") == times


@pytest.mark.slow
async def test_retries_of_a_partition_that_does_not_answer_are_short_while_others_wait(
    transport: MemoryTransport, clock: Clock
) -> None:
    """The first attempt may take the whole of `send_timeout_s`; the next ones a tenth of it, two tenths, and so on."""
    transport.partition_faults[3] = "hang"
    clock.step = 0.01
    async with make_pipeline(transport, options(batch_items=1, backoff_max_ms=1, send_timeout_s=2.0)) as pipeline:
        failing = next(item for item in map(make_item, range(1_000)) if partition_of(item[0], 4) == 3)
        healthy = [item for item in map(make_item, range(1_000, 2_000)) if partition_of(item[0], 4) == 0]
        pipeline.record(*failing)
        await until(lambda: transport.attempts == 1)
        for item in healthy[:3]:
            pipeline.record(*item)
        await until(lambda: pipeline.ledger().acknowledged == 3)
        last = max(number for number, (partition, _) in enumerate(transport.tried) if partition == 0)
        waits = [seconds for partition, seconds in transport.tried[:last] if partition == 3]
        # 2 s, then 0.2 and 0.4 s. Without the shorter timeout it would be 2 s each time.
        assert len(waits) >= 3, "the failing partition was not tried between them, so this test shows nothing"
        assert sum(waits) < 4.0, "healthy partitions waited for whole attempts with the failing one"
        transport.partition_faults.clear()
        assert (await pipeline.aflush(DEADLINE)).complete


async def test_a_transport_out_of_reach_at_the_start_is_waited_for(
    transport: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    transport.reachable = False
    with caplog.at_level(logging.INFO, "prela_stream"):
        async with make_pipeline(transport) as pipeline:
            for number in range(20):
                pipeline.record(*make_item(number))
            assert (await pipeline.aflush(0.05)).pending == 20
            transport.reachable = True
            assert (await pipeline.aflush(DEADLINE)).acknowledged == 20
    texts = [record.getMessage() for record in caplog.records]
    assert sum("cannot be sent" in text for text in texts) == 1
    assert "accepts spans again" in texts[-1]


async def test_a_missing_topic_is_logged_once_with_what_to_do(
    transport: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    transport.known.clear()
    async with make_pipeline(transport) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: transport.topic_reads >= 3)
        transport.known[TOPICS.spans] = 4
        assert (await pipeline.aflush(DEADLINE)).complete
    assert sum("prela-stream topics create" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Resource(service_name="ag\udcffent"), Resource(service_name="ag\\udcffent")),
        (Resource(host="h\udcff", pid=7), Resource(host="h\\udcff", pid=7)),
        (Resource(attributes={"a": {1}, "b": "\ud800"}), Resource(attributes={"a": [1], "b": "\\ud800"})),
        (
            Resource(service_name="s", attributes={"n": 1 << 70}),
            Resource(service_name="s", attributes={"n": str(1 << 70)}),
        ),
    ],
)
async def test_a_resource_that_cannot_be_encoded_costs_no_span(
    transport: MemoryTransport, given: Resource, expected: Resource
) -> None:
    setup = PipelineSetup(topics=TOPICS, options=QUICK, resource=lambda: given)
    async with Pipeline(transport, setup) as pipeline:
        pipeline.record(*make_item(1))
        assert (await pipeline.aflush(DEADLINE)).acknowledged == 1
    assert [resource_of(sent) for sent in transport.log] == [expected]


async def test_a_resource_that_cannot_be_made_costs_no_span(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")

    def fails() -> Resource:
        raise OSError("the host has no name")

    async with Pipeline(transport, PipelineSetup(topics=TOPICS, options=QUICK, resource=fails)) as pipeline:
        pipeline.record(*make_item(1))
        assert (await pipeline.aflush(DEADLINE)).acknowledged == 1


async def test_a_resource_as_large_as_a_record_is_sent_without_its_attributes(transport: MemoryTransport) -> None:
    huge = Resource(service_name="agent" * 100, pid=7, attributes={"text": "x" * 2_000_000})
    async with Pipeline(transport, PipelineSetup(topics=TOPICS, options=QUICK, resource=lambda: huge)) as pipeline:
        pipeline.record(*make_item(1))
        assert (await pipeline.aflush(DEADLINE)).acknowledged == 1
    (sent,) = transport.log
    found = resource_of(sent)
    assert (found.pid, found.service_name[:10]) == (7, "agentagent")
    assert found.attributes[TRUNCATED] > 2_000_000


def resource_of(sent: Sent) -> Resource:
    assert sent.record.value is not None
    return decode_resource(decode_batch(sent.record.value).resource)


async def test_preparation_is_repeated_until_it_succeeds(transport: MemoryTransport) -> None:
    calls: list[Transport] = []

    async def prepare(given: Transport) -> None:
        calls.append(given)
        if len(calls) < 3:
            msg = "not yet"
            raise TransportError(msg)

    setup = PipelineSetup(topics=TOPICS, options=QUICK, resource=Resource, prepare=prepare)
    async with Pipeline(transport, setup) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: pipeline.ledger().acknowledged == 1)
    assert calls == [transport] * 3
