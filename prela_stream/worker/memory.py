"""The memory of a worker: what its undecided items and its pending output may take together, over all partitions.

Above the limit, the traces with the most bytes x age are decided by their real policies (trigger `memory`). What they leave in
the pending output pauses the intake until it is committed. Nothing is dropped without a decision.
"""

import logging
from collections.abc import Iterable
from time import monotonic
from typing import Final

from prela_stream.worker.assignment import AssignedPartition

logger = logging.getLogger("prela_stream.worker")

_RELIEVED: Final = 0.9
"""The share of the limit that is left after traces were decided for memory."""
_REPORT_S: Final = 60.0
"""Shortest time between two log lines about the limit."""


class MemoryLimit:
    """The limit of one worker.

    Args:
        most_bytes: `worker.max_open_bytes`.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._reported = -_REPORT_S

    def is_exceeded(self, partitions: Iterable[AssignedPartition]) -> bool:
        """Whether these partitions hold more than the limit."""
        return sum(one.open_bytes + one.pending_bytes for one in partitions) > self._most_bytes

    def excess(self, partitions: Iterable[AssignedPartition]) -> list[tuple[AssignedPartition, int]]:
        """The partitions that have to decide traces now, the largest first, and how many open bytes each of them may keep."""
        held = [(one.open_bytes, one) for one in partitions]
        total = sum(open_bytes + one.pending_bytes for open_bytes, one in held)
        if total <= self._most_bytes:
            return []
        if monotonic() - self._reported >= _REPORT_S:
            self._reported = monotonic()
            logger.warning(
                "undecided items and pending output take %d MB, more than worker.max_open_bytes (%d MB): the traces with the "
                'most bytes x age are decided now, with trigger "memory". Raise the limit, add workers, or lower the waits of '
                "assembly",
                total // 1_000_000,
                self._most_bytes // 1_000_000,
            )
        excess = total - int(self._most_bytes * _RELIEVED)
        found: list[tuple[AssignedPartition, int]] = []
        for open_bytes, one in sorted(held, key=lambda pair: -pair[0]):
            if excess <= 0 or not open_bytes:
                break
            found.append((one, max(0, open_bytes - excess)))
            excess -= open_bytes
        return found
