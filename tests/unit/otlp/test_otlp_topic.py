"""A topic of OTLP requests on a real local log: each span is appended once, whatever happens to the reader."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from prela_stream import telemetry
from prela_stream.codec.dlq import DeadLetter, decode_dead_letter
from prela_stream.errors import UnknownTopicError
from prela_stream.model.ids import partition_of
from prela_stream.otlp.topic import TopicImport
from prela_stream.privacy.rules import Privacy
from prela_stream.transport.base import Record, TopicPartition, TopicSpec, Transport
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import TopicOptions
from tests.support.otlp import json_request, request, stored_spans
from tests.support.processes import DEADLINE
from tests.support.unreliable import Unreliable
from tests.support.workers import local_log, values

TOPICS = TopicOptions(partitions=4)
SOURCE = "otlp_spans"
GROUP = "prela.otlp"


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def one_span(number: int) -> bytes:
    return request({"trace_id": trace_id(number), "span_id": (number + 1).to_bytes(8, "big")}).SerializeToString()


async def produce(transport: Transport, partition: int, *requests: bytes) -> None:
    async with await transport.producer() as producer:
        await producer.send(TopicPartition(SOURCE, partition), [Record(value=one, key=b"any") for one in requests])


@asynccontextmanager
async def log_with_source(folder: Path) -> AsyncIterator[LocalTransport]:
    async with local_log(folder, TOPICS) as transport:
        await transport.create_topics([TopicSpec(name=SOURCE, partitions=2)])
        yield transport


@asynccontextmanager
async def importing(transport: Transport) -> AsyncIterator[TopicImport]:
    """The import at work; it is cancelled at the end of the block."""
    service = TopicImport(transport, TOPICS, Privacy(), source=SOURCE, group=GROUP)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        yield service
        tasks.cancel_scope.cancel()


async def everything_read(transport: Transport) -> None:
    """Wait until the group has committed the end of the source."""
    async with await transport.consumer([SOURCE]) as consumer:
        parts = (await consumer.poll(timeout=0.0)).assigned
        with anyio.fail_after(DEADLINE):
            for part in parts:
                end = await consumer.end_offset(part)
                while end:
                    found = await transport.committed(GROUP, part)
                    if found is not None and found.offset >= end:
                        break
                    await anyio.sleep(0.005)


async def test_each_span_goes_to_the_partition_of_its_trace(tmp_path: Path) -> None:
    before = telemetry.metrics().value("prela_otlp_spans_total", entry="topic")
    async with log_with_source(tmp_path) as transport:
        await produce(transport, 0, *(one_span(number) for number in range(1, 20)))
        await produce(transport, 1, json_request({"traceId": trace_id(99).hex()}, {"traceId": trace_id(98).hex()}))
        async with importing(transport) as service:
            await everything_read(transport)
            await service.observer.refresh()
            assert service.observer.problems(1.0) == []
            assert telemetry.metrics().value("prela_otlp_topic_lag_records", topic=SOURCE) == 0
        spans = await stored_spans(transport, TOPICS.spans)
        assert Counter(span.trace_id for span in spans) == Counter(
            trace_id(number).hex() for number in (*range(1, 20), 98, 99)
        )
        async with await transport.consumer([TOPICS.spans]) as consumer:
            for part in (await consumer.poll(timeout=0.0)).assigned:
                has_records = await consumer.end_offset(part) > 0
                assert has_records == any(
                    partition_of(bytes.fromhex(span.trace_id), TOPICS.partitions) == part.partition for span in spans
                )
    assert telemetry.metrics().value("prela_otlp_spans_total", entry="topic") == before + len(spans)


async def test_what_cannot_be_read_is_dead_lettered_once_and_costs_nothing_else(tmp_path: Path) -> None:
    before = telemetry.metrics().value("prela_otlp_rejected_spans_total", entry="topic")
    mixed = request({"trace_id": trace_id(7)}, {"trace_id": b"x"}, {"span_id": b"y"}).SerializeToString()
    bad = {b"garbage": 1, b"{broken": 1, b'{"resourceLogs": []}': 1, mixed: 2, b"[" * 100_000: 1}
    async with log_with_source(tmp_path) as transport:
        await produce(transport, 0, one_span(1), *bad, one_span(2))
        async with importing(transport):
            await everything_read(transport)
        assert sorted(span.trace_id for span in await stored_spans(transport, TOPICS.spans)) == [
            trace_id(number).hex() for number in (1, 2, 7)
        ]
        letters: list[DeadLetter] = [decode_dead_letter(value) for value in await values(transport, TOPICS.dlq)]
    assert {letter.raw: letter.count for letter in letters} == bad
    assert [letter.offset for letter in letters] == [1, 2, 3, 4, 5]
    assert all(letter.topic == SOURCE and letter.partition == 0 and letter.reason for letter in letters)
    assert telemetry.metrics().value("prela_otlp_rejected_spans_total", entry="topic") == before + 6


@pytest.mark.parametrize("fault", ["aborted", "unknown, lost", "unknown, landed"])
async def test_a_commit_without_success_neither_loses_nor_doubles_a_span(fault: str, tmp_path: Path) -> None:
    plan = [fault, "", fault]
    async with log_with_source(tmp_path) as log:
        transport = Unreliable(log, plan)
        await produce(log, 0, *(one_span(number) for number in range(1, 6)))
        async with importing(transport):
            await everything_read(log)
            for number in (6, 7):
                await produce(log, 0, one_span(number))
                await everything_read(log)
        spans = await stored_spans(log, TOPICS.spans)
    assert plan == []
    assert transport.opened >= 2 + 1  # both partitions, and again after the first failure
    assert sorted(span.trace_id for span in spans) == [trace_id(number).hex() for number in range(1, 8)]


async def test_a_new_member_continues_and_fences_the_earlier_one(tmp_path: Path) -> None:
    async with log_with_source(tmp_path) as transport:
        await produce(transport, 0, *(one_span(number) for number in range(1, 4)))
        async with importing(transport):
            await everything_read(transport)
            zombie = await transport.writer(GROUP, TopicPartition(SOURCE, 0))  # another process takes over
            await produce(transport, 0, one_span(4))
            await everything_read(transport)
        await zombie.aclose()
        await produce(transport, 0, one_span(5))
        async with importing(transport):
            await everything_read(transport)
        spans = await stored_spans(transport, TOPICS.spans)
    assert sorted(span.trace_id for span in spans) == [trace_id(number).hex() for number in range(1, 6)]


async def test_a_topic_that_does_not_exist(tmp_path: Path) -> None:
    async with local_log(tmp_path, TOPICS) as transport:
        service = TopicImport(transport, TOPICS, Privacy(), source="nowhere", group=GROUP)
        with pytest.raises(UnknownTopicError, match="nowhere"):
            await service.run()
