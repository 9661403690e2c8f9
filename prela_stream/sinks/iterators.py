"""Kept traces and decisions as async iterators with a commit, for applications: at least once, in a consumer group or alone.

`TopicIterator` handles records, partitions and offsets. One `PartitionItems` for each partition makes items of the records.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import anyio
import msgspec

from prela_stream.errors import ConfigurationError, FencedError
from prela_stream.model.decision import Decision
from prela_stream.sinks.fragments import FragmentJoiner
from prela_stream.sinks.kept_trace import KeptTrace
from prela_stream.sinks.topic_consumer import TopicConsumer
from prela_stream.transport.base import LogRecord, Poll, TopicPartition, Transport

T = TypeVar("T")

_MAX_RECORDS: Final = 500
_MAX_BYTES: Final = 4 << 20
_CHECK_S: Final = 1.0
"""Seconds between two checks of the assignment while items of an earlier poll are returned."""


class Step(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The next item, and the offset that may be committed once it is returned."""

    partition: TopicPartition
    item: Callable[[], T] | None
    """Makes the item when it is asked for; None: there is no item, only an offset."""
    next_offset: int


class PartitionItems(Protocol[T]):
    """Makes items of the records of one partition."""

    def steps(self, record: LogRecord, consumer: TopicConsumer) -> Sequence[Step[T]]:
        """At least one step for the next record."""
        ...


class KeptTraceItems:
    """Kept traces of one partition of `sampled`. Offsets are not committed past the first record of an incomplete trace."""

    def __init__(self) -> None:
        self._joiner = FragmentJoiner()

    def steps(self, record: LogRecord, consumer: TopicConsumer) -> list[Step[KeptTrace]]:
        """See `PartitionItems.steps`."""
        partition = TopicPartition(record.topic, record.partition)
        fragments, next_offset = consumer.join(record, self._joiner)
        item = partial(consumer.read, fragments, partition) if fragments else None
        return [Step(partition=partition, item=item, next_offset=next_offset)]


class DecisionItems:
    """Decisions of one partition of `decisions`. A record holds many; it may be committed after the last of them."""

    def steps(self, record: LogRecord, consumer: TopicConsumer) -> list[Step[Decision]]:
        """See `PartitionItems.steps`."""
        partition = TopicPartition(record.topic, record.partition)
        before = [
            Step(partition=partition, item=partial(_same, decision), next_offset=record.offset)
            for decision in consumer.decisions(record)
        ]
        if not before:
            return [Step(partition=partition, item=None, next_offset=record.offset + 1)]
        return [*before[:-1], msgspec.structs.replace(before[-1], next_offset=record.offset + 1)]


def _same(decision: Decision) -> Decision:
    return decision


class _Open:
    """What an open `TopicIterator` holds."""

    def __init__(self, stack: AsyncExitStack, topic: TopicConsumer) -> None:
        self.stack = stack
        self.topic = topic
        self.polled = anyio.current_time()
        self.paused = False
        """All partitions are paused, because returning the items of one poll takes long."""


