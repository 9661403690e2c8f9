"""The loop of a sink: a consumer group on `sampled` (and `decisions`) that hands batches over and commits what is durable.

A group of its own is what keeps a slow or dead store away from the workers: nothing upstream waits for it. It knows the transport
and the sink by their seams alone.
"""

import logging
import time
from collections.abc import Callable, Iterable

import anyio

from prela_stream import telemetry
from prela_stream.errors import FencedError, TransportError
from prela_stream.sinks.base import Sink, SinkBatch
from prela_stream.sinks.observer import SinkObserver
from prela_stream.sinks.topic_consumer import TopicConsumer
from prela_stream.transport.base import Consumer, LogRecord, Poll, TopicPartition, Transport
from prela_stream.transport.options import TopicOptions

logger = logging.getLogger(__name__)


class SinkService:
    """Feeds one sink. Any number of services may share a group: each has its share of the partitions.

    Args:
        transport: Where kept traces come from.
        topics: What the topics are called.
        sink: Where they go. The service closes it at its end.
        group: Consumer group; a different one for each store.
        max_records: Records of one batch at most.
        max_bytes: Bytes of one batch, roughly.
    """

    def __init__(
        self,
        transport: Transport,
        topics: TopicOptions,
        sink: Sink,
        *,
        group: str = "sinks.sqlite",
        max_records: int = 1_000,
        max_bytes: int = 8 << 20,
    ) -> None:
        self._transport = transport
        self._topics = topics
        self._sink = sink
        self._group = group
        self._max_records = max_records
        self._max_bytes = max_bytes
        self.observer = SinkObserver(group)
        """Its metrics and whether it is ready."""

    async def run(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Store until cancelled. A batch that is being written is finished and committed first.

        An error of the sink ends the service: nothing of its batch is committed, and the batch comes again.

        Args:
            on_ready: Called once, when the first partitions are ours and positioned.

        Raises:
            PrelaError: what the sink or the transport raised.
        """
        wanted = [self._topics.sampled]
        if self._sink.wants_decisions:
            wanted.append(self._topics.decisions)
        try:
            async with await self._transport.consumer(wanted, group=self._group) as consumer:
                reader = TopicConsumer(consumer, self._group)
                self.observer.consumer = consumer
                while True:
                    poll = await reader.poll(max_records=self._max_records, max_bytes=self._max_bytes)
                    with anyio.CancelScope(shield=True):  # no half batch: a sink bounds its own time
                        await self._handle(reader, poll)
                    self.observer.polled(poll)
                    if poll.assigned and on_ready is not None:
                        on_ready()
                        on_ready = None
        finally:
            self.observer.consumer = None
            with anyio.CancelScope(shield=True):
                await self._sink.aclose()

    async def _handle(self, reader: TopicConsumer, poll: Poll) -> None:
        for partition in poll.assigned:
            try:
                await self._position(reader.consumer, partition)
            except FencedError:
                continue  # it has gone to another member meanwhile; the next poll says so
            reader.consumer.resume(partition)
        for partition, records in _by_partition(poll.records):
            began = time.monotonic()
            await self._sink.write(self._batch(reader, partition, records))
            labels = (self._group, partition.topic)
            telemetry.SINK_WRITE_SECONDS.observe(time.monotonic() - began, *labels)
            telemetry.SINK_BATCH_RECORDS.observe(len(records), *labels)
            telemetry.SINK_RECORDS.add(len(records), *labels)
            reader.done(partition, records[-1].offset + 1)
        try:
            await reader.commit()
        except TransportError as error:  # it costs nothing but that batches may come again
            telemetry.SINK_RETRIES.add(1, self._group)
            logger.warning("could not commit offsets of %s, will try again: %s", self._group, error)

    async def _position(self, consumer: Consumer, partition: TopicPartition) -> None:
        """Go on where the data ends, for a sink that stores offsets with it."""
        stored = await self._sink.stored_offset(partition)
        if stored is None:
            return  # the group's committed offset counts, and that is where the consumer stands
        beyond = stored > await consumer.end_offset(partition)
        if beyond or await consumer.committed(partition) is None:
            # Either the log is another one than the store knows (it was deleted, say), or the group never got to commit.
            # Reading from the beginning is right in both cases: what is stored already changes nothing.
            if beyond:
                logger.warning(
                    "%s partition %d ends before offset %d, up to which the store has read it: this must be another log; "
                    "reading it from its beginning",
                    partition.topic,
                    partition.partition,
                    stored,
                )
            await consumer.seek(partition, await consumer.beginning_offset(partition))
            return
        await consumer.seek(partition, stored)

    def _batch(self, reader: TopicConsumer, partition: TopicPartition, records: list[LogRecord]) -> SinkBatch:
        next_offset = records[-1].offset + 1
        if partition.topic == self._topics.sampled:
            read = (reader.fragment(record) for record in records)
            fragments = [fragment for fragment in read if fragment is not None]
            return SinkBatch(source=partition, fragments=fragments, next_offset=next_offset)
        decisions = [decision for record in records for decision in reader.decisions(record)]
        return SinkBatch(source=partition, decisions=decisions, next_offset=next_offset)


def _by_partition(records: Iterable[LogRecord]) -> Iterable[tuple[TopicPartition, list[LogRecord]]]:
    found: dict[TopicPartition, list[LogRecord]] = {}
    for record in records:
        found.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
    return found.items()
