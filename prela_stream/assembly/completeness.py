"""One undecided trace: its spans as bytes, and the counts that show in O(1) per span whether the trace is complete.

docs/wire.md has the rules: a span carries the number of its local children and of its injects; a child carries whether it was
counted, or the inject that it came from. Only *ended* spans are counted. A trace with an open span is not complete anyway, so
the report of an open span never has to be subtracted when the span ends.

`TraceBuffer.add` contains the common case for a span item in its loop. This module has the rare cases and the state.
"""

from typing import Any, Final

import msgspec

from prela_stream.codec.spans import decode_resource
from prela_stream.errors import CodecError
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import BY_PROCESSOR, COUNTED, NOT_COUNTED, PENDING, REMOTE_PARENT, ItemHead, ItemKind

COMPLETE, REMOTE_WAIT, ROOT_WAIT, IDLE, LOST, SUSPENDED, IDLE_WITHOUT_HEARTBEATS, OTLP_ROOT_WAIT = range(8)
"""What a trace waits for. Small integers, because this is computed once per trace and record."""

TRIGGERS: Final = (
    Trigger.COMPLETE,
    Trigger.REMOTE_WAIT,
    Trigger.ROOT_WAIT,
    Trigger.IDLE,
    Trigger.LOST,
    Trigger.MAX_AGE,
    Trigger.IDLE,
    Trigger.ROOT_WAIT,
)
"""The trigger at the end of each wait."""

FRESH: Final = 1
"""Bit of `OpenTrace.report`: the item is the first of its span (other than START), so it is not a duplicate."""
ENDED: Final = 2
"""Bit of `OpenTrace.report`: the span ended with this item, and has to be counted now."""

_started, _pending, _ended = range(3)
_item_head: Final = msgspec.msgpack.Decoder(ItemHead)
_NOTHING: Final[dict[Any, Any]] = {}
"""The value of every dict that a trace does not need yet; most traces need few of them. It is never written to."""


class Process:
    """A process with items in open traces, identified by its resource bytes, of which it holds the only copy."""

    __slots__ = ("heartbeats", "lost_offset", "resource", "traces")

    def __init__(self, resource: bytes) -> None:
        self.resource = resource
        try:
            self.heartbeats = decode_resource(resource).heartbeat_ms > 0
        except CodecError:
            self.heartbeats = False  # a foreign producer's resource may be anything; its spans are still counted
        self.lost_offset = -1
        """Offset of its last LOST item without a trace id."""
        self.traces = 0
        """Number of open traces with items from it."""