class TopicIterator(Generic[T]):
    """The items of one topic in order, and the commit of those that are done.

        async with prela_stream.kept_traces(group="billing") as traces:
            async for trace in traces:
                ...
                await traces.commit()

    One task iterates. Members of one consumer group share the partitions. If a member leaves, dies or loses a partition, the new
    member of the partition receives again what was not committed: at least once, in order within a partition. Ask for the next
    item at least every five minutes; otherwise the group removes this member.

    Without `async with` (`async for trace in prela_stream.kept_traces(…)`) the iterator opens with the loop and closes when it is
    garbage-collected. In CPython that happens when the loop ends, but in another task.
    """

    def __init__(
        self,
        transport: Callable[[], AbstractAsyncContextManager[Transport]],
        topic: str,
        part: Callable[[], PartitionItems[T]],
        *,
        group: str | None,
        follow: bool,
    ) -> None:
        self._transport = transport
        self._topic = topic
        self._part = part
        self._group = group
        self._follow = follow
        self._opened: _Open | None = None
        self._used = False
        self._parts: dict[TopicPartition, PartitionItems[T]] = {}
        self._steps: deque[Step[T]] = deque()
        self._ends: dict[TopicPartition, int] = {}
        self._assignment_complete = False
        """Whether the assignment is that of the last rebalance; it may be empty."""

    async def __aenter__(self) -> Self:
        if self._used:
            msg = "this iterator was opened before and cannot be opened twice: call kept_traces() or decisions() again"
            raise ConfigurationError(msg)
        self._used = True
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(self._transport())
            consumer = await transport.consumer([self._topic], group=self._group)
            await stack.enter_async_context(consumer)
            self._opened = _Open(stack.pop_all(), TopicConsumer(consumer, self._group))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the group without a commit. Safe to call twice and under cancellation."""
        opened, self._opened = self._opened, None
        self._steps.clear()
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await opened.stack.aclose()

    def __aiter__(self) -> AsyncIterator[T]:
        return self if self._used else self._open_and_iterate()

    async def _open_and_iterate(self) -> AsyncGenerator[T, None]:
        async with self:
            async for item in self:
                yield item

    async def __anext__(self) -> T:
        opened = self._entered()
        while True:
            if self._steps and anyio.current_time() - opened.polled >= _CHECK_S:
                await self._check_assignment(opened)
            while self._steps:
                step = self._steps.popleft()
                opened.topic.done(step.partition, step.next_offset)
                if step.item is not None:
                    return step.item()
            if not self._follow and await self._at_the_end(opened.topic):
                raise StopAsyncIteration
            await self._fill(opened)

    async def commit(self) -> None:
        """Commit everything that was returned so far: no member of the group receives it again.

        Not committed are records that an incomplete trace needs, and a record of decisions before its last decision was returned.
        If a partition was reassigned, this is logged, and its new member receives the items again.

        Raises:
            TransportError: The transport cannot be reached; some or all offsets are not committed. Try again or continue: the
                next commit includes this one.
            ConfigurationError: There is no consumer group.
        """
        opened = self._entered()
        if self._group is None:
            msg = "commit() needs a consumer group, and group is None: name one, as in kept_traces(group='billing')"
            raise ConfigurationError(msg)
        for partition in await opened.topic.commit():
            self._forget(partition)
            self._assignment_complete = False  # a rebalance follows; it may return this partition

    def _entered(self) -> _Open:
        if self._opened is None:
            msg = "this iterator is not open: use `async with prela_stream.kept_traces(…) as traces`"
            raise ConfigurationError(msg)
        return self._opened

    async def _fill(self, opened: _Open) -> None:
        consumer = opened.topic.consumer
        if opened.paused:
            consumer.resume(*consumer.assignment())
            opened.paused = False
        poll = await opened.topic.poll(max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES)
        consumer.resume(*poll.assigned)
        self._apply(opened, poll)

    async def _check_assignment(self, opened: _Open) -> None:
        """Drop the items of revoked partitions before they are returned, and stay a member of the group."""
        consumer = opened.topic.consumer
        consumer.pause(*consumer.assignment())
        opened.paused = True
        self._apply(opened, await opened.topic.check_assignment())

    def _apply(self, opened: _Open, poll: Poll) -> None:
        opened.polled = anyio.current_time()
        for partition in poll.revoked:
            self._forget(partition)
        if poll.assigned or poll.revoked or poll.rebalanced:
            self._assignment_complete = poll.rebalanced
        for record in poll.records:
            partition = TopicPartition(record.topic, record.partition)
            part = self._parts.get(partition)
            if part is None:
                part = self._parts[partition] = self._part()
            self._steps.extend(part.steps(record, opened.topic))

    def _forget(self, partition: TopicPartition) -> None:
        self._parts.pop(partition, None)
        self._ends.pop(partition, None)
        self._steps = deque(step for step in self._steps if step.partition != partition)

    async def _at_the_end(self, topic: TopicConsumer) -> bool:
        """Whether every assigned partition is read up to the end that it had when reading it began."""
        consumer = topic.consumer
        try:
            for partition in consumer.assignment():
                if partition not in self._ends:
                    end = await topic.end_offset(partition)
                    if end is None:
                        return False
                    self._ends[partition] = end
                if await consumer.position(partition) < self._ends[partition]:
                    return False
        except FencedError:
            return False  # revoked; the next poll reports it
        return self._assignment_complete
