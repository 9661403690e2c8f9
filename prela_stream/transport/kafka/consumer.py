"""Reading: what a poll returns, of what the feed has fetched.

Positions, pauses and fetched Records that no poll has returned yet are kept here. Nothing is awaited between taking a Record and
returning it, so that a poll which is cancelled loses nothing.
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

from prela_stream.errors import FencedError, TransportError
from prela_stream.transport.base import Committed, LogRecord, Poll, TopicPartition
from prela_stream.transport.checks import check_committed
from prela_stream.transport.kafka.admin.groups import Groups
from prela_stream.transport.kafka.admin.offsets import Offsets
from prela_stream.transport.kafka.client.fetcher import Feed
from prela_stream.transport.options import KafkaOptions

logger = logging.getLogger("prela_stream.transport.kafka")

_PATIENCE_S: Final = 1.0
"""How long to wait for transactions that commit offsets; those of a writer that died may take until another one is opened."""
_BEYOND_S: Final = 1.0
"""How often a position beyond the end is tried again."""


class _Held(msgspec.Struct):
    """A partition of ours."""

    position: int
    """Offset behind everything in `waiting`."""
    waiting: deque[LogRecord]
    """Fetched, and not yet returned by a poll."""
    paused: bool = True
    lost: bool = False
    """Whether there is nothing at its position: it lies before the first kept Record or beyond the end."""
    beyond_until: float = 0.0
    """Loop time before which it is not tried again, because its position is beyond the end."""


class KafkaConsumer:
    """A Consumer of the Kafka transport. Opened by `KafkaTransport.consumer`."""

    def __init__(
        self, options: KafkaOptions, offsets: Offsets, groups: Groups, topics: Sequence[str], group: str | None
    ) -> None:
        self._options = options
        self._offsets = offsets
        self._groups = groups
        self._topics = topics
        self._group = group
        self._partitions: tuple[TopicPartition, ...] = ()
        self._held: dict[TopicPartition, _Held] = {}
        self._epoch = 0
        self._member = (-1, "")
        self._turn = 0
        self._changed = asyncio.Event()
        self._feed: Feed | None = None
        self.closed = False

    async def open(self, partitions: Sequence[TopicPartition]) -> None:
        """Connect; without a group, to these partitions. Raises TransportError."""
        self._partitions = tuple(partitions)
        self._feed = await self._new_feed()

    async def _new_feed(self) -> Feed:
        feed = Feed(self._options, self._group, self._changed.set)
        if self._group is None:
            await feed.hold(self._partitions)
        else:
            await feed.join(self._topics)
        return feed

    async def poll(self, *, max_records: int = 500, max_bytes: int = 8 << 20, timeout: float = 1.0) -> Poll:
        """See `Consumer.poll`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._changed.clear()
            feed = await self._living()
            try:
                feed.touch()
                poll = await self._settled(feed)
                if poll is None:
                    await self._find_again(feed)
                    poll = await self._taken(feed, max_records, max_bytes)
            except KafkaError as error:
                msg = f"kafka: reading {', '.join(self._topics)} failed: {error}"
                raise TransportError(msg) from error
            rest = deadline - loop.time()
            if poll is not None or rest <= 0:
                return Poll() if poll is None else poll
            await self._wait(feed, rest)

    async def _living(self) -> Feed:
        """The feed; a new one if a background task of it has died. Raises TransportError."""
        feed = self._feed
        if self.closed:
            msg = "this consumer of the Kafka transport is closed"
            raise TransportError(msg)
        if feed is None or feed.dead:
            if feed is not None:
                logger.warning("the consumer of %s has failed; connecting anew", ", ".join(self._topics))
                self._feed = None
                self._epoch = 0
                await feed.aclose()
            feed = await self._new_feed()
            if self._group is None and self._held:  # all stays ours, where it stood
                self._epoch = feed.epoch
                for place, held in self._held.items():
                    feed.seek(place, held.position)
                    if not held.paused:
                        feed.resume(place)
            self._feed = feed
        return feed

    async def _settled(self, feed: Feed) -> Poll | None:
        """Catch up with the group. What is dropped and what is new changes in one step, at the end."""
        while self._moved_on(feed, self._epoch):
            gone = tuple(sorted(self._held))
            if feed.rebalancing:
                self._held, self._epoch = {}, 0
                feed.give_up()
                return Poll(revoked=gone) if gone else None
            epoch, places = feed.epoch, sorted(feed.assigned)
            found: dict[TopicPartition, Committed] = {}
            if self._group is not None and places:
                found = await self._groups.committed(self._group, places, patience_s=_PATIENCE_S)
            begin = await self._offsets.beginnings([place for place in places if place not in found])
            if self._moved_on(feed, epoch):
                continue  # while we asked
            self._held, self._epoch, self._member = {}, epoch, feed.member
            for place in places:
                start = found[place].offset if place in found else begin[place]
                feed.seek(place, start)
                self._held[place] = _Held(position=start, waiting=deque())
            return Poll(assigned=tuple(places), revoked=gone, rebalanced=True)
        return None

    @staticmethod
    def _moved_on(feed: Feed, epoch: int) -> bool:
        return feed.epoch != epoch or feed.rebalancing

    async def _taken(self, feed: Feed, max_records: int, max_bytes: int) -> Poll | None:
        """The next Records, of all partitions in turn; an empty Poll if positions have moved over what is no Record."""
        order = [place for place in sorted(self._held) if not self._held[place].paused]
        self._turn += 1
        first = self._turn % len(order) if order else 0
        taken: list[LogRecord] = []
        moved = False
        for place in order[first:] + order[:first]:
            held = self._held[place]
            while len(taken) < max_records:
                if not held.waiting:
                    before = held.position
                    try:
                        await self._fetch(feed, place, held, max_records - len(taken))
                    except KafkaError:
                        if taken:
                            break  # it comes again
                        raise
                    moved = moved or held.position != before
                    if not held.waiting:
                        break
                size = _size(held.waiting[0])
                if taken and size > max_bytes:
                    max_bytes = 0
                    break
                max_bytes -= size
                taken.append(held.waiting.popleft())
            if max_bytes <= 0:
                break
        return Poll(records=tuple(taken)) if taken or moved else None

    async def _fetch(self, feed: Feed, place: TopicPartition, held: _Held, count: int) -> None:
        if held.beyond_until:
            if asyncio.get_running_loop().time() < held.beyond_until:
                return
            held.beyond_until = 0.0
            feed.resume(place)
        try:
            records, held.position = await feed.fetched(place, count)
            held.waiting.extend(records)
        except kafka.NoOffsetForPartitionError:
            return  # from before our seek
        except kafka.OffsetOutOfRangeError:
            held.lost = True  # asking where to go on must wait until what was taken has been returned

    async def _find_again(self, feed: Feed) -> None:
        """Go on at the first kept Record where the position lies before it; where it lies beyond the end, wait for the end."""
        for place, held in list(self._held.items()):
            if not held.lost:
                continue
            position = held.position
            begin = await self._offsets.beginning(place)
            if self._held.get(place) is not held or held.position != position or self._current() is not feed:
                continue
            held.lost = False
            if position < begin:
                feed.seek(place, begin)
                held.position = begin
            else:
                feed.pause(place)
                held.beyond_until = asyncio.get_running_loop().time() + _BEYOND_S

    async def _wait(self, feed: Feed, seconds: float) -> None:
        """Wait for something that changes what a poll finds; at most until a position beyond the end is to be tried again."""
        now = asyncio.get_running_loop().time()
        tries = [held.beyond_until - now for held in self._held.values() if held.beyond_until and not held.paused]
        arrival = feed.arrival()
        change = asyncio.ensure_future(self._changed.wait())
        either: list[asyncio.Future[Any]] = [arrival, change]
        try:
            await asyncio.wait(either, timeout=min([seconds, *tries]), return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
            if not arrival.cancel() and not arrival.cancelled():
                arrival.exception()  # an error of the membership: the next look finds it too

    def assignment(self) -> frozenset[TopicPartition]:
        """See `Consumer.assignment`."""
        return frozenset(self._held)

    def _current(self) -> Feed | None:
        """The feed, if what is held here is what it fetches."""
        feed = self._feed
        return None if feed is None or self._moved_on(feed, self._epoch) else feed

    def pause(self, *partitions: TopicPartition) -> None:
        """See `Consumer.pause`."""
        feed = self._current()
        for place in partitions:
            if (held := self._held.get(place)) is not None and not held.paused:
                held.paused = True
                if feed is not None:
                    feed.pause(place)

    def resume(self, *partitions: TopicPartition) -> None:
        """See `Consumer.resume`."""
        feed = self._current()
        for place in partitions:
            if (held := self._held.get(place)) is not None and held.paused:
                held.paused = False
                if feed is not None and not held.beyond_until:
                    feed.resume(place)
        self._changed.set()

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        held = self._ours(partition)
        held.position = max(offset, 0)
        held.waiting.clear()
        if (feed := self._current()) is not None:
            feed.seek(partition, held.position)
            if held.beyond_until and not held.paused:
                feed.resume(partition)
        held.beyond_until, held.lost = 0.0, False
        self._changed.set()

    async def position(self, partition: TopicPartition) -> int:
        """See `Consumer.position`."""
        held = self._ours(partition)
        return held.waiting[0].offset if held.waiting else held.position

    def _ours(self, partition: TopicPartition) -> _Held:
        if partition not in self._held:
            msg = (
                f"{partition.topic}/{partition.partition} does not belong to this member of group {self._group!r} (any more); "
                "nothing was changed"
            )
            raise FencedError(msg)
        return self._held[partition]

    async def committed(self, partition: TopicPartition) -> Committed | None:
        """See `Consumer.committed`."""
        if self._group is None:
            await self._offsets.beginning(partition)  # raises if there is no such partition
            return None
        found = await self._groups.committed(self._group, [partition], patience_s=_PATIENCE_S)
        return found.get(partition)

    async def commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        """See `Consumer.commit`."""
        if self._group is None:
            msg = "a consumer without a group has nowhere to commit offsets to; open it with group=…"
            raise TransportError(msg)
        for place, committed in offsets.items():
            check_committed(committed.offset, committed.metadata)
            self._ours(place)
        if offsets:
            await self._groups.commit(self._group, *self._member, offsets)

    async def beginning_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.beginning_offset`."""
        return await self._offsets.beginning(partition)

    async def end_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.end_offset`."""
        return await self._offsets.end(partition)

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """See `Consumer.offset_at`."""
        return await self._offsets.at(partition, timestamp_ms)

    async def aclose(self) -> None:
        """Leave the group and disconnect."""
        self.closed = True
        self._changed.set()
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.aclose()

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
