"""A kept trace as sinks and applications receive it: its decision and its spans. Pure."""

from collections.abc import Sequence

import msgspec

from prela_stream import telemetry
from prela_stream.codec.sampled import KeptFragment
from prela_stream.codec.spans import decode_resource
from prela_stream.errors import CodecError
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.model.tree import SpanTree
from prela_stream.sinks.span_items import at, rank_of, read_span


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
