"""The phases of an assigned partition."""

import enum


class Phase(enum.Enum):
    """What an assigned partition does. `assignment.AssignedPartition` lists the transitions."""

    TAKING_OVER = "taking over"
    """Its task opens the writer and restores the state. There is no state yet."""
    RESTORED = "restored"
    """The state is restored. The consumer still has to seek to its position."""
    RUNNING = "running"
    """Records are applied."""
    FULL = "full"
    """As RUNNING, but the consumer is paused until the pending output is committed."""
    PARKED = "parked"
    """Revoked by a rebalance that is not complete yet. What is decided is committed, and no record is applied."""
    ENDED = "ended"
    """The partition was given up or stopped."""


APPLYING = frozenset({Phase.RUNNING, Phase.FULL})
COMMITTING = APPLYING | {Phase.PARKED}
