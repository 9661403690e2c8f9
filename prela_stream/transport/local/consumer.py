"""Reading the log: positions and pauses are kept on the event loop's side, reads run in a thread of the consumer.

A read changes nothing on this side until its result has arrived. So a `poll` that is cancelled loses no record and no change
of the assignment: the next one finds them again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Final, Self

import anyio
import msgspec

from prela_stream.transport.base import Committed, LogRecord, Poll, TopicPartition
from prela_stream.transport.local import group, log
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.database_thread import DatabaseThread
from prela_stream.transport.local.group import Member
from prela_stream.transport.local.reader import LogReader, ReadRequest, ReadResult
from prela_stream.transport.local.schema import PartitionRow
from prela_stream.transport.options import POLL_BYTES, LocalOptions
from prela_stream.transport.refusals import check_committed, no_group, not_assigned

MAX_POLL_SECONDS: Final = 300.0
"""A member that has not polled for so long sends no more heartbeats: its event loop runs, but nothing reads its partitions."""


class _AssignedPartition(msgspec.Struct):
    """An assigned partition, as this side knows it."""

    row: PartitionRow
    generation: int
    position: int
    paused: bool = True


class LocalConsumer:
    """A Consumer of the local transport.

    A member's heartbeats are sent by polling and, between polls, by a timer of the event loop. So a member keeps its
    partitions while its event loop runs and it polls at least every five minutes. A process that dies or hangs loses them
    after `session_timeout_ms`.
    """

    def __init__(
        self,
        options: LocalOptions,
        thread: DatabaseThread,
        topics: Sequence[str],
        group_name: str | None,
        clock: Callable[[], int],
    ) -> None:
        self._group = group_name
        self._member = Member(group_name, topics, options.session_timeout_ms) if group_name is not None else None
        self._reader = LogReader(topics, self._member, clock)
        self._thread = thread
        self._clock = clock
        self._interval = options.poll_interval_ms / 1000
        self._heartbeat_seconds = options.session_timeout_ms / 3000
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeat: Future[None] | None = None
        self._polled = 0.0
        self._log_id = ""
        self._assigned: dict[int, _AssignedPartition] = {}
        self._announced_share = False
        """Whether a Poll has reported that the assignment is the full share."""

    async def poll(self, *, max_records: int = 500, max_bytes: int = POLL_BYTES, timeout: float = 1.0) -> Poll:
        """See `Consumer.poll`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._polled = loop.time()
            if self._member is not None and self._timer is None:
                self._timer = loop.call_later(self._heartbeat_seconds, self._send_heartbeat)
            request = ReadRequest(
                log_id=self._log_id,
                known={id_: one.generation for id_, one in self._assigned.items()},
                positions={id_: one.position for id_, one in self._assigned.items() if not one.paused},
                max_records=max_records,
                max_bytes=max_bytes,
            )
            result = await self._thread.run(partial(self._reader.read, request=request))
            poll = self._apply(request, result)
            rest = deadline - loop.time()
            if poll.assigned or poll.revoked or poll.records or poll.rebalanced or rest <= 0:
                return poll
            await anyio.sleep(min(rest, self._interval))

    def _apply(self, request: ReadRequest, result: ReadResult) -> Poll:
        replaced = result.log_id != request.log_id
        lost = [
            id_
            for id_, one in self._assigned.items()
            if replaced or id_ not in result.leases or result.leases[id_].generation != one.generation
        ]
        revoked = tuple(self._assigned.pop(id_).row.name for id_ in lost)
        self._log_id = result.log_id
        if replaced and revoked and self._member is not None:
            # State of the former file must not survive: a worker gives it up after a complete rebalance without the partition.
            self._announced_share = True
            return Poll(revoked=tuple(sorted(revoked)), rebalanced=True)
        assigned = []
        for id_, lease in result.leases.items():
            if id_ not in self._assigned:
                start = lease.committed if lease.committed is not None else result.beginnings[id_]
                row = result.rows[id_]
                self._assigned[id_] = _AssignedPartition(row=row, generation=lease.generation, position=start)
                assigned.append(row.name)
        records: list[LogRecord] = []
        for id_, part in result.slices.items():
            now = self._assigned.get(id_)
            # During the read it may have been paused, or its position may have been changed.
            if now is not None and not now.paused and now.position == request.positions.get(id_):
                now.position = part.next_offset
                records += part.records
        announced = self._announced_share and not (assigned or revoked)
        self._announced_share = result.complete
        return Poll(
            assigned=tuple(sorted(assigned)),
            revoked=tuple(sorted(revoked)),
            records=tuple(records),
            rebalanced=result.complete and not announced,
        )

    def _send_heartbeat(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._heartbeat_seconds, self._send_heartbeat)
        member = self._member
        if self._heartbeat is not None and not self._heartbeat.done():
            return  # the log is locked: heartbeats that queue up would delay everything else once it is free again
        if member is not None and loop.time() - self._polled < MAX_POLL_SECONDS:
            # The next poll fails for the same reason and raises it.
            self._heartbeat = self._thread.run_later(
                lambda database: member.heartbeat(database, self._clock()), level=logging.DEBUG
            )

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._thread.closed

    def assignment(self) -> frozenset[TopicPartition]:
        """See `Consumer.assignment`."""
        return frozenset(one.row.name for one in self._assigned.values())

    def pause(self, *partitions: TopicPartition) -> None:
        """See `Consumer.pause`."""
        self._set_paused(partitions, paused=True)

    def resume(self, *partitions: TopicPartition) -> None:
        """See `Consumer.resume`."""
        self._set_paused(partitions, paused=False)

    def _set_paused(self, partitions: tuple[TopicPartition, ...], *, paused: bool) -> None:
        for one in self._assigned.values():
            if one.row.name in partitions:
                one.paused = paused

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        self._require_assigned(partition).position = max(offset, 0)

    async def position(self, partition: TopicPartition) -> int:
        """See `Consumer.position`."""
        return self._require_assigned(partition).position

    def _require_assigned(self, partition: TopicPartition) -> _AssignedPartition:
        for one in self._assigned.values():
            if one.row.name == partition:
                return one
        raise not_assigned(partition, self._group)

    async def committed(self, partition: TopicPartition) -> Committed | None:
        """See `Consumer.committed`."""
        name = self._group

        def read(database: Database) -> Committed | None:
            row = database.partition(partition)
            return None if name is None else database.read(lambda connection: group.committed(connection, name, row))

        return await self._thread.run(read)

    async def commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        """See `Consumer.commit`."""
        member = self._member
        if member is None:
            raise no_group()
        rows = []
        for name, committed in offsets.items():
            check_committed(committed.offset, committed.metadata)
            one = self._require_assigned(name)
            rows.append((one.row, one.generation, committed))
        if rows:
            await self._thread.run(lambda database: member.commit(database, rows))

    async def beginning_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.beginning_offset`."""
        return await self._ask(partition, log.beginning_offset)

    async def end_offset(self, partition: TopicPartition) -> int:
        """See `Consumer.end_offset`."""
        return await self._ask(partition, log.end_offset)

    async def high_watermark(self, partition: TopicPartition) -> int:
        """See `Consumer.high_watermark`: a transaction of SQLite is not in the log before it ends."""
        return await self.end_offset(partition)

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """See `Consumer.offset_at`."""
        return await self._ask(partition, partial(log.offset_at, timestamp_ms=timestamp_ms))

    async def _ask(self, partition: TopicPartition, question: Callable[..., int]) -> int:
        def read(database: Database) -> int:
            row = database.partition(partition)
            return database.read(lambda connection: question(connection, row))

        return await self._thread.run(read)

    async def aclose(self) -> None:
        """Leave the group and end the thread."""
        if self._timer is not None:
            self._timer.cancel()
        await self._thread.aclose(self._member.leave if self._member is not None else None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
