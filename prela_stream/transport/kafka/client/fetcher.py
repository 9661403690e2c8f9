"""A consumer of aiokafka, as far as this transport uses it: membership and fetching. It never blocks and decides nothing.

The KafkaConsumer sets every position by a seek. Partitions are paused in the callback that assigns them, because aiokafka fetches
while the callback still runs. The callback awaits nothing, because aiokafka sends no heartbeat during it and ignores its errors.
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

from prela_stream import telemetry
from prela_stream.transport.base import LogRecord, TopicPartition
from prela_stream.transport.kafka.client.batches import check_batches
from prela_stream.transport.kafka.client.zstd import use_sized_decompression
from prela_stream.transport.kafka.connect.arguments import connection, forbid_topic_creation
from prela_stream.transport.kafka.connect.steps import abort_connection, connected
from prela_stream.transport.options import KafkaOptions

_LEAVE_S: Final = 3.0
"""How long leaving the group may take. After that the group notices it by the session timeout."""
_FETCH_WAIT_MS: Final = 250
"""How long a broker holds a fetch that finds nothing. A seek or resume may wait so long for the fetch before it."""
_TOGETHER_MS: Final = 150
_TOGETHER_BYTES: Final = 64 << 10
"""While records trickle in, a broker holds a fetch so long, or until it finds so many bytes."""
_FETCH: Final = 1
"""The API key of the request that fetches records."""
_HEARTBEAT_MS: Final = 1_000
"""A member learns of a rebalance from the answer to a heartbeat. Until all members have, no member has the partitions of one that
left."""


class Fetcher(ConsumerRebalanceListener):
    """Fetches for one KafkaConsumer, as a member of a group or of all partitions.

    Args:
        options: The connection and the timeouts.
        group: Consumer group, or None.
        on_change: Called when something has changed that a waiting poll has to handle.
    """

    def __init__(self, options: KafkaOptions, group: str | None, on_change: Callable[[], None]) -> None:
        # aiokafka's assignor remembers the partitions of its member in class attributes; a process may have several members.
        self._assignor: Any = type("OwnStickyAssignor", (StickyPartitionAssignor,), {})
        more: dict[str, Any] = {
            "group_id": group,
            "group_instance_id": options.group_instance_id if group is not None else None,
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
        forbid_topic_creation(self._kafka._client, self._count_metadata_request)
        self._bound_batches(self._kafka._client)
        use_sized_decompression()
        self._options = options
        self._is_paced_by_user = not options.consumer_extra.keys().isdisjoint(("fetch_min_bytes", "fetch_max_wait_ms"))
        self._on_change = on_change
        self.assigned: frozenset[TopicPartition] = frozenset()
        """The assignment, as of `epoch`."""
        self.epoch = 0
        """Counts the assignments; 0: there was none yet."""
        self.rebalancing = True
        """Whether the former assignment is revoked and the next one is not known yet."""
        self.member = (-1, "")
        """Generation and member id of the assignment."""
        self.metadata_requests = 0
        """Counts them. aiokafka sends one after each failed fetch, and every five minutes."""
        self._released = asyncio.Event()
        self._large_until: dict[TopicPartition, int] = {}
        """Last offset of the last fetched batch whose records may be large."""

    def _bound_batches(self, client: Any) -> None:
        """Check the batches of each fetch before aiokafka decompresses them."""
        send = client.send

        async def checked_send(node: Any, request: Any, **more: Any) -> Any:
            response = await send(node, request, **more)
            if response is not None and response.API_KEY == _FETCH:
                response.topics = [
                    (topic, [self._check(topic, one) for one in parts]) for topic, parts in response.topics
                ]
                self._pace_fetches(sum(len(one[-1] or b"") for _, parts in response.topics for one in parts))
            return response

        client.send = checked_send

    def _pace_fetches(self, found_bytes: int) -> None:
        """After a fetch that found few records, let the next one wait for more. The first records after a pause come at once."""
        if self._is_paced_by_user:
            return
        fetcher = self._kafka._fetcher
        if 0 < found_bytes < _TOGETHER_BYTES:
            fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = _TOGETHER_BYTES, _TOGETHER_MS
        else:
            fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = 1, _FETCH_WAIT_MS

    def _check(self, topic: str, fetched: tuple[Any, ...]) -> tuple[Any, ...]:
        """The fields of a partition in the answer to a fetch, its records last."""
        data: bytes | None = fetched[-1]
        if not data:
            return fetched
        partition = TopicPartition(topic, fetched[0])
        checked = check_batches(data, self._options.max_batch_bytes)
        self._large_until[partition] = checked.large_until
        if not checked.replaced:
            return fetched
        telemetry.UNREAD_BATCHES.add(checked.replaced, topic)
        return (*fetched[:-1], checked.data)

    def may_be_large(self, partition: TopicPartition, offset: int) -> bool:
        """Whether the record at this offset may be in a batch that is larger than a usual one."""
        return offset <= self._large_until.get(partition, -1)

    def _count_metadata_request(self) -> None:
        self.metadata_requests += 1

    async def join(self, topics: Sequence[str]) -> None:
        """Connect and join the group for these topics. Raises TransportError."""
        await self._start()
        self._kafka.subscribe(list(topics), listener=self)

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Connect and assign these partitions, without a group. Raises TransportError."""
        await self._start()
        self._kafka.assign([_to_aiokafka(partition) for partition in partitions])
        self.on_partitions_assigned(partitions)

    async def _start(self) -> None:
        try:
            await connected(self._options, "a consumer", self._kafka.start)
        except BaseException:
            await self.aclose()
            raise

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Called by aiokafka at the start of a rebalance: nothing is assigned until it has finished.

        The group assigns the partitions to no other member before this returns. It waits until a poll has reported that they are
        revoked. Heartbeats continue.
        """
        self.rebalancing = True
        self._on_change()
        if revoked:
            self._released = asyncio.Event()
            with anyio.move_on_after(self._options.rebalance_timeout_ms / 2000):
                await self._released.wait()

    def release(self) -> None:
        """The revoked partitions are no longer used; the group may assign them to others."""
        self._released.set()

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Called by aiokafka with a new assignment. aiokafka fetches it already, unless it is paused here."""
        self._kafka.pause(*(aiokafka.TopicPartition(one.topic, one.partition) for one in assigned))
        self.assigned = frozenset(TopicPartition(one.topic, one.partition) for one in assigned)
        coordinator = self._kafka._coordinator
        self.member = (getattr(coordinator, "generation", -1), getattr(coordinator, "member_id", ""))
        self._assignor.on_generation_assignment(self.member[0])  # the newer claim wins; aiokafka does not pass it on
        self.epoch += 1
        self.rebalancing = False
        self._on_change()

    def record_poll(self) -> None:
        """Report that the consumer polls: aiokafka leaves the group otherwise. Raises KafkaError of the membership."""
        with self._kafka._subscription.fetch_context():
            pass
        self._kafka._coordinator.check_errors()

    @property
    def dead(self) -> bool:
        """Whether one of its background tasks has ended, so it will never fetch again."""
        tasks = (getattr(self._kafka._coordinator, "_coordination_task", None), self._kafka._fetcher._fetch_task)
        return any(task is not None and task.done() for task in tasks)

    @property
    def connected(self) -> bool:
        """Whether it is connected to any broker."""
        return any(one.connected() for one in self._kafka._client._conns.values())

    def pause(self, partition: TopicPartition) -> None:
        """Stop fetching it."""
        self._kafka.pause(_to_aiokafka(partition))

    def resume(self, partition: TopicPartition) -> None:
        """Fetch it."""
        self._kafka.resume(_to_aiokafka(partition))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Fetch it from `offset` on."""
        self._kafka.seek(_to_aiokafka(partition), offset)

    def refresh_metadata(self) -> None:
        """Ask for the topics of the cluster again, in the background."""
        self._kafka._client.force_metadata_update()

    def has_fetched(self, partition: TopicPartition) -> bool:
        """Whether records of it were fetched, or an error, and not returned by `fetched` yet."""
        return _to_aiokafka(partition) in self._kafka._fetcher._records

    async def fetched(self, partition: TopicPartition, max_records: int) -> tuple[list[LogRecord], int]:
        """Records of it that were fetched before, without waiting, and the offset after them. Raises KafkaError.

        aiokafka decompresses one batch at a time, when its first record is taken. Never call it while `rebalancing`: aiokafka
        then waits, whatever its timeout is.
        """
        key = _to_aiokafka(partition)
        found = await self._kafka.getmany(key, timeout_ms=0, max_records=max_records)
        records = [
            LogRecord(
                topic=partition.topic,
                partition=partition.partition,
                offset=record.offset,
                timestamp_ms=record.timestamp,
                value=record.value,
                key=record.key,
                headers=tuple(record.headers),
            )
            for record in found.get(key, ())
        ]
        return records, await self._kafka.position(key)

    def arrival(self) -> "asyncio.Future[None]":
        """Done when something more has been fetched. The caller cancels it when it no longer waits."""
        future: asyncio.Future[None] = self._kafka._fetcher._create_fetch_waiter()
        return future

    async def aclose(self) -> None:
        """Leave the group, in bounded time, and end."""
        consumer = self._kafka
        connections = list(consumer._client._conns.values())
        self.release()
        with anyio.CancelScope(shield=True):
            stopping = asyncio.ensure_future(consumer.stop())
            try:
                in_time, _ = await asyncio.wait([stopping], timeout=_LEAVE_S)
            finally:
                await self._end_tasks(stopping)
                # If the stop was cancelled while it waited for connections to close, it has left them as cancelled futures.
                await asyncio.gather(consumer._client.close(), return_exceptions=True)
            if not in_time:
                for one in connections:
                    abort_connection(one)
                # The event loop closes the sockets in its next turn, and may end before.
                await anyio.lowlevel.checkpoint()

    async def _end_tasks(self, stopping: "asyncio.Future[None]") -> None:
        coordinator, fetcher = self._kafka._coordinator, self._kafka._fetcher
        names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
        tasks = [stopping, *(getattr(coordinator, name, None) for name in names)]
        if fetcher is not None:
            tasks += [fetcher._fetch_task, *fetcher._pending_tasks]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)  # their errors were reported when they occurred


def _to_aiokafka(partition: TopicPartition) -> Any:
    return aiokafka.TopicPartition(partition.topic, partition.partition)
