"""A whole trace as policies receive it: heads, the declared attributes, the tree, the trigger and completeness."""

from typing import Any

from prela_stream.model.decision import Trigger
from prela_stream.model.ids import trace_randomness
from prela_stream.model.span import ERROR, Resource, SpanHead
from prela_stream.model.tree import SpanTree


class Trace:
    """One trace at its decision.

    Args:
        trace_id: 16 raw bytes.
        heads: One per span, at least one, in order of arrival, without duplicates. Open spans have status PENDING.
        attributes: One dict per span, in the same order, with the attribute keys that the policies declared.
        resources: One per span, in the same order; spans of one process share the object.
        trigger: Why the trace is decided now.
        complete: Whether every counted span was received.
    """

    def __init__(
        self,
        *,
        trace_id: bytes,
        heads: list[SpanHead],
        attributes: list[dict[str, Any]],
        resources: list[Resource],
        trigger: Trigger,
        complete: bool,
    ) -> None:
        self.trace_id = trace_id
        self.heads = heads
        self.attributes = attributes
        self.resources = resources
        self.trigger = trigger
        self.complete = complete

        self._tree: SpanTree[SpanHead] | None = None
        self.statuses = [head.status for head in heads]
        """Wire code of each span's status."""
        self.start_ns = min([head.start_ns for head in heads])
        """First start, ns since the epoch."""
        self.duration_ns = max([head.start_ns + (head.duration_ns or 0) for head in heads]) - self.start_ns
        """From the first start to the last end (or the last start, where that is later), ns."""

    @property
    def tree(self) -> SpanTree[SpanHead]:
        """The spans as a tree, built on first use."""
        if self._tree is None:
            self._tree = SpanTree(self.heads)
        return self._tree

    @property
    def randomness(self) -> int:
        """56 bits: the explicit randomness of the first span that has one, or the last 56 bits of the trace id."""
        for head in self.heads:
            if head.randomness is not None:
                return head.randomness
        return trace_randomness(self.trace_id)

    @property
    def head_thresholds(self) -> set[int]:
        """The distinct head-sampling thresholds of the spans; 0 for a span that was not head-sampled."""
        return {head.threshold or 0 for head in self.heads}

    @property
    def errors(self) -> int:
        """Spans that ended as ERROR."""
        return self.statuses.count(ERROR)
