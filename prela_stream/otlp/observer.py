"""What can be read of a running import of a topic: its lag, and whether it is ready."""

from collections.abc import Iterator
from typing import Final

import anyio

from prela_stream import telemetry
from prela_stream.errors import TransportError
from prela_stream.measures import Collected
from prela_stream.transport.base import Consumer, Poll, TopicPartition

_REFRESH_S: Final = 2.0


class TopicObserver:
    """The metrics and the readiness.

    Args:
        group: The consumer group.
        topic: The topic that is read.
    """

    def __init__(self, group: str, topic: str) -> None:
        self._group = group
        self._topic = topic
        self._lag: dict[TopicPartition, int] = {}
        self._assigned = False
        self.consumer: Consumer | None = None
        """What reads the topic; None unless it runs."""
        self.failure = ""
        """Why the last attempt failed; empty if it succeeded."""
        telemetry.register(self)

    def polled(self, poll: Poll) -> None:
        """A poll has ended: partitions may be assigned or revoked."""
        self._assigned = self._assigned or poll.rebalanced
        for partition in poll.revoked:
            self._lag.pop(partition, None)
        for partition in poll.assigned:
            self._lag.setdefault(partition, 0)

    async def refresh(self) -> None:
        """Ask for the position and the end of every assigned partition. An error leaves the last known lag."""
        with anyio.move_on_after(_REFRESH_S):
            async with anyio.create_task_group() as tasks:
                for partition in list(self._lag):
                    tasks.start_soon(self._find_lag, partition)

    async def _find_lag(self, partition: TopicPartition) -> None:
        if self.consumer is None:
            return
        try:
            lag = await self.consumer.end_offset(partition) - await self.consumer.position(partition)
        except TransportError:
            return
        if partition in self._lag:
            self._lag[partition] = max(0, lag)

    def problems(self, max_lag_s: float) -> list[str]:  # noqa: ARG002 - the interface
        """Why the import is not ready; empty if it is."""
        if self.consumer is None or not self._assigned:
            return [f"no partitions of {self._topic} are assigned yet by the consumer group {self._group}"]
        return [self.failure] if self.failure else []

    def collect(self) -> Iterator[Collected]:
        """The lag of each partition."""
        for partition, lag in list(self._lag.items()):
            yield telemetry.OTLP_TOPIC_LAG, lag, (partition.topic, str(partition.partition))
