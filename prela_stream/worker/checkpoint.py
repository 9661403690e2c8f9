"""The state that a commit stores with its offset, so that the next owner of the partition continues exactly there.

The committed offset is the low watermark L: the first record that an undecided trace still needs. The checkpoint is the metadata
of that offset. So it is part of the same transaction and needs no topic.
"""

import msgspec

from prela_stream.errors import PrelaError

FORMAT = 1


class CheckpointError(PrelaError):
    """A checkpoint is unusable. The text contains the reason and what to do."""


class ItemCounters(msgspec.Struct, kw_only=True, array_like=True):
    """The class of every item of a partition's log below the position. All counters except `open` only grow."""

    consumed: int = 0
    open: int = 0
    kept: int = 0
    dropped: int = 0
    duplicates: int = 0
    late_kept: int = 0
    late_dropped: int = 0
    control: int = 0
    """Control items (starts, heartbeats, ticks, …), and items of kinds that this release does not know."""
    dlq: int = 0

    def unaccounted(self) -> int:
        """Consumed items that are in no class. It is 0 by invariant I1."""
        classes = self.open + self.kept + self.dropped + self.duplicates + self.late_kept + self.late_dropped
        return self.consumed - classes - self.control - self.dlq


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """State of a partition at a commit."""

    position: int
    """Offset of the next record to consume. Every item below it is decided, open, or written."""
    clock_before_ms: int
    """Stream time just before the record at the low watermark."""
    clock_ms: int
    """Stream time at the position."""
    partitions: int
    """Partition count of `spans`, because the partition of a trace depends on it."""
    counters: ItemCounters
    shift_before_ms: int = 0
    """`StreamClock.shift_ms` just before the record at the low watermark."""
    discarded: int = 0
    """Unreadable traces that are due by the time of the record at the position, and that are in the dead-letter topic already. A
    commit can contain a part of the traces that are due by the time of a record."""
    format: int = FORMAT

    def encode(self) -> str:
        """The offset metadata of the commit: JSON of a few hundred bytes."""
        return msgspec.json.encode(self).decode()


def read_checkpoint(metadata: str, *, partitions: int, where: str) -> Checkpoint:
    """Read the metadata of a committed offset.

    Raises:
        CheckpointError: it is not a checkpoint, or its format or partition count is different.
    """
    try:
        checkpoint = msgspec.json.decode(metadata, type=Checkpoint)
    except msgspec.MsgspecError as error:
        msg = (
            f"the offset committed for {where} has no checkpoint of a worker ({error}). Another program committed offsets in "
            "this consumer group; set worker.group to a group that only workers use"
        )
        raise CheckpointError(msg) from error
    if checkpoint.format != FORMAT:
        msg = (
            f"the checkpoint of {where} has format {checkpoint.format}, this release reads {FORMAT}. Run the release that "
            "wrote it"
        )
        raise CheckpointError(msg)
    if checkpoint.partitions != partitions:
        msg = (
            f"the checkpoint of {where} was written when the topic had {checkpoint.partitions} partitions, now it has "
            f"{partitions}. The partition count of a prefix is fixed: restore it, or use a new prefix and drain the old one"
        )
        raise CheckpointError(msg)
    return checkpoint
