"""When an assigned partition commits, and when it appends a tick. The clock is that of this machine."""

from time import monotonic
from typing import Final

from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState

_REST_S: Final = 1.0
"""The longest rest. Before it ends, the worker wakes a partition if a commit or a tick is due after a poll."""


class Schedule:
    """The commits and ticks of one partition.

    Args:
        options: `commit_interval_ms`, `tick_min_ms` and `tick_max_ms`.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._interval_s = options.commit_interval_ms / 1000
        self._least_s, self._most_s = options.tick_min_ms / 1000, options.tick_max_ms / 1000
        self._ticked = 0.0
        self.begin()

    def begin(self) -> None:
        """Records are applied from now on."""
        self._committed = self._received = monotonic()

    def commit_begins(self) -> float:
        """A commit begins now. Returns this time."""
        self._committed = monotonic()
        return self._committed

    def records_applied(self) -> None:
        """Records were applied."""
        self._received = monotonic()

    def tick_begins(self) -> None:
        """A tick is appended now."""
        self._ticked = monotonic()

    def commit_is_due(self, state: PartitionState) -> bool:
        """Whether there is something to commit, and now is the time."""
        due = monotonic() - self._committed >= self._interval_s
        return (due or state.is_sealed or state.stopping) and state.has_news

    def tick_is_due(self, state: PartitionState) -> bool:
        """Whether the partition is silent and an open trace waits for its clock. Records move it too. May raise CoreError."""
        now = monotonic()
        silent_s = now - self._received
        if silent_s < min(2 * self._least_s, self._most_s) or now - self._ticked < self._least_s or state.replaying:
            return False
        wait = state.ms_to_next_deadline()
        return wait is not None and silent_s >= min(max(wait / 1000, 2 * self._least_s), self._most_s)

    def rest_s(self, state: PartitionState | None, *, can_commit: bool) -> float:
        """How long the partition has nothing to do if nothing wakes it, s. 0: commit now.

        Args:
            state: The state; None: there is none.
            can_commit: Whether the partition is in a phase in which it commits.
        """
        if state is None or not state.has_news:
            return min(_REST_S, max(self._interval_s, self._least_s))
        if state.is_sealed and can_commit:
            return 0.0
        return max(self._committed + self._interval_s - monotonic(), self._least_s)