class OpenTrace:
    """The state of one undecided trace. Offsets and stream times are those of the records with its items."""

    __slots__ = (
        "_answers", "_foreign", "_injects", "_others", "_unanswered", "balance", "beating", "bytes", "clock_before",
        "closed", "first_index", "first_ms", "first_offset", "heard", "heartbeats", "last_ms", "lost", "missing", "open",
        "process", "pushed", "roots", "sources", "spans", "starts", "suspended", "touched", "trace_id", "unknown", "watched",
    )  # fmt: skip

    def __init__(
        self, trace_id: bytes, process: Process, *, offset: int, index: int, now_ms: int, clock_before: int
    ) -> None:
        self.trace_id = trace_id
        self.first_offset = offset
        self.first_index = index
        """Index of the first item in its record."""
        self.first_ms = self.last_ms = now_ms
        self.clock_before = clock_before
        """Stream time just before its first record."""
        self.heard = 0
        """Time of the last item on the clock that skips silence."""
        self.touched = -1
        """Offset of the last record with items of this trace."""
        self.pushed = 1 << 63
        """The deadline of its queue entry; never later than the real deadline."""
        self.watched = False
        """Whether it is in the queue of traces that wait for heartbeats."""
        self.closed = False

        self.spans: dict[bytes, bytes] = {}
        """The item with the highest revision of each span, in order of arrival."""
        self.bytes = 0
        self.starts = 0
        """Number of spans with only a START item."""
        self.missing: dict[bytes, int] = _NOTHING
        """Missing parents, and the number of spans that name each of them."""
        self.balance: dict[bytes, int] = _NOTHING
        """Received counted children minus `child_count`, if it is not zero."""
        self.roots = 0
        """Ended roots and local roots."""
        self.unknown = 0
        """Ended spans without a `child_count`."""
        self.sources = 0
        """The flags of all foreign items."""
        self.open: dict[bytes, int] = _NOTHING
        """Spans without an end: twice the level of their last item, plus one if their process sends heartbeats."""
        self.beating = 0
        """Number of open spans whose process sends heartbeats."""
        self.suspended: dict[bytes, None] = _NOTHING
        self.lost = False
        """A LOST item names this trace."""
        self._injects: dict[bytes, int] = _NOTHING
        self._answers: dict[bytes, dict[int, int]] = _NOTHING
        self._unanswered = 0

        self.process = process
        """The process of the first item."""
        self.heartbeats = process.heartbeats
        """Whether any process of this trace sends heartbeats."""
        self._others: dict[Process, int] = _NOTHING
        self._foreign: dict[bytes, Process] = _NOTHING
        """The process of each span that is not from the first process."""
        process.traces += 1

    def __lt__(self, other: "OpenTrace") -> bool:
        """Queues compare traces only if one trace has two entries with the same deadline."""
        return False

    def add_process(self, process: Process, offset: int) -> None:
        """Record that this trace has an item from `process`, which is not its first process, in the record at `offset`."""
        if process not in self._others:
            if self._others is _NOTHING:
                self._others = {}
            self._others[process] = offset
            process.traces += 1
            self.heartbeats = self.heartbeats or process.heartbeats

    def processes(self) -> list[Process]:
        """Every process of this trace once."""
        return [self.process, *self._others]

    def report(self, head: ItemHead, raw: bytes, process: Process) -> int:
        """Apply a START, a report of an open span, or another item of a known span.

        Returns:
            FRESH | ENDED. Without FRESH one span item is a duplicate: this one, or the one that it replaces.
        """
        span_id: bytes = head.span_id  # type: ignore[assignment] # the codec rejects such an item without an id
        level = _started if head.kind == ItemKind.START else _pending if head.status == PENDING else _ended
        old = self.spans.get(span_id)
        known = self.open.get(span_id)
        fresh = level > _started
        if old is None:
            self.missing.pop(span_id, None)
            self.starts += not fresh
        else:
            before = _ended if known is None else known >> 1
            if level < before:
                return 0
            if level == before:
                earlier = _item_head.decode(old)
                if head.revision <= earlier.revision:
                    return 0
                if level == _ended:
                    self._uncount(earlier)
            if known is not None:
                del self.open[span_id]
                self.beating -= known & 1
            self.starts -= fresh and before == _started
            fresh = fresh and before == _started
        if level < _ended:
            if self.open is _NOTHING:
                self.open = {}
            self.open[span_id] = 2 * level + process.heartbeats
            self.beating += process.heartbeats
        else:
            self.suspended.pop(span_id, None)
        self.bytes += len(raw) - (0 if old is None else len(old))
        self.spans[span_id] = raw
        self.set_process(span_id, process)
        return (FRESH if fresh else 0) | (ENDED if level == _ended else 0)

    def set_process(self, span_id: bytes, process: Process) -> None:
        """Record the process of a span's current item."""
        if process is self.process:
            self._foreign.pop(span_id, None)
            return
        if self._foreign is _NOTHING:
            self._foreign = {}
        self._foreign[span_id] = process

    def wait(self, kind: int, span_id: bytes) -> None:
        """Apply a SUSPEND or RESUME item. An ended span cannot be suspended."""
        if kind == ItemKind.RESUME:
            self.suspended.pop(span_id, None)
        elif kind == ItemKind.SUSPEND and (span_id not in self.spans or span_id in self.open):
            if self.suspended is _NOTHING:
                self.suspended = {}
            self.suspended[span_id] = None

    def name_missing(self, parent_id: bytes) -> None:
        """Count an ended span whose parent is missing."""
        if self.missing is _NOTHING:
            self.missing = {}
        self.missing[parent_id] = self.missing.get(parent_id, 0) + 1

    def answer(self, parent_id: bytes, ordinal: int, change: int = 1) -> None:
        """Count one more (or less) ended span from inject `ordinal` of `parent_id`."""
        if self._answers is _NOTHING:
            self._answers = {}
        answers = self._answers.setdefault(parent_id, {})
        before = answers.get(ordinal, 0)
        answers[ordinal] = before + change
        if (before == 0 or before + change == 0) and 0 <= ordinal < self._injects.get(parent_id, 0):
            self._unanswered -= change

    def expect(self, span_id: bytes, injects: int) -> None:
        """Expect an answer to each of the `injects` injects of an ended span."""
        if injects > 0:
            if self._injects is _NOTHING:
                self._injects = {}
            self._injects[span_id] = injects
            self._unanswered += injects - self._answered(span_id, injects)

    def _answered(self, span_id: bytes, injects: int) -> int:
        answers = self._answers.get(span_id, _NOTHING)
        return sum(1 for ordinal, count in answers.items() if count and 0 <= ordinal < injects)

    def _uncount(self, head: ItemHead) -> None:
        """Subtract an ended span from the counts, because a higher revision of it arrived."""
        span_id, parent_id = head.span_id, head.parent_span_id
        assert span_id is not None
        remote = head.flags & REMOTE_PARENT
        if parent_id is None or (remote and head.inject_ordinal is None):
            self.roots -= 1
        else:
            named = self.missing.get(parent_id, 0)
            if named == 1:
                del self.missing[parent_id]
            elif named:
                self.missing[parent_id] = named - 1
            if remote:
                assert head.inject_ordinal is not None
                self.answer(parent_id, head.inject_ordinal, -1)
            elif head.flags & COUNTED:
                self.add_to_balance(parent_id, -1)
        if head.child_count is None:
            self.unknown -= 1
        else:
            self.add_to_balance(span_id, head.child_count)
        if span_id in self._injects:
            injects = self._injects.pop(span_id)
            self._unanswered -= injects - self._answered(span_id, injects)

    def add_to_balance(self, span_id: bytes, change: int) -> None:
        """Add `change` to received counted children minus `child_count` of a span."""
        if self.balance is _NOTHING:
            self.balance = {}
        surplus = self.balance.pop(span_id, 0) + change
        if surplus:
            self.balance[span_id] = surplus

    def size(self) -> int:
        """The size that `max_spans` limits. A suspended span counts once more, because its span item may be missing."""
        return len(self.spans) + len(self.suspended)

    def is_lost(self) -> bool:
        """Whether a process dropped spans of this trace, so that it can never be complete."""
        return (
            self.lost
            or self.process.lost_offset >= self.first_offset
            or any(other.lost_offset >= since for other, since in self._others.items())
        )

    def is_complete(self) -> bool:
        """Whether every counted span and an answer to every inject was received."""
        return self.awaits() == COMPLETE

    def awaits(self) -> int:
        """What this trace waits for in its present state."""
        if self.suspended:
            return SUSPENDED
        if self.open:
            if self.beating:
                return LOST
        elif self.roots and not (self.missing or self.balance or self.unknown or self.is_lost()):
            return REMOTE_WAIT if self._unanswered else COMPLETE
        if self.roots:
            return OTLP_ROOT_WAIT if self.sources else ROOT_WAIT
        return IDLE if self.heartbeats or self.sources else IDLE_WITHOUT_HEARTBEATS

    def basis(self) -> Basis:
        """The evidence for `is_complete`."""
        if self.unknown or (self.open and self.sources & NOT_COUNTED):
            return Basis.QUIET_TIME
        return Basis.COUNTING_PROCESSOR if self.sources & BY_PROCESSOR else Basis.COUNTS

    def resources(self) -> list[bytes]:
        """The resource bytes of each span, in the order of `spans`. Spans of one process share one object."""
        if not self._foreign:
            return [self.process.resource] * len(self.spans)
        return [self._foreign.get(span_id, self.process).resource for span_id in self.spans]

    def release(self) -> None:
        """Release everything large, because a queue may still refer to this trace for a while."""
        self.spans = self.missing = self.balance = self.open = self.suspended = _NOTHING
        self._answers = self._injects = self._others = self._foreign = _NOTHING
