"""Settings of the worker. Imports nothing heavy."""

from typing import Annotated

import msgspec

from prela_stream.validation import HOUR, bounded


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the worker service."""

    group: str = "sampler"
    """Consumer group; the workers of one group share the partitions."""
    commit_interval_ms: Annotated[int, bounded(1, HOUR)] = 1_000
    """How often a partition's decisions are committed, if there are any."""
    commit_bytes: Annotated[int, bounded(1, 1 << 40)] = 4 << 20
    """A partition with this much to write is committed at once; with four times as much it is paused until it was."""
    tick_min_ms: Annotated[int, bounded(1, HOUR)] = 100
    """A worker appends at most one tick to a silent partition in this time."""
    tick_max_ms: Annotated[int, bounded(1, HOUR)] = 10_000
    """A silent partition with open traces gets a tick at least this often."""
    poll_bytes: Annotated[int, bounded(1, 1 << 40)] = 4 << 20
    """Most bytes of Records taken in at a time."""
    poison_limit: Annotated[float, bounded(0, 1, "share")] = 0.5
    """The worker stops when more than this share of the last `poison_window` items could not be read."""
    poison_window: Annotated[int, bounded(1, 100_000_000, "items")] = 10_000
    """How many of the last items `poison_limit` counts."""
    accept_truncation: bool = False
    """Go on although Records that undecided traces need are gone from the log (retention was too short)."""
    commit_timeout_s: Annotated[float, bounded(0.001, 3_600)] = 5.0
    """A commit that takes longer counts as unknown: the partition is restored from the log."""
    stop_timeout_s: Annotated[float, bounded(0.001, 3_600)] = 8.0
    """How long a stop may take to commit what is decided."""
