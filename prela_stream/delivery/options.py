"""Settings of the SDK's delivery. Imports nothing heavy, so that configuration costs nothing."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from prela_stream.delivery.queue import Overflow
from prela_stream.validation import HOUR, bounded


class PipelineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent's items are queued, batched and sent. Raises ConfigurationError for values that cannot work."""

    max_queue_items: Annotated[int, bounded(1, 100_000_000, "items")] = 50_000
    """Most items held at once, from `record` until they are settled."""
    max_queue_bytes: Annotated[int, bounded(1, 1 << 40)] = 64 << 20
    """Most bytes of items held at once."""
    overflow: Overflow = "drop_newest"
    """What happens to an item that finds no room; see `batching.BoundedQueue`."""
    block_timeout_ms: Annotated[int, bounded(0, HOUR)] = 1_000
    """How long `block` waits for room. A thread that runs an event loop never waits."""
    max_lost_traces: Annotated[int, bounded(0, 10_000_000, "traces")] = 10_000
    """Traces that lost items are named to the workers one by one up to this number; beyond it every partition is warned."""
    batch_items: Annotated[int, bounded(1, 1_000_000, "items")] = 1_000
    """Most items of a Record."""
    batch_bytes: Annotated[int, bounded(1, 1 << 30)] = 256 << 10
    """Most bytes of a Record's items; never more than the topic takes."""
    linger_ms: Annotated[int, bounded(0, 60_000)] = 50
    """How long an item waits for others of its partition."""
    slice_us: Annotated[int, bounded(1, 1_000_000)] = 300
    """Longest stretch of Python between two yields, µs: the sender shares the interpreter with the agent."""
    send_timeout_s: Annotated[float, bounded(0.001, 3_600)] = 30.0
    """An attempt that takes longer counts as one of unknown outcome and is tried again on a new producer.
    Where an attempt has failed, the next is given a tenth of it while other partitions wait, the one after that two tenths."""
    delivery_timeout_s: Annotated[float, bounded(0.001, 604_800)] = 120.0
    """A batch that is this old is given up: dropped as `too_old`, or `unknown` if an attempt's outcome was."""
    backoff_min_ms: Annotated[int, bounded(1, HOUR)] = 50
    backoff_max_ms: Annotated[int, bounded(1, HOUR)] = 5_000
    """Pause after a failed attempt: doubles from min to max, with jitter."""
    heartbeat_ms: Annotated[int, bounded(0, HOUR)] = 15_000
    """How often workers are told that open roots and AGENT spans are alive; 0: never, and then a trace whose process dies is
    only noticed after `assembly.idle_without_heartbeats_ms`. Well below `assembly.lost_ms` of the workers."""
    shutdown_timeout_s: Annotated[float, bounded(0, 3_600)] = 2.0
    """How long an exit waits for the items that are still queued."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of a setting and of what is wrong with it beyond its type."""
        if self.backoff_max_ms < self.backoff_min_ms:
            yield (
                "backoff_max_ms",
                f"expected at least backoff_min_ms ({self.backoff_min_ms}), got {self.backoff_max_ms}",
            )
