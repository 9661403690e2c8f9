"""The loop of a sink: a consumer of `sampled` (and `decisions`) that joins traces, passes them on and commits what is durable.

The consumer group belongs to the sink alone, so nothing upstream waits for a slow or failing sink. The service knows the
transport and the sink only by their interfaces.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from prela_stream import telemetry
from prela_stream.errors import (
    ConfigurationError,
    FencedError,
    PrelaError,
    SinkError,
    TransportError,
    UnknownTopicError,
)
from prela_stream.sinks.base import GroupingSink, PreparedBatch, Sink, SinkBatch
from prela_stream.sinks.fragments import FragmentJoiner
from prela_stream.sinks.observer import SinkObserver
from prela_stream.sinks.topic_consumer import TopicConsumer
from prela_stream.transport.base import Consumer, LogRecord, Poll, TopicPartition, Transport
from prela_stream.transport.options import TopicOptions

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0


class _Waiting(msgspec.Struct, frozen=True):
    """A batch that is not durable yet."""

    batch: SinkBatch | PreparedBatch
    """Prepared for a GroupingSink."""
    records: int


class _Assigned:
    """What the service knows of the partitions that are assigned to it."""

    def __init__(self) -> None:
        self.unpositioned: set[TopicPartition] = set()
        """Assigned, but not yet read from the right offset."""
        self.waiting: deque[_Waiting] = deque()
        self.joiners: dict[TopicPartition, FragmentJoiner] = {}
        self.offsets: dict[TopicPartition, int] = {}
        """`next_offset` of the last batch of each partition."""
        self.failure: TransportError | None = None
        """Why this member cannot read any more: it was removed from its group, or the topics were deleted."""

    def apply(self, poll: Poll) -> None:
        """Forget what was revoked, and note what was assigned."""
        for partition in poll.revoked:
            self.forget(partition)
        self.unpositioned.update(poll.assigned)

    def forget(self, partition: TopicPartition) -> None:
        """`partition` belongs to another member, which reads from the last commit on."""
        self.unpositioned.discard(partition)
        self.joiners.pop(partition, None)
        self.offsets.pop(partition, None)
        self.waiting = deque(one for one in self.waiting if one.batch.source != partition)

    def remove(self, written: Sequence[_Waiting]) -> list[_Waiting]:
        """Remove what was written; returns those of it whose partitions were not revoked during the write."""
        ids = set(map(id, written))
        own = [one for one in self.waiting if id(one) in ids]
        self.waiting = deque(one for one in self.waiting if id(one) not in ids)
        return own


class _Retry:
    """The pauses between attempts while a sink fails. One line is logged at the start of a failure and one at its end."""

    def __init__(self, name: str, group: str) -> None:
        self._name = name
        self._group = group
        self.pause_s = 0.0
        """Seconds until the next attempt; 0 while all is well."""

    def failed(self, error: Exception) -> None:
        """Count a failed attempt and log the first one."""
        telemetry.SINK_RETRIES.add(1, self._group)
        if not self.pause_s:
            logger.warning(
                "sink %s cannot continue and tries again until it succeeds; records wait in the topic: %s",
                self._name,
                str(error) or type(error).__name__,
            )
        self.pause_s = min(2 * self.pause_s or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)

    def succeeded(self) -> bool:
        """Whether a failure has ended with this attempt."""
        ended, self.pause_s = bool(self.pause_s), 0.0
        if ended:
            logger.warning("sink %s works again", self._name)
        return ended


class _Once:
    """Calls a function once, however often it is called."""

    def __init__(self, function: Callable[[], None] | None) -> None:
        self._function = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()


class SinkService:
    """Feeds one sink. Services of one consumer group share the partitions.

    Args:
        transport: Where kept traces come from.
        topics: The names of the topics.
        sink: Receives the traces. The service closes it at its end.
        name: The name of the sink in logs and metrics.
        group: Consumer group; each sink has its own.
        max_records: Records of one poll at most.
        max_bytes: Bytes of one poll, roughly.
    """

    def __init__(
        self,
        transport: Transport,
        topics: TopicOptions,
        sink: Sink,
        *,
        name: str = "sqlite",
        group: str = "sinks.sqlite",
        max_records: int = 1_000,
        max_bytes: int = 8 << 20,
    ) -> None:
        self._transport = transport
        self._topics = topics
        self._sink = sink
        self._groups = sink if isinstance(sink, GroupingSink) else None
        self._name = name
        self._group = group
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._retry = _Retry(name, group)
        self.observer = SinkObserver(group)
        """Its metrics and whether it is ready."""
        self._has_worked = False
        self._commit_error = ""
        """The last logged reason why a commit failed; empty once one succeeded."""

    async def run(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Write kept traces until cancelled. The batch in progress is finished and committed first.

        If the sink fails with a SinkError or an OSError, its batch is written again after a pause of 0.1 to 1 s, for as long as
        it takes. Records wait in the topic.

        Args:
            on_ready: Called once, when the first partitions are assigned and positioned.

        Raises:
            ConfigurationError: The sink cannot work with its options. Only before its first success.
            UnknownTopicError: The topics do not exist. If they are deleted later, the service waits until they exist again.
        """
        ready = _Once(on_ready)
        try:
            while True:
                try:
                    await self._consume(ready)
                except (FencedError, UnknownTopicError) as error:
                    # The topics were deleted, or the consumer group removed this member.
                    if not self._has_worked:
                        raise
                    self._failed(error)
                    await anyio.sleep(self._retry.pause_s)
        finally:
            with anyio.CancelScope(shield=True):
                await self._sink.aclose()

    async def _consume(self, ready: _Once) -> None:
        topics = [self._topics.sampled]
        if self._sink.wants_decisions:
            topics.append(self._topics.decisions)
        async with await self._transport.consumer(topics, group=self._group) as consumer:
            self.observer.consumer = consumer
            try:
                await self._serve(TopicConsumer(consumer, self._group), ready)
            finally:
                self.observer.consumer = None

    async def _serve(self, consumer: TopicConsumer, ready: _Once) -> None:
        assigned = _Assigned()
        while True:
            if self._retry.pause_s:
                await anyio.sleep(self._retry.pause_s)
                await self._accept(consumer, assigned, await consumer.check_assignment())
            elif assigned.waiting:  # they were fetched during the last write
                await anyio.lowlevel.checkpoint()
            else:
                poll = await consumer.poll(max_records=self._max_records, max_bytes=self._max_bytes)
                await self._accept(consumer, assigned, poll)
            with anyio.CancelScope(shield=True):  # a batch is written and committed, or neither; a sink bounds its time
                await self._attempt(consumer, assigned)
                await self._commit(consumer)
            if self._has_worked:
                ready()
            if assigned.failure is not None:
                raise assigned.failure

    async def _accept(self, consumer: TopicConsumer, assigned: _Assigned, poll: Poll) -> None:
        """Apply a poll and make batches of its records."""
        assigned.apply(poll)
        self.observer.polled(poll)
        for partition, records in _by_partition(poll.records):
            batch = self._batch(consumer, assigned, partition, records)
            if batch.traces or batch.decisions or batch.next_offset != assigned.offsets.get(partition):
                assigned.offsets[partition] = batch.next_offset
                ready = batch if self._groups is None else await anyio.to_thread.run_sync(self._groups.prepare, batch)
                assigned.waiting.append(_Waiting(ready, len(records)))

    async def _attempt(self, consumer: TopicConsumer, assigned: _Assigned) -> None:
        """Position what was assigned and write what waits. After a failure the rest is left for the next attempt."""
        try:
            await self._position_all(consumer.consumer, assigned)
            await self._write_all(consumer, assigned)
        except ConfigurationError as error:
            if not self._has_worked:
                raise
            self._pause(consumer, error)
        except UnknownTopicError:
            raise
        except (SinkError, TransportError, OSError) as error:
            self._pause(consumer, error)
        else:
            if self._retry.succeeded():
                self.observer.failure = ""
                consumer.consumer.resume(*consumer.consumer.assignment())

    def _pause(self, consumer: TopicConsumer, error: Exception) -> None:
        """Fetch no further records until the sink succeeds; polling keeps this member in its group."""
        self._failed(error)
        consumer.consumer.pause(*consumer.consumer.assignment())

    def _failed(self, error: Exception) -> None:
        self._retry.failed(error)
        self.observer.failure = str(error)

    async def _position_all(self, consumer: Consumer, assigned: _Assigned) -> None:
        for partition in sorted(assigned.unpositioned):
            try:
                await self._position(consumer, partition)
            except FencedError:
                assigned.forget(partition)  # reassigned; the next poll reports it
                continue
            assigned.unpositioned.discard(partition)
            consumer.resume(partition)
            self._has_worked = True

    async def _position(self, consumer: Consumer, partition: TopicPartition) -> None:
        """Continue where the data of the sink ends, if it stores offsets; else at the committed offset of the group."""
        stored = await self._sink.stored_offset(partition)
        if stored is None:
            return
        other_log = stored > await consumer.end_offset(partition)
        if other_log or await consumer.committed(partition) is None:
            # Reading from the beginning is right in both cases, because what is stored already changes nothing.
            if other_log:
                logger.warning(
                    "%s ends before offset %d, up to which sink %s has read it: the topic was deleted and created again. It is "
                    "read from its beginning",
                    partition,
                    stored,
                    self._name,
                )
            await consumer.seek(partition, await consumer.beginning_offset(partition))
            return
        await consumer.seek(partition, stored)

    async def _write_all(self, consumer: TopicConsumer, assigned: _Assigned) -> None:
        """Write what waits now, and nothing that is fetched during that."""
        if self._groups is None:
            for one in list(assigned.waiting):
                began = time.monotonic()
                assert isinstance(one.batch, SinkBatch)
                await self._sink.write(one.batch)
                self._note(consumer, assigned, [one], began)
        elif assigned.waiting:
            await self._write_together(self._groups, consumer, assigned, list(assigned.waiting))

    async def _write_together(
        self, sink: GroupingSink, consumer: TopicConsumer, assigned: _Assigned, group: Sequence[_Waiting]
    ) -> None:
        """Write these at once; fetch, decode and prepare the next records at the same time."""
        began, has_begun = time.monotonic(), anyio.Event()
        failure: Exception | None = None
        batches = [one.batch for one in group if isinstance(one.batch, PreparedBatch)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._fetch_ahead, consumer, assigned, has_begun)
            try:
                await sink.write_together(batches, has_begun.set)
            except (PrelaError, OSError) as error:
                failure = error
            if not has_begun.is_set():
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        self._note(consumer, assigned, group, began)

    async def _fetch_ahead(self, consumer: TopicConsumer, assigned: _Assigned, has_begun: anyio.Event) -> None:
        await has_begun.wait()
        try:
            poll = await consumer.poll_now(max_records=self._max_records, max_bytes=self._max_bytes)
        except (FencedError, UnknownTopicError) as error:
            assigned.failure = error
        else:
            await self._accept(consumer, assigned, poll)

    def _note(self, consumer: TopicConsumer, assigned: _Assigned, written: Sequence[_Waiting], began: float) -> None:
        """Count what is durable. Its offsets may be committed, except those of partitions that another member has now."""
        took = time.monotonic() - began
        for one in written:
            labels = (self._group, one.batch.source.topic)
            telemetry.SINK_WRITE_SECONDS.observe(took, *labels)
            telemetry.SINK_BATCH_RECORDS.observe(one.records, *labels)
            telemetry.SINK_RECORDS.add(one.records, *labels)
        for one in assigned.remove(written):
            consumer.done(one.batch.source, one.batch.next_offset)

    async def _commit(self, consumer: TopicConsumer) -> None:
        try:
            await consumer.commit()
        except TransportError as error:  # the batches may be written again, which changes nothing
            telemetry.SINK_RETRIES.add(1, self._group)
            if self._commit_error != str(error):
                self._commit_error = str(error)
                logger.warning(
                    "could not commit the offsets of the consumer group %s, will try again: %s", self._group, error
                )
        else:
            self._commit_error = ""

    def _batch(
        self, consumer: TopicConsumer, assigned: _Assigned, partition: TopicPartition, records: list[LogRecord]
    ) -> SinkBatch:
        """The batch of these records. It is empty if they only begin traces."""
        if partition.topic == self._topics.sampled:
            return _traces(consumer, assigned.joiners.setdefault(partition, FragmentJoiner()), partition, records)
        decisions = [decision for record in records for decision in consumer.decisions(record)]
        return SinkBatch(source=partition, decisions=decisions, next_offset=records[-1].offset + 1)


def _traces(
    consumer: TopicConsumer, joiner: FragmentJoiner, partition: TopicPartition, records: list[LogRecord]
) -> SinkBatch:
    traces = []
    next_offset = records[-1].offset + 1
    for record in records:
        fragments, next_offset = consumer.join(record, joiner)
        if fragments:
            traces.append(consumer.read(fragments, partition))
    return SinkBatch(source=partition, traces=traces, next_offset=next_offset)


def _by_partition(records: Iterable[LogRecord]) -> Iterable[tuple[TopicPartition, list[LogRecord]]]:
    found: dict[TopicPartition, list[LogRecord]] = {}
    for record in records:
        found.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
    return found.items()
