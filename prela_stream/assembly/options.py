"""Waits and limits of assembly. All times are stream time: the clock of the log, not of the worker."""

from typing import Annotated

import msgspec

from prela_stream.validation import HOUR, bounded


class AssemblyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of assembly. Waits count from the last item of the trace."""

    settle_ms: Annotated[int, bounded(0, HOUR)] = 500
    """Trigger `complete`: the wait after every span has arrived."""
    remote_wait_ms: Annotated[int, bounded(0, HOUR)] = 2_000
    """Trigger `remote_wait`: the wait for spans of services that were called and have not answered."""
    root_wait_ms: Annotated[int, bounded(0, 24 * HOUR)] = 10_000
    """Trigger `root_wait`. At least `settle_ms` and `remote_wait_ms`, so that an incomplete trace never waits less."""
    otlp_root_wait_ms: Annotated[int, bounded(0, 24 * HOUR)] = 10_000
    """As `root_wait_ms`, for traces with spans of other tracers. OpenTelemetry's batch processor exports every 5 s by default, so
    this should be well above that."""
    idle_ms: Annotated[int, bounded(1, 168 * HOUR)] = 60_000
    """Trigger `idle` if a process of the trace sends heartbeats, or if spans of it are from another tracer."""
    idle_without_heartbeats_ms: Annotated[int, bounded(1, 168 * HOUR)] = 900_000
    """Trigger `idle` for all other traces."""
    lost_ms: Annotated[int, bounded(1, 168 * HOUR)] = 90_000
    """Trigger `lost`: this long without a heartbeat or another item of the trace, while the partition receives records."""
    silence_ms: Annotated[int, bounded(1, 168 * HOUR)] = 30_000
    """A longer gap in the log counts as this much toward `lost`, because no process could send heartbeats during the gap."""
    max_jump_ms: Annotated[int, bounded(1_000, 168 * HOUR)] = 30_000
    """A record that moves stream time by more than this needs the next record to confirm it, so that one record with a wrong
    log-append time holds nothing up."""
    max_age_ms: Annotated[int, bounded(1, 720 * HOUR)] = 86_400_000
    """Trigger `max_age`, counted from the first item of the trace."""
    max_spans: Annotated[int, bounded(1, 100_000_000, "spans")] = 100_000
    """Trigger `max_spans`: the spans of a trace."""
    max_bytes: Annotated[int, bounded(1, 1 << 40)] = 32 << 20
    """Trigger `max_bytes`: the bytes of the items of a trace."""
    max_decided_bytes: Annotated[int, bounded(64, 1 << 40)] = 768 << 20
    """Most bytes of the remembered decisions of a partition: 64 for each, and at least 128 for that of a kept trace in its late
    window (more if texts in it differ in each trace).
    Above it the oldest are forgotten early. Late spans of such a trace are decided again, `repeated` and with weight 0. A
    takeover also holds each decision that it has read back, until it takes effect in the replay: about 50 bytes."""
    forgotten_bytes: Annotated[int, bounded(1_024, 1 << 34)] = 8 << 20
    """Memory of the set of traces whose decisions were forgotten early, for each partition that needs it. It is approximate: at
    most one in 10,000 other traces is taken for one of them. It holds three million traces."""
    late_window_ms: Annotated[int, bounded(0, 168 * HOUR)] = 1_800_000
    """How long a decision is remembered, so that late spans inherit it. For the same time after that only the trace id is
    remembered, so that a second decision gets weight 0."""
