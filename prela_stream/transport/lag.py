"""How far a consumer is behind the end of its partitions."""

from collections.abc import Iterator

import anyio

from prela_stream.errors import TransportError
from prela_stream.transport.base import Consumer, Poll, TopicPartition

_REFRESH_S = 2.0
"""Most seconds that asking for positions and ends may take. A partition that did not answer keeps its last known lag."""


class ConsumerLag:
    """The lag of one consumer, by partition. A service that runs a consumer is observed with it."""

    def __init__(self) -> None:
        self._records: dict[TopicPartition, int] = {}
        self._assigned = False
        self.consumer: Consumer | None = None
        """What the service reads with; None unless it runs."""

    def polled(self, poll: Poll) -> None:
        """A poll has ended: partitions may be assigned or revoked."""
        self._assigned = self._assigned or poll.rebalanced or bool(poll.assigned)
        for partition in poll.revoked:
            self._records.pop(partition, None)
        for partition in poll.assigned:
            self._records.setdefault(partition, 0)

    @property
    def is_assigned(self) -> bool:
        """Whether the consumer runs and has received its partitions, which may be none."""
        return self.consumer is not None and self._assigned

    async def refresh(self) -> None:
        """Ask for the position and the end of every assigned partition. An error leaves the last known lag."""
        with anyio.move_on_after(_REFRESH_S):
            async with anyio.create_task_group() as tasks:
                for partition in list(self._records):
                    tasks.start_soon(self._find, partition)

    async def _find(self, partition: TopicPartition) -> None:
        if self.consumer is None:
            return
        try:
            records = await self.consumer.end_offset(partition) - await self.consumer.position(partition)
        except TransportError:
            return
        if partition in self._records:  # it may have been revoked since
            self._records[partition] = max(0, records)

    def records(self) -> Iterator[tuple[TopicPartition, int]]:
        """The records after the position of each assigned partition, as last known."""
        yield from list(self._records.items())
