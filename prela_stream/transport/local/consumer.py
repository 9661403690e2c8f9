"""Reading the log: positions and pauses live on the event loop's side, lookups are made in a thread of the consumer's own.

A lookup changes nothing on this side until its result is back, so a `poll` that is cancelled loses no Record and no change
of the assignment: the next one finds them again.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
import msgspec

from prela_stream.errors import TransportError
from prela_stream.transport.base import Committed, LogRecord, Poll, TopicPartition
from prela_stream.transport.checks import check_committed
from prela_stream.transport.local import catalog, group, log
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.group import Member
from prela_stream.transport.local.look import Found, Looker, Wanted
from prela_stream.transport.local.schema import Place
from prela_stream.transport.local.thread import DatabaseThread
from prela_stream.transport.options import LocalOptions

T = TypeVar("T")

MAX_POLL_SECONDS: Final = 300.0
"""A member that has not polled for so long stops its heartbeats: its event loop turns, but nobody reads."""


class _Held(msgspec.Struct):
    """A partition of ours, as this side knows it."""

    at: Place
    generation: int
    position: int
    paused: bool = True


class LocalConsumer:
    """A Consumer of the local transport.

    A member's heartbeats are sent by polling and, between polls, by a timer of the event loop. So a member keeps its
    partitions while its loop turns and it polls at least every five minutes; a process that dies or hangs loses them
    after `session_timeout_ms`.
    """

    def __init__(
        self,
        options: LocalOptions,
        thread: DatabaseThread,
        places: list[Place],
        group_name: str | None,
        clock: Callable[[], int],
    ) -> None:
        self._places = {at.id: at for at in places}
        self._group = group_name
        self._member = Member(group_name, places, options.session_timeout_ms) if group_name is not None else None
        self._looker = Looker(places, self._member, clock)
        self._thread = thread
        self._clock = clock
        self._interval = options.poll_interval_ms / 1000
        self._beat_seconds = options.session_timeout_ms / 3000
        self._timer: asyncio.TimerHandle | None = None
        self._beating: Future[None] | None = None
        self._polled = 0.0
        self._held: dict[int, _Held] = {}
        self._shared_out = False
        """Whether it was told that what is held is our whole share."""

    async def poll(self, *, max_records: int = 500, max_bytes: int = 8 << 20, timeout: float = 1.0) -> Poll:
        """See `Consumer.poll`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._polled = loop.time()
            if self._member is not None and self._timer is None:
                self._timer = loop.call_later(self._beat_seconds, self._beat)
            wanted = Wanted(
                known={id_: held.generation for id_, held in self._held.items()},
                positions={id_: held.position for id_, held in self._held.items() if not held.paused},
                max_records=max_records,
                max_bytes=max_bytes,
            )
            found = await self._thread.run(partial(self._looker.look, wanted=wanted))
            poll = self._apply(wanted, found)
            rest = deadline - loop.time()
            if poll.assigned or poll.revoked or poll.records or poll.rebalanced or rest <= 0:
                return poll
            await anyio.sleep(min(rest, self._interval))

    def _apply(self, wanted: Wanted, found: Found) -> Poll:
        revoked = [
            id_
            for id_, held in self._held.items()
            if id_ not in found.leases or found.leases[id_].generation != held.generation
        ]
        gone = tuple(self._held.pop(id_).at.name for id_ in revoked)
        assigned = []
        for id_, lease in found.leases.items():
            if id_ not in self._held:
                start = lease.committed if lease.committed is not None else found.beginnings[id_]
                self._held[id_] = _Held(at=self._places[id_], generation=lease.generation, position=start)
                assigned.append(self._places[id_].name)
        records: list[LogRecord] = []
        for id_, part in found.slices.items():
            now = self._held.get(id_)
            # While we looked, it may have been paused or moved elsewhere.
            if now is not None and not now.paused and now.position == wanted.positions[id_]:
                now.position = part.next_offset
                records += part.records
        told = self._shared_out and not (assigned or gone)
        self._shared_out = found.whole
        return Poll(
            assigned=tuple(sorted(assigned)),
            revoked=tuple(sorted(gone)),
            records=tuple(records),
            rebalanced=found.whole and not told,
        )

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._beat_seconds, self._beat)
        member = self._member
        if self._beating is not None and not self._beating.done():
            return  # a locked log: heartbeats that queue up would be in the way of all else when it is free again
        if member is not None and loop.time() - self._polled < MAX_POLL_SECONDS:
            self._beating = self._thread.spare(lambda database: member.beat(database, self._clock()))

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._thread.closed

    def assignment(self) -> frozenset[TopicPartition]:
        """See `Consumer.assignment`."""
        return frozenset(held.at.name for held in self._held.values())

    def pause(self, *partitions: TopicPartition) -> None:
        """See `Consumer.pause`."""
        self._set_paused(partitions, paused=True)

    def resume(self, *partitions: TopicPartition) -> None:
        """See `Consumer.resume`."""
        self._set_paused(partitions, paused=False)

    def _set_paused(self, partitions: tuple[TopicPartition, ...], *, paused: bool) -> None:
        for held in self._held.values():
            if held.at.name in partitions:
                held.paused = paused

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        self._ours(partition).position = max(offset, 0)

    async def position(self, partition: TopicPartition) -> int:
        """See `Consumer.position`."""
        return self._ours(partition).position

    def _ours(self, partition: TopicPartition) -> _Held:
        for held in self._held.values():
            if held.at.name == partition:
                return held
        raise group.not_ours(partition, self._group)

    async def committed(self, partition: TopicPartition) -> Committed | None:
        """See `Consumer.committed`."""
        name = self._group

        def look(database: Database) -> Committed | None:
            at = catalog.place(database, partition)
            return None if name is None else database.read(lambda connection: group.committed(connection, name, at))

        return await self._thread.run(look)

    async def commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        """See `Consumer.commit`."""
        member = self._member
        if member is None:
            msg = "a consumer without a group has nowhere to commit offsets to; open it with group=…"
            raise TransportError(msg)
        rows = []
        for name, committed in offsets.items():
            check_committed(committed.offset, committed.metadata)
            held = self._ours(name)
            rows.append((held.at, held.generation, committed))
        if rows:
            await self._thread.run(lambda database: member.commit(database, rows))

    async def beginning_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.beginning_offset`."""
        return await self._ask(partition, log.beginning_offset)

    async def end_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.end_offset`."""
        return await self._ask(partition, log.end_offset)

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """See `Consumer.offset_at`."""
        return await self._ask(partition, partial(log.offset_at, timestamp_ms=timestamp_ms))

    async def _ask(self, partition: TopicPartition, question: Callable[..., int]) -> int:
        def look(database: Database) -> int:
            at = catalog.place(database, partition)
            return database.read(lambda connection: question(connection, at))

        return await self._thread.run(look)

    async def aclose(self) -> None:
        """Leave the group, end the thread."""
        if self._timer is not None:
            self._timer.cancel()
        await self._thread.aclose(self._member.leave if self._member is not None else None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
