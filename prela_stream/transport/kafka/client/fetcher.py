"""A consumer of aiokafka, as far as this transport uses it: membership, fetching, and nothing that blocks or decides by itself.

Positions are always set by a seek of ours, partitions are paused in the very callback that brings them (aiokafka fetches while
the callback still runs), and nothing is awaited in it, since no heartbeats are sent meanwhile and errors are swallowed.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import aiokafka
import anyio
import anyio.lowlevel
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from prela_stream.transport.base import LogRecord, TopicPartition
from prela_stream.transport.kafka.connect.arguments import connection, never_creating
from prela_stream.transport.kafka.connect.steps import connected, cut_off
from prela_stream.transport.options import KafkaOptions

_LEAVE_S: Final = 3.0
"""How long leaving the group may take; then the group finds out by itself, after the session timeout."""
_FETCH_WAIT_MS: Final = 250
"""How long a broker holds a fetch that finds nothing: also how long a seek or resume may wait for the fetch before it."""

_HEARTBEAT_MS: Final = 1_000
"""The answer to a heartbeat is how a member learns that its group shares the partitions out anew; until all have learned of it
those of a member that left have nobody."""


class Feed(ConsumerRebalanceListener):
    """Fetches for one KafkaConsumer, as a member of a group or of all partitions.

    Args:
        group: Consumer group, or None.
        on_change: Called when something has changed that a waiting poll has to look at.
    """

    def __init__(self, options: KafkaOptions, group: str | None, on_change: Callable[[], None]) -> None:
        # aiokafka's remembers in attributes of its class what its member had; a process may have several members
        self._assignor: Any = type("OwnStickyAssignor", (StickyPartitionAssignor,), {})
        more: dict[str, Any] = {
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "fetch_max_wait_ms": _FETCH_WAIT_MS,
            "fetch_max_bytes": options.fetch_bytes,
            "max_partition_fetch_bytes": options.partition_fetch_bytes,
            "session_timeout_ms": options.session_timeout_ms,
            "heartbeat_interval_ms": max(min(options.session_timeout_ms // 3, _HEARTBEAT_MS), 1),
            "rebalance_timeout_ms": options.rebalance_timeout_ms,
            "partition_assignment_strategy": (self._assignor,),
            "client_rack": options.rack,
        }
        self._kafka: Any = AIOKafkaConsumer(**connection(options, **more) | options.consumer_extra)
        never_creating(self._kafka._client)
        self._options = options
        self._on_change = on_change
        self.assigned: frozenset[TopicPartition] = frozenset()
        """What this consumer has been given, as of `epoch`."""
        self.epoch = 0
        """Counts the assignments; 0: none has come yet."""
        self.rebalancing = True
        """Whether what was assigned has been taken back, and what comes is not known yet."""
        self.member = (-1, "")
        """Generation and member id that came with the assignment."""
        self._given_up = asyncio.Event()

    async def join(self, topics: Sequence[str]) -> None:
        """Connect and ask for a share of these topics' partitions. Raises TransportError."""
        await self._start()
        self._kafka.subscribe(list(topics), listener=self)

    async def hold(self, partitions: Collection[TopicPartition]) -> None:
        """Connect and take these partitions, without a group. Raises TransportError."""
        await self._start()
        self._kafka.assign([_theirs(place) for place in partitions])
        self.on_partitions_assigned(partitions)

    async def _start(self) -> None:
        try:
            await connected(self._options, "a consumer", self._kafka.start)
        except BaseException:
            await self.aclose()
            raise

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Called by aiokafka: the group is sharing out anew, nothing is ours until it has.

        Nobody else gets our partitions before this returns: it waits until a poll has told that they are gone. Heartbeats go on.
        """
        self.rebalancing = True
        self._on_change()
        if revoked:
            self._given_up = asyncio.Event()
            with anyio.move_on_after(self._options.rebalance_timeout_ms / 2000):
                await self._given_up.wait()

    def give_up(self) -> None:
        """What was revoked is not used any more; others may have it."""
        self._given_up.set()

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Called by aiokafka: these are ours, and are already being fetched unless they are paused now."""
        self._kafka.pause(*(aiokafka.TopicPartition(place.topic, place.partition) for place in assigned))
        self.assigned = frozenset(TopicPartition(place.topic, place.partition) for place in assigned)
        coordinator = self._kafka._coordinator
        self.member = (getattr(coordinator, "generation", -1), getattr(coordinator, "member_id", ""))
        self._assignor.on_generation_assignment(self.member[0])  # whose claim is older; aiokafka does not tell it
        self.epoch += 1
        self.rebalancing = False
        self._on_change()

    def touch(self) -> None:
        """Tell that somebody polls: a member that nobody polls leaves its group. Raises KafkaError of the membership."""
        with self._kafka._subscription.fetch_context():
            pass
        self._kafka._coordinator.check_errors()

    @property
    def dead(self) -> bool:
        """Whether one of its background tasks has ended, so that it will never bring anything again."""
        tasks = (getattr(self._kafka._coordinator, "_coordination_task", None), self._kafka._fetcher._fetch_task)
        return any(task is not None and task.done() for task in tasks)

    def pause(self, place: TopicPartition) -> None:
        """Fetch nothing of it."""
        self._kafka.pause(_theirs(place))

    def resume(self, place: TopicPartition) -> None:
        """Fetch it."""
        self._kafka.resume(_theirs(place))

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Fetch it from `offset` on."""
        self._kafka.seek(_theirs(place), offset)

    async def fetched(self, place: TopicPartition, max_records: int) -> tuple[list[LogRecord], int]:
        """What has been fetched of it, at once, and the offset behind that. Raises KafkaError.

        Never to be called while `rebalancing`: aiokafka then waits, whatever its timeout is.
        """
        theirs = _theirs(place)
        found = await self._kafka.getmany(theirs, timeout_ms=0, max_records=max_records)
        records = [
            LogRecord(
                topic=place.topic,
                partition=place.partition,
                offset=record.offset,
                timestamp_ms=record.timestamp,
                value=record.value,
                key=record.key,
                headers=tuple(record.headers),
            )
            for record in found.get(theirs, ())
        ]
        return records, await self._kafka.position(theirs)

    def arrival(self) -> "asyncio.Future[None]":
        """Done when something more has been fetched. To be cancelled by who no longer waits."""
        future: asyncio.Future[None] = self._kafka._fetcher._create_fetch_waiter()
        return future

    async def aclose(self) -> None:
        """Leave the group, in bounded time, and end."""
        consumer = self._kafka
        connections = list(consumer._client._conns.values())
        self.give_up()
        with anyio.CancelScope(shield=True):
            stopping = asyncio.ensure_future(consumer.stop())
            try:
                in_time, _ = await asyncio.wait([stopping], timeout=_LEAVE_S)
            finally:
                await self._end_tasks(stopping)
                # What was broken off while it waited for connections to close has left them as cancelled futures.
                await asyncio.gather(consumer._client.close(), return_exceptions=True)
            if not in_time:
                for one in connections:
                    cut_off(one)
                # the event loop closes the sockets in its next turn, and may be about to end
                await anyio.lowlevel.checkpoint()

    async def _end_tasks(self, stopping: "asyncio.Future[None]") -> None:
        coordinator, fetcher = self._kafka._coordinator, self._kafka._fetcher
        names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
        tasks = [stopping, *(getattr(coordinator, name, None) for name in names)]
        if fetcher is not None:
            tasks += [fetcher._fetch_task, *fetcher._pending_tasks]
        there = [task for task in tasks if task is not None]
        for task in there:
            task.cancel()
        await asyncio.gather(*there, return_exceptions=True)  # what one of them died of has been said then


def _theirs(place: TopicPartition) -> Any:
    return aiokafka.TopicPartition(place.topic, place.partition)
