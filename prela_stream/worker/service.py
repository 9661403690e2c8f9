"""The worker service: takes partitions over, feeds their Records to a `PartitionState`, commits, ticks, stops.

One task polls. Each partition has a task of its own that takes it over, commits and ticks. Consumption goes on while a commit is
under way: what is frozen for it has left the state, and if the outcome is anything but `committed`, the state is thrown away and
restored from the log, which says what happened.
"""

import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from prela_stream import telemetry
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.errors import PrelaError, TransportError, UnknownTopicError, ungrouped
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.transport.base import Consumer, Poll, TopicPartition, Transport, Writer
from prela_stream.transport.options import TopicOptions
from prela_stream.transport.topics import (
    TopicMismatchError,
    check_retention,
    check_topics,
    merge_mistakes,
    topic_names,
)
from prela_stream.worker.assignment import RETRY_S, AssignedPartition, Ticks
from prela_stream.worker.observer import WorkerObserver
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState, PartitionStatus
from prela_stream.worker.restore import restore

logger = logging.getLogger("prela_stream.worker")

_POLL_S = 0.1
"""How long a poll waits: also how soon a restored partition is resumed."""


class Worker:
    """Decides the traces of the partitions that its group assigns to it.

    Args:
        transport: Where `spans` is read from and everything is written to. The caller closes it.
        topics: Names and sizes of the topics; they must exist.
        options: Settings of the service.
        assembly: Settings of assembly.
        evaluator: The policies.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        topics: TopicOptions,
        evaluator: Evaluator,
        options: WorkerOptions,
        assembly: AssemblyOptions,
    ) -> None:
        self._transport = transport
        self._topics = topics
        self._options = options
        self._assembly = assembly
        self._evaluator = evaluator
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self._parked: dict[TopicPartition, AssignedPartition] = {}
        """Taken back by the group, which has not said yet who gets them."""
        self._shared_out = False
        self.observer = WorkerObserver(self._partitions)
        """Its metrics and whether it is ready."""
        self._on_ready: Callable[[], None] | None = None

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Work until cancelled; then commit what is decided, within `stop_timeout_s`, and leave the group.

        Undecided traces stay in the log, for whoever takes the partitions over.

        Args:
            on_ready: Called once, when every partition of the first assignment is restored; also if there is none for us.

        Raises:
            UnknownTopicError: a topic is missing.
            TopicMismatchError: a topic is not as the settings say: what is decided could not be written.
            PrelaError: a partition cannot be worked on: a checkpoint that does not fit, Records gone, too much poison.
        """
        self._on_ready = on_ready
        await self._require_topics()
        async with await self._transport.producer() as producer, await self._consumer() as consumer:
            ticks = Ticks(producer, self._options.commit_timeout_s)
            self.observer.consumer = consumer
            try:
                with ungrouped(PrelaError):
                    async with anyio.create_task_group() as tasks:
                        await self._loop(consumer, ticks, tasks)
            finally:
                self.observer.consumer = None
                with anyio.CancelScope(shield=True), anyio.move_on_after(self._options.stop_timeout_s, shield=True):
                    await _all_at_once(
                        partition.stop for partition in [*self._partitions.values(), *self._parked.values()]
                    )
                self._partitions.clear()
                self._parked.clear()

    def status(self) -> dict[TopicPartition, PartitionStatus]:
        """Each partition that is ours and restored, at this moment."""
        return {source: state.status() for source, partition in self._partitions.items() if (state := partition.state)}

    async def _require_topics(self) -> None:
        topics = self._topics
        names = topic_names(topics)
        existing = await self._transport.topics(names)
        if missing := sorted(set(names) - set(existing)):
            msg = f"the worker needs the topics {', '.join(missing)}, which do not exist: run `prela-stream topics create`"
            raise UnknownTopicError(msg)
        # Retention may be any: a worker that needs what it took says so at the takeover.
        if mistakes := check_topics(msgspec.structs.replace(topics, retention_hours=0.0), existing):
            raise TopicMismatchError("\n".join(merge_mistakes(mistakes)))
        ages = {"max_age_ms": self._assembly.max_age_ms, "late_window_ms": self._assembly.late_window_ms}
        for line in check_retention(topics, existing, **ages):
            logger.warning("%s", line)

    async def _consumer(self) -> Consumer:
        return await self._transport.consumer([self._topics.spans], group=self._options.group)

    async def _loop(self, consumer: Consumer, ticks: Ticks, tasks: TaskGroup) -> None:
        while True:
            poll = await self._poll(consumer)
            await self._reassign(poll, consumer, ticks, tasks)
            for record in poll.records:
                partition = self._partitions.get(TopicPartition(record.topic, record.partition))
                if partition is not None and partition.state is not None:
                    partition.apply(record)
            for owned in self._partitions.values():
                await owned.settle()
            if self._on_ready and self._shared_out and all(owned.state for owned in self._partitions.values()):
                self._on_ready()
                self._on_ready = None
            await anyio.lowlevel.checkpoint()  # a full topic must not keep the commits waiting

    async def _poll(self, consumer: Consumer) -> Poll:
        """The next poll that works: a transport that is away for a while is no reason to stop."""
        complained = ""
        while True:
            try:
                return await consumer.poll(max_bytes=self._options.poll_bytes, timeout=_POLL_S)
            except TransportError as error:
                if complained != str(error):
                    complained = str(error)
                    logger.warning("cannot read from the transport, will try again: %s", error)
                await anyio.sleep(RETRY_S)

    async def _reassign(self, poll: Poll, consumer: Consumer, ticks: Ticks, tasks: TaskGroup) -> None:
        leaving: list[AssignedPartition] = []
        for source in poll.revoked:
            if owned := self._partitions.pop(source, None):
                if owned.park():
                    self._parked[source] = owned
                else:
                    leaving.append(owned)
        new: list[TopicPartition] = []
        for source in poll.assigned:
            parked = self._parked.get(source)
            if parked is not None and parked.unpark():
                self._partitions[source] = self._parked.pop(source)
            else:
                new.append(source)
        if poll.rebalanced:
            self._shared_out = True
            self.observer.rebalanced()
            leaving += self._parked.values()
            self._parked.clear()
        if kept := len(poll.assigned) - len(new):
            telemetry.WORKER_RETURNED.add(kept)
            logger.info("%d partitions came back and go on where they were", kept)
        await _all_at_once(owned.give_up for owned in leaving)
        for source in new:
            self._partitions[source] = owned = self._own(source, consumer, ticks)
            tasks.start_soon(owned.run, name=str(source))

    def _own(self, source: TopicPartition, consumer: Consumer, ticks: Ticks) -> AssignedPartition:
        return AssignedPartition(
            source,
            options=self._options,
            consumer=consumer,
            ticks=ticks,
            open_writer=partial(self._transport.writer, self._options.group),
            restore=partial(self._restore, consumer),
        )

    async def _restore(self, consumer: Consumer, source: TopicPartition, writer: Writer) -> PartitionState:
        return await restore(
            self._transport,
            source,
            beginning=await consumer.beginning_offset(source),
            committed=writer.committed,
            topics=self._topics,
            assembly=self._assembly,
            evaluator=self._evaluator,
            options=self._options,
        )


async def _all_at_once(parts: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    async with anyio.create_task_group() as tasks:
        for part in parts:
            tasks.start_soon(part)
