"""The sink `kafka-otlp`: writes kept traces as OTLP to a topic, for the kafkareceiver of a Collector."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import anyio.to_thread
import msgspec

from prela_stream.errors import SinkError, TransportError
from prela_stream.model.ids import partition_of
from prela_stream.otel.otlp.encode import Form, Marked, encode_request
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.otlp_spans import divided, marked, reject
from prela_stream.transport.base import Producer, Record, TopicPartition, TopicSpec, Transport
from prela_stream.validation import bounded

_SEND_BYTES: Final = 512 << 10
"""Records of one partition that are sent together have at most so many bytes, so that their batch fits into the topic."""


class KafkaOtlpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the sink `kafka-otlp`. It writes to the cluster that it reads from."""

    topic: str = "otlp_spans"
    """It is created if it is missing. The name is complete: the prefix of the other topics is not put before it."""
    partitions: Annotated[int, bounded(1, 10_000, "partitions")] = 4
    """Partitions of a topic that is created."""
    convention: Form = "genai"
    """The names of attributes: OpenTelemetry's GenAI conventions v0.1.0, or OpenInference for Phoenix."""
    sample_rate_attribute: str = ""
    """A further attribute that gets the weight as an integer, such as `SampleRate` for Honeycomb. Empty: none."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with an option beyond its type."""
        if (
            not self.topic
            or len(self.topic) > 249
            or not all(c.isascii() and (c.isalnum() or c in "._-") for c in self.topic)
        ):
            yield "topic", "expected 1 to 249 letters (A to Z, a to z), digits, '.', '_' and '-'"


class KafkaOtlpSink:
    """Writes kept traces to a topic in the encoding `otlp_proto`. At least once, with stable ids.

    A record is a `TracesData` with the spans of one trace. Its key is the trace id in hex, as the kafkaexporter writes it with
    `partition_traces_by_id`, so a trace is in one partition. A trace that is larger than a record of the topic is in several. A
    span that is larger is counted, logged and left out. After a crash the spans of the last batch may be written again.

    Args:
        options: Which topic. Nothing is opened before the first write.
        transport: Carries the records. The caller closes it after the sink.
    """

    wants_decisions = False

    def __init__(self, options: KafkaOtlpOptions, transport: Transport) -> None:
        self._options = options
        self._transport = transport
        self._producer: Producer | None = None
        self._topic = TopicSpec(name=options.topic, partitions=options.partitions)

    async def write(self, batch: SinkBatch) -> None:
        """Write the spans of the batch, and return when they are acknowledged."""
        if not batch.traces:
            return
        try:
            producer = await self._open()
            await self._send(producer, await anyio.to_thread.run_sync(self._records, batch))
        except TransportError as error:
            await self.aclose()
            msg = f"cannot write to the topic {self._options.topic}: {error}"
            raise SinkError(msg) from error

    async def stored_offset(self, source: TopicPartition) -> int | None:  # noqa: ARG002 - of the interface
        """None: offsets are those of the consumer group."""
        return None

    async def aclose(self) -> None:
        """Close the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.aclose()

    async def _open(self) -> Producer:
        if self._producer is None:
            name = self._options.topic
            found = (await self._transport.topics([name])).get(name)
            if found is None:
                await self._transport.create_topics([self._topic])
                found = (await self._transport.topics([name])).get(name, self._topic)
            self._topic = found
            self._producer = await self._transport.producer()
        return self._producer

    def _records(self, batch: SinkBatch) -> dict[int, list[Record]]:
        records: dict[int, list[Record]] = {}
        for spans, size in marked(batch.traces, self._options.sample_rate_attribute):
            for part in divided([(spans, size)], self._topic.max_record_bytes):
                key = part[0][0].trace_id.encode()
                target = records.setdefault(partition_of(key, self._topic.partitions), [])
                target += [Record(value=value, key=key) for value in self._values(part)]
        return records

    def _values(self, spans: Sequence[Marked]) -> Iterator[bytes]:
        """The spans as one message, or as several if it is too large for the topic."""
        value = encode_request(spans, self._options.convention)
        limit = self._topic.max_record_bytes
        if len(value) <= limit:
            yield value
        elif len(spans) > 1:
            yield from self._values(spans[: len(spans) // 2])
            yield from self._values(spans[len(spans) // 2 :])
        else:
            name = self._options.topic
            one = spans[0][0].span_id
            line = f"the span {one} has {len(value):,} bytes, and a record of {name} at most {limit:,}: it is left out"
            reject(name, 1, line)

    async def _send(self, producer: Producer, records: dict[int, list[Record]]) -> None:
        for partition, waiting in records.items():
            part: list[Record] = []
            size = 0
            for record in waiting:
                more = len(record.value or b"")
                if part and size + more > _SEND_BYTES:
                    await producer.send(TopicPartition(self._options.topic, partition), part)
                    part, size = [], 0
                part.append(record)
                size += more
            if part:
                await producer.send(TopicPartition(self._options.topic, partition), part)
