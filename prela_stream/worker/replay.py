"""Replay: a new owner applies the records between the low watermark and the position of the last commit again.

The items of these records were counted before that commit, and the decisions that it covers were written. So a replay only
rebuilds the open traces: it skips the items of committed decisions and does not count or dead-letter anything twice.

If the settings changed since the commit, a replay can decide traces that were open at the commit. Such a decision is new. It is
written, and so are the late spans of its trace.
"""

from prela_stream.assembly.base import Applied, ReadyTrace


class Replay:
    """The records below `until`, which were consumed before the last commit. The core skips the items of committed decisions.

    Args:
        until: The position of the last commit.
    """

    def __init__(self, until: int) -> None:
        self.until = until
        self._decided: set[bytes] = set()

    def applied(self, result: Applied, offset: int) -> None:
        """See `Intake.applied`: these items are counted already."""

    def decided(self, trace_id: bytes) -> None:
        """See `Intake.decided`: its late spans have to be written."""
        self._decided.add(trace_id)

    def discarded(self, ready: ReadyTrace) -> None:
        """See `Intake.discarded`: its spans are in the dead-letter topic already."""

    def writes_late(self, trace_id: bytes) -> bool:
        """See `Intake.writes_late`: only if the trace was decided in this replay. Other late spans are written already."""
        return trace_id in self._decided
