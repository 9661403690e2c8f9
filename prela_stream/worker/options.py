"""Settings of the worker. Imports nothing heavy."""

from typing import Annotated, Literal

import msgspec

from prela_stream.validation import HOUR, bounded


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the worker service."""

    group: str = "sampler"
    """Consumer group, without the prefix. The workers of one group share the partitions."""
    core: Literal["auto", "native", "python"] = "auto"
    """What does the work per span. `auto`: the native core if `prela-stream[fast]` is installed and fits this release, else the
    Python core. `native`: a worker without the native core does not start. Decisions are the same with either."""
    commit_interval_ms: Annotated[int, bounded(1, HOUR)] = 1_000
    """How often the decisions of a partition are committed, if there are any."""
    commit_bytes: Annotated[int, bounded(1, 1 << 40)] = 4 << 20
    """Most bytes of a commit, without the trace or the record that exceeds it. A partition with this much pending output is
    committed at once. With four times as much it is paused."""
    tick_min_ms: Annotated[int, bounded(1, HOUR)] = 100
    """Shortest time between two ticks that a worker appends to a silent partition."""
    tick_max_ms: Annotated[int, bounded(1, HOUR)] = 10_000
    """Longest time without a tick on a silent partition with open traces."""
    poll_bytes: Annotated[int, bounded(1, 1 << 40)] = 4 << 20
    """Most bytes of records of one poll, decompressed. They are applied in slices of 10 ms or less."""
    max_open_bytes: Annotated[int, bounded(1 << 20, 1 << 50)] = 2 << 30
    """Most bytes of undecided items, with 500 bytes for each undecided trace, and of pending output, over all partitions of a
    worker. Above it, the traces with the most bytes x age are decided (trigger `memory`), and then intake pauses."""
    poison_limit: Annotated[float, bounded(0, 1, "share")] = 0.5
    """If more than this share of the last `poison_window` items of a partition is unreadable, the worker reports it until a
    window has a lower share: log, readiness, and `prela_worker_partitions{state="poisoned"}`."""
    poison_window: Annotated[int, bounded(1, 100_000_000, "items")] = 10_000
    """Number of items over which `poison_limit` is computed."""
    poison_action: Literal["report", "stop"] = "report"
    """`stop`: a worker that reaches `poison_limit` also stops, after the commit that writes the dead letters."""
    accept_truncation: bool = False
    """Continue although retention deleted records that undecided traces need."""
    commit_timeout_s: Annotated[float, bounded(0.001, 3_600)] = 5.0
    """If the log answers nothing of a commit for so long, its outcome is unknown, and the partition is restored from the log.
    After that, commits of this partition are smaller and have more time (up to 60 s) until they are fast again."""
    stop_timeout_s: Annotated[float, bounded(0.001, 3_600)] = 6.0
    """Time limit of the last commits at a stop. If the brokers answer nothing, leaving the group takes up to 3 s more."""
