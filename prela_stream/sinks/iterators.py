"""Kept traces and decisions as async iterators with a commit, for programs that are no store: at least once, in a group or alone.

`TopicIterator` knows Records, partitions and offsets; what an item is, is said by a `PartitionItems`, one for each partition.
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
from prela_stream.sinks.kept_trace import KeptTrace, read_trace
from prela_stream.sinks.topic_consumer import TopicConsumer
from prela_stream.transport.base import LogRecord, Poll, TopicPartition, Transport

T = TypeVar("T")

_MAX_RECORDS: Final = 500
_MAX_BYTES: Final = 4 << 20
_CHECK_S: Final = 1.0
"""While items of an earlier poll are handed out, this often somebody looks whether their partitions are still ours."""


class Step(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What is handed out next, and what may be committed then."""

    partition: TopicPartition
    item: Callable[[], T] | None
    """Makes the item when it is asked for; None: nothing is to be handed out."""
    next_offset: int
    """Everything of the partition below it is done once the item is."""


class PartitionItems(Protocol[T]):
    """Makes items of the Records of one partition."""

    def steps(self, record: LogRecord, reader: TopicConsumer) -> Sequence[Step[T]]:
        """At least one step for the next Record."""
        ...


class KeptTraceItems:
    """Kept traces of one partition of `sampled`. A trace that is not whole keeps offsets from being committed."""

    def __init__(self) -> None:
        self._joiner = FragmentJoiner()

    def steps(self, record: LogRecord, reader: TopicConsumer) -> list[Step[KeptTrace]]:
        """See `PartitionItems.steps`."""
        fragment = reader.fragment(record)
        found = []
        if fragment is not None:
            given_up = self._joiner.given_up
            found = self._joiner.add(fragment, offset=record.offset, timestamp_ms=record.timestamp_ms)
            for _ in range(self._joiner.given_up - given_up):
                reader.skip(record, "a kept trace of which a fragment is missing")
        needed = self._joiner.first_offset()
        return [
            Step(
                partition=TopicPartition(record.topic, record.partition),
                item=partial(read_trace, found) if found else None,
                next_offset=record.offset + 1 if needed is None else needed,
            )
        ]


class DecisionItems:
    """Decisions of one partition of `decisions`. One Record holds many: it is done with the last of them."""

    def steps(self, record: LogRecord, reader: TopicConsumer) -> list[Step[Decision]]:
        """See `PartitionItems.steps`."""
        partition = TopicPartition(record.topic, record.partition)
        before = [
            Step(partition=partition, item=partial(_same, decision), next_offset=record.offset)
            for decision in reader.decisions(record)
        ]
        if not before:
            return [Step(partition=partition, item=None, next_offset=record.offset + 1)]
        return [*before[:-1], msgspec.structs.replace(before[-1], next_offset=record.offset + 1)]


def _same(decision: Decision) -> Decision:
    return decision


class _Open:
    """What an entered `TopicIterator` holds."""

    def __init__(self, stack: AsyncExitStack, reader: TopicConsumer) -> None:
        self.stack = stack
        self.reader = reader
        self.polled = anyio.current_time()
        self.paused = False
        """Everything of ours is paused while items are handed out for long."""


class TopicIterator(Generic[T]):
    """Items of one topic, one after the other, and the commit of those that are done.

        async with prela_stream.kept_traces(group="billing") as traces:
            async for trace in traces:
                ...
                await traces.commit()

    One task iterates. Members of one group share the partitions. What was not committed when a member left, died or lost a
    partition is handed out again, to the partition's new member: at least once, in order within a partition. Ask for the next
    item at least every five minutes, or the group takes this member for dead.

    Without `async with` (`async for trace in prela_stream.kept_traces(…)`) it opens with the loop and closes when the loop is
    garbage: at once in CPython, but in a task of the event loop's own.
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
        """Whether what is ours is all of our share, as far as we were told; it may be nothing."""

    async def __aenter__(self) -> Self:
        if self._used:
            msg = "this reading was opened before; call kept_traces() or decisions() again for another one"
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
        """Leave the group. Nothing is committed by it. Safe to call twice and under cancellation."""
        opened, self._opened = self._opened, None
        self._steps.clear()
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await opened.stack.aclose()

    def __aiter__(self) -> AsyncIterator[T]:
        return self if self._used else self._opened_by_the_loop()

    async def _opened_by_the_loop(self) -> AsyncGenerator[T, None]:
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
                opened.reader.done(step.partition, step.next_offset)
                if step.item is not None:
                    return step.item()
            if not self._follow and await self._at_the_end(opened.reader):
                raise StopAsyncIteration
            await self._fill(opened)

    async def commit(self) -> None:
        """Everything that was handed out so far is done: a group's members will not see it again.

        A trace of which some fragments are still to come, and a Record of decisions of which some are still to be handed out,
        stay uncommitted. So does what another member has taken over meanwhile: it is logged, and that one gets it again.

        Raises:
            TransportError: the transport is away; nothing, or not everything, is committed. Try again, or go on: the next
                commit covers this one.
            ConfigurationError: there is no group to commit for.
        """
        opened = self._entered()
        if self._group is None:
            msg = "without a group there is nothing to commit to: name one, as in kept_traces(group='billing')"
            raise ConfigurationError(msg)
        for partition in await opened.reader.commit():
            self._forget(partition)
            self._assignment_complete = (
                False  # who has what is told anew; this one may come back, with what was not committed
            )

    def _entered(self) -> _Open:
        if self._opened is None:
            msg = "this reading is not open: use `async with prela_stream.kept_traces(…) as traces`"
            raise ConfigurationError(msg)
        return self._opened

    async def _fill(self, opened: _Open) -> None:
        consumer = opened.reader.consumer
        if opened.paused:
            consumer.resume(*consumer.assignment())
            opened.paused = False
        poll = await opened.reader.poll(max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES)
        consumer.resume(*poll.assigned)
        self._apply(opened, poll)

    async def _check_assignment(self, opened: _Open) -> None:
        """Learn of partitions that have gone before more of them is handed out, and stay a member of the group."""
        consumer = opened.reader.consumer
        consumer.pause(*consumer.assignment())
        opened.paused = True
        self._apply(opened, await opened.reader.check_assignment())

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
            self._steps.extend(part.steps(record, opened.reader))

    def _forget(self, partition: TopicPartition) -> None:
        self._parts.pop(partition, None)
        self._ends.pop(partition, None)
        self._steps = deque(step for step in self._steps if step.partition != partition)

    async def _at_the_end(self, reader: TopicConsumer) -> bool:
        """Whether all of our share, which may be nothing, has been read up to where it ended when reading it began."""
        consumer = reader.consumer
        try:
            for partition in consumer.assignment():
                if partition not in self._ends:
                    end = await reader.end_offset(partition)
                    if end is None:
                        return False
                    self._ends[partition] = end
                if await consumer.position(partition) < self._ends[partition]:
                    return False
        except FencedError:
            return False  # the next poll says that it has gone
        return self._assignment_complete
