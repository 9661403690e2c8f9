"""The worker service: takes partitions over, applies their records to a `PartitionState`, commits, ticks, and stops.

One task polls and applies records. Each partition has a task that takes it over, commits and ticks. Records are applied during a
commit too, because the content of the commit has been taken out of the state. If a commit does not land, the state is discarded
and restored from the log, which shows the outcome.
"""

import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import attrgetter
from time import monotonic
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from prela_stream import telemetry
from prela_stream.assembly.base import CoreError
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import choose_core
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
from prela_stream.worker.assignment import RETRY_S, AssignedPartition
from prela_stream.worker.fault_log import FaultLog
from prela_stream.worker.memory import MemoryLimit
from prela_stream.worker.observer import WorkerObserver
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.pace import Pace
from prela_stream.worker.partition import PartitionState
from prela_stream.worker.partition_data import PartitionStatus
from prela_stream.worker.restore import restore
from prela_stream.worker.ticks import Ticks

logger = logging.getLogger("prela_stream.worker")

_POLL_S = 0.1
"""How long a poll waits at most."""
_LEAST_POLL_S = 0.02
"""How long a poll waits at least, however short `tick_min_ms` is: each poll of the local transport asks the database."""
_RESTORE_POLL_S = 0.01
"""How long a poll waits while partitions are taken over, and so the longest time until a restored one is resumed."""
_source = attrgetter("topic", "partition")
_FINISH_S = 0.5
"""How long a stop may take to finish the record that is being applied."""


