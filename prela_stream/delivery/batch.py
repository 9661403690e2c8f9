"""What moves through delivery: queued entries, the batches that become records, and how each of them ends."""

from typing import Literal

import msgspec

Entry = tuple[int, bytes | None, bytes, bool]
"""A queued item: sequence, trace id, bytes, reserved. The sequence counts accepted items from 1. 0 marks an item that the
pipeline made. A plain tuple, because building a named one costs one more call in Python."""

DropReason = Literal["queue_full", "too_old", "shutdown", "encode_error"]
Outcome = DropReason | Literal["acknowledged", "unknown"]
"""The class of the ledger in which an item ends."""


class ProducerBatch(msgspec.Struct, kw_only=True):
    """Items of one partition that are sent as one record."""

    partition: int
    created: float
    """When its first item arrived, seconds of the clock that `Batcher.add` was given."""
    entries: list[Entry] = []
    size: int = 0
    """Bytes of all items."""
    lost_items: int = 0
    """LOST items in it, which the pipeline made. All others were recorded."""
    lost_items_size: int = 0

    @property
    def recorded(self) -> int:
        """Items that were recorded."""
        return len(self.entries) - self.lost_items

    @property
    def recorded_size(self) -> int:
        """Bytes of the items that were recorded."""
        return self.size - self.lost_items_size

    def part(self, entries: list[Entry]) -> "ProducerBatch":
        """A batch of some of these entries, with the same partition and age."""
        lost = [len(item) for sequence, _, item, _ in entries if sequence == 0]
        return ProducerBatch(
            partition=self.partition,
            created=self.created,
            entries=entries,
            size=sum(len(item) for _, _, item, _ in entries),
            lost_items=len(lost),
            lost_items_size=sum(lost),
        )
