"""What can be read of a running sink: its lag, and whether it is ready."""

from collections.abc import Iterator

from prela_stream import telemetry
from prela_stream.measures import Collected
from prela_stream.transport.lag import ConsumerLag


class SinkObserver(ConsumerLag):
    """The metrics and the readiness of one sink.

    Args:
        group: Consumer group of the sink, a label of its metrics.
    """

    def __init__(self, group: str) -> None:
        super().__init__()
        self._group = group
        self.failure = ""
        """Why the last attempt to write failed; empty if it succeeded."""
        telemetry.register(self)

    def problems(self, max_lag_s: float) -> list[str]:  # noqa: ARG002 - the interface: a sink that is behind still works
        """Why the sink is not ready: it has not received its partitions, or it cannot write."""
        if not self.is_assigned:
            return [f"the sink has not received its partitions from the consumer group {self._group}"]
        return [f"the sink cannot write, and tries again: {self.failure}"] if self.failure else []

    def collect(self) -> Iterator[Collected]:
        """The lag of each topic."""
        for partition, lag in self.records():
            yield telemetry.SINK_LAG, lag, (self._group, partition.topic)
