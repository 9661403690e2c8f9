"""A trace of many spans, built in steps: the facts of 100,000 spans take a tenth of a second in Python.

`large_trace` gives what `Trace` gives for the same spans; a property test compares both.
"""

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, TypeVar

from prela_stream.model.decision import TraceSummary, Trigger
from prela_stream.model.ids import trace_randomness
from prela_stream.model.span import ERROR, REMOTE_PARENT, SPAN_TYPE_CODES, Resource, SpanFields, SpanType
from prela_stream.model.structure import Structure, cut_cycles
from prela_stream.model.trace import NAME_CHARACTERS, UNSAMPLED, Trace
from prela_stream.model.tree import (
    MOST_TOKENS,
    SpanTree,
    add_up,
    join_digests,
    outside_of,
    rank_of,
    root_rank,
    shape_of,
    tree_of,
)

T = TypeVar("T", bytes, float)
Steps = Generator[None, None, None]
STEP = 1024
"""So many spans are visited in less than a millisecond."""
_GROUPS: Final = 16
_LLM: Final = SPAN_TYPE_CODES[SpanType.LLM]


def large_trace(
    *,
    trace_id: bytes,
    heads: Sequence[SpanFields],
    attributes: list[dict[str, Any]],
    resources: list[Resource],
    trigger: Trigger,
    complete: bool,
) -> Generator[None, None, Trace]:
    """As `Trace`, for spans with different ids. Yields about once in a millisecond."""
    structure = yield from _structure(heads)
    trace = _LargeTrace(trace_id=trace_id, trigger=trigger, complete=complete)
    trace._heads, trace._attributes, trace._resources = heads, attributes, resources
    trace._tree = tree = tree_of(heads, structure)
    yield
    yield from trace.find_facts(structure)
    yield from trace.find_summary(tree, structure)
    return trace


class _LargeTrace(Trace):
    def __init__(self, *, trace_id: bytes, trigger: Trigger, complete: bool) -> None:
        self.trace_id = trace_id
        self.trigger = trigger
        self.complete = complete

    def find_facts(self, structure: Structure) -> Steps:
        heads = self._heads
        statuses: list[int] = []
        thresholds: set[int] = set()
        explicit: int | None = None
        marked = 0
        starts: list[int] = []
        ends: list[int] = []
        longest: list[int] = []
        for start, end in _slices(len(heads)):
            part = heads[start:end]
            statuses += [head.status for head in part]
            thresholds.update([head.threshold or 0 for head in part])
            some = [head for head in part if head.randomness is not None or head.threshold]
            if some:
                marked += len(some)
                explicit = next(
                    (one.randomness for one in some if one.randomness is not None and explicit is None), explicit
                )
            starts += [head.start_ns for head in part if head.start_ns]
            ends += [max([head.start_ns + (head.duration_ns or 0) for head in part if head.start_ns], default=-1)]
            longest.append(max([head.duration_ns or 0 for head in part]))
            yield
        self.statuses = statuses
        self.errors = statuses.count(ERROR)
        self.randomness = trace_randomness(self.trace_id) if explicit is None else explicit
        self.head_thresholds = thresholds if marked else UNSAMPLED
        root = yield from _least(structure.roots, lambda index: root_rank(heads[index]))
        self.start_ns = (0 if root is None else heads[root].start_ns) or min(starts, default=0)
        if root is not None and (duration := heads[root].duration_ns) is not None:
            self.duration_ns = duration
        else:
            self.duration_ns = max(0, max(ends) - self.start_ns) if starts else max(longest)

    def find_summary(self, tree: SpanTree[SpanFields], structure: Structure) -> Steps:
        heads = self._heads
        if structure.roots:
            first = yield from _least(structure.roots, lambda index: rank_of(heads[index]))
        else:
            first = yield from _least(range(len(heads)), lambda index: heads[index].start_ns)
        assert first is not None  # a trace has at least one span
        self._foremost = first
        leaves = yield from _leaves(tree, structure)
        tokens_in = tokens_out = 0
        prices: list[float] = []
        for start, end in _slices(len(leaves)):
            more_in, more_out, more_prices = add_up(leaves[start:end], self._attributes)
            tokens_in, tokens_out = tokens_in + more_in, tokens_out + more_out
            prices += more_prices
            yield
        prices = yield from _sorted(prices)
        self._tokens = min(tokens_in, MOST_TOKENS), min(tokens_out, MOST_TOKENS)
        self._cost = sum(prices, 0.0) if prices else None
        yield
        self._outside = 0
        for parent, children in structure.children.items():
            for start, end in _slices(len(children)):
                self._outside += len(outside_of(heads, parent, children[start:end]))
                if end - start == STEP:
                    yield
            if parent % STEP == 0:
                yield
        self._shape = yield from _shape_hash(heads, tree.codes, structure)

    def summary(self, decided_at_ms: int) -> TraceSummary:
        """See `Trace`."""
        first = self._foremost
        return TraceSummary(
            root_name=self._heads[first].name[:NAME_CHARACTERS],
            service=self._resources[first].service_name[:NAME_CHARACTERS],
            start_ns=self.start_ns or max(0, decided_at_ms * 1_000_000 - self.duration_ns),
            duration_ns=self.duration_ns,
            spans=len(self._heads),
            errors=self.errors,
            input_tokens=self._tokens[0],
            output_tokens=self._tokens[1],
            cost_usd=self._cost,
            shape_hash=self._shape,
            outside_parent=self._outside,
        )


