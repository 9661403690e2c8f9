"""How long assembly waits, and how much it holds. All times are stream time: the log's clock, not the worker's."""

import msgspec


class AssemblyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of assembly. The waits are counted from the trace's last item."""

    settle_ms: int = 500
    """Trigger `complete`."""
    remote_wait_ms: int = 2_000
    """Trigger `remote_wait`."""
    root_wait_ms: int = 10_000
    """Trigger `root_wait`. Taken as no less than `settle_ms` and `remote_wait_ms`: what is not whole never goes first."""
    idle_ms: int = 60_000
    """Trigger `idle` where the process sends heartbeats."""
    idle_without_heartbeats_ms: int = 900_000
    """Trigger `idle` where it sends none."""
    lost_ms: int = 90_000
    """Trigger `lost`: so long without a heartbeat, or any other item of the trace, while the partition went on."""
    silence_ms: int = 30_000
    """A longer gap in the log counts as this much toward `lost`: while nobody could write, no heartbeat is missed."""
    max_age_ms: int = 86_400_000
    """Trigger `max_age`, counted from the first item."""
    max_spans: int = 100_000
    """Trigger `max_spans`."""
    max_bytes: int = 32 << 20
    """Trigger `max_bytes`: a trace's item bytes."""
    late_window_ms: int = 1_800_000
    """For how long after a decision its trace's late spans follow it. For as long again the trace id is still known as
    decided before, so that a second decision is given no weight."""
