"""Whether too large a share of the items of a partition is unreadable."""

from prela_stream.transport.base import TopicPartition
from prela_stream.transport.options import TopicOptions
from prela_stream.worker.options import WorkerOptions


class PoisonWatch:
    """The share of unreadable items of one partition, compared with `worker.poison_limit`.

    Args:
        source: The partition.
        topics: Names of the topics.
        options: The limit, and what it does.
    """

    def __init__(self, source: TopicPartition, topics: TopicOptions, options: WorkerOptions) -> None:
        self._source = source
        self._dlq = topics.dlq
        self._limit = options.poison_limit
        self.stops = options.poison_action == "stop"
        """Whether the worker stops at the limit."""
        self.found: str | None = None
        """What has to be reported; None if the share is below the limit."""
        self.known = False
        """Whether a window was full."""

    def check(self, window: tuple[float, int] | None) -> None:
        """Check the share of unreadable items and the number of items of a window; None if it is not full yet."""
        if window is None:
            return
        self.known = True
        share, items = window
        if share <= self._limit:
            self.found = None
            return
        advice = "set worker.poison_action to report" if self.stops else "the worker continues without them"
        self.found = (
            f"{share:.0%} of the last {items} items of {self._source} were unreadable (worker.poison_limit: "
            f"{self._limit:.0%}); they are in {self._dlq} with the reason. A producer probably writes "
            f"another format; {'to continue anyway, ' if self.stops else ''}{advice}"
        )