def _slices(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, STEP):
        yield start, min(count, start + STEP)


def _least(indexes: Sequence[int], rank: Callable[[int], Any]) -> Generator[None, None, int | None]:
    """The first of the indexes with the least rank; None if there are none."""
    best: int | None = None
    for start, end in _slices(len(indexes)):
        found = min(indexes[start:end], key=rank)
        if best is None or rank(found) < rank(best):
            best = found
        yield
    return best


def _structure(spans: Sequence[SpanFields]) -> Generator[None, None, Structure]:
    """As `structure.structure_of`."""
    index_of: dict[Any, int] = {}
    for start, end in _slices(len(spans)):
        index_of.update(zip([span.span_id for span in spans[start:end]], range(start, end), strict=True))
        yield
    parents: list[int] = []
    roots: list[int] = []
    orphans: dict[Any, list[int]] = {}
    children: dict[int, list[int]] = {}
    cut: set[int] = set()
    for index, span in enumerate(spans):
        parent_id = span.parent_span_id
        parent = -1 if parent_id is None else index_of.get(parent_id, -2)
        if parent == -2 and span.flags & REMOTE_PARENT and span.inject_ordinal is None:
            parent = -1
        parents.append(parent)
        if parent == -2:
            orphans.setdefault(parent_id, []).append(index)
        elif parent == -1:
            roots.append(index)
        elif parent == index:
            cut.add(index)
            roots.append(index)
        else:
            children.setdefault(parent, []).append(index)
        if index % STEP == 0:
            yield
    order = yield from _downwards(roots, orphans, children)
    if len(order) < len(spans):
        yield from cut_cycles(parents, roots=roots, children=children, cut=cut, reached=set(order), step=STEP)
        order = yield from _downwards(roots, orphans, children)
    return Structure(parents=tuple(parents), roots=roots, orphans=orphans, children=children, cut=cut, order=order)


def _downwards(
    roots: list[int], orphans: dict[Any, list[int]], children: dict[int, list[int]]
) -> Generator[None, None, list[int]]:
    order = [*roots]
    for number, group in enumerate(orphans.values()):
        order += group
        if number % STEP == 0:
            yield
    for number, index in enumerate(order):  # the list grows during the loop
        if index in children:
            order += children[index]
        if number % STEP == 0:
            yield
    return order


def _leaves(tree: SpanTree[SpanFields], structure: Structure) -> Generator[None, None, list[int]]:
    """The LLM spans without an LLM span below them."""
    codes, children = tree.codes, structure.children
    leaves: list[int] = []
    holds = [False] * len(codes)
    for number, index in enumerate(reversed(structure.order)):
        is_llm = codes[index] == _LLM
        covered = index in children and any(map(holds.__getitem__, children[index]))
        holds[index] = covered or is_llm
        if is_llm and not covered:
            leaves.append(index)
        if number % STEP == 0:
            yield
    return leaves


def _shape_hash(spans: Sequence[SpanFields], codes: Sequence[int], structure: Structure) -> Generator[None, None, str]:
    """As `SpanTree.shape_hash`."""
    children = structure.children
    digests = [b""] * len(spans)
    for number, index in enumerate(reversed(structure.order)):
        below = b""
        if index in children:
            below = yield from _joined(children[index], digests)
        digests[index] = shape_of(codes[index], spans[index].name, below)
        if number % STEP == 0:
            yield
    tops = [digests[index] for index in structure.roots]
    for number, group in enumerate(structure.orphans.values()):
        below = yield from _joined(group, digests)
        tops.append(shape_of(-1, "", below))
        if number % STEP == 0:
            yield
    below = yield from _joined(range(len(tops)), tops)
    return shape_of(-2, "", below).hex()


def _joined(indexes: Sequence[int], digests: Sequence[bytes]) -> Generator[None, None, bytes]:
    """As `join_digests`."""
    if len(indexes) <= STEP:
        return join_digests(indexes, digests)
    found: list[bytes] = []
    for start, end in _slices(len(indexes)):
        found += [digests[index] for index in indexes[start:end]]
        yield
    found = yield from _sorted(found)
    joined = bytearray()
    for start, end in _slices(len(found)):
        joined += b"".join(found[start:end])
        yield
    return bytes(joined)


def _sorted(values: list[T]) -> Generator[None, None, list[T]]:
    """The values in order. Many of them are sorted in groups, between pivots of which about as many are below as above."""
    if len(values) <= STEP:
        values.sort()
        return values
    pivots = sorted(values[:: len(values) // STEP])
    groups: list[list[T]] = [[] for _ in range(len(pivots) + 1)]
    for start, end in _slices(len(values)):
        for value in values[start:end]:
            groups[bisect_right(pivots, value)].append(value)
        yield
    found: list[T] = []
    for number, group in enumerate(groups):
        group.sort()
        found += group
        if number % _GROUPS == 0:
            yield
    return found
