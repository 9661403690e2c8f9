"""The pipeline on a transport with faults: what is retried, what is given up, and what the workers are told."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from prela_stream.codec.spans import SPANS_FORMAT, decode_batch, decode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.delivery import pipeline as exporter
from prela_stream.delivery.ledger import Ledger
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.errors import TransportError
from prela_stream.model.ids import partition_of
from prela_stream.model.span import ItemKind, Resource
from prela_stream.tracing.recorder import Recorder
from prela_stream.transport.base import Transport
from prela_stream.transport.options import TopicOptions
from tests.support.items import make_item, span_id
from tests.support.memory_transport import MemoryTransport
from tests.support.processes import DEADLINE

TOPICS = TopicOptions(partitions=4)


def options(**others: Any) -> PipelineOptions:
    """A pipeline that sends at once, and that may take its time at the end unless the test says otherwise."""
    quick = {"linger_ms": 1, "backoff_min_ms": 1, "backoff_max_ms": 5, "shutdown_timeout_s": DEADLINE}
    return PipelineOptions(**{**quick, **others})


QUICK = options()


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport({TOPICS.spans: TOPICS.partitions})


class Clock:
    """The pipeline's clock, which a test can put forward: what is to come before a deadline is waited for, not hoped for."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.step = 0.0
        """Seconds that it goes forward whenever somebody looks: more than a backoff, and whatever failed is due again."""

    def monotonic(self) -> float:
        """Seconds."""
        self.ahead += self.step
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(exporter, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def make_pipeline(transport: MemoryTransport, options: PipelineOptions = QUICK) -> Pipeline:
    return Pipeline(transport, TOPICS, options, Resource(service_name="agent"))


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.001)


async def test_items_arrive_in_their_partition_with_header_and_resource(transport: MemoryTransport) -> None:
    one_slice = options(linger_ms=60_000, slice_us=60_000_000)  # what the clock cuts is a batch of its own
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
        assert len(transport.log) <= 4, "items of a partition share a Record"


async def test_leaving_the_block_delivers_what_is_queued(transport: MemoryTransport) -> None:
    async with make_pipeline(transport, options(linger_ms=60_000)) as pipeline:
        for number in range(500):
            pipeline.record(*make_item(number))
    assert len(transport.spans()) == 500
    ledger = pipeline.ledger()
    assert ledger.acknowledged == ledger.recorded == 500
    assert ledger.balances
    assert transport.opened == transport.closed == 1


async def test_items_wait_for_each_other_no_longer_than_the_linger(transport: MemoryTransport) -> None:
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


async def test_failed_sends_are_repeated_without_duplicates(transport: MemoryTransport) -> None:
    transport.faults.extend(["fail"] * 5)
    async with make_pipeline(transport) as pipeline:
        for number in range(50):
            pipeline.record(*make_item(number))
        await until(lambda: pipeline.ledger().acknowledged == 50)
    assert len(transport.spans()) == len(set(transport.spans())) == 50
    assert transport.opened == 1, "after an error that left nothing behind the producer is kept"


async def test_unknown_outcomes_are_repeated_on_a_new_producer(transport: MemoryTransport) -> None:
    transport.faults.extend(["unknown_stored", "unknown_lost"])
    async with make_pipeline(transport) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: pipeline.ledger().acknowledged == 1)
    assert transport.spans() == [span_id(1)] * 2, "stored once without a word, and once more"
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