class Worker:
    """Decides the traces of the partitions that its group assigns to it.

    Args:
        transport: Carries `spans` and all output. The caller closes it.
        topics: Names and sizes of the topics, which must exist.
        options: Settings of the service.
        assembly: Settings of assembly.
        evaluator: The policies.

    Raises:
        ConfigurationError: `options.core` is `native`, and the native core cannot be used.
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
        self._core = choose_core(options.core)
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self._parked: dict[TopicPartition, AssignedPartition] = {}
        """Revoked by a rebalance that is not complete yet."""
        self._rebalanced = False
        # between two polls it is seen which partitions have to commit or to append a tick
        self._poll_s = max(_LEAST_POLL_S, min(_POLL_S, options.tick_min_ms / 1000))
        self._pace = Pace()
        self._memory = MemoryLimit(options.max_open_bytes)
        self._faults = FaultLog()
        self.observer = WorkerObserver(self._partitions, self._core)
        """The metrics and the readiness of this worker."""
        self._on_ready: Callable[[], None] | None = None

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Work until cancelled; then commit what is decided, within `stop_timeout_s`, and leave the group.

        Undecided traces stay in the log for the next owner of each partition.

        Args:
            on_ready: Called once, when every partition of the first assignment is restored. The assignment may be empty.

        Raises:
            UnknownTopicError: a topic is missing.
            TopicMismatchError: a topic does not match the settings, so that decisions could not be written.
            PrelaError: a partition cannot be processed: unusable checkpoint, deleted records, or too much poison.
        """
        self._on_ready = on_ready
        await self._require_topics()
        logger.info("the worker uses the %s core: %s", self._core, self._core.reason)
        async with await self._transport.producer() as producer, await self._consumer() as consumer:
            ticks = Ticks(producer, self._options.commit_timeout_s)
            self.observer.consumer = consumer
            try:
                with ungrouped(PrelaError):
                    async with anyio.create_task_group() as tasks:
                        try:
                            await self._loop(consumer, ticks, tasks)
                        finally:
                            until = monotonic() + self._options.stop_timeout_s
                            for partition in self._held():
                                partition.hurry(self._options.stop_timeout_s / 2)
            finally:
                self.observer.consumer = None
                left = max(0.0, until - monotonic())
                with anyio.CancelScope(shield=True), anyio.move_on_after(left, shield=True):
                    await _all_at_once(partial(partition.stop, left) for partition in self._held())
                self._partitions.clear()
                self._parked.clear()

    def _held(self) -> list[AssignedPartition]:
        return [*self._partitions.values(), *self._parked.values()]

    def status(self) -> dict[TopicPartition, PartitionStatus]:
        """The status of each assigned partition that is restored."""
        return {source: status for source, one in self._partitions.items() if (status := one.status()) is not None}

    async def _require_topics(self) -> None:
        topics = self._topics
        names = topic_names(topics)
        existing = await self._transport.topics(names)
        if missing := sorted(set(names) - set(existing)):
            msg = f"the worker needs the topics {', '.join(missing)}, which do not exist: run `prela-stream topics create`"
            raise UnknownTopicError(msg)
        # Any retention is accepted here. If a takeover needs deleted records, it fails with a clear error.
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
            for (topic, number), records in groupby(poll.records, _source):
                partition = self._partitions.get(TopicPartition(topic, number))
                if partition is not None:
                    await self._run(partition.apply(list(records)))
            for partition, most_bytes in self._memory.excess(self._partitions.values()):
                await self._run(partition.relieve(most_bytes))
            memory_is_full = self._memory.is_exceeded(self._partitions.values())
            for partition in self._partitions.values():
                await partition.between_polls(memory_is_full=memory_is_full)
            if self._on_ready and self._rebalanced and all(one.is_running for one in self._partitions.values()):
                self._on_ready()
                self._on_ready = None
            await self._pace.rest()

    async def _run(self, steps: Iterator[int]) -> None:
        """Take the steps of a partition, and let other tasks run whenever a slice is over."""
        size = 0
        try:
            for size in steps:
                if self._pace.is_over(size):
                    await self._pace.rest()
        except anyio.get_cancelled_exc_class():
            if size:
                raise
            until = monotonic() + _FINISH_S
            for size in steps:  # a commit needs a whole record, and the last one follows
                if size or monotonic() > until:
                    break
            raise

    async def _poll(self, consumer: Consumer) -> Poll:
        """Poll until it succeeds. A transport that is unavailable for a while does not stop the worker."""
        reported = ""
        while True:
            try:
                is_restored = all(one.is_running for one in self._partitions.values())
                timeout = self._poll_s if is_restored else _RESTORE_POLL_S
                poll = await consumer.poll(max_bytes=self._options.poll_bytes, timeout=timeout)
                self.observer.polled()
            except TransportError as error:
                telemetry.WORKER_READ_ERRORS.add()
                self.observer.failure = str(error)
                if reported != str(error):
                    reported = str(error)
                    logger.warning("cannot read from the transport, retrying every %g s: %s", RETRY_S, error)
                await anyio.sleep(RETRY_S)
            else:
                self.observer.failure = ""
                return poll

    async def _reassign(self, poll: Poll, consumer: Consumer, ticks: Ticks, tasks: TaskGroup) -> None:
        leaving: list[AssignedPartition] = []
        for source in poll.revoked:
            if partition := self._partitions.pop(source, None):
                if partition.park():
                    self._parked[source] = partition
                else:
                    leaving.append(partition)
        new: list[TopicPartition] = []
        for source in poll.assigned:
            parked = self._parked.get(source)
            if parked is not None and parked.unpark():
                self._partitions[source] = self._parked.pop(source)
            else:
                new.append(source)
        if poll.rebalanced:
            self._rebalanced = True
            self.observer.rebalanced()
            leaving += self._parked.values()
            self._parked.clear()
        if kept := len(poll.assigned) - len(new):
            telemetry.WORKER_RETURNED.add(kept)
            logger.info(
                "a rebalance assigned %d partitions to this worker again; they continue without a restore", kept
            )
        if leaving:
            await _all_at_once(partition.give_up for partition in leaving)
        for source in new:
            self._partitions[source] = partition = self._assigned(source, consumer, ticks)
            tasks.start_soon(partition.run, name=str(source))

    def _assigned(self, source: TopicPartition, consumer: Consumer, ticks: Ticks) -> AssignedPartition:
        return AssignedPartition(
            source,
            options=self._options,
            consumer=consumer,
            ticks=ticks,
            pace=self._pace,
            faults=self._faults,
            open_writer=partial(self._transport.writer, self._options.group),
            restore=partial(self._restore, consumer),
            on_core_error=self._replace_core,
        )

    def _replace_core(self, error: CoreError) -> None:
        """After a defect of the native core, partitions continue on the Python core, unless `worker.core` forbids that."""
        if self._options.core == "auto":
            self._core = self.observer.core = choose_core("python")
        logger.error(
            "the native core failed: %s. Please report this. The partition is restored on the %s core",
            error,
            self._core,
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
            core=self._core,
        )


async def _all_at_once(parts: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    async with anyio.create_task_group() as tasks:
        for part in parts:
            tasks.start_soon(part)
