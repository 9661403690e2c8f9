"""What can be read of a running import of a topic: its lag, and whether it is ready."""

from collections.abc import Iterator

from prela_stream import telemetry
from prela_stream.measures import Collected
from prela_stream.transport.lag import ConsumerLag


class TopicObserver(ConsumerLag):
    """The metrics and the readiness.

    Args:
        group: The consumer group.
        topic: The topic that is read.
    """

    def __init__(self, group: str, topic: str) -> None:
        super().__init__()
        self._group = group
        self._topic = topic
        self.failure = ""
        """Why the last attempt failed; empty if it succeeded."""
        telemetry.register(self)

    def problems(self, max_lag_s: float) -> list[str]:  # noqa: ARG002 - the interface
        """Why the import is not ready; empty if it is."""
        if not self.is_assigned:
            return [f"no partitions of {self._topic} are assigned yet by the consumer group {self._group}"]
        return [self.failure] if self.failure else []

    def collect(self) -> Iterator[Collected]:
        """The lag of each partition."""
        for partition, lag in self.records():
            yield telemetry.OTLP_TOPIC_LAG, lag, (partition.topic, str(partition.partition))
