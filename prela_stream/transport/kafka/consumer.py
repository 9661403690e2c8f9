"""Reading: what a poll returns, of the records that the fetcher has fetched.

Positions, pauses, and records that no poll has returned yet are kept here. Nothing is awaited between taking a record and
returning it, so a poll that is cancelled loses nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiokafka.errors as kafka
import msgspec
from aiokafka.errors import KafkaError

from prela_stream.errors import TransportError
from prela_stream.transport.base import Committed, LogRecord, Poll, TopicPartition
from prela_stream.transport.kafka.admin.connection import AdminConnection
from prela_stream.transport.kafka.admin.groups import Groups
from prela_stream.transport.kafka.admin.offsets import Offsets
from prela_stream.transport.kafka.admin.topics import Topics
from prela_stream.transport.kafka.client.fetcher import Fetcher
from prela_stream.transport.kafka.client.topic_watch import TopicWatch
from prela_stream.transport.options import POLL_BYTES, KafkaOptions
from prela_stream.transport.refusals import check_committed, closed, no_group, not_assigned

logger = logging.getLogger("prela_stream.transport.kafka")

_PATIENCE_S: Final = 1.0
"""How long to wait for transactions that commit offsets. Those of a writer that died stay open until another writer opens."""
_BEYOND_S: Final = 1.0
"""How often a position beyond the end is tried again."""
_REFRESH_S: Final = 1.0
"""How often aiokafka asks for topics that do not exist."""
_AT_ONCE: Final = 16
"""How many records are taken from aiokafka at most before their sizes are counted. Only their number can be given to aiokafka."""


class _AssignedPartition(msgspec.Struct):
    """A partition of the assignment."""

    position: int
    """Offset after everything in `waiting`."""
    waiting: deque[LogRecord]
    """Taken from aiokafka, and not yet returned by a poll."""
    paused: bool = True
    lost: bool = False
    """Whether nothing is at its position: it is before the first retained record or beyond the end."""
    beyond_until: float = 0.0
    """Loop time before which it is not fetched, because its position is beyond the end."""
    record_bytes: int = 0
    """The largest record that was taken at last; 0: none was."""


class KafkaConsumer:
    """A Consumer of the Kafka transport. Opened by `KafkaTransport.consumer`."""

    def __init__(
        self,
        options: KafkaOptions,
        admin: AdminConnection,
        cluster: Topics,
        offsets: Offsets,
        groups: Groups,
        topics: Sequence[str],
        group: str | None,
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._watch = TopicWatch(admin, topics)
        self._offsets = offsets
        self._groups = groups
        self._topics = topics
        self._group = group
        self._partitions: tuple[TopicPartition, ...] = ()
        self._assigned: dict[TopicPartition, _AssignedPartition] = {}
        self._epoch = 0
        """The assignment of the fetcher that `_assigned` reflects; 0: none."""
        self._member = (-1, "")
        self._turn = 0
        self._refresh_due = 0.0
        self._failure_logged = False
        self._changed = asyncio.Event()
        self._fetcher: Fetcher | None = None
        self.closed = False

    async def open(self, partitions: Sequence[TopicPartition]) -> None:
        """Connect; without a group, to these partitions. Raises TransportError."""
        self._partitions = tuple(partitions)
        self._fetcher = await self._new_fetcher()

    async def _new_fetcher(self) -> Fetcher:
        fetcher = Fetcher(self._options, self._group, self._changed.set)
        if self._group is None:
            await fetcher.assign(self._partitions)
        else:
            await fetcher.join(self._topics)
        return fetcher

    async def poll(self, *, max_records: int = 500, max_bytes: int = POLL_BYTES, timeout: float = 1.0) -> Poll:
        """See `Consumer.poll`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._changed.clear()
            fetcher = await self._living_fetcher()
            try:
                fetcher.record_poll()
                fetcher = await self._follow_topics(fetcher)
                poll = await self._follow_group(fetcher)
                if poll is None:
                    await self._recover_positions(fetcher)
                    poll = await self._take(fetcher, max_records, max_bytes)
            except KafkaError as error:
                msg = f"kafka: reading {', '.join(self._topics)} failed: {error}"
                raise TransportError(msg) from error
            rest = deadline - loop.time()
            if poll is not None or rest <= 0:
                return Poll() if poll is None else poll
            await self._wait(fetcher, rest)

    async def _living_fetcher(self) -> Fetcher:
        """The fetcher; a new one if a background task of it has ended. Raises TransportError."""
        fetcher = self._fetcher
        if self.closed:
            raise closed("consumer of the Kafka transport")
        if fetcher is None or fetcher.dead or self._watch.is_cut_off(fetcher.connected):
            if fetcher is not None:
                if not self._failure_logged:
                    logger.warning(
                        "the consumer of %s has failed; connecting again until it works", ", ".join(self._topics)
                    )
                self._failure_logged = True
                self._fetcher = None
                self._epoch = 0
                await fetcher.aclose()
            fetcher = await self._new_fetcher()
            if self._group is None and self._assigned:  # the assignment and the positions stay
                self._epoch = fetcher.epoch
                for partition, one in self._assigned.items():
                    fetcher.seek(partition, one.position)
                    if not one.paused:
                        fetcher.resume(partition)
            self._fetcher = fetcher
        return fetcher

    async def _follow_topics(self, fetcher: Fetcher) -> Fetcher:
        """Assign everything again if a topic was created again: the old offsets have no meaning. Raises TransportError."""
        now = asyncio.get_running_loop().time()
        recreated = await self._watch.recreated(now, fetcher.metadata_requests)
        if recreated or (self._watch.missing and now >= self._refresh_due):
            self._refresh_due = now + _REFRESH_S
            fetcher.refresh_metadata()  # the group rebalances once a member notices that a topic exists
        if recreated:
            self._cluster.forget(recreated)
            self._epoch = 0
        if recreated and self._group is None:  # the number of partitions may have changed too
            specs = await self._cluster.specs(self._topics)
            self._partitions = tuple(
                TopicPartition(name, n) for name, spec in specs.items() for n in range(spec.partitions)
            )
            self._fetcher = None
            await fetcher.aclose()
            fetcher = self._fetcher = await self._new_fetcher()
        return fetcher

    async def _follow_group(self, fetcher: Fetcher) -> Poll | None:
        """Apply a rebalance. The assignment changes in one step, at the end."""
        while self._group_changed(fetcher, self._epoch):
            revoked = tuple(sorted(self._assigned))
            if fetcher.rebalancing:
                self._assigned, self._epoch = {}, 0
                fetcher.release()
                return Poll(revoked=revoked) if revoked else None
            epoch, partitions = fetcher.epoch, sorted(fetcher.assigned)
            found: dict[TopicPartition, Committed] = {}
            if self._group is not None and partitions:
                found = await self._groups.committed(self._group, partitions, patience_s=_PATIENCE_S)
            begin = await self._offsets.beginnings([one for one in partitions if one not in found])
            if self._group_changed(fetcher, epoch):
                continue  # during these requests
            self._assigned, self._epoch, self._member = {}, epoch, fetcher.member
            self._failure_logged = False
            for partition in partitions:
                start = found[partition].offset if partition in found else begin[partition]
                fetcher.pause(partition)
                fetcher.seek(partition, start)
                self._assigned[partition] = _AssignedPartition(position=start, waiting=deque())
            return Poll(assigned=tuple(partitions), revoked=revoked, rebalanced=True)
        return None

    @staticmethod
    def _group_changed(fetcher: Fetcher, epoch: int) -> bool:
        return fetcher.epoch != epoch or fetcher.rebalancing

    async def _take(self, fetcher: Fetcher, max_records: int, max_bytes: int) -> Poll | None:
        """The next records, of all partitions in turn. An empty Poll if only positions have moved, over control records."""
        order = [partition for partition in sorted(self._assigned) if not self._assigned[partition].paused]
        self._turn += 1
        first = self._turn % len(order) if order else 0
        taken: list[LogRecord] = []
        moved = False
        for partition in order[first:] + order[:first]:
            one = self._assigned[partition]
            while len(taken) < max_records:
                if not one.waiting:
                    before = one.position
                    try:
                        await self._fetch(fetcher, partition, one, max_records - len(taken), max_bytes)
                    except KafkaError:
                        if taken:
                            break  # the next poll raises it
                        raise
                    moved = moved or one.position != before
                    if not one.waiting:
                        break
                size = _size(one.waiting[0])
                if taken and size > max_bytes:
                    max_bytes = 0
                    break
                max_bytes -= size
                taken.append(one.waiting.popleft())
                if max_bytes <= 0:
                    break
            if max_bytes <= 0:
                break
        return Poll(records=tuple(taken)) if taken or moved else None

    async def _fetch(
        self, fetcher: Fetcher, partition: TopicPartition, one: _AssignedPartition, count: int, max_bytes: int
    ) -> None:
        if one.beyond_until:
            if asyncio.get_running_loop().time() < one.beyond_until:
                return
            one.beyond_until = 0.0
            fetcher.resume(partition)
        if not fetcher.has_fetched(partition):
            return
        # A record taken is a record decompressed and held: take as many as will fit, as far as the last ones show.
        fitting = max_bytes // one.record_bytes if one.record_bytes else 1
        if fetcher.may_be_large(partition, one.position):
            fitting = 1
        try:
            records, one.position = await fetcher.fetched(partition, max(1, min(count, fitting, _AT_ONCE)))
        except kafka.NoOffsetForPartitionError:
            return  # from before our seek
        except kafka.OffsetOutOfRangeError:
            one.lost = (
                True  # where to continue is asked in the next poll, because records taken now must be returned first
            )
            return
        one.waiting.extend(records)
        one.record_bytes = max(map(_size, records), default=one.record_bytes)

    async def _recover_positions(self, fetcher: Fetcher) -> None:
        """Continue at the first retained record if the position is before it. If it is beyond the end, wait for the end."""
        for partition, one in list(self._assigned.items()):
            if not one.lost:
                continue
            position = one.position
            begin = await self._offsets.beginning(partition)
            if self._assigned.get(partition) is not one or one.position != position or self._current() is not fetcher:
                continue
            one.lost = False
            if position < begin:
                fetcher.seek(partition, begin)
                one.position = begin
            else:
                fetcher.pause(partition)
                one.beyond_until = asyncio.get_running_loop().time() + _BEYOND_S

    async def _wait(self, fetcher: Fetcher, seconds: float) -> None:
        """Wait for something that changes the result of a poll, or until a position beyond the end is due."""
        now = asyncio.get_running_loop().time()
        tries = [one.beyond_until - now for one in self._assigned.values() if one.beyond_until and not one.paused]
        arrival = fetcher.arrival()
        change = asyncio.ensure_future(self._changed.wait())
        either: list[asyncio.Future[Any]] = [arrival, change]
        try:
            await asyncio.wait(either, timeout=min([seconds, *tries]), return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
            if not arrival.cancel() and not arrival.cancelled():
                arrival.exception()  # an error of the membership: the next poll raises it too

    def assignment(self) -> frozenset[TopicPartition]:
        """See `Consumer.assignment`."""
        return frozenset(self._assigned)

    def _current(self) -> Fetcher | None:
        """The fetcher, if `_assigned` reflects its assignment."""
        fetcher = self._fetcher
        return None if fetcher is None or self._group_changed(fetcher, self._epoch) else fetcher

    def pause(self, *partitions: TopicPartition) -> None:
        """See `Consumer.pause`."""
        fetcher = self._current()
        for partition in partitions:
            if (one := self._assigned.get(partition)) is not None and not one.paused:
                one.paused = True
                if fetcher is not None:
                    fetcher.pause(partition)

    def resume(self, *partitions: TopicPartition) -> None:
        """See `Consumer.resume`."""
        fetcher = self._current()
        for partition in partitions:
            if (one := self._assigned.get(partition)) is not None and one.paused:
                one.paused = False
                if fetcher is not None and not one.beyond_until:
                    fetcher.resume(partition)
        self._changed.set()

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        one = self._require_assigned(partition)
        one.position = max(offset, 0)
        one.waiting.clear()
        if (fetcher := self._current()) is not None:
            fetcher.seek(partition, one.position)
            if one.beyond_until and not one.paused:
                fetcher.resume(partition)
        one.beyond_until, one.lost = 0.0, False
        self._changed.set()

    async def position(self, partition: TopicPartition) -> int:
        """See `Consumer.position`."""
        one = self._require_assigned(partition)
        return one.waiting[0].offset if one.waiting else one.position

    def _require_assigned(self, partition: TopicPartition) -> _AssignedPartition:
        if partition not in self._assigned:
            raise not_assigned(partition, self._group)
        return self._assigned[partition]

    async def committed(self, partition: TopicPartition) -> Committed | None:
        """See `Consumer.committed`."""
        if self._group is None:
            await self._offsets.beginning(partition)  # raises if the partition does not exist
            return None
        found = await self._groups.committed(self._group, [partition], patience_s=_PATIENCE_S)
        return found.get(partition)

    async def commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        """See `Consumer.commit`."""
        if self._group is None:
            raise no_group()
        for partition, committed in offsets.items():
            check_committed(committed.offset, committed.metadata)
            self._require_assigned(partition)
        if offsets:
            await self._groups.commit(self._group, *self._member, offsets)

    async def beginning_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.beginning_offset`."""
        return await self._offsets.beginning(partition)

    async def end_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.end_offset`."""
        return await self._offsets.end(partition)

    async def high_watermark(self, partition: TopicPartition) -> int:
        """See `Consumer.high_watermark`."""
        return await self._offsets.high_watermark(partition)

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """See `Consumer.offset_at`."""
        return await self._offsets.at(partition, timestamp_ms)

    async def aclose(self) -> None:
        """Leave the group and disconnect."""
        self.closed = True
        self._changed.set()
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await fetcher.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _size(record: LogRecord) -> int:
    return (
        len(record.value or b"")
        + len(record.key or b"")
        + sum(len(name) + len(content) for name, content in record.headers)
    )
