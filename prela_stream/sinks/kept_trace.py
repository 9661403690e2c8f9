"""A kept trace as sinks and applications receive it: its decision and its spans. Pure."""

from collections.abc import Sequence

import msgspec

from prela_stream.codec.sampled import KeptFragment
from prela_stream.codec.spans import decode_resource
from prela_stream.errors import CodecError
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData, SpanHead
from prela_stream.model.tree import SpanTree
from prela_stream.sinks.span_items import rank_of, read_span


class SpanItem(msgspec.Struct, frozen=True, gc=False):
    """A span as it was received, for sinks that store bytes."""

    head: SpanHead
    raw: msgspec.Raw
    """The item. See docs/wire.md."""
    resource: msgspec.Raw
    """The resource map of its process."""


class KeptTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that was kept, or spans of one that arrived after its decision."""

    decision: Decision
    """Why the trace was kept, the probability of that, and the trace in sum."""
    spans: list[SpanData]
    """Each span once, in order of arrival. A span that had not ended at the decision has the status PENDING."""
    late: bool = False
    """These spans arrived after the decision. The trace itself was an item before this one."""
    unreadable: int = 0
    """Spans that could not be read and are not in `spans`."""
    items: list[SpanItem] = []
    """The bytes of each span, in the order of `spans`."""

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return self.decision.trace_id.hex()

    @property
    def weight(self) -> float:
        """How many traces, each with spans like these, this one represents: 1 / probability; 0 if it was decided before.

        Multiply what you sum over spans by it. To count traces, sum it over the items that are not `late`.
        """
        return self.decision.weight

    def tree(self) -> SpanTree[SpanData]:
        """The spans as a tree. That of a late item has only orphans, unless the root is among the late spans."""
        return SpanTree(self.spans)


class _Found(msgspec.Struct, gc=False):
    rank: int
    span: SpanData
    item: SpanItem


def read_trace(fragments: Sequence[KeptFragment], problems: list[str] | None = None) -> KeptTrace:
    """Read the fragments of one trace. Never raises: spans that cannot be read are counted in `unreadable`.

    Args:
        fragments: At least one, in order.
        problems: Receives the reason for each span that cannot be read.
    """
    first = fragments[0]
    found: dict[bytes, _Found] = {}
    unreadable = 0
    for fragment in fragments:
        resources = [decode_resource(raw) for raw in fragment.resources]
        for index, raw in fragment.items:
            try:
                read = read_span(raw, first.decision.trace_id, resources, index)
            except CodecError as error:
                unreadable += 1
                if problems is not None:
                    problems.append(str(error))
                continue
            if read is None:
                continue
            head, span_id, span = read
            rank = rank_of(head)
            known = found.get(span_id)
            if known is None or rank > known.rank:
                found[span_id] = _Found(rank, span, SpanItem(head, raw, fragment.resources[index]))
    return KeptTrace(
        decision=first.decision,
        spans=[one.span for one in found.values()],
        late=first.late,
        unreadable=unreadable,
        items=[one.item for one in found.values()],
    )
