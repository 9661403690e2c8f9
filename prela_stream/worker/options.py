"""Settings of the worker. Imports nothing heavy."""

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0)]


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the worker service."""

    group: str = "sampler"
    """Consumer group; the workers of one group share the partitions."""
    commit_interval_ms: Positive = 1_000
    """How often a partition's decisions are committed, if there are any."""
    commit_bytes: Positive = 4 << 20
    """A partition with this much to write is committed at once; with four times as much it is paused until it was."""
    tick_min_ms: Positive = 100
    """A worker appends at most one tick to a silent partition in this time."""
    tick_max_ms: Positive = 10_000
    """A silent partition with open traces gets a tick at least this often."""
    poll_bytes: Positive = 4 << 20
    """Most bytes of Records taken in at a time."""
    poison_limit: Share = 0.5
    """The worker stops when more than this share of the last `poison_window` items could not be read."""
    poison_window: Positive = 10_000
    accept_truncation: bool = False
    """Go on although Records that undecided traces need are gone from the log (retention was too short)."""
    commit_timeout_s: Seconds = 5.0
    """A commit that takes longer counts as unknown: the partition is restored from the log."""
    stop_timeout_s: Seconds = 8.0
    """How long a stop may take to commit what is decided."""
