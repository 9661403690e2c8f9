"""Reads `sampled` and `decisions`, for the service of a sink and for the iterators of applications.

A poll outlasts a transport that cannot be reached. A record that cannot be read is counted and skipped. Offsets are kept until
they are committed. If a partition was reassigned, the other partitions are committed all the same.
"""

import logging
from typing import Final

import anyio

from prela_stream import telemetry
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.sampled import KeptFragment, decode_kept
from prela_stream.errors import CodecError, FencedError, TransportError, UnknownTopicError
from prela_stream.model.decision import Decision
from prela_stream.sinks.fragments import FragmentJoiner
from prela_stream.sinks.kept_trace import KeptTrace, read_trace
from prela_stream.transport.base import Committed, Consumer, LogRecord, Poll, TopicPartition

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 1.0


class TopicConsumer:
    """A consumer of kept traces or decisions, and the offsets that are done but not committed. Used by one task.

    Args:
        consumer: The consumer of the transport. The caller closes it.
        group: Its consumer group, for the log; None for a consumer without one.
    """

    def __init__(self, consumer: Consumer, group: str | None) -> None:
        self.consumer = consumer
        self._group = group
        self._done: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._reported: set[str] = set()
        self._end_error = ""
        """The last logged reason why the end of a partition is unknown; empty once it is known."""

    async def poll(self, *, max_records: int, max_bytes: int) -> Poll:
        """The next poll that succeeds. While the transport cannot be reached, it is repeated every second."""
        logged = ""
        while True:
            try:
                return self._noted(await self.consumer.poll(max_records=max_records, max_bytes=max_bytes))
            except (FencedError, UnknownTopicError):
                raise
            except TransportError as error:
                logged = self._log_new(error, logged)
                await anyio.sleep(_PAUSE_S)

    async def check_assignment(self) -> Poll:
        """Changes of the assignment, without waiting. The caller has paused all partitions, so there are no records."""
        return await self.poll_now(max_records=1, max_bytes=1)

    async def poll_now(self, *, max_records: int, max_bytes: int) -> Poll:
        """A poll that does not wait: what has arrived. Empty while the transport cannot be reached."""
        try:
            return self._noted(await self.consumer.poll(max_records=max_records, max_bytes=max_bytes, timeout=0.0))
        except (FencedError, UnknownTopicError):
            raise
        except TransportError:
            return Poll()  # the next poll reports the error

    async def end_offset(self, partition: TopicPartition) -> int | None:
        """Where `partition` ends; None while the transport cannot be reached: poll, and ask again."""
        try:
            end = await self.consumer.end_offset(partition)
        except (FencedError, UnknownTopicError):
            raise
        except TransportError as error:
            self._end_error = self._log_new(error, self._end_error)
            return None
        self._end_error = ""
        return end

    def _log_new(self, error: TransportError, logged: str) -> str:
        """Log why the transport cannot be read, unless `logged` is the same reason; returns the reason."""
        telemetry.SINK_READ_ERRORS.add()
        text = str(error)
        if text != logged:
            reader = "a reader without a group" if self._group is None else f"the consumer group {self._group}"
            logger.warning("%s cannot read from the transport, will try again: %s", reader, text)
        return text

    def _noted(self, poll: Poll) -> Poll:
        for partition in poll.revoked:
            self.forget(partition)
        return poll

    def join(self, record: LogRecord, joiner: FragmentJoiner) -> tuple[list[KeptFragment], int]:
        """Add a record of `sampled` to the fragments of its partition.

        Returns:
            The fragments of a trace that this record completes, for `read`; empty if there is none. And the offset that may be
            committed after that trace: the first record that an incomplete trace needs, else the next record.
        """
        fragment = self._fragment(record)
        found: list[KeptFragment] = []
        if fragment is not None:
            before = joiner.given_up
            found = joiner.add(fragment, offset=record.offset, timestamp_ms=record.timestamp_ms)
            for _ in range(joiner.given_up - before):
                self._skip(record, "a kept trace of which a fragment is missing")
        needed = joiner.first_offset()
        return found, record.offset + 1 if needed is None else needed

    def read(self, fragments: list[KeptFragment], partition: TopicPartition) -> KeptTrace:
        """The trace of these fragments. Spans that cannot be read are counted, and the first one of a topic is logged."""
        problems: list[str] = []
        trace = read_trace(fragments, problems)
        if problems:
            telemetry.SINK_BAD_ITEMS.add(len(problems))
            if f"{partition.topic} spans" not in self._reported:
                self._reported.add(f"{partition.topic} spans")
                logger.error(
                    "%d spans of trace %s in %s cannot be read, the first because: %s. The trace has its other spans. Further "
                    "ones are counted in prela_sink_bad_items_total and not logged.",
                    len(problems),
                    trace.trace_id,
                    partition,
                    problems[0],
                )
        return trace

    def decisions(self, record: LogRecord) -> list[Decision]:
        """The decisions of a record of `decisions`; empty if it cannot be read."""
        try:
            return decode_decisions(_value_of(record))
        except CodecError as error:
            self._skip(record, str(error))
            return []

    def _fragment(self, record: LogRecord) -> KeptFragment | None:
        try:
            return decode_kept(_value_of(record))
        except CodecError as error:
            self._skip(record, str(error))
            return None

    def _skip(self, record: LogRecord, reason: str) -> None:
        telemetry.SINK_BAD_RECORDS.add(1, record.topic)
        if record.topic not in self._reported:
            self._reported.add(record.topic)
            logger.error(
                "skipped the record at %s partition %d offset %d: %s. Further ones of this topic are counted in "
                "prela_sink_bad_records_total and not logged.",
                record.topic,
                record.partition,
                record.offset,
                reason,
            )

    def done(self, partition: TopicPartition, next_offset: int) -> None:
        """Everything of `partition` below `next_offset` may be committed."""
        self._done[partition] = next_offset

    def forget(self, partition: TopicPartition) -> None:
        """`partition` was revoked: its new member repeats what was done there and not committed."""
        self._done.pop(partition, None)
        self._committed.pop(partition, None)

    async def commit(self) -> frozenset[TopicPartition]:
        """Commit what is done. If a partition was reassigned, the others are committed one by one.

        Returns:
            The partitions that were reassigned, which is logged: their new members read again from the last commit on.

        Raises:
            TransportError: Something is not committed; after an OutcomeUnknownError it may be. It stays done: try again.
        """
        waiting = {
            partition: Committed(offset=offset)
            for partition, offset in self._done.items()
            if self._committed.get(partition) != offset
        }
        if not waiting:
            return frozenset()
        try:
            await self._commit(waiting)
        except FencedError:
            return await self._commit_one_by_one(waiting)
        return frozenset()

    async def _commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        await self.consumer.commit(offsets)
        self._committed.update({partition: committed.offset for partition, committed in offsets.items()})

    async def _commit_one_by_one(self, waiting: dict[TopicPartition, Committed]) -> frozenset[TopicPartition]:
        reassigned: set[TopicPartition] = set()
        for partition, committed in waiting.items():
            try:
                await self._commit({partition: committed})
            except FencedError:
                reassigned.add(partition)
                self.forget(partition)
                logger.info(
                    "%s was reassigned to another member of the consumer group %s, which reads again what was not committed",
                    partition,
                    self._group,
                )
        return frozenset(reassigned)


def _value_of(record: LogRecord) -> bytes:
    if record.value is None:
        raise CodecError("a record without a value")
    return record.value
