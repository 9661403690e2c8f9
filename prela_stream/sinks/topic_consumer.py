"""What everyone who reads `sampled` and `decisions` needs: a store's service, and the iterators that programs use.

Polls that outlast a transport that is away; Records that cannot be read are counted and skipped, so that none stops the others;
offsets are remembered until they are committed, and a partition that has gone to another member costs no other its commit.
"""

import logging
from typing import Final

import anyio

from prela_stream import telemetry
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.sampled import KeptFragment, decode_kept
from prela_stream.errors import CodecError, FencedError, TransportError, UnknownTopicError
from prela_stream.model.decision import Decision
from prela_stream.transport.base import Committed, Consumer, LogRecord, Poll, TopicPartition

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 1.0


class TopicConsumer:
    """A consumer of kept traces or decisions, with what has been done and not yet committed. Used by one task.

    Args:
        consumer: Where Records come from. Whoever opened it closes it.
        group: Its group, for what is logged; None for a consumer without one.
    """

    def __init__(self, consumer: Consumer, group: str | None) -> None:
        self.consumer = consumer
        self._group = group
        self._done: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._complained: set[str] = set()
        self._no_end = ""
        """Why nobody could say where a partition ends, as it was logged; empty once somebody could."""

    async def poll(self, *, max_records: int, max_bytes: int) -> Poll:
        """The next poll that works: a transport that is away for a while is no reason to stop."""
        complained = ""
        while True:
            try:
                return self._noted(await self.consumer.poll(max_records=max_records, max_bytes=max_bytes))
            except (FencedError, UnknownTopicError):
                raise
            except TransportError as error:
                complained = _complaint(error, complained)
                await anyio.sleep(_PAUSE_S)

    async def check_assignment(self) -> Poll:
        """Whether the assignment has changed, without waiting. The caller has paused all that is ours."""
        try:
            return self._noted(await self.consumer.poll(timeout=0.0))
        except (FencedError, UnknownTopicError):
            raise
        except TransportError:
            return Poll()  # nobody knows; the next poll says what is wrong

    async def end_offset(self, partition: TopicPartition) -> int | None:
        """Where `partition` ends; None while the transport is away: poll, and ask again."""
        try:
            end = await self.consumer.end_offset(partition)
        except (FencedError, UnknownTopicError):
            raise
        except TransportError as error:
            self._no_end = _complaint(error, self._no_end)
            return None
        self._no_end = ""
        return end

    def _noted(self, poll: Poll) -> Poll:
        for partition in poll.revoked:
            self.forget(partition)
        return poll

    def fragment(self, record: LogRecord) -> KeptFragment | None:
        """A Record of `sampled`; None for one that cannot be read."""
        try:
            return decode_kept(_value_of(record))
        except CodecError as error:
            self.skip(record, str(error))
            return None

    def decisions(self, record: LogRecord) -> list[Decision]:
        """A Record of `decisions`; none where it cannot be read."""
        try:
            return decode_decisions(_value_of(record))
        except CodecError as error:
            self.skip(record, str(error))
            return []

    def skip(self, record: LogRecord, reason: str) -> None:
        """Count a Record that is passed over, and log the first of its topic."""
        telemetry.SINK_BAD_RECORDS.add(1, record.topic)
        if record.topic not in self._complained:
            self._complained.add(record.topic)
            logger.error(
                "skipped the Record at %s partition %d offset %d: %s. Further ones of this topic are counted in "
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
        """A partition is not ours any more: what was done there and not committed will be done again by its new member."""
        self._done.pop(partition, None)
        self._committed.pop(partition, None)

    async def commit(self) -> frozenset[TopicPartition]:
        """Commit what is done, each partition for itself where one of them has gone to another member.

        Returns:
            The partitions that are not ours any more, which is logged: their new members read again from the last commit on.

        Raises:
            TransportError: something is not committed (as an OutcomeUnknownError: may not be). It stays done: try again.
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
        gone: set[TopicPartition] = set()
        for partition, committed in waiting.items():
            try:
                await self._commit({partition: committed})
            except FencedError:
                gone.add(partition)
                self.forget(partition)
                logger.info(
                    "%s has gone to another member of %s; that one reads again what was not committed",
                    partition,
                    self._group,
                )
        return frozenset(gone)


def _complaint(error: TransportError, last: str) -> str:
    """Log why the transport cannot be read, unless that was the last that was said of it."""
    text = str(error)
    if text != last:
        logger.warning("cannot read from the transport, will try again: %s", text)
    return text


def _value_of(record: LogRecord) -> bytes:
    if record.value is None:
        raise CodecError("a Record without a value")
    return record.value
