"""Replay: a new owner applies the records between the low watermark and the position of the last commit again.

The items of these records were counted before that commit, and the decisions that it covers were written. So a replay only
rebuilds the open traces: it skips the items of committed decisions and does not count or dead-letter anything twice.

If the settings changed since the commit, a replay can decide traces that were open at the commit. Such a decision is new. It is
written, and so are the late spans of its trace.
"""

from collections.abc import Callable

import msgspec

from prela_stream.assembly.buffer import Applied
from prela_stream.codec.spans import ItemBatch
from prela_stream.worker.decoding import ReadTrace


class Replay:
    """The records below `until`, which were consumed before the last commit.

    Args:
        until: The position of the last commit.
        covers: Whether an item of a trace in the record at an offset belongs to a committed decision.
    """

    def __init__(self, until: int, covers: Callable[[bytes, int], bool]) -> None:
        self.until = until
        self._covers = covers
        self._decided: set[bytes] = set()

    def admit(self, batch: ItemBatch, offset: int) -> ItemBatch:
        """See `Intake.admit`: the items that belong to no committed decision."""
        covers = self._covers
        open_items = [
            index
            for index, head in enumerate(batch.heads)
            if head.trace_id is None or not covers(head.trace_id, offset)
        ]
        if len(open_items) == len(batch.heads):
            return batch
        return msgspec.structs.replace(
            batch,
            heads=[batch.heads[index] for index in open_items],
            raws=[batch.raws[index] for index in open_items],
            indexes=[batch.indexes[index] for index in open_items],
        )

    def applied(self, result: Applied) -> None:
        """See `Intake.applied`: these items are counted already."""

    def decided(self, trace_id: bytes) -> None:
        """See `Intake.decided`: its late spans have to be written."""
        self._decided.add(trace_id)

    def discarded(self, read: ReadTrace, offset: int) -> None:
        """See `Intake.discarded`: its spans are in the dead-letter topic already."""

    def writes_late(self, trace_id: bytes) -> bool:
        """See `Intake.writes_late`: only if the trace was decided in this replay. Other late spans are written already."""
        return trace_id in self._decided
