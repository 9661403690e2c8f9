"""A kept trace as people read it, put together from the Records of `sampled`. Pure.

The pieces of a trace larger than a Record stand in one partition, in order and in one commit, but what other workers wrote
may stand between them. `Pieces` waits for the last one; whoever commits offsets asks it from where on they are still needed.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from prela_stream import telemetry
from prela_stream.codec.sampled import KeptFragment
from prela_stream.codec.spans import decode_resource
from prela_stream.errors import CodecError
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.model.tree import SpanTree
from prela_stream.sinks.spans import at, rank_of, read_span

COMMIT_MS: Final = 900_000
"""No commit takes as long as this, by the log's time: what is not whole by then never will be. Kafka aborts a transaction after
15 minutes at the latest (`transaction.max.timeout.ms`)."""


class KeptTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that was kept, or spans of one that came after its decision."""

    decision: Decision
    """Why it was kept, with which probability, and what is known of it in sum."""
    spans: list[SpanData]
    """One a span, in order of arrival. A span that had not ended at the decision has the status PENDING."""
    late: bool = False
    """These spans came after the decision. The trace itself was an item before this one."""
    unreadable: int = 0
    """Spans that could not be read and are not in `spans`."""

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return self.decision.trace_id.hex()

    @property
    def weight(self) -> float:
        """How many traces, each with spans like these, this one stands for: 1 / probability, 0 if it was decided before.

        Multiply what you sum over spans by it. To count traces, add it up over the items that are not `late`.
        """
        return self.decision.weight

    def tree(self) -> SpanTree[SpanData]:
        """The spans as a tree. That of a late item has only orphans, unless the trace's root came late."""
        return SpanTree(self.spans)


def read_trace(fragments: Sequence[KeptFragment]) -> KeptTrace:
    """One item of the fragments of one trace: at least one, in order. Never raises: what cannot be read is counted."""
    first = fragments[0]
    spans: dict[bytes, SpanData] = {}
    ranks: dict[bytes, int] = {}
    unreadable = 0
    for fragment in fragments:
        resources = [decode_resource(raw) for raw in fragment.resources]
        for index, raw in fragment.items:
            try:
                read = read_span(raw, first.decision.trace_id)
                if read is None:
                    continue
                head, span_id, span = read
                resource = at(resources, index)
            except CodecError:
                unreadable += 1
                continue
            if (rank := rank_of(head)) > ranks.get(span_id, -1):
                ranks[span_id] = rank
                spans[span_id] = msgspec.structs.replace(span, resource=resource)
    if unreadable:
        telemetry.SINK_BAD_ITEMS.add(unreadable)
    return KeptTrace(decision=first.decision, spans=list(spans.values()), late=first.late, unreadable=unreadable)


class _Begun(msgspec.Struct):
    """A trace whose last fragment has not come."""

    offset: int
    timestamp_ms: int
    fragments: list[KeptFragment]


class Pieces:
    """The traces of one partition of `sampled` whose last fragment has not come."""

    def __init__(self) -> None:
        self._begun: dict[bytes, _Begun] = {}
        self.broken = 0
        """How often something was given up because a fragment is not there: retention took it, or it could not be read."""

    def first_offset(self) -> int | None:
        """Offset of the first Record that a trace still needs; None if none is begun."""
        return next((begun.offset for begun in self._begun.values()), None)

    def add(self, fragment: KeptFragment, *, offset: int, timestamp_ms: int) -> list[KeptFragment]:
        """Take the next fragment of the partition in.

        Args:
            fragment: As it was read.
            offset: Of its Record.
            timestamp_ms: The Record's log-append time.

        Returns:
            The fragments of a trace that is whole with this one, or late spans; nothing if there is more to come, or where the
            fragment is there already.
        """
        self._give_up(timestamp_ms)
        if fragment.late:
            return [fragment]
        key = fragment.decision.decision_id
        begun = self._begun.get(key)
        number = 0 if begun is None else len(begun.fragments)
        if fragment.fragment < number:
            return []  # a commit of the same decision by another group of workers on these topics
        if fragment.fragment > number:
            self._begun.pop(key, None)
            self.broken += 1
            return []
        if begun is None:
            if fragment.last:
                return [fragment]
            self._begun[key] = _Begun(offset=offset, timestamp_ms=timestamp_ms, fragments=[fragment])
            return []
        begun.fragments.append(fragment)
        return self._begun.pop(key).fragments if fragment.last else []

    def _give_up(self, timestamp_ms: int) -> None:
        while self._begun:
            key, oldest = next(iter(self._begun.items()))
            if timestamp_ms - oldest.timestamp_ms < COMMIT_MS:
                return
            del self._begun[key]
            self.broken += 1
