"""What a partition's state returns: the content of a commit, and its status in numbers."""

from collections.abc import Sequence

import msgspec

from prela_stream.transport.base import Record, TopicPartition
from prela_stream.worker.checkpoint import ItemCounters
from prela_stream.worker.tally import Tally


class PendingCommit(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one commit."""

    records: Sequence[tuple[TopicPartition, Record]]
    bytes: int
    """Approximate size of `records`."""
    offset: int
    """The low watermark L."""
    metadata: str
    """The checkpoint."""
    position: int
    """Offset of the next record to consume."""
    poison: str | None
    """Why the unreadable items have to be reported after this commit; None if there are few."""
    poison_known: bool
    """Whether a window of items was full since the state was restored, so that `poison` is known."""
    tally: Tally
    """Added to the metrics once the commit has landed."""


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a partition in numbers, for operators and monitoring."""

    position: int
    """Offset of the next record to apply."""
    open_traces: int
    open_bytes: int
    pending_bytes: int
    """Approximate size of the next commit."""
    replaying: bool
    clock_ms: int
    """Stream time."""
    applied_ms: int
    """Log-append time of the last record that was applied, 0 before the first."""
    oldest_ms: int | None
    """Stream time at which the oldest undecided trace began; None if none is open."""
    watermark_ms: int
    """Stream time just before the low watermark of the last commit, 0 before the first."""
    counters: ItemCounters
