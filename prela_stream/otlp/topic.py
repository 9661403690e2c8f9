"""Reads a topic with OTLP requests, such as `otlp_spans` of the Collector's kafkaexporter, and appends its spans to `spans`.

The producers of such a topic choose the partition as they like. Here each span goes to the partition of its trace. The records of
`spans` and the offset of the topic are in one transaction: every span is appended once, whenever this process ends. What cannot
be read goes to `dlq` in the same transaction.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Final

import anyio

from prela_stream import telemetry
from prela_stream.codec.dlq import DLQ_FORMAT, DeadLetter, encode_dead_letter
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.errors import CodecError, FencedError, TransportError, guard
from prela_stream.model.plain import cut_text
from prela_stream.otel.otlp.requests import encoding_of, read_request
from prela_stream.otel.spans import ForeignSpan, Rejected
from prela_stream.otlp.observer import TopicObserver
from prela_stream.otlp.receiver import RejectionLog
from prela_stream.otlp.records import SpanRecords
from prela_stream.otlp.topics import require_topics
from prela_stream.privacy.rules import Privacy
from prela_stream.transport.base import (
    CommitOutcome,
    Consumer,
    LogRecord,
    Poll,
    Record,
    TopicPartition,
    Transport,
    Writer,
)
from prela_stream.transport.options import TopicOptions

logger = logging.getLogger("prela_stream.otlp")

_POLL_S: Final = 0.2
_POLL_BYTES: Final = 4 << 20
_RETRY_S: Final = 0.5
_SLICE_S: Final = 0.005
_COMMIT_BYTES: Final = 8 << 20
"""Bytes of input after which a commit is made, at the end of a record."""
_DEFECT: Final = "the spans could not be converted, because of a defect that the log names"


class _Batch:
    """The output of a commit."""

    def __init__(self, topics: TopicOptions, privacy: Privacy, offset: int) -> None:
        self.records = SpanRecords(topics, privacy)
        self.letters: list[Record] = []
        self.rejected = 0
        self.bytes = 0
        self.offset = offset
        """Offset of the next record to read."""


class TopicImport:
    """Appends the spans of one topic. Several processes of one group share its partitions.

    Args:
        transport: Carries both topics; the caller closes it.
        topics: Names and limits of the output.
        privacy: What is removed from each span.
        source: The topic to read.
        group: Its consumer group.
    """

    def __init__(
        self, transport: Transport, topics: TopicOptions, privacy: Privacy, *, source: str, group: str
    ) -> None:
        self._transport = transport
        self._topics = topics
        self._privacy = privacy
        self._source = source
        self._group = group
        self._writers: dict[TopicPartition, Writer] = {}
        self._waiting: dict[TopicPartition, float] = {}
        """Assigned partitions without a writer, and when the next attempt to open one is due."""
        self._rejections = RejectionLog()
        self._reported = ""
        self.observer = TopicObserver(group, source)

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Append until cancelled.

        Args:
            on_ready: Called once, when the first assignment is complete and every partition of it is open.

        Raises:
            UnknownTopicError: The source or a topic of the output does not exist.
            TopicMismatchError: A topic of the output does not match the settings.
        """
        await require_topics(self._transport, self._topics)
        rebalanced = False
        async with await self._transport.consumer([self._source], group=self._group) as consumer:
            self.observer.consumer = consumer
            try:
                while True:
                    poll = await self._poll(consumer)
                    rebalanced = rebalanced or poll.rebalanced
                    await self._reassign(poll, consumer)
                    if on_ready is not None and rebalanced and not self._waiting:
                        on_ready()
                        on_ready = None
                    await self._append(poll.records, consumer)
            finally:
                self.observer.consumer = None
                with anyio.CancelScope(shield=True):
                    for partition in list(self._writers):
                        await self._close(partition)

    async def _poll(self, consumer: Consumer) -> Poll:
        """Poll until it succeeds. A transport that is unavailable for a while ends nothing."""
        while True:
            try:
                poll = await consumer.poll(max_bytes=_POLL_BYTES, timeout=_POLL_S)
            except TransportError as error:
                self._report("cannot read from the transport", error)
                await anyio.sleep(_RETRY_S)
            else:
                self.observer.polled(poll)
                return poll

    async def _reassign(self, poll: Poll, consumer: Consumer) -> None:
        for partition in poll.revoked:
            self._waiting.pop(partition, None)
            await self._close(partition)
        self._waiting.update(dict.fromkeys(poll.assigned, 0.0))
        now = monotonic()
        due = [partition for partition, at in self._waiting.items() if at <= now]
        if due:
            async with anyio.create_task_group() as tasks:
                for partition in due:
                    tasks.start_soon(self._take_over, partition, consumer)

    async def _take_over(self, partition: TopicPartition, consumer: Consumer) -> None:
        """Open the writer of a partition, which fences an earlier one, and read on where the log has the last commit."""
        try:
            self._writers[partition] = writer = await self._transport.writer(self._group, partition)
            if writer.committed is not None:
                await consumer.seek(partition, writer.committed.offset)
            else:
                await consumer.seek(partition, await consumer.beginning_offset(partition))
        except TransportError as error:
            self._report(f"{partition} cannot be taken over", error)
            await self._retry_later(partition)
            return
        consumer.resume(partition)
        self._waiting.pop(partition, None)
        self._reported = self.observer.failure = ""

    async def _retry_later(self, partition: TopicPartition) -> None:
        await self._close(partition)
        self._waiting[partition] = monotonic() + _RETRY_S

    async def _close(self, partition: TopicPartition) -> None:
        writer = self._writers.pop(partition, None)
        if writer is not None:
            with guard("otlp.close"):
                await writer.aclose()

    async def _append(self, records: Sequence[LogRecord], consumer: Consumer) -> None:
        parts: dict[TopicPartition, list[LogRecord]] = {}
        for record in records:
            parts.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        async with anyio.create_task_group() as tasks:
            for partition, part in parts.items():
                tasks.start_soon(self._append_part, partition, part, consumer)

    async def _append_part(self, partition: TopicPartition, records: Sequence[LogRecord], consumer: Consumer) -> None:
        """Convert and commit the records of one partition. After a failure the log shows what was committed."""
        writer = self._writers.get(partition)
        if writer is None:
            return
        batch = _Batch(self._topics, self._privacy, records[0].offset)
        try:
            for record in records:
                await self._convert(batch, record)
                if batch.bytes >= _COMMIT_BYTES:
                    batch = await self._commit(writer, partition, batch)
            await self._commit(writer, partition, batch)
        except TransportError as error:
            consumer.pause(partition)
            self._report(f"{partition} could not be committed", error)
            await self._retry_later(partition)

    async def _convert(self, batch: _Batch, record: LogRecord) -> None:
        value = record.value or b""
        first: Rejected | None = Rejected(place="$", reason=_DEFECT)
        rejected, spans = 1, 0
        with guard("otlp.topic"):
            try:
                rejected, spans, first = await self._add_spans(batch, value)
            except CodecError as error:
                first = Rejected(place="$", reason=str(error))
        if first is not None:
            self._rejections.add("topic", rejected, first)
            batch.rejected += rejected
            batch.letters.append(self._letter(record, value, rejected, spans, first))
        batch.bytes += len(value)
        batch.offset = record.offset + 1

    async def _add_spans(self, batch: _Batch, value: bytes) -> tuple[int, int, Rejected | None]:
        """Add the spans of a record. Returns how many were rejected, how many were added, and the first rejection."""
        rejected, spans, first = 0, 0, None
        until = monotonic() + _SLICE_S
        for one in _read(value):
            if isinstance(one, Rejected):
                rejected += 1
                first = first or one
            else:
                batch.records.add(one)
                spans += 1
            if monotonic() >= until:
                await anyio.lowlevel.checkpoint()
                until = monotonic() + _SLICE_S
        return rejected, spans, first

    def _letter(self, record: LogRecord, value: bytes, rejected: int, spans: int, first: Rejected) -> Record:
        reason = f"{rejected:,} of {rejected + spans:,} spans were rejected; the first, {first.place}: {first.reason}"
        limit = self._topics.max_record_bytes
        if len(value) > limit:
            reason = f"{reason} (only the first {limit} of {len(value)} bytes are stored)"
        letter = DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            index=-1,
            reason=cut_text(reason),
            raw=value[:limit],
            count=rejected,
        )
        return Record(value=encode_dead_letter(letter), headers=((FORMAT_HEADER, DLQ_FORMAT),))

    async def _commit(self, writer: Writer, partition: TopicPartition, batch: _Batch) -> _Batch:
        """Commit, and return an empty batch. Raises TransportError if anything but a commit is the outcome."""
        spans = batch.records.spans
        packed = batch.records.take()
        records = [(TopicPartition(self._topics.spans, one.partition), one.record) for one in packed]
        dlq = TopicPartition(self._topics.dlq, 0)
        records += [(dlq, letter) for letter in batch.letters]
        outcome = await writer.commit(records, batch.offset)
        telemetry.OTLP_COMMITS.add(1, outcome.value)
        if outcome is not CommitOutcome.COMMITTED:
            msg = f"a commit of {partition} ended {outcome.value}; the log shows what became of it"
            raise TransportError(msg)
        telemetry.OTLP_SPANS.add(spans, "topic")
        telemetry.OTLP_REJECTED.add(batch.rejected, "topic")
        return _Batch(self._topics, self._privacy, batch.offset)

    def _report(self, what: str, error: TransportError) -> None:
        """Log a failure once, until a takeover succeeds again."""
        self.observer.failure = text = f"{what}: {error}"
        if isinstance(error, FencedError):
            logger.info("%s; another member of the group %s reads it now", text, self._group)
        elif text != self._reported:
            self._reported = text
            logger.warning("%s. It is tried again every %g s; records wait in the topic", text, _RETRY_S)


def _read(value: bytes) -> Iterator[ForeignSpan | Rejected]:
    return read_request(value, encoding_of(value))
