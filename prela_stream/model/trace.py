"""A whole trace as policies receive it: its facts, heads, the declared attributes, the tree, the trigger and completeness.

A policy that needs facts only, such as statuses or the duration, costs no more than they do. With the native core everything else
is decoded when it is first read.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from prela_stream.model.decision import TraceSummary, Trigger
from prela_stream.model.ids import trace_randomness
from prela_stream.model.span import ERROR, Resource, SpanFields
from prela_stream.model.tree import SpanTree

NAME_CHARACTERS = 200
"""Names in a decision are cut to this length, so that a decision fits into its record."""
UNSAMPLED: Final = frozenset({0})
"""`Trace.head_thresholds` of a trace that was not head-sampled."""


class Trace:
    """One trace at its decision.

    Args:
        trace_id: 16 raw bytes.
        heads: One per span, at least one, in order of arrival, without duplicates. Open spans have status PENDING.
        attributes: One dict per span, in the same order, with the attribute keys that the policies declared.
        resources: One per span, in the same order; spans of one process share the object.
        trigger: Why the trace is decided now.
        complete: Whether every counted span was received.
        parents: See `SpanTree`.
    """

    prepared: Mapping[int, str | None] = {}
    """Results of conditions, by their `id()`, that `Evaluator.prepare` computed in steps."""

    def __init__(
        self,
        *,
        trace_id: bytes,
        heads: Sequence[SpanFields],
        attributes: list[dict[str, Any]],
        resources: list[Resource],
        trigger: Trigger,
        complete: bool,
        parents: tuple[int, ...] | None = None,
    ) -> None:
        self.trace_id = trace_id
        self.trigger = trigger
        self.complete = complete
        self._heads = heads
        self._attributes = attributes
        self._resources = resources
        self._tree: SpanTree[SpanFields] | None = SpanTree(heads, parents)
        self.statuses: Sequence[int] = [head.status for head in heads]
        """Wire code of each span's status."""
        self.errors = self.statuses.count(ERROR)
        """Spans that ended as ERROR."""
        self.start_ns, self.duration_ns = _times(heads, self._tree.root)
        """ns since the epoch, 0 if no start is known; and ns. See `_times`."""
        marked = [head for head in heads if head.randomness is not None or head.threshold]
        explicit = [head.randomness for head in marked if head.randomness is not None]
        self.randomness = explicit[0] if explicit else trace_randomness(trace_id)
        """56 bits: the explicit randomness of the first span that has one, or the last 56 bits of the trace id."""
        self.head_thresholds: AbstractSet[int] = {head.threshold or 0 for head in heads} if marked else UNSAMPLED
        """The distinct head-sampling thresholds of the spans; 0 for a span that was not head-sampled."""

    @property
    def heads(self) -> Sequence[SpanFields]:
        """One per span, in order of arrival."""
        return self._heads

    def name_of(self, index: int) -> str:
        """The name of one span, which costs less than all heads."""
        return self._heads[index].name

    def read_heads(self) -> Iterator[None]:
        """Decode `heads`, if they are not yet. Yields about once in a millisecond."""
        yield from ()

    def read_resources(self) -> Iterator[None]:
        """Decode `resources`, if they are not yet. Yields about once in a millisecond."""
        yield from ()

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """The declared attributes of each span."""
        return self._attributes

    @property
    def resources(self) -> list[Resource]:
        """The resource of each span."""
        return self._resources

    @property
    def tree(self) -> SpanTree[SpanFields]:
        """The spans as a tree, built on first use."""
        if self._tree is None:
            self._tree = SpanTree(self.heads)
        return self._tree

    def summary(self, decided_at_ms: int) -> TraceSummary:
        """The summary for the decision at this stream time. Tokens and cost count each leaf LLM call once."""
        tree = self.tree
        totals = tree.totals(self.attributes)
        first = tree.foremost
        assert first is not None  # a trace has at least one span
        return TraceSummary(
            root_name=self.heads[first].name[:NAME_CHARACTERS],
            service=self.resources[first].service_name[:NAME_CHARACTERS],
            start_ns=self.start_ns or max(0, decided_at_ms * 1_000_000 - self.duration_ns),
            duration_ns=self.duration_ns,
            spans=len(self.heads),
            errors=self.errors,
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            cost_usd=totals.cost_usd,
            shape_hash=tree.shape_hash(),
            outside_parent=len(tree.outside_parent),
        )


def _times(heads: Sequence[SpanFields], root: int | None) -> tuple[int, int]:
    """Start and duration of a trace.

    They are those of the root, if it has a known start and has ended. Only the clock of the root measures its duration; starts of
    spans from several hosts differ by the error of their clocks. Without a root, the trace starts with the first known start of a
    span and lasts to the last end of spans with a known start.
    """
    start = 0 if root is None else heads[root].start_ns
    start = start or min([head.start_ns for head in heads if head.start_ns], default=0)
    if root is not None and (duration := heads[root].duration_ns) is not None:
        return start, duration
    ends = [head.start_ns + (head.duration_ns or 0) for head in heads if head.start_ns]
    if not ends:
        return start, max(head.duration_ns or 0 for head in heads)
    return start, max(0, max(ends) - start)
