"""What a commit says about its partition besides the Records: enough to go on exactly where it stopped.

The committed offset is the low watermark L: the first Record that an undecided trace still needs. This checkpoint travels as the
offset's metadata, so it is part of the same transaction and needs no topic of its own.
"""

import msgspec

from prela_stream.errors import PrelaError

FORMAT = 1


class CheckpointError(PrelaError):
    """A checkpoint cannot be used by this worker; the text says why and what to do."""


class Counters(msgspec.Struct, kw_only=True, array_like=True):
    """What became of every item of a partition's log below the position. All but `open` only grow."""

    consumed: int = 0
    open: int = 0
    kept: int = 0
    dropped: int = 0
    duplicates: int = 0
    late_kept: int = 0
    late_dropped: int = 0
    control: int = 0
    """Starts, heartbeats, ticks and the like, and items of kinds that this release does not know."""
    dlq: int = 0

    def unaccounted(self) -> int:
        """Consumed items that are in no class; invariant I1 says 0."""
        classes = self.open + self.kept + self.dropped + self.duplicates + self.late_kept + self.late_dropped
        return self.consumed - classes - self.control - self.dlq


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """State of a partition at a commit."""

    position: int
    """Offset of the next Record to consume; everything below is decided, open, or written."""
    clock_before_ms: int
    """Stream time just before the Record at the low watermark."""
    clock_ms: int
    """Stream time at the position."""
    partitions: int
    """How many partitions `spans` had: a trace's partition depends on it."""
    counters: Counters
    format: int = FORMAT

    def encode(self) -> str:
        """The offset metadata of the commit, JSON of a few hundred bytes."""
        return msgspec.json.encode(self).decode()


def read_checkpoint(metadata: str, *, partitions: int, where: str) -> Checkpoint:
    """Read a commit's metadata.

    Raises:
        CheckpointError: it is no checkpoint, or one of another format or another number of partitions.
    """
    try:
        checkpoint = msgspec.json.decode(metadata, type=Checkpoint)
    except msgspec.MsgspecError as error:
        msg = (
            f"the offset committed for {where} carries no checkpoint of a worker ({error}). Another program has committed "
            "in this group; give the worker a group of its own (worker.group)"
        )
        raise CheckpointError(msg) from error
    if checkpoint.format != FORMAT:
        msg = f"the checkpoint of {where} has format {checkpoint.format}, this release reads {FORMAT}: use the one that wrote it"
        raise CheckpointError(msg)
    if checkpoint.partitions != partitions:
        msg = (
            f"the checkpoint of {where} was made when the topic had {checkpoint.partitions} partitions, now it has {partitions}. "
            "The partitions of a prefix are fixed: go back, or use a new prefix and drain the old one"
        )
        raise CheckpointError(msg)
    return checkpoint
