"""What can be read of a running sink: its lag, and whether it is ready."""

from collections.abc import Iterator

import anyio

from prela_stream import telemetry
from prela_stream.errors import TransportError
from prela_stream.measures import Collected
from prela_stream.transport.base import Consumer, Poll, TopicPartition

_REFRESH_S = 2.0
"""Most seconds that asking for positions and ends may take. A partition that did not answer keeps its last known lag."""


class SinkObserver:
    """The metrics and the readiness of one sink.

    Args:
        group: Consumer group of the sink, a label of its metrics.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._lag: dict[TopicPartition, int] = {}
        self._assigned = False
        self.consumer: Consumer | None = None
        """What the sink reads with; None unless it runs."""
        self.failure = ""
        """Why the last attempt to write failed; empty if it succeeded."""
        telemetry.register(self)

    def polled(self, poll: Poll) -> None:
        """The sink has received a poll: it may have gained or lost partitions."""
        self._assigned = self._assigned or poll.rebalanced or bool(poll.assigned)
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
        if partition in self._lag:  # it may have been revoked since
            self._lag[partition] = max(0, lag)

    def problems(self, max_lag_s: float) -> list[str]:  # noqa: ARG002 - the interface: a sink that is behind still works
        """Why the sink is not ready: it has not received its partitions, or it cannot write."""
        if self.consumer is None or not self._assigned:
            return [f"the sink has not received its partitions from the consumer group {self._group}"]
        return [f"the sink cannot write, and tries again: {self.failure}"] if self.failure else []

    def collect(self) -> Iterator[Collected]:
        """The lag of each topic."""
        for partition, lag in list(self._lag.items()):
            yield telemetry.SINK_LAG, lag, (self._group, partition.topic)
