"""Settings of delivery in the agent. Imports nothing heavy."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from prela_stream.validation import HOUR, bounded

Overflow = Literal["drop_newest", "drop_oldest", "block"]


class PipelineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the items of an agent are queued, batched and sent."""

    max_queue_items: Annotated[int, bounded(1, 100_000_000, "items")] = 50_000
    """Most items held at once, from `record` until they have a result."""
    max_queue_bytes: Annotated[int, bounded(1, 1 << 40)] = 64 << 20
    """Most bytes of items held at once."""
    overflow: Overflow = "drop_newest"
    """What happens to an item if the queue is full: it is dropped, the oldest one is dropped, or the caller waits."""
    block_timeout_ms: Annotated[int, bounded(0, HOUR)] = 1_000
    """How long `overflow = "block"` waits for room. A thread that runs an event loop never waits."""
    max_lost_traces: Annotated[int, bounded(0, 10_000_000, "traces")] = 10_000
    """Most traces that are named to the workers as having lost items. If there are more, every partition is warned instead."""
    batch_items: Annotated[int, bounded(1, 16_384, "items")] = 1_000
    """Most items of a record."""
    batch_bytes: Annotated[int, bounded(1, 1 << 30)] = 256 << 10
    """Most bytes of a record's items; never more than the topic accepts."""
    linger_ms: Annotated[int, bounded(0, 60_000)] = 50
    """How long an item waits for others of its partition, so that they share a record."""
    slice_us: Annotated[int, bounded(1, 1_000_000)] = 300
    """Longest work of the sender without a pause, because it shares the interpreter with the agent."""
    send_timeout_s: Annotated[float, bounded(0.001, 3_600)] = 30.0
    """An attempt that takes longer has an unknown outcome and is repeated on a new producer. If other partitions wait, the
    second attempt may take a tenth of it, the third two tenths, and so on."""
    delivery_timeout_s: Annotated[float, bounded(0.001, 604_800)] = 120.0
    """A batch of this age is given up: dropped as `too_old`, or counted as `unknown` if the outcome of an attempt is."""
    backoff_min_ms: Annotated[int, bounded(1, HOUR)] = 50
    """Pause after the first failed attempt, with jitter; it doubles with each further one."""
    backoff_max_ms: Annotated[int, bounded(1, HOUR)] = 2_000
    """Longest pause between two attempts."""
    heartbeat_ms: Annotated[int, bounded(0, HOUR)] = 15_000
    """Interval of heartbeats for open roots and AGENT spans; 0: none, and then the workers notice a process that died only
    after `assembly.idle_without_heartbeats_ms`. Keep it well below the workers' `assembly.lost_ms`."""
    shutdown_timeout_s: Annotated[float, bounded(0, 3_600)] = 2.0
    """How long the end of the program waits for items in the queue."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of a setting and of what is wrong with it beyond its type."""
        if self.backoff_max_ms < self.backoff_min_ms:
            yield (
                "backoff_max_ms",
                f"expected at least backoff_min_ms ({self.backoff_min_ms}), got {self.backoff_max_ms}",
            )
