"""One undecided trace: its spans as bytes, and just enough counting to know in O(1) a span whether all of them are there.

The rules are those of docs/wire.md: a span says how many local children it started and how many contexts it handed to other
processes, a child says whether it was counted or which of those contexts it comes from. Only *ended* spans take part in the
counts: while a span is open the trace is not whole anyway, so an open report never has to be taken back when the end comes.

What `TraceBuffer.add` does with each span item stands there in one loop; here is what is rare, and the questions.
"""

from typing import Any, Final

import msgspec

from prela_stream.codec.spans import decode_resource
from prela_stream.errors import CodecError
from prela_stream.model.decision import Trigger
from prela_stream.model.span import COUNTED, PENDING, REMOTE_PARENT, ItemHead, ItemKind

COMPLETE, REMOTE_WAIT, ROOT_WAIT, IDLE, LOST, SUSPENDED, IDLE_WITHOUT_HEARTBEATS = range(7)
"""What a trace waits for. Small integers, because this is asked once a trace and Record."""

TRIGGERS: Final = (
    Trigger.COMPLETE,
    Trigger.REMOTE_WAIT,
    Trigger.ROOT_WAIT,
    Trigger.IDLE,
    Trigger.LOST,
    Trigger.MAX_AGE,
    Trigger.IDLE,
)
"""The trigger that ends each wait."""

FRESH: Final = 1
"""Bit of `OpenTrace.report`: the item is the first one of its span (other than START), not a duplicate."""
ENDED: Final = 2
"""Bit of `OpenTrace.report`: the span has ended with this item, which has to be counted now."""

_started, _pending, _ended = range(3)
_item_head: Final = msgspec.msgpack.Decoder(ItemHead)
_NOTHING: Final[dict[Any, Any]] = {}
"""Stands in for every dict that a trace does not need yet; most traces never need most of them. Never written to."""


class Process:
    """A process that open traces have items from, known by its resource bytes, of which it holds the one copy."""

    __slots__ = ("heartbeats", "lost_offset", "resource", "traces")

    def __init__(self, resource: bytes) -> None:
        self.resource = resource
        try:
            self.heartbeats = decode_resource(resource).heartbeat_ms > 0
        except CodecError:
            self.heartbeats = False  # a foreign producer's resource may be anything; its spans count all the same
        self.lost_offset = -1
        """Where it last said that it dropped spans of traces it cannot name."""
        self.traces = 0
        """Open traces that have items from it."""


