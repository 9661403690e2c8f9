"""The worker service: takes partitions over, feeds their Records to a `PartitionState`, commits, ticks, stops.

One task polls. Each partition has a task of its own that takes it over, commits and ticks. Consumption goes on while a commit is
under way: what is frozen for it has left the state, and if the outcome is anything but `committed`, the state is thrown away and
restored from the log, which says what happened.
"""

import logging
from collections.abc import Callable
from time import monotonic

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from prela_stream import telemetry
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.errors import ConfigurationError, FencedError, PrelaError, TransportError, UnknownTopicError
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.transport.base import (
    CommitOutcome,
    Consumer,
    Poll,
    Producer,
    Stored,
    TopicPartition,
    Transport,
    Writer,
)
from prela_stream.transport.options import TopicOptions
from prela_stream.transport.topics import check_topics
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState, PartitionStatus, tick_record
from prela_stream.worker.restore import restore

logger = logging.getLogger("prela_stream.worker")

_POLL_S = 0.1
"""How long a poll waits: also how soon a restored partition is resumed."""
_RETRY_S = 0.5
"""Pause before a take-over that failed is tried again."""


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
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._on_ready: Callable[[], None] | None = None

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Work until cancelled; then commit what is decided, within `stop_timeout_s`, and leave the group.

        Undecided traces stay in the log, for whoever takes the partitions over.

        Args:
            on_ready: Called once, when every partition of the first assignment is restored.

        Raises:
            UnknownTopicError: a topic is missing.
            ConfigurationError: a topic is not as the settings say: what is decided could not be written.
            PrelaError: a partition cannot be worked on: a checkpoint that does not fit, Records gone, too much poison.
        """
        self._on_ready = on_ready
        await self._require_topics()
        async with await self._transport.producer() as ticks, await self._consumer() as consumer:
            try:
                async with anyio.create_task_group() as tasks:
                    await self._loop(consumer, ticks, tasks)
            except* PrelaError as group:
                raise _first(group) from None
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(self._options.stop_timeout_s, shield=True):
                    for partition in self._partitions.values():
                        await partition.stop()
                self._partitions.clear()

    def status(self) -> dict[TopicPartition, PartitionStatus]:
        """Each partition that is ours and restored, at this moment."""
        return {source: state.status() for source, partition in self._partitions.items() if (state := partition.state)}

    async def _require_topics(self) -> None:
        topics = self._topics
        wanted = {topics.spans, topics.decisions, topics.sampled, topics.dlq}
        existing = await self._transport.topics()
        if missing := sorted(wanted - set(existing)):
            msg = f"the worker needs the topics {', '.join(missing)}, which do not exist: run `prela-stream topics create`"
            raise UnknownTopicError(msg)
        # Retention may be any: a worker that needs what it took says so at the takeover.
        if mistakes := check_topics(msgspec.structs.replace(topics, retention_hours=0.0), existing):
            raise ConfigurationError("\n".join(mistakes))

    async def _consumer(self) -> Consumer:
        return await self._transport.consumer([self._topics.spans], group=self._options.group)

    async def _loop(self, consumer: Consumer, ticks: Producer, tasks: TaskGroup) -> None:
        while True:
            poll = await self._poll(consumer)
            await self._reassign(poll, consumer, ticks, tasks)
            for record in poll.records:
                partition = self._partitions.get(TopicPartition(record.topic, record.partition))
                if partition is not None and partition.state is not None:
                    partition.apply(record)
            for source, partition in self._partitions.items():
                await partition.settle(source, consumer)
            if self._on_ready and self._partitions and all(p.state for p in self._partitions.values()):
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
                await anyio.sleep(_RETRY_S)

    async def _reassign(self, poll: Poll, consumer: Consumer, ticks: Producer, tasks: TaskGroup) -> None:
        for source in poll.revoked:
            if partition := self._partitions.pop(source, None):
                await partition.give_up()
        for source in poll.assigned:
            partition = _Partition(self, source, consumer, ticks)
            self._partitions[source] = partition
            tasks.start_soon(partition.run, name=str(source))

    async def _restore(self, source: TopicPartition, writer: Writer) -> PartitionState:
        return await restore(
            self._transport,
            source,
            committed=writer.committed,
            topics=self._topics,
            assembly=self._assembly,
            evaluator=self._evaluator,
            options=self._options,
        )


def _first(group: BaseExceptionGroup[PrelaError]) -> PrelaError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Partition:
    """One partition that is ours: its writer, its state, and the task that restores, commits and ticks."""

    def __init__(self, worker: Worker, source: TopicPartition, consumer: Consumer, ticks: Producer) -> None:
        self._worker = worker
        self._options = worker._options
        self._source = source
        self._consumer = consumer
        self._ticks = ticks
        self._writer: Writer | None = None
        self._state: PartitionState | None = None
        self._restored: PartitionState | None = None
        self._scope = anyio.CancelScope()
        self._committing = anyio.Lock()
        self._wake = anyio.Event()
        self._paused = False
        self._complained = ""
        self._last_commit = self._last_record = self._last_tick = monotonic()

    @property
    def state(self) -> PartitionState | None:
        """The live state; None while it is being restored."""
        return self._state

    def apply(self, record: Stored) -> None:
        """Apply one Record of this partition."""
        state = self._state
        assert state is not None
        state.apply(record)
        self._last_record = monotonic()
        if state.pending_bytes >= self._options.commit_bytes:
            self._wake.set()

    async def settle(self, source: TopicPartition, consumer: Consumer) -> None:
        """Between two polls: start what was restored, stop what broke, hold back what is too far ahead of its commits."""
        if self._restored is not None:
            self._state, self._restored = self._restored, None
            await consumer.seek(source, self._state.position)
            consumer.resume(source)
            self._paused = False
            self._last_commit = self._last_record = monotonic()
        elif self._state is None:
            consumer.pause(source)
        else:
            # in a replay nothing is committed, so waiting for that would be for ever
            full = not self._state.replaying and self._state.pending_bytes >= 4 * self._options.commit_bytes
            if full and not self._paused:
                consumer.pause(source)
            elif self._paused and not full:
                consumer.resume(source)
            self._paused = full

    async def run(self) -> None:
        """Take the partition over and keep it going until it is given up."""
        with self._scope:
            while True:
                try:
                    if self._writer is None:
                        self._writer = await self._worker._transport.writer(self._options.group, self._source)
                        self._restored = await self._worker._restore(self._source, self._writer)
                    await self._turn()
                except FencedError:
                    logger.info("%s was taken over by another worker", self._source)
                    await self._discard()
                    await anyio.sleep(_RETRY_S)  # if the group still says that it is ours, take it back
                except TransportError as error:
                    if self._complained != str(error):  # once, until a commit has gone well
                        self._complained = str(error)
                        logger.warning("%s: %s; restoring from the log", self._source, error)
                    await self._discard()
                    await anyio.sleep(_RETRY_S)

    async def _turn(self) -> None:
        wait = self._options.tick_min_ms / 1000
        with anyio.move_on_after(wait):
            await self._wake.wait()
        self._wake = anyio.Event()
        state = self._state
        if state is None:
            return
        due = monotonic() - self._last_commit >= self._options.commit_interval_ms / 1000
        if (due or state.pending_bytes >= self._options.commit_bytes) and state.has_news:
            await self._commit(state)
        if self._state is state and not state.replaying:
            await self._tick(state)

    async def _commit(self, state: PartitionState) -> None:
        assert self._writer is not None
        async with self._committing:
            frozen = state.freeze()
            self._last_commit = monotonic()
            outcome = CommitOutcome.UNKNOWN
            with anyio.move_on_after(self._options.commit_timeout_s, shield=True):  # half a commit helps nobody
                outcome = await self._writer.commit(frozen.records, frozen.offset, frozen.metadata)
            telemetry.WORKER_COMMITS.add(1, outcome.value)
        if outcome is not CommitOutcome.COMMITTED:
            msg = f"the commit of {self._source} up to offset {frozen.offset} was {outcome.value}"
            raise TransportError(msg)
        self._complained = ""

    async def _tick(self, state: PartitionState) -> None:
        """Move the log's clock where nobody else does and somebody waits for it."""
        now = monotonic()
        silent_ms = (now - self._last_record) * 1000
        wait = state.ms_to_next_deadline()
        if wait is None or (now - self._last_tick) * 1000 < self._options.tick_min_ms:
            return
        if silent_ms >= min(wait, self._options.tick_max_ms):
            self._last_tick = now
            await self._ticks.send(self._source, [tick_record()])

    async def _discard(self) -> None:
        self._state = self._restored = None
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.aclose()

    async def give_up(self) -> None:
        """The partition is somebody else's now: drop everything without writing."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            async with self._committing:
                await self._discard()

    async def stop(self) -> None:
        """A clean stop: commit what is decided. Stopping is no reason to decide anything."""
        self._scope.cancel()
        state = self._state
        try:
            if state is not None and self._writer is not None and state.has_news and not state.replaying:
                await self._commit(state)
        except PrelaError as error:
            logger.warning("%s: the last commit failed (%s); the next worker does it again", self._source, error)
        await self._discard()