@pytest.mark.parametrize(("weather", "fate"), [("fail", "too_old"), ("unknown_lost", "unknown")])
async def test_after_the_deadline_a_batch_is_given_up_and_its_traces_are_told(
    transport: MemoryTransport, clock: Clock, weather: str, fate: str
) -> None:
    transport.weather = "fail" if weather == "fail" else "unknown_lost"
    async with make_pipeline(transport, options(delivery_timeout_s=1_000)) as pipeline:
        for number in range(30):
            pipeline.record(*make_item(number))
        partitions = {partition_of(make_item(number)[0], TOPICS.partitions) for number in range(30)}
        await until(lambda: {partition for partition, _ in transport.tried} == partitions)
        clock.ahead += 1_000
        await until(lambda: (pipeline.ledger().dropped.too_old + pipeline.ledger().unknown) == 30)
        ledger = pipeline.ledger()
        assert (ledger.unknown if fate == "unknown" else ledger.dropped.too_old) == 30
        assert ledger.balances
        transport.weather = None
        await until(lambda: len({trace_id for _, trace_id in transport.lost()}) == 3)
        await until(lambda: pipeline.ledger().lost_traces == 0)
    traces = {make_item(number)[0] for number in range(30)}
    assert set(transport.lost()) == {(partition_of(trace_id, TOPICS.partitions), trace_id) for trace_id in traces}
    assert pipeline.ledger().lost_items_sent == len(transport.lost())


async def test_traces_dropped_by_a_full_queue_are_told_with_the_next_batches(transport: MemoryTransport) -> None:
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