class OpenTrace:
    """The state of one undecided trace. Offsets and stream times are those of the Records that its items came in."""

    __slots__ = (
        "_answers", "_foreign", "_injects", "_others", "_unanswered", "balance", "beating", "bytes", "clock_before",
        "closed", "first_index", "first_ms", "first_offset", "heard", "heartbeats", "last_ms", "lost", "missing", "open",
        "process", "pushed", "roots", "spans", "starts", "suspended", "touched", "trace_id", "unknown", "watched",
    )  # fmt: skip

    def __init__(
        self, trace_id: bytes, process: Process, *, offset: int, index: int, now_ms: int, clock_before: int
    ) -> None:
        self.trace_id = trace_id
        self.first_offset = offset
        self.first_index = index
        """Place of the first item in its Record."""
        self.first_ms = self.last_ms = now_ms
        self.clock_before = clock_before
        """Stream time just before the first Record."""
        self.heard = 0
        """When the last item came, on the clock that passes over silence."""
        self.touched = -1
        """Offset of the last Record with items of this trace."""
        self.pushed = 1 << 63
        """The deadline under which it stands in the queue; never later than its real one."""
        self.watched = False
        """Whether it stands in the queue of those that wait for heartbeats."""
        self.closed = False

        self.spans: dict[bytes, bytes] = {}
        """The item that speaks for each span, in order of arrival."""
        self.bytes = 0
        self.starts = 0
        """Spans of which nothing but a START has come."""
        self.missing: dict[bytes, int] = _NOTHING
        """Parents that are named and have not come: by how many spans."""
        self.balance: dict[bytes, int] = _NOTHING
        """Counted children received minus `child_count`, where it is not zero."""
        self.roots = 0
        """Ended roots and local roots."""
        self.unknown = 0
        """Ended spans without a `child_count`."""
        self.open: dict[bytes, int] = _NOTHING
        """Spans without an end: twice what came of them, plus one if their process sends heartbeats."""
        self.beating = 0
        """How many of those have a process that sends heartbeats."""
        self.suspended: dict[bytes, None] = _NOTHING
        self.lost = False
        """Some LOST item names this trace."""
        self._injects: dict[bytes, int] = _NOTHING
        self._answers: dict[bytes, dict[int, int]] = _NOTHING
        self._unanswered = 0

        self.process = process
        """The process of the first item."""
        self.heartbeats = process.heartbeats
        """Whether any process of this trace sends heartbeats."""
        self._others: dict[Process, int] = _NOTHING
        self._foreign: dict[bytes, Process] = _NOTHING
        """The process of each span that is not from the first one."""
        process.traces += 1

    def __lt__(self, other: "OpenTrace") -> bool:
        """Queues compare traces only where the same one stands twice under one deadline."""
        return False

    def meet(self, process: Process, offset: int) -> None:
        """Note that this trace has an item from `process`, which is not its first, in the Record at `offset`."""
        if process not in self._others:
            if self._others is _NOTHING:
                self._others = {}
            self._others[process] = offset
            process.traces += 1
            self.heartbeats = self.heartbeats or process.heartbeats

    def processes(self) -> list[Process]:
        """Every process of this trace, each once."""
        return [self.process, *self._others]

    def report(self, head: ItemHead, raw: bytes, process: Process) -> int:
        """Take in a START, a report of an open span, or an item of a span that is known already.

        Returns:
            FRESH | ENDED; without FRESH one span item has become a duplicate, this one or the one that it replaces.
        """
        span_id: bytes = head.span_id  # type: ignore[assignment] # the codec lets no such item pass without an id
        level = _started if head.kind == ItemKind.START else _pending if head.status == PENDING else _ended
        old = self.spans.get(span_id)
        standing = self.open.get(span_id)
        fresh = level > _started
        if old is None:
            self.missing.pop(span_id, None)
            self.starts += not fresh
        else:
            before = _ended if standing is None else standing >> 1
            if level < before:
                return 0
            if level == before:
                earlier = _item_head.decode(old)
                if head.revision <= earlier.revision:
                    return 0
                if level == _ended:
                    self._take_back(earlier)
            if standing is not None:
                del self.open[span_id]
                self.beating -= standing & 1
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
        """Note which process the item that speaks for a span came from."""
        if process is self.process:
            self._foreign.pop(span_id, None)
            return
        if self._foreign is _NOTHING:
            self._foreign = {}
        self._foreign[span_id] = process

    def wait(self, kind: int, span_id: bytes) -> None:
        """A span waits for something outside (SUSPEND) or not any more (RESUME). One that has ended waits for nothing."""
        if kind == ItemKind.RESUME:
            self.suspended.pop(span_id, None)
        elif kind == ItemKind.SUSPEND and (span_id not in self.spans or span_id in self.open):
            if self.suspended is _NOTHING:
                self.suspended = {}
            self.suspended[span_id] = None

    def name_missing(self, parent_id: bytes) -> None:
        """An ended span names a parent that has not come."""
        if self.missing is _NOTHING:
            self.missing = {}
        self.missing[parent_id] = self.missing.get(parent_id, 0) + 1

    def answer(self, parent_id: bytes, ordinal: int, change: int = 1) -> None:
        """One ended span more (or less) comes from inject `ordinal` of `parent_id`."""
        if self._answers is _NOTHING:
            self._answers = {}
        answers = self._answers.setdefault(parent_id, {})
        before = answers.get(ordinal, 0)
        answers[ordinal] = before + change
        if (before == 0 or before + change == 0) and 0 <= ordinal < self._injects.get(parent_id, 0):
            self._unanswered -= change

    def expect(self, span_id: bytes, injects: int) -> None:
        """An ended span has handed its context to others `injects` times."""
        if injects > 0:
            if self._injects is _NOTHING:
                self._injects = {}
            self._injects[span_id] = injects
            self._unanswered += injects - self._answered(span_id, injects)

    def _answered(self, span_id: bytes, injects: int) -> int:
        answers = self._answers.get(span_id, _NOTHING)
        return sum(1 for ordinal, count in answers.items() if count and 0 <= ordinal < injects)

    def _take_back(self, head: ItemHead) -> None:
        """Undo what an ended span was counted as, because a higher revision of it came."""
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
        """Counted children came (or went: `change` < 0), or a `child_count` was taken back (came)."""
        if self.balance is _NOTHING:
            self.balance = {}
        surplus = self.balance.pop(span_id, 0) + change
        if surplus:
            self.balance[span_id] = surplus

    def room(self) -> int:
        """How much of `max_spans` it takes: a suspended span counts once more, for it need not have come."""
        return len(self.spans) + len(self.suspended)

    def is_lost(self) -> bool:
        """Whether spans of this trace were dropped by a process: it can never be complete."""
        return (
            self.lost
            or self.process.lost_offset >= self.first_offset
            or any(other.lost_offset >= met for other, met in self._others.items())
        )

    def is_complete(self) -> bool:
        """Whether every counted span and an answer to every inject is there."""
        return self.awaits() == COMPLETE

    def awaits(self) -> int:
        """What this trace waits for, by its present state."""
        if self.suspended:
            return SUSPENDED
        if self.open:
            if self.beating:
                return LOST
        elif self.roots and not (self.missing or self.balance or self.unknown or self.is_lost()):
            return REMOTE_WAIT if self._unanswered else COMPLETE
        if self.roots:
            return ROOT_WAIT
        return IDLE if self.heartbeats else IDLE_WITHOUT_HEARTBEATS

    def resources(self) -> list[bytes]:
        """The resource bytes of each span, in the order of `spans`; those of one process are one object."""
        if not self._foreign:
            return [self.process.resource] * len(self.spans)
        return [self._foreign.get(span_id, self.process).resource for span_id in self.spans]

    def release(self) -> None:
        """Let go of everything large: a queue may still name this trace for a while."""
        self.spans = self.missing = self.balance = self.open = self.suspended = _NOTHING
        self._answers = self._injects = self._others = self._foreign = _NOTHING
