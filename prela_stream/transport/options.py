"""Settings of the transports and of the topics. Imports nothing heavy, so that configuration costs nothing."""

from typing import Literal

import msgspec

CleanupPolicy = Literal["delete", "compact"]


class TopicOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names and sizes of the topics of one prefix. `partitions` is fixed for a prefix: to grow, drain into a new one."""

    prefix: str = "prela"
    partitions: int = 4
    """Partitions of `spans`, `state` and `decisions`."""
    sampled_partitions: int = 1
    retention_hours: float = 72.0
    max_record_bytes: int = 1_000_000
    """Largest Record value that the topics accept, bytes."""

    @property
    def spans(self) -> str:
        """Topic of the span items."""
        return f"{self.prefix}.spans"

    @property
    def state(self) -> str:
        """Topic of the workers' checkpoints."""
        return f"{self.prefix}.state"

    @property
    def decisions(self) -> str:
        """Topic of the decisions."""
        return f"{self.prefix}.decisions"

    @property
    def sampled(self) -> str:
        """Topic of the kept traces."""
        return f"{self.prefix}.sampled"

    @property
    def dlq(self) -> str:
        """Topic of what could not be read."""
        return f"{self.prefix}.dlq"


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the local transport."""

    path: str = ".prela/log.db"
    """The SQLite file; its folder is made if it is missing."""
    session_timeout_ms: int = 6_000
    """A group member that was not heard of for so long loses its partitions."""
    poll_interval_ms: int = 20
    """How often a waiting consumer looks for new Records."""
    busy_timeout_ms: int = 10_000
    """How long a write waits for another process's write."""
    synchronous: Literal["full", "normal"] = "full"
    """`full`: an acknowledged Record survives a power cut. `normal`: it survives a crash of any process."""