async def test_a_partition_that_fails_holds_no_other_back(
    transport: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prela_stream")
    transport.ill[3] = "fail"
    async with make_pipeline(transport) as pipeline:
        items = [make_item(number) for number in range(400)]
        for item in items:
            pipeline.record(*item)
        there = sum(partition_of(trace_id, 4) < 3 for trace_id, _ in items)
        assert 0 < there < 400
        await until(lambda: pipeline.ledger().acknowledged == there)
        assert pipeline.ledger().balances
        pipeline.record(*next(make_item(n) for n in range(400, 500) if partition_of(make_item(n)[0], 4) == 0))
        await until(lambda: pipeline.ledger().acknowledged == there + 1)
        del transport.ill[3]
        await until(lambda: pipeline.ledger().acknowledged == 401)
    assert caplog.text.count("cannot be sent (the broker said no)") == 1, "said once, however much goes well beside it"
    assert caplog.text.count("accepts spans again") == 1


async def test_an_outage_is_said_again_after_one_whose_spans_were_given_up(
    transport: MemoryTransport, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prela_stream")
    ill, well = (next(i for i in map(make_item, range(1_000)) if partition_of(i[0], 4) == p) for p in (3, 0))
    async with make_pipeline(transport, options(delivery_timeout_s=1_000)) as pipeline:
        for times in (1, 2):
            transport.ill[3] = "fail"
            pipeline.record(*ill)
            await until(lambda: caplog.text.count("cannot be sent (the broker said no)") == times)  # noqa: B023 - waits here
            clock.ahead += 1_000
            await until(lambda: pipeline.ledger().dropped.too_old == times)  # noqa: B023 - as above
            transport.ill.clear()
            pipeline.record(*well)
            assert (await pipeline.aflush(DEADLINE)).complete
            # A flush waits for what was recorded; the LOST item that the ill partition refused comes a backoff later.
            await until(lambda: caplog.text.count("accepts spans again") >= times)  # noqa: B023 - as above
            assert caplog.text.count("cannot be sent (the broker said no)") == times
            assert caplog.text.count("accepts spans again") == times


async def test_a_partition_that_does_not_answer_is_given_little_time_while_others_wait(
    transport: MemoryTransport, clock: Clock
) -> None:
    """The first attempt takes the whole of `send_timeout_s`; those behind it go on at a tenth of that."""
    transport.ill[3] = "hang"
    clock.step = 0.01
    async with make_pipeline(transport, options(batch_items=1, backoff_max_ms=1, send_timeout_s=2.0)) as pipeline:
        ill = next(item for item in map(make_item, range(1_000)) if partition_of(item[0], 4) == 3)
        well = [item for item in map(make_item, range(1_000, 2_000)) if partition_of(item[0], 4) == 0]
        pipeline.record(*ill)
        await until(lambda: transport.attempts == 1)
        for item in well[:3]:
            pipeline.record(*item)
        await until(lambda: pipeline.ledger().acknowledged == 3)
        last = max(number for number, (partition, _) in enumerate(transport.tried) if partition == 0)
        waits = [seconds for partition, seconds in transport.tried[:last] if partition == 3]
        # 2 s and then, before the second and the third, 0.2 and 0.4: three times 2 s were it not for that.
        assert len(waits) >= 3, "the ill one was not tried between them: this test showed nothing"
        assert sum(waits) < 4.0, "healthy partitions waited for whole attempts with the ill one"
        transport.ill.clear()
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


async def test_a_missing_topic_is_told_once_with_what_to_do(
    transport: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    transport.known.clear()
    async with make_pipeline(transport) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: transport.looks >= 3)
        transport.known[TOPICS.spans] = 4
        assert (await pipeline.aflush(DEADLINE)).complete
    assert sum("prela-stream topics create" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("there", [1, 3, 16])
async def test_a_wrong_number_of_partitions_splits_no_trace(
    transport: MemoryTransport, there: int, caplog: pytest.LogCaptureFixture
) -> None:
    """All who record of a trace have to count alike: what the topic has goes before what was set here."""
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
    assert caplog.text.count(f"topic {TOPICS.spans} has {there} partitions, not 4") == 1


@pytest.mark.parametrize("there", [2, 9])
async def test_a_topic_that_is_made_anew_is_looked_at_again(transport: MemoryTransport, there: int) -> None:
    async with make_pipeline(transport) as pipeline:
        for number in range(100):
            pipeline.record(*make_item(number))
        assert (await pipeline.aflush(DEADLINE)).complete
        transport.log.clear()
        transport.known.clear()
        for number in range(100, 300):
            pipeline.record(*make_item(number))
        await until(lambda: transport.attempts > 0 and transport.looks > 1)
        transport.known[TOPICS.spans] = there
        assert (await pipeline.aflush(DEADLINE)).complete
    assert sorted(transport.spans()) == [span_id(number) for number in range(100, 300)]
    for partition, head in transport.heads():
        assert head.trace_id is not None
        assert partition == partition_of(head.trace_id, there)


@pytest.mark.parametrize("says_limit", [True, False])
async def test_a_topic_that_takes_less_than_was_thought_gets_smaller_records(
    transport: MemoryTransport, says_limit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    transport.limit, transport.says_limit = 5_000, says_limit
    async with make_pipeline(transport) as pipeline:
        for number in range(200):
            pipeline.record(*make_item(number, padding=6_000 if number == 50 else 500))
        result = await pipeline.aflush(DEADLINE)
    assert (result.acknowledged, result.dropped, result.pending) == (199, 1, 0)
    assert pipeline.ledger().dropped.encode_error == 1
    assert make_item(50)[0] in {trace_id for _, trace_id in transport.lost()}, "workers are told of what is missing"
    assert sorted(transport.spans()) == [span_id(number) for number in range(200) if number != 50]
    assert caplog.text.count("is larger than a Record of items may be") == 1
    assert "cannot be sent" not in caplog.text


async def test_preparation_is_repeated_until_it_succeeds(transport: MemoryTransport) -> None:
    calls: list[Transport] = []

    async def prepare(given: Transport) -> None:
        calls.append(given)
        if len(calls) < 3:
            msg = "not yet"
            raise TransportError(msg)

    async with Pipeline(transport, TOPICS, QUICK, Resource(), prepare=prepare) as pipeline:
        pipeline.record(*make_item(1))
        await until(lambda: pipeline.ledger().acknowledged == 1)
    assert calls == [transport] * 3


async def test_an_item_larger_than_a_record_is_refused_and_its_neighbours_pass(transport: MemoryTransport) -> None:
    topics = TopicOptions(partitions=4, max_record_bytes=10_000)
    async with Pipeline(transport, topics, QUICK, Resource()) as pipeline:
        for number in range(30):
            pipeline.record(*make_item(number, padding=9_500 if number == 15 else 3_000))
        result = await pipeline.aflush(DEADLINE)
        assert (result.acknowledged, result.dropped) == (29, 1)
        assert pipeline.ledger().dropped.encode_error == 1
        await until(lambda: {trace_id for _, trace_id in transport.lost()} == {make_item(15)[0]})
    assert all(len(sent.record.value or b"") <= 10_000 for sent in transport.log)
    assert pipeline.ledger().balances


async def test_an_item_that_could_not_be_encoded_is_counted_and_told(transport: MemoryTransport) -> None:
    async with make_pipeline(transport) as pipeline:
        pipeline.refuse(make_item(5)[0])
        await until(lambda: len(transport.lost()) == 1)
        ledger = pipeline.ledger()
        assert (ledger.recorded, ledger.dropped.encode_error) == (1, 1)
        assert ledger.balances


async def test_closing_with_a_hanging_transport_is_bounded_and_counted(transport: MemoryTransport) -> None:
    transport.weather = "hang"
    async with make_pipeline(transport, options(shutdown_timeout_s=0.1, send_timeout_s=1_000)) as pipeline:
        for number in range(100):
            pipeline.record(*make_item(number))
        await until(lambda: pipeline.ledger().in_flight > 0)
        began = time.monotonic()
    assert time.monotonic() - began < 15
    ledger = pipeline.ledger()
    assert ledger.unknown > 0, "what was on its way may have arrived"
    assert ledger.unknown + ledger.dropped.shutdown == 100
    assert ledger.balances


async def test_a_cancelled_host_still_delivers(transport: MemoryTransport) -> None:
    recorded = anyio.Event()

    async def serve() -> None:
        async with make_pipeline(transport, options(linger_ms=60_000)) as pipeline:
            pipeline.record(*make_item(1))
            recorded.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await recorded.wait()
        tasks.cancel_scope.cancel()
    assert transport.spans() == [span_id(1)]


async def test_an_error_of_the_block_is_raised_as_it_is(transport: MemoryTransport) -> None:
    async def fail() -> None:
        async with make_pipeline(transport) as pipeline:
            pipeline.record(*make_item(1))
            msg = "the application's own"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="the application's own"):
        await fail()
    assert transport.spans() == [span_id(1)]


async def test_after_the_close_items_are_counted_and_awaiting_goes_on(transport: MemoryTransport) -> None:
    async with make_pipeline(transport) as pipeline:
        await pipeline.aclose()
        await anyio.lowlevel.checkpoint()
        pipeline.record(*make_item(1))
        pipeline.refuse(make_item(2)[0])
        await pipeline.aclose()
    ledger = pipeline.ledger()
    assert (ledger.dropped.shutdown, ledger.dropped.encode_error) == (1, 1)
    assert ledger.balances


async def test_flush_counts_just_what_was_recorded_before_it(transport: MemoryTransport) -> None:
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


async def test_flush_from_a_thread_waits_and_on_the_own_loop_returns_at_once(transport: MemoryTransport) -> None:
    async with make_pipeline(transport, options(linger_ms=60_000)) as pipeline:
        pipeline.record(*make_item(1))
        assert pipeline.flush(DEADLINE).pending == 1
        assert (await anyio.to_thread.run_sync(pipeline.flush, DEADLINE)).acknowledged == 1


async def test_a_cancelled_flush_leaves_nothing_behind(transport: MemoryTransport) -> None:
    transport.weather = "fail"
    async with make_pipeline(transport, options(shutdown_timeout_s=0.01)) as pipeline:
        pipeline.record(*make_item(1))
        with anyio.move_on_after(0.02):
            await pipeline.aflush(DEADLINE)
        assert not pipeline._ledger.flushing


async def test_64_threads_record_while_flushes_run_and_the_ledger_always_balances(transport: MemoryTransport) -> None:
    each = 300
    transport.faults.extend(["fail", "unknown_stored", "unknown_lost"] * 10)
    stop = threading.Event()
    looks: list[bool] = []

    async with make_pipeline(transport, options(max_queue_items=2_000, backoff_max_ms=2)) as pipeline:

        def record(thread: int) -> None:
            for number in range(each):
                pipeline.record(*make_item(thread * each + number))
                if number % 100 == 50:  # `watch` may come to its turn when it is all over
                    looks.append(pipeline.ledger().balances)

        def watch() -> None:
            while not stop.is_set():
                looks.append(pipeline.ledger().balances)

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

    assert len(looks) >= 64 * each // 100
    assert all(looks)
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
