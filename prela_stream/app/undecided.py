"""Which traces are in the log and not decided yet: running, suspended, or waiting for the worker. Read from the log itself.

A worker keeps undecided traces in its memory, and another process cannot ask it. The log has the same items: what has items and
no decision is undecided.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import anyio
import msgspec

from prela_stream.app.adapters import group_of, open_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import decode_batch, decode_heads, decode_resource
from prela_stream.errors import CodecError, ConfigurationError
from prela_stream.model.span import ERROR, PENDING, ItemKind, SpanHead
from prela_stream.transport.base import TopicPartition
from prela_stream.validation import absolute

if TYPE_CHECKING:
    from prela_stream.config import Settings
    from prela_stream.transport.base import Consumer, LogRecord, Transport

State = Literal["running", "suspended", "lost", "waiting"]
"""`running`: a span is open and its process alive. `suspended`: it waits for something external. `lost`: a span is open, and its
process sends no heartbeats any more. `waiting`: no span is open, and the worker has not decided yet."""
_HEARTBEATS_MISSED: Final = 3
_POLL_S: Final = 0.2
_LONGEST_S: Final = 30.0


class UndecidedTrace(msgspec.Struct, kw_only=True):
    """A trace without a decision, as far as the log has it."""

    trace_id: str
    name: str = ""
    """Of the root, else of the first span with a name."""
    service: str = ""
    start_ns: int = 0
    """The earliest start of a span; 0 if none is known."""
    spans: int = 0
    """Spans that have ended."""
    open_spans: int = 0
    errors: int = 0
    last_item_ms: int = 0
    """Log-append time of its newest item, ms since the epoch."""
    state: State = "waiting"


class _Open:
    """What is collected of one trace."""

    __slots__ = (
        *(
            "failed",
            "first_ms",
            "heartbeat_ms",
            "last_ms",
            "names",
            "open",
            "service",
            "span_ids",
            "start_ns",
            "suspended",
        ),
    )

    def __init__(self) -> None:
        self.names: dict[bool, str] = {}
        """The name of the root under True, of the first span under False."""
        self.service = ""
        self.start_ns = 0
        self.open: set[bytes] = set()
        self.span_ids: set[bytes] = set()
        self.failed: set[bytes] = set()
        self.suspended: set[bytes] = set()
        self.heartbeat_ms = 0
        self.first_ms = self.last_ms = 0


class Undecided(msgspec.Struct, frozen=True, kw_only=True):
    """The undecided traces of a log."""

    traces: list[UndecidedTrace]
    """The oldest first."""
    complete: bool
    """Whether the log was read to its end. If not, it is too long to be read in the time that a command has."""


async def undecided_traces(settings: Settings) -> Undecided:
    """Traces that have items in the log and no decision. It reads from where the workers would begin again.

    Raises:
        ConfigurationError: There is no log at this path.
        UnknownTopicError: The topics do not exist.
        TransportError: The log cannot be read.
    """
    if settings.transport == "local" and not await anyio.Path(settings.local.path).exists():
        msg = (
            f"there is no log at {absolute(Path(settings.local.path))}: no agent wrote spans there yet; `prela_stream.init()` "
            "logs where an agent writes, and --dir names another folder"
        )
        raise ConfigurationError(msg)
    traces: dict[bytes, _Open] = {}
    decided: set[bytes] = set()
    async with open_transport(settings) as transport:
        reader = _Reader(transport, time.monotonic() + _LONGEST_S)
        group = group_of(settings, settings.worker.group)
        async for record in reader.records(settings.topics.spans, group=group):
            _collect(record, traces)
        if traces:
            first_ms = min(one.first_ms for one in traces.values()) - settings.assembly.late_window_ms
            async for record in reader.records(settings.topics.decisions, since_ms=first_ms):
                decided.update(_decided(record))
    now_ms = time.time_ns() // 1_000_000
    found = [_described(trace_id, one, now_ms) for trace_id, one in traces.items() if trace_id not in decided]
    found.sort(key=lambda one: (one.start_ns or one.last_item_ms * 1_000_000, one.trace_id))
    return Undecided(traces=found, complete=reader.complete)


class _Reader:
    """Reads topics to their present end, for a bounded time."""

    def __init__(self, transport: Transport, deadline: float) -> None:
        self._transport = transport
        self._deadline = deadline
        self.complete = True

    async def records(
        self, topic: str, *, group: str | None = None, since_ms: int | None = None
    ) -> AsyncIterator[LogRecord]:
        """The records from the committed offset of a group, or from a time."""
        async with await self._transport.consumer([topic]) as consumer:
            ends: dict[TopicPartition, int] = {}
            while not ends or not await _is_read(consumer, ends):
                if time.monotonic() > self._deadline:
                    self.complete = False
                    return
                poll = await consumer.poll(timeout=_POLL_S)
                for partition in poll.assigned:
                    ends[partition] = await consumer.end_offset(partition)
                    committed = None if group is None else await self._transport.committed(group, partition)
                    if committed is not None:
                        await consumer.seek(partition, committed.offset)
                    elif since_ms is not None:
                        await consumer.seek(partition, await consumer.offset_at(partition, since_ms))
                    consumer.resume(partition)
                for record in poll.records:
                    if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                        yield record


async def _is_read(consumer: Consumer, ends: dict[TopicPartition, int]) -> bool:
    for partition, end in ends.items():
        if await consumer.position(partition) < end:
            return False
    return True


def _decided(record: LogRecord) -> list[bytes]:
    try:
        return [decision.trace_id for decision in decode_decisions(record.value or b"")]
    except CodecError:
        return []


def _collect(record: LogRecord, traces: dict[bytes, _Open]) -> None:
    try:
        batch = decode_batch(record.value or b"")
        heads = decode_heads(batch.raws)
        resource = decode_resource(batch.resource)
    except CodecError:
        return
    for head in heads:
        if head.trace_id is None:
            continue
        one = traces.setdefault(head.trace_id, _Open())
        one.service = one.service or resource.service_name
        one.heartbeat_ms = max(one.heartbeat_ms, resource.heartbeat_ms)
        one.last_ms = max(one.last_ms, record.timestamp_ms)
        one.first_ms = min(one.first_ms or record.timestamp_ms, record.timestamp_ms)
        if head.span_id is not None:
            _add(one, head, head.span_id)


def _add(one: _Open, head: SpanHead, span_id: bytes) -> None:
    kind = head.kind
    if kind in (ItemKind.SPAN, ItemKind.START) and head.name:
        one.names.setdefault(head.parent_span_id is None, head.name)
    if kind in (ItemKind.SPAN, ItemKind.START) and head.start_ns:
        one.start_ns = min(one.start_ns or head.start_ns, head.start_ns)
    if kind == ItemKind.SPAN and head.status != PENDING:
        one.span_ids.add(span_id)
        one.open.discard(span_id)
        one.suspended.discard(span_id)
        if head.status == ERROR:
            one.failed.add(span_id)
    elif kind in (ItemKind.SPAN, ItemKind.START, ItemKind.HEARTBEAT, ItemKind.SUSPEND, ItemKind.RESUME):
        if span_id not in one.span_ids:
            one.open.add(span_id)
        if kind == ItemKind.SUSPEND:
            one.suspended.add(span_id)
        elif kind == ItemKind.RESUME:
            one.suspended.discard(span_id)


def _described(trace_id: bytes, one: _Open, now_ms: int) -> UndecidedTrace:
    state: State = "waiting"
    if one.suspended:
        state = "suspended"
    elif one.open:
        silent_ms = now_ms - one.last_ms
        state = "lost" if one.heartbeat_ms and silent_ms > _HEARTBEATS_MISSED * one.heartbeat_ms else "running"
    return UndecidedTrace(
        trace_id=trace_id.hex(),
        name=one.names.get(True) or one.names.get(False, ""),
        service=one.service,
        start_ns=one.start_ns,
        spans=len(one.span_ids),
        open_spans=len(one.open),
        errors=len(one.failed),
        last_item_ms=one.last_ms,
        state=state,
    )
