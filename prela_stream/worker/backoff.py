"""How large a commit of a partition may get and how long it may take, and whether the partition makes progress."""

from prela_stream.worker.options import WorkerOptions

_SMALLEST_BYTES = 64 << 10
_LONGEST_S = 60.0
_MOST_STEPS = 6
_LONGEST_PAUSE_S = 30.0
STALLED_AFTER = 3
"""Failures in a row, without a commit between them, after which a partition counts as stalled."""


class Backoff:
    """The limits of the commits of one partition.

    A commit without a result is a sign of overload. So the next one is half as large and has twice the time. After a commit that
    lands slowly the next one is half as large too. A commit that lands quickly takes one step back.

    Args:
        options: The limits without overload.
        retry_s: Pause before the first retry.
    """

    def __init__(self, options: WorkerOptions, retry_s: float) -> None:
        self._options = options
        self._retry_s = retry_s
        self._steps = 0
        self.failures = 0
        """Failures since the last commit that landed."""
        self._restores = 0
        """Those of them that repeat a restore."""

    @property
    def commit_bytes(self) -> int:
        """A partition with this much pending output is committed at once."""
        return max(min(_SMALLEST_BYTES, self._options.commit_bytes), self._options.commit_bytes >> self._steps)

    @property
    def most_pending_bytes(self) -> int:
        """A partition with this much pending output is paused until it is committed."""
        return self.commit_bytes * (1 if self._steps else 4)

    @property
    def commit_timeout_s(self) -> float:
        """Time limit of a commit."""
        limit = self._options.commit_timeout_s
        return max(limit, min(limit * (1 << self._steps), _LONGEST_S))

    @property
    def retry_s(self) -> float:
        """Pause before the partition is taken over again. It grows with restores that led to no commit.

        It does not grow with attempts that cannot even begin, as on a full disk: they cost little, and the cause may end at once.
        """
        return min(self._retry_s * (1 << max(0, self._restores - STALLED_AFTER)), _LONGEST_PAUSE_S)

    @property
    def stalled(self) -> bool:
        """Whether the partition makes no progress."""
        return self.failures >= STALLED_AFTER

    def unknown(self) -> None:
        """A commit had no result in time."""
        self._steps = min(self._steps + 1, _MOST_STEPS)

    def failed(self, *, restored: bool) -> None:
        """The partition has to be restored. `restored`: a restore was begun, which reads the log."""
        self.failures += 1
        self._restores += restored

    def landed(self, took_s: float) -> None:
        """A commit landed after `took_s` seconds."""
        self.failures = self._restores = 0
        if took_s > self._options.commit_timeout_s:
            self._steps = min(self._steps + 1, _MOST_STEPS)
        elif self._steps and took_s < self._options.commit_timeout_s / 4:
            self._steps -= 1
