"""Settings of the SDK's delivery. Imports nothing heavy, so that configuration costs nothing."""

import msgspec

from prela_stream.delivery.queue import Overflow
from prela_stream.errors import ConfigurationError


class PipelineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent's items are queued, batched and sent. Raises ConfigurationError for values that cannot work."""

    max_queue_items: int = 50_000
    """Most items held at once, from `record` until they are settled."""
    max_queue_bytes: int = 64 << 20
    """Most bytes of items held at once."""
    overflow: Overflow = "drop_newest"
    """What happens to an item that finds no room; see `batching.BoundedQueue`."""
    block_timeout_ms: int = 1_000
    """How long `block` waits for room. A thread that runs an event loop never waits."""
    max_lost_traces: int = 10_000
    """Traces that lost items are named to the workers one by one up to this number; beyond it every partition is warned."""
    batch_items: int = 1_000
    """Most items of a Record."""
    batch_bytes: int = 256 << 10
    """Most bytes of a Record's items; never more than the topic takes."""
    linger_ms: int = 50
    """How long an item waits for others of its partition."""
    slice_us: int = 300
    """Longest stretch of Python between two yields, µs: the sender shares the interpreter with the agent."""
    send_timeout_s: float = 30.0
    """An attempt that takes longer counts as one of unknown outcome and is tried again on a new producer.
    Where an attempt has failed, the next is given a tenth of it while other partitions wait, the one after that two tenths."""
    delivery_timeout_s: float = 120.0
    """A batch that is this old is given up: dropped as `too_old`, or `unknown` if an attempt's outcome was."""
    backoff_min_ms: int = 50
    backoff_max_ms: int = 5_000
    """Pause after a failed attempt: doubles from min to max, with jitter."""
    heartbeat_ms: int = 15_000
    """How often workers are told that open roots and AGENT spans are alive; 0: never, and then a trace whose process dies is
    only noticed after `assembly.idle_without_heartbeats_ms`. Well below `assembly.lost_ms` of the workers."""
    shutdown_timeout_s: float = 2.0
    """How long an exit waits for the items that are still queued."""

    def __post_init__(self) -> None:
        for name in ("max_queue_items", "max_queue_bytes", "batch_items", "batch_bytes", "slice_us", "backoff_min_ms"):
            _check(name, getattr(self, name), at_least=1)
        for name in ("block_timeout_ms", "max_lost_traces", "linger_ms", "shutdown_timeout_s", "heartbeat_ms"):
            _check(name, getattr(self, name), at_least=0)
        for name in ("send_timeout_s", "delivery_timeout_s"):
            _check(name, getattr(self, name), at_least=0.001)
        _check("backoff_max_ms", self.backoff_max_ms, at_least=self.backoff_min_ms)


def _check(name: str, value: float, *, at_least: float) -> None:
    if not value >= at_least:  # written so that NaN fails
        msg = f"pipeline option {name} must be at least {at_least}, got {value}"
        raise ConfigurationError(msg)
