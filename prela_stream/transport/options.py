"""Settings of the transports and of the topics. Imports nothing heavy, so that configuration costs nothing."""

from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
CleanupPolicy = Literal["delete", "compact"]


class TopicOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names and sizes of the topics of one prefix. `partitions` is fixed for a prefix: to grow, drain into a new one."""

    prefix: str = "prela"
    partitions: Positive = 4
    """Partitions of `spans`, `state` and `decisions`."""
    sampled_partitions: Positive = 1
    retention_hours: Annotated[float, msgspec.Meta(gt=0.0)] = 72.0
    max_record_bytes: Annotated[int, msgspec.Meta(ge=10_000)] = 1_000_000
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
    session_timeout_ms: Annotated[int, msgspec.Meta(ge=100)] = 6_000
    """A group member that was not heard of for so long loses its partitions."""
    poll_interval_ms: Positive = 20
    """How often a waiting consumer looks for new Records."""
    busy_timeout_ms: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    """How long a write waits for another process's write."""
    synchronous: Literal["full", "normal"] = "full"
    """`full`: an acknowledged Record survives a power cut. `normal`: it survives a crash of any process."""
