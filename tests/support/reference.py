"""The reference implementation of assembly: slow, sequential, and without any state except the items.

`decide` reads a whole log and returns which trace is decided when and with which items, and which items are late. At every record
it computes each open trace from all of its items. The fast implementation has to agree with it on every log.
"""

from collections.abc import Iterable, Sequence

import msgspec

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import ItemBatch, decode_resource
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import BY_PROCESSOR, COUNTED, NOT_COUNTED, PENDING, REMOTE_PARENT, ItemHead, ItemKind


class ReadRecord(msgspec.Struct, frozen=True):
    """A decoded record of a partition."""

    offset: int
    timestamp_ms: int
    batch: ItemBatch


class Arrival(msgspec.Struct, frozen=True):
    """An item with its offset and index, stream time, and the clock that skips silence."""

    offset: int
    index: int
    clock: int
    heard: int
    resource: bytes
    head: ItemHead
    raw: bytes


class DecidedTrace(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a decision that must be the same for every reader of a log."""

    trace_id: bytes
    trigger: Trigger
    complete: bool
    basis: Basis
    due_ms: int
    first_offset: int
    cut_offset: int
    lost: bool
    raws: tuple[bytes, ...]
    """The item with the highest revision of each span, in order of the spans' first items."""
    resources: tuple[bytes, ...]
    span_ids: frozenset[bytes | None]


class Outcome(msgspec.Struct, frozen=True):
    """All decisions in order, and the late span items as (offset, index in the record)."""

    decided: list[DecidedTrace]
    late: list[tuple[int, int]]


def current_items(arrivals: Iterable[Arrival]) -> dict[bytes | None, Arrival]:
    """The current item of each span: an end precedes the report of an open span, which precedes a START; then the revision."""
    best: dict[bytes | None, Arrival] = {}
    for arrival in arrivals:
        if arrival.head.kind in {ItemKind.START, ItemKind.SPAN}:
            known = best.get(arrival.head.span_id)
            if known is None or _rank(arrival.head) > _rank(known.head):
                best[arrival.head.span_id] = arrival
    return best


def _rank(head: ItemHead) -> tuple[int, int]:
    level = 0 if head.kind == ItemKind.START else 1 if head.status == PENDING else 2
    return level, head.revision


def has_ended(head: ItemHead) -> bool:
    """Whether this item is the end of its span."""
    return head.kind == ItemKind.SPAN and head.status != PENDING


def is_root(head: ItemHead) -> bool:
    """A root, or a local root: the process of its remote parent does not count injects."""
    return head.parent_span_id is None or bool(head.flags & REMOTE_PARENT and head.inject_ordinal is None)


def suspended(arrivals: Iterable[Arrival]) -> set[bytes | None]:
    """Suspended spans."""
    waiting: set[bytes | None] = set()
    ended: set[bytes | None] = set()
    for arrival in arrivals:
        head = arrival.head
        if has_ended(head):
            ended.add(head.span_id)
            waiting.discard(head.span_id)
        elif head.kind == ItemKind.SUSPEND and head.span_id not in ended:
            waiting.add(head.span_id)
        elif head.kind == ItemKind.RESUME:
            waiting.discard(head.span_id)
    return waiting


class OpenTrace:
    """The state of one trace, computed from its items."""

    def __init__(self, arrivals: Sequence[Arrival], lost_by: Iterable[tuple[int, bytes]]) -> None:
        self.arrivals = arrivals
        self.first = arrivals[0]
        self.last = arrivals[-1]
        self.current = current_items(arrivals)
        self.suspended = suspended(arrivals)
        self.lost = any(arrival.head.kind == ItemKind.LOST for arrival in arrivals) or any(
            arrival.resource == resource and arrival.offset <= offset
            for arrival in arrivals
            for offset, resource in lost_by
        )
        self.ended = {span_id: a.head for span_id, a in self.current.items() if has_ended(a.head)}
        self.open = {span_id: a for span_id, a in self.current.items() if not has_ended(a.head)}
        self.root_ended = any(is_root(head) for head in self.ended.values())

    def _spans_are_whole(self) -> bool:
        if self.lost or self.open or self.suspended or not self.root_ended:
            return False
        for head in self.ended.values():
            if not is_root(head) and head.parent_span_id not in self.ended:
                return False
            counted = sum(
                1
                for child in self.ended.values()
                if child.parent_span_id == head.span_id and child.flags & COUNTED and not child.flags & REMOTE_PARENT
            )
            if head.child_count != counted:
                return False
        return True

    def _injects_are_answered(self) -> bool:
        answered = {
            (head.parent_span_id, head.inject_ordinal)
            for head in self.ended.values()
            if head.flags & REMOTE_PARENT and not is_root(head)
        }
        return all(
            (head.span_id, ordinal) in answered
            for head in self.ended.values()
            for ordinal in range(head.inject_count or 0)
        )

    @property
    def complete(self) -> bool:
        """Whether every counted span and an answer to every inject was received."""
        return self._spans_are_whole() and self._injects_are_answered()

    @property
    def is_foreign(self) -> bool:
        """Whether an item came from another tracer."""
        return any(arrival.head.flags & (BY_PROCESSOR | NOT_COUNTED) for arrival in self.arrivals)

    @property
    def basis(self) -> Basis:
        """The weakest evidence of any span."""
        if any(head.child_count is None for head in self.ended.values()):
            return Basis.QUIET_TIME
        if self.open and any(arrival.head.flags & NOT_COUNTED for arrival in self.arrivals):
            return Basis.QUIET_TIME
        by_processor = any(arrival.head.flags & BY_PROCESSOR for arrival in self.arrivals)
        return Basis.COUNTING_PROCESSOR if by_processor else Basis.COUNTS

    def due(self, options: AssemblyOptions, before: tuple[int, int], now: tuple[int, int]) -> tuple[int, Trigger]:
        """The deadline and its trigger as known now. Clocks are (stream time, time without silence)."""
        oldest = self.first.clock + options.max_age_ms, Trigger.MAX_AGE
        last = self.last.clock
        if self.suspended:
            return oldest
        if any(_beats(arrival.resource) for arrival in self.open.values()):
            heard = self.last.heard + options.lost_ms
            if heard > now[1]:
                return oldest
            own = before[0] + heard - before[1], Trigger.LOST
        elif self.complete:
            own = last + options.settle_ms, Trigger.COMPLETE
        elif self._spans_are_whole():
            own = last + options.remote_wait_ms, Trigger.REMOTE_WAIT
        elif self.root_ended:
            root_wait = options.otlp_root_wait_ms if self.is_foreign else options.root_wait_ms
            own = last + max(root_wait, options.remote_wait_ms, options.settle_ms), Trigger.ROOT_WAIT
        elif self.is_foreign or any(_beats(arrival.resource) for arrival in self.arrivals):
            own = last + options.idle_ms, Trigger.IDLE
        else:
            own = last + options.idle_without_heartbeats_ms, Trigger.IDLE
        return own if own[0] <= oldest[0] else oldest

    def over(self, options: AssemblyOptions) -> Trigger | None:
        """The limit that the trace exceeds, or None."""
        if len(self.current) + len(self.suspended) > options.max_spans:
            return Trigger.MAX_SPANS
        size = sum(len(arrival.raw) for arrival in self.current.values())
        return Trigger.MAX_BYTES if size > options.max_bytes else None

    def decided(self, trigger: Trigger, due_ms: int, cut: int) -> DecidedTrace:
        """The decision if it is made now."""
        return DecidedTrace(
            trace_id=self.first.head.trace_id or b"",
            trigger=trigger,
            complete=self.complete,
            basis=self.basis,
            due_ms=due_ms,
            first_offset=self.first.offset,
            cut_offset=cut,
            lost=self.lost,
            raws=tuple(arrival.raw for arrival in self.current.values()),
            resources=tuple(arrival.resource for arrival in self.current.values()),
            span_ids=frozenset(self.current),
        )


def _beats(resource: bytes) -> bool:
    return decode_resource(resource).heartbeat_ms > 0


def with_stream_time(log: Iterable[ReadRecord], max_jump_ms: int) -> list[ReadRecord]:
    """The records at the stream time at which they are applied. The last one is missing if its time needs confirmation."""
    records = list(log)
    found: list[ReadRecord] = []
    now = shift = 0
    for index, record in enumerate(records):
        following = records[index + 1] if index + 1 < len(records) else None
        proposals = [
            one.timestamp_ms if one.timestamp_ms >= now else max(now, one.timestamp_ms + shift)
            for one in (record, following)
            if one is not None
        ]
        if proposals[0] - now > max_jump_ms:
            if following is None:
                break
            if proposals[1] < proposals[0]:  # the next record does not confirm it
                now = proposals[1]
                found.append(msgspec.structs.replace(record, timestamp_ms=now))
                continue
        if record.timestamp_ms >= now:
            shift = 0
        elif now - record.timestamp_ms - shift > max_jump_ms:
            shift = now - record.timestamp_ms  # the clock of the log was set back
        now = proposals[0]
        found.append(msgspec.structs.replace(record, timestamp_ms=now))
    return found


def decide(log: Iterable[ReadRecord], options: AssemblyOptions) -> Outcome:
    """Every decision on `log`, and every late item."""
    reader = _Reader(options)
    for record in with_stream_time(log, options.max_jump_ms):
        reader.decide_due_traces(record)
        reader.forget_old_decisions()
        reader.add(record)
        reader.decide_large_traces(record)
    return Outcome(reader.decided, reader.late)


class _Reader:
    def __init__(self, options: AssemblyOptions) -> None:
        self.options = options
        self.decided: list[DecidedTrace] = []
        self.late: list[tuple[int, int]] = []
        self.arrivals: dict[bytes, list[Arrival]] = {}
        """The items of each open trace, in order of their first items."""
        self.live: dict[bytes, int] = {}
        """When each trace was decided whose decision is live."""
        self.lost_by: list[tuple[int, bytes]] = []
        """Offset and process of each LOST item without a trace id."""
        self.clock = self.heard = 0

    def decide_due_traces(self, record: ReadRecord) -> None:
        before = self.clock, self.heard
        if record.timestamp_ms > self.clock:
            self.heard += min(record.timestamp_ms - self.clock, self.options.silence_ms)
            self.clock = record.timestamp_ms
        due = []
        for trace_id, items in self.arrivals.items():
            trace = OpenTrace(items, self.lost_by)
            deadline, trigger = trace.due(self.options, before, (self.clock, self.heard))
            if deadline <= self.clock:
                due.append((deadline, trace.first.offset, trace.first.index, trace_id, trigger))
        for deadline, _, _, trace_id, trigger in sorted(due):
            self.decide(trace_id, trigger, deadline, record.offset)

    def forget_old_decisions(self) -> None:
        window = self.options.late_window_ms
        self.live = {trace_id: at for trace_id, at in self.live.items() if at + window > self.clock}

    def add(self, record: ReadRecord) -> None:
        batch = record.batch
        for index, head in enumerate(batch.heads):
            if head.kind == ItemKind.LOST and head.trace_id is None:
                self.lost_by.append((record.offset, batch.resource))
            elif head.kind == ItemKind.TICK or head.trace_id is None:
                continue
            elif head.trace_id not in self.live:
                arrival = Arrival(
                    record.offset, batch.indexes[index], self.clock, self.heard, batch.resource, head, batch.raws[index]
                )
                self.arrivals.setdefault(head.trace_id, []).append(arrival)
            elif head.kind == ItemKind.SPAN:
                self.late.append((record.offset, index))

    def decide_large_traces(self, record: ReadRecord) -> None:
        for trace_id, items in list(self.arrivals.items()):
            limit = OpenTrace(items, self.lost_by).over(self.options)
            if limit is not None:
                self.decide(trace_id, limit, self.clock, record.offset + 1)

    def decide(self, trace_id: bytes, trigger: Trigger, due_ms: int, cut: int) -> None:
        trace = OpenTrace(self.arrivals.pop(trace_id), self.lost_by)
        if trace.current:
            self.decided.append(trace.decided(trigger, due_ms, cut))
            self.live[trace_id] = due_ms
