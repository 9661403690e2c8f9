"""One undecided trace: its spans as bytes, and the counts that show whether the trace is complete.

docs/wire.md has the rules: a span carries the number of its local children and of its injects; a child carries whether it was
counted, or the inject that it came from. Only *ended* spans are counted. A trace with an open span is not complete anyway, so
the report of an open span never has to be subtracted when the span ends.

Span items are only collected when they arrive. `fold` counts what is new, once, when a deadline is checked. So an item costs the
same in a trace that is checked once as in one that receives items for a day.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from prela_stream.assembly.process import Process
from prela_stream.codec.item_reader import ReadItem
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import (
    BY_PROCESSOR,
    COUNTED,
    FOREIGN,
    NOT_COUNTED,
    PENDING,
    REMOTE_PARENT,
    ItemHead,
    ItemKind,
)
from prela_stream.model.structure import parents_of

COMPLETE, REMOTE_WAIT, ROOT_WAIT, IDLE, LOST, SUSPENDED, IDLE_WITHOUT_HEARTBEATS, OTLP_ROOT_WAIT = range(8)
"""What a trace waits for. The native core has the same numbers."""

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

_STARTED, _OPEN, _ENDED = range(3)
_item_head: Final = msgspec.msgpack.Decoder(ItemHead)
_NOTHING: Final[dict[Any, Any]] = {}
"""The value of every dict that a trace does not need yet; most traces need few of them. It is never written to."""


class OpenTrace:
    """The state of one undecided trace. Offsets and stream times are those of the records with its items."""

    __slots__ = (
        "_answers", "_balance", "_beating", "_foreign", "_injects", "_others", "_roots", "_uncounted", "_unknown",
        "are_read", "bytes", "clock_before", "closed", "first_index", "first_ms", "first_offset", "folded_ms",
        "heads", "heard", "heartbeats", "items", "last_ms", "lost", "new", "new_process", "new_raws", "open", "parents",
        "process", "pushed", "sources", "spans", "starts", "suspended", "touched", "trace_id", "views_from", "watched",
    )  # fmt: skip

    def __init__(  # noqa: PLR0915 - one statement per field
        self, trace_id: bytes, process: Process, *, offset: int, index: int, now_ms: int, clock_before: int
    ) -> None:
        self.trace_id = trace_id
        self.first_offset = offset
        self.first_index = index
        """Index of the first item in its record."""
        self.first_ms = self.last_ms = self.folded_ms = now_ms
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

        self.new: list[ItemHead] = []
        """SPAN items of one process that are not folded yet. They are young, so they are still decoded."""
        self.new_raws: list[bytes] = []
        """Their bytes, or views of their records."""
        self.are_read = True
        """Whether every item that was collected is a `ReadItem`."""
        self.new_process = process
        """The process of `new`."""
        self.bytes = 0
        """Bytes of the items that are held. Those of duplicates count until they are folded."""
        self.spans: dict[bytes, int] = {}
        """The index of each span in `items`."""
        self.items: list[bytes] = []
        """The item with the highest revision of each span, in order of arrival: its bytes, or a view of its record."""
        self.views_from = 0
        """The items before this one are bytes."""
        self.heads: list[ReadItem] | None = None
        """The decoded `items`, if all of them were folded at once."""
        self.parents: tuple[int, ...] = ()
        """The index of the parent of each of `heads`; see `structure.parents_of`."""
        self.starts = 0
        """Number of spans with only a START item."""
        self.open: dict[bytes, int] = _NOTHING
        """Spans without an end: twice the level of their last item, plus one if their process sends heartbeats."""
        self._beating = 0
        """Number of open spans whose process sends heartbeats."""
        self.suspended: dict[bytes, None] = _NOTHING
        self.sources = 0
        """The flags of all foreign items."""
        self.lost = False
        """A LOST item names this trace."""
        self._roots = 0
        """Ended roots and local roots."""
        self._unknown = 0
        """Ended spans without a `child_count`."""
        self._balance: dict[bytes, int] = {}
        """Received counted children minus `child_count`. It is not 0 for a missing parent, which has no `child_count`."""
        self._uncounted: dict[bytes, int] = _NOTHING
        """Number of ended spans that no `child_count` includes, by their parent: it may be missing too."""
        self._injects: dict[bytes, int] = _NOTHING
        self._answers: dict[bytes, dict[int, int]] = _NOTHING

        self.process = process
        """The process of the first item."""
        self.heartbeats = process.heartbeats
        """Whether any process of this trace sends heartbeats."""
        self._others: dict[Process, int] = _NOTHING
        """The other processes, and the offset of the record with the first item of each."""
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

    def fold(self) -> int:
        """Count the collected items.

        Returns:
            How many SPAN items are duplicates: one of these, or one that it replaced.
        """
        heads, raws = self.new, self.new_raws
        if not heads:
            return 0
        self.new, self.new_raws = [], []
        ids: list[bytes] = [head.span_id for head in heads]  # type: ignore[misc] # the codec rejects a span without an id
        known = self.spans
        first = len(known)
        added = dict(zip(ids, range(first, first + len(ids)), strict=True))
        if (
            len(added) < len(heads)
            or (known and not known.keys().isdisjoint(added))
            or PENDING in [h.status for h in heads]
        ):
            return self._fold_one_by_one(heads, raws)
        if known:
            self.heads = None
            known.update(added)
            self.items += raws
        else:
            self.spans, self.items = added, raws
            if self.are_read:
                self.heads = heads  # type: ignore[assignment] # what `are_read` states
                self.parents = parents_of(heads, added)
        if self.new_process is not self.process:
            for span_id in ids:
                self._set_process(span_id, self.new_process)
        for span_id in self.suspended.keys() & added.keys() if self.suspended else ():
            del self.suspended[span_id]
        balance = self._balance
        for head in heads:
            parent_id = head.parent_span_id
            if parent_id and head.flags == COUNTED and head.child_count == 0 and not head.inject_count:
                balance[parent_id] = balance.get(parent_id, 0) + 1  # as `_count`, for most spans
            else:
                self.sources |= head.flags & FOREIGN
                self._count(head, 1)
        return 0

    def age(self) -> None:
        """Hold the folded items as bytes only, because the trace waits on, maybe for hours. A view holds a whole record."""
        self.heads = None
        items = self.items
        for index in range(self.views_from, len(items)):
            items[index] = bytes(items[index])
        self.views_from = len(items)

    def _fold_one_by_one(self, heads: Sequence[ItemHead], raws: Sequence[bytes]) -> int:
        """Fold items some of which are of spans that are known already, or still open."""
        self.heads = None
        process = self.new_process
        duplicates = 0
        for head, view in zip(heads, raws, strict=True):
            raw = bytes(view)
            self.sources |= head.flags & FOREIGN
            span_id: bytes = head.span_id  # type: ignore[assignment] # as above
            if span_id in self.spans or head.status == PENDING:
                is_first, ended = self._report(head, raw, process)
                duplicates += not is_first
                if ended:
                    self._count(head, 1)
                continue
            self._hold(span_id, raw)
            self._set_process(span_id, process)
            self.suspended.pop(span_id, None)
            self._count(head, 1)
        return duplicates

    def control(self, head: ItemHead, raw: bytes, process: Process) -> int:
        """Apply a START, SUSPEND, RESUME or LOST item after all items before it. Returns the duplicates that this found."""
        duplicates = self.fold()
        self.heads = None
        span_id = head.span_id
        if head.kind == ItemKind.LOST:
            self.lost = True
        elif head.kind == ItemKind.START:
            self.bytes += len(raw)
            self._report(head, bytes(raw), process)
        elif head.kind == ItemKind.RESUME and span_id is not None:
            self.suspended.pop(span_id, None)
        elif (
            head.kind == ItemKind.SUSPEND
            and span_id is not None
            and (span_id not in self.spans or span_id in self.open)
        ):
            if self.suspended is _NOTHING:
                self.suspended = {}
            self.suspended[span_id] = None
        return duplicates

    def _report(self, head: ItemHead, raw: bytes, process: Process) -> tuple[bool, bool]:
        """Apply a START, a report of an open span, or another item of a known span.

        Returns:
            Whether it is the first item of its span other than START, and whether the span ended with it and has to be counted.
        """
        span_id: bytes = head.span_id  # type: ignore[assignment] # the codec rejects such an item without an id
        level = _STARTED if head.kind == ItemKind.START else _OPEN if head.status == PENDING else _ENDED
        is_first = level > _STARTED
        place = self.spans.get(span_id)
        if place is None:
            self.starts += not is_first
        else:
            old = self.items[place]
            known = self.open.get(span_id)
            before = _ENDED if known is None else known >> 1
            if level < before or (level == before and not self._replaces(head, old, level)):
                self.bytes -= len(raw)
                return False, False
            if known is not None:
                del self.open[span_id]
                self._beating -= known & 1
            self.starts -= is_first and before == _STARTED
            is_first = is_first and before == _STARTED
            self.bytes -= len(old)
        if level < _ENDED:
            if self.open is _NOTHING:
                self.open = {}
            self.open[span_id] = 2 * level + process.heartbeats
            self._beating += process.heartbeats
        else:
            self.suspended.pop(span_id, None)
        self._hold(span_id, raw)
        self._set_process(span_id, process)
        return is_first, level == _ENDED

    def _hold(self, span_id: bytes, raw: bytes) -> None:
        place = self.spans.setdefault(span_id, len(self.items))
        self.items[place : place + 1] = [raw]

    def _replaces(self, head: ItemHead, old: bytes, level: int) -> bool:
        """Whether an item of the same level has a higher revision than the old one, which then no longer counts."""
        earlier = _item_head.decode(old)
        if head.revision <= earlier.revision:
            return False
        if level == _ENDED:
            self._count(earlier, -1)
        return True

    def _set_process(self, span_id: bytes, process: Process) -> None:
        if process is self.process:
            self._foreign.pop(span_id, None)
            return
        if self._foreign is _NOTHING:
            self._foreign = {}
        self._foreign[span_id] = process

    def _count(self, head: ItemHead, change: int) -> None:
        """Count an ended span; with a change of -1, count it no longer."""
        span_id: bytes = head.span_id  # type: ignore[assignment] # as above
        parent_id = head.parent_span_id
        flags = head.flags
        balance = self._balance
        if parent_id is None or (flags & REMOTE_PARENT and head.inject_ordinal is None):
            self._roots += change
        elif flags & COUNTED and not flags & REMOTE_PARENT:
            balance[parent_id] = balance.get(parent_id, 0) + change
        else:
            self._count_uncounted(head, parent_id, change)
        children = head.child_count
        if children:
            balance[span_id] = balance.get(span_id, 0) - change * children
        elif children is None:
            self._unknown += change
        if head.inject_count:
            if self._injects is _NOTHING:
                self._injects = {}
            self._injects[span_id] = head.inject_count if change > 0 else 0

    def _count_uncounted(self, head: ItemHead, parent_id: bytes, change: int) -> None:
        if self._uncounted is _NOTHING:
            self._uncounted = {}
        self._uncounted[parent_id] = self._uncounted.get(parent_id, 0) + change
        if head.flags & REMOTE_PARENT and head.inject_ordinal is not None:
            if self._answers is _NOTHING:
                self._answers = {}
            answers = self._answers.setdefault(parent_id, {})
            answers[head.inject_ordinal] = answers.get(head.inject_ordinal, 0) + change

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
        """Whether every counted span and an answer to every inject was received. Call `fold` before."""
        return self.awaits() == COMPLETE

    def awaits(self) -> int:
        """What this trace waits for in its present state. Call `fold` before."""
        if self.suspended:
            return SUSPENDED
        if self.open:
            if self._beating:
                return LOST
        elif self._roots and self._is_whole() and not self.is_lost():
            return REMOTE_WAIT if self._injects and self._has_unanswered() else COMPLETE
        if self._roots:
            return OTLP_ROOT_WAIT if self.sources else ROOT_WAIT
        return IDLE if self.heartbeats or self.sources else IDLE_WITHOUT_HEARTBEATS

    def _is_whole(self) -> bool:
        if self._unknown or any(self._balance.values()):
            return False
        return all(parent in self.spans for parent, count in self._uncounted.items() if count)

    def _has_unanswered(self) -> bool:
        for span_id, injects in self._injects.items():
            answers = self._answers.get(span_id, _NOTHING)
            answered = sum(1 for ordinal, count in answers.items() if count and ordinal < injects)
            if answered < injects:
                return True
        return False

    def basis(self) -> Basis:
        """The evidence for `is_complete`."""
        if self._unknown or (self.open and self.sources & NOT_COUNTED):
            return Basis.QUIET_TIME
        return Basis.COUNTING_PROCESSOR if self.sources & BY_PROCESSOR else Basis.COUNTS

    def resources(self) -> list[bytes]:
        """The resource bytes of each span, in the order of `spans`. Spans of one process share one object."""
        if not self._foreign:
            return [self.process.resource] * len(self.spans)
        return [self._foreign.get(span_id, self.process).resource for span_id in self.spans]

    def release(self) -> None:
        """Release everything large, because a queue may still refer to this trace for a while."""
        self.spans = self._balance = self.open = self.suspended = self._uncounted = _NOTHING
        self._answers = self._injects = self._others = self._foreign = _NOTHING
        self.items = []
        self.heads = None
