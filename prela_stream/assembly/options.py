"""How long assembly waits, and how much it holds. All times are stream time: the log's clock, not the worker's."""

from typing import Annotated

import msgspec

from prela_stream.validation import HOUR, bounded


class AssemblyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of assembly. The waits are counted from the trace's last item."""

    settle_ms: Annotated[int, bounded(0, HOUR)] = 500
    """Trigger `complete`."""
    remote_wait_ms: Annotated[int, bounded(0, HOUR)] = 2_000
    """Trigger `remote_wait`."""
    root_wait_ms: Annotated[int, bounded(0, 24 * HOUR)] = 10_000
    """Trigger `root_wait`. Taken as no less than `settle_ms` and `remote_wait_ms`: what is not whole never goes first."""
    idle_ms: Annotated[int, bounded(1, 168 * HOUR)] = 60_000
    """Trigger `idle` where the process sends heartbeats."""
    idle_without_heartbeats_ms: Annotated[int, bounded(1, 168 * HOUR)] = 900_000
    """Trigger `idle` where it sends none."""
    lost_ms: Annotated[int, bounded(1, 168 * HOUR)] = 90_000
    """Trigger `lost`: so long without a heartbeat, or any other item of the trace, while the partition went on."""
    silence_ms: Annotated[int, bounded(1, 168 * HOUR)] = 30_000
    """A longer gap in the log counts as this much toward `lost`: while nobody could write, no heartbeat is missed."""
    max_age_ms: Annotated[int, bounded(1, 720 * HOUR)] = 86_400_000
    """Trigger `max_age`, counted from the first item."""
    max_spans: Annotated[int, bounded(1, 100_000_000, "spans")] = 100_000
    """Trigger `max_spans`."""
    max_bytes: Annotated[int, bounded(1, 1 << 40)] = 32 << 20
    """Trigger `max_bytes`: a trace's item bytes."""
    late_window_ms: Annotated[int, bounded(0, 168 * HOUR)] = 1_800_000
    """For how long after a decision its trace's late spans follow it. For as long again the trace id is still known as
    decided before, so that a second decision is given no weight."""
