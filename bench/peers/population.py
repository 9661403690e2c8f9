"""The spans of bench/worker.py for both peers, as records of our `spans` topic and as OTLP protobuf."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from bench.worker import SPANS_A_TRACE, trace_items
from prela_stream.codec.spans import SPANS_FORMAT, encode_batch, encode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.model.ids import partition_of
from prela_stream.model.span import Resource
from prela_stream.transport.base import Record, TopicPartition, Transport

RESOURCE: Final = Resource(service_name="bench", sdk_version="0", host="h", pid=1)
SEND_BYTES: Final = 2_000_000
"""So much goes to a partition in one send, so that batches in the log have the same size for both peers."""
TEXT_CHARACTERS: Final = 760
_STATUS_CODES: Final[dict[int, Any]] = {1: 1, 2: 2}
"""SUCCESS is OK of OTLP, ERROR is ERROR."""
_decoder = msgspec.msgpack.Decoder(list)
_encoder = msgspec.msgpack.Encoder()

TRACE_ID, SPAN_ID, PARENT, FLAGS, STATUS, CHILDREN = 1, 2, 3, 4, 5, 7
"""Indexes in a span item (docs/wire.md)."""


def traces(count: int, *, seed: int = 7, unique: bool = False) -> Iterator[tuple[bytes, list[bytes]]]:
    """Trace ids with their items. All traces have one text, which compresses to almost nothing; `unique`: each has another."""
    rng = random.Random(seed)
    text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=TEXT_CHARACTERS + (4_000_000 if unique else 0)))
    now = time.time_ns()
    for _ in range(count):
        start = rng.randrange(4_000_000) if unique else 0
        yield trace_items(rng, text[start : start + TEXT_CHARACTERS], now)


def changed(item: bytes, values: dict[int, Any]) -> bytes:
    """The item with other values at these indexes."""
    fields = _decoder.decode(item)
    for index, value in values.items():
        fields[index] = value
    return _encoder.encode(fields)


def rootless(items: list[bytes]) -> list[bytes]:
    """The trace with its root made one more child of a span that never arrives: it is never complete."""
    parent = _decoder.decode(items[-1])[SPAN_ID]
    child = changed(
        items[-1], {SPAN_ID: parent[::-1], PARENT: parent, FLAGS: _decoder.decode(items[0])[FLAGS], CHILDREN: 0}
    )
    return [*items[:-1], child]


def span_id_of(item: bytes) -> bytes:
    """The span id of an item."""
    found: bytes = _decoder.decode(item)[SPAN_ID]
    return found


def worker_record(items: Sequence[bytes]) -> Record:
    """One record of the `spans` topic."""
    value = encode_batch(encode_resource(RESOURCE), list(items))
    return Record(value=value, headers=((FORMAT_HEADER, SPANS_FORMAT),))


def otlp_record(items: Sequence[bytes]) -> Record:
    """The same spans as one message of an `otlp_proto` topic, with one resource and one scope."""
    message = TracesData()
    group = message.resource_spans.add()
    for key, value in {"service.name": RESOURCE.service_name, "host.name": RESOURCE.host}.items():
        group.resource.attributes.add(key=key).value.string_value = value
    spans = group.scope_spans.add().spans
    for item in items:
        _, trace_id, span_id, parent, _, status, *_, start_ns, duration_ns, name, _, _, attributes, _, _, _ = (
            _decoder.decode(item)
        )
        span = spans.add(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent or b"",
            name=name,
            kind=3,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + duration_ns,
        )
        span.status.code = _STATUS_CODES[status]
        for key, value in attributes.items():
            attribute = span.attributes.add(key=key)
            if isinstance(value, int):
                attribute.value.int_value = value
            else:
                attribute.value.string_value = value
    return Record(value=message.SerializeToString())


FORMATS: Final[dict[str, Callable[[Sequence[bytes]], Record]]] = {"worker": worker_record, "collector": otlp_record}


class Filler:
    """Writes the same traces to topics of both formats, each trace to the partition of its id."""

    def __init__(self, transport: Transport, topics: dict[str, list[str]], *, partitions: int, a_record: int) -> None:
        self._transport = transport
        self._topics = topics
        self._partitions = partitions
        self._a_record = a_record
        self._records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.bytes = dict.fromkeys(topics, 0)

    async def fill(self, source: Iterator[tuple[bytes, list[bytes]]]) -> None:
        """Write every trace of `source`; returns when the broker has acknowledged them."""
        waiting: list[list[bytes]] = [[] for _ in range(self._partitions)]
        async with await self._transport.producer() as producer:
            for trace_id, items in source:
                partition = partition_of(trace_id, self._partitions)
                queue = waiting[partition]
                queue += items
                while len(queue) >= self._a_record:
                    self._add(partition, queue[: self._a_record])
                    del queue[: self._a_record]
                await self._send(producer, partition, at_least=SEND_BYTES // (1_000 * self._a_record) or 1)
            for partition, queue in enumerate(waiting):
                if queue:
                    self._add(partition, queue)
                await self._send(producer, partition, at_least=1)

    def _add(self, partition: int, items: Sequence[bytes]) -> None:
        for form in self._topics:
            record = FORMATS[form](items)
            self.bytes[form] += len(record.value or b"")
            self._records[form, partition].append(record)

    async def _send(self, producer: Any, partition: int, *, at_least: int) -> None:
        for form, topics in self._topics.items():
            records = self._records[form, partition]
            if len(records) < at_least:
                continue
            for topic in topics:
                await producer.send(TopicPartition(topic, partition), records)
            self._records[form, partition] = []


def spans_of(traces_count: int) -> int:
    """Spans of so many traces."""
    return traces_count * SPANS_A_TRACE
