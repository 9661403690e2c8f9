"""The spans of one trace as a tree, also if spans are late, duplicated, without their parents, or in a cycle.

A `SpanTree` accepts any spans and contains each of them exactly once. It works on `SpanHead` (in the worker) and on `SpanData`
(in the API), and on trees of any depth because no function recurses. Nodes are built on first use, because the summary of a
decision needs none.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar

import msgspec

from prela_stream.model import semconv
from prela_stream.model.span import SPAN_TYPE_CODES, SpanType
from prela_stream.model.structure import (
    MOST_REMEMBERED,
    SpanLike,
    Structure,
    codes_of,
    structure_below,
    structure_of,
    structure_of_parents,
)
from prela_stream.model.times import PathSegment, critical_path

_LLM: Final = SPAN_TYPE_CODES[SpanType.LLM]
_INPUT_TOKENS: Final = semconv.read_keys(semconv.INPUT_TOKENS)
_OUTPUT_TOKENS: Final = semconv.read_keys(semconv.OUTPUT_TOKENS)
_COST: Final = semconv.read_keys(semconv.COST_USD)
_INPUT, _OUTPUT = _INPUT_TOKENS[0], _OUTPUT_TOKENS[0]
MOST_TOKENS: Final = (1 << 53) - 1
"""Most tokens of a call. The sum of a trace is cut to this, because a decision with a larger one could not be written."""

_MOST_CHARACTERS: Final = 2048
"""The shape of spans whose names have together up to so many characters is remembered."""
_SAME_TIME_NS: Final = 1_000_000
"""Times of two hosts that differ by less are taken as equal."""

S = TypeVar("S", bound=SpanLike)


class SpanNode(msgspec.Struct, Generic[S], eq=False):
    """A span in its tree."""

    span: S
    index: int
    """Index in the list of spans that the tree was built from."""
    parent: "SpanNode[S] | None" = None
    """None for roots, orphans, and where a cycle was cut."""
    depth: int = 0
    """0 for a root; 1 for an orphan, because its placeholder has depth 0."""
    orphan: bool = False
    """The parent of this span is missing."""
    cycle: bool = False
    """The span was its own parent or ancestor. It was cut from its parent and is a root."""
    children: list["SpanNode[S]"] = []
    """By start, then id."""


class Placeholder(msgspec.Struct, Generic[S], eq=False):
    """Represents a missing parent, so that its orphans are siblings."""

    span_id: bytes | str
    """The missing parent's id."""
    children: list[SpanNode[S]] = []
    """By start, then id."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and cost over the leaf LLM calls of a trace."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """The sum of the known costs; None if no cost is known."""


class SpanTree(Generic[S]):
    """The tree, or the trees, of the spans of one trace.

    A local root (its remote parent does not count its injects) is a root if its parent is missing. Every member of a cycle is
    cut from its parent and is a root.

    Args:
        spans: In any order. If several spans share an id, the one with the earliest start gets the children.
        parents: The index of each span's parent, or -1, if the caller knows them, all ids differ, and none is missing.
    """

    def __init__(self, spans: Sequence[S], parents: tuple[int, ...] | None = None) -> None:
        self.spans = spans
        self._structure = structure_of(spans) if parents is None else structure_of_parents(parents)
        self.codes: list[int] = codes_of(spans)
        """The wire code of each span's type."""

    def __len__(self) -> int:
        """The number of spans."""
        return len(self.spans)

    @cached_property
    def nodes(self) -> list[SpanNode[S]]:
        """One node per span, in the order of the spans."""
        structure = self._structure
        nodes = [SpanNode(span, index) for index, span in enumerate(self.spans)]
        for index, below in structure.children.items():
            nodes[index].children = _in_order(nodes, below)
        for group in structure.orphans.values():
            for index in group:
                nodes[index].orphan = True
                nodes[index].depth = 1
        for index in structure.cut:
            nodes[index].cycle = True
        for index in structure.order:
            parent = nodes[index]
            for child in parent.children:
                child.parent = parent
                child.depth = parent.depth + 1
        return nodes

    @cached_property
    def roots(self) -> list[SpanNode[S]]:
        """Spans without a parent, local roots and members of cycles; ordered by start, then id."""
        return _in_order(self.nodes, self._structure.roots)

    @cached_property
    def placeholders(self) -> list[Placeholder[S]]:
        """One per missing parent, ordered by its first orphan."""
        nodes = self.nodes
        absent = [
            Placeholder(parent_id, _in_order(nodes, group)) for parent_id, group in self._structure.orphans.items()
        ]
        return sorted(absent, key=lambda placeholder: rank_of(placeholder.children[0].span))

    @property
    def foremost(self) -> int | None:
        """Index of the span that names the trace: the first root, or the first span to start if there is no root."""
        spans, roots = self.spans, self._structure.roots
        if len(roots) == 1:
            return roots[0]
        if roots:
            return min(roots, key=lambda index: rank_of(spans[index]))
        return min(range(len(spans)), key=lambda index: spans[index].start_ns, default=None)

    @property
    def root(self) -> int | None:
        """Index of the span whose time is the time of the trace: an ended root before an open one; None if there is no root.

        A span without a parent is preferred to a local root, then a known start (not 0) to a missing one, then the first.
        """
        spans, roots = self.spans, self._structure.roots
        return roots[0] if len(roots) == 1 else min(roots, key=lambda index: root_rank(spans[index]), default=None)

    @property
    def outside_parent(self) -> list[int]:
        """Indexes of the spans that start before their parent or end after it, by more than 1 ms.

        The clocks of their hosts differ, or they are work that outlives its parent. Spans without a start are not compared.
        """
        spans = self.spans
        found: list[int] = []
        for parent, children in self._structure.children.items():
            found += outside_of(spans, parent, children)
        return found

    @cached_property
    def max_depth(self) -> int:
        """Depth of the deepest span; 0 for a single root."""
        return max((node.depth for node in self.nodes), default=0)

    @cached_property
    def max_fan_out(self) -> int:
        """The most children that one span has."""
        return max(map(len, self._structure.children.values()), default=0)

    def critical_path(self, top: SpanNode[S] | None = None) -> list[PathSegment[S]]:
        """What the end of `top` (default: the first root) waited for; see `times.critical_path`."""
        return critical_path(self, top)

    def tops(self) -> Iterator[SpanNode[S]]:
        """The topmost spans: roots, then the orphans of each placeholder."""
        yield from self.roots
        for placeholder in self.placeholders:
            yield from placeholder.children

    def walk(self) -> Iterator[SpanNode[S]]:
        """Every span once: parents before children, siblings in order, roots first and then the orphans."""
        stack = [*self.tops()]
        stack.reverse()
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    @property
    def orphans(self) -> list[SpanNode[S]]:
        """Spans whose parent is missing, placeholder by placeholder."""
        return [node for placeholder in self.placeholders for node in placeholder.children]

    @cached_property
    def leaf_llm(self) -> list[S]:
        """LLM spans without an LLM span below them, in order of `walk()`. Sums over model calls count these only."""
        leaves = set(self._leaf_llm())
        return [node.span for node in self.walk() if node.index in leaves]

    def _leaf_llm(self) -> list[int]:
        """Indexes of the LLM spans without an LLM span below them, in no particular order."""
        codes, children = self.codes, self._structure.children
        calls = [index for index, code in enumerate(codes) if code == _LLM]
        if children.keys().isdisjoint(calls):
            return calls
        leaves: list[int] = []
        holds = [False] * len(codes)  # whether a span is an LLM span or above one
        for index in reversed(self._structure.order):
            covered = any(holds[child] for child in children.get(index, ()))
            is_llm = codes[index] == _LLM
            holds[index] = covered or is_llm
            if is_llm and not covered:
                leaves.append(index)
        return leaves

    def totals(self, attributes: Sequence[Mapping[str, Any]]) -> Totals:
        """Tokens and cost, each leaf LLM call once.

        Args:
            attributes: One mapping a span, in the order in which the spans were given. Values that are no counts or no
                finite amounts are passed over.
        """
        tokens_in, tokens_out, prices = add_up(self._leaf_llm(), attributes)
        prices.sort()  # a sum of floats depends on their order, which must not be the order of arrival
        cost = sum(prices, 0.0) if prices else None
        return Totals(
            input_tokens=min(tokens_in, MOST_TOKENS), output_tokens=min(tokens_out, MOST_TOKENS), cost_usd=cost
        )

    def shape_hash(self) -> str:
        """32 hex digits that depend on types, names and nesting, and not on ids, times or the order of siblings."""
        structure = self._structure
        names = tuple([span.name for span in self.spans])
        if structure.orphans or len(names) > MOST_REMEMBERED or sum(map(len, names)) > _MOST_CHARACTERS:
            return _hash_of(structure, self.codes, names)
        return _known_hash(structure.parents, tuple(self.codes), names)


def outside_of(spans: Sequence[S], parent: int, children: Sequence[int]) -> list[int]:
    """Those of these children that start before their parent or end after it; see `SpanTree.outside_parent`."""
    start = spans[parent].start_ns
    if not start:
        return []
    duration = spans[parent].duration_ns
    earliest = start - _SAME_TIME_NS
    latest = None if duration is None else start + duration + _SAME_TIME_NS
    found = []
    for child in children:
        span = spans[child]
        begin = span.start_ns
        if begin and (begin < earliest or (latest is not None and begin + (span.duration_ns or 0) > latest)):
            found.append(child)
    return found


def add_up(indexes: Sequence[int], attributes: Sequence[Mapping[str, Any]]) -> tuple[int, int, list[float]]:
    """The input tokens, the output tokens, and each known cost of these model calls."""
    tokens_in = tokens_out = 0
    prices: list[float] = []
    for index in indexes:
        own = attributes[index]
        if not own:
            continue
        if len(own) == 2 and _INPUT in own and _OUTPUT in own:  # these are all attributes of most spans
            tokens, more = own[_INPUT], own[_OUTPUT]
            if tokens.__class__ is int and 0 <= tokens <= MOST_TOKENS:
                tokens_in += tokens
            if more.__class__ is int and 0 <= more <= MOST_TOKENS:
                tokens_out += more
            continue
        count = own.get(_INPUT) or _first(own, _INPUT_TOKENS)  # most spans have the preferred spelling
        if count.__class__ is int and 0 <= count <= MOST_TOKENS:
            tokens_in += count
        count = own.get(_OUTPUT) or _first(own, _OUTPUT_TOKENS)
        if count.__class__ is int and 0 <= count <= MOST_TOKENS:
            tokens_out += count
        price = _first(own, _COST)
        if (
            price is not None
            and isinstance(price, int | float)
            and not isinstance(price, bool)
            and math.isfinite(price)
        ):
            prices.append(price)
    return tokens_in, tokens_out, prices


def tree_of(spans: Sequence[S], structure: Structure) -> SpanTree[S]:
    """The tree of spans with this structure."""
    tree: SpanTree[S] = SpanTree.__new__(SpanTree)
    tree.spans = spans
    tree._structure = structure
    tree.codes = codes_of(spans)
    return tree


def free_tree(tree: SpanTree[S], step: int) -> Iterator[None]:
    """Free the memory of a large tree that is no longer used. Yields after each `step` spans."""
    structure = tree._structure
    for groups in (structure.children, structure.orphans):
        while groups:
            for _ in range(min(step, len(groups))):
                groups.popitem()
            yield
    while structure.order:
        del structure.order[-step:]
        yield


def root_rank(span: SpanLike) -> tuple[bool, bool, bool, Any]:
    """The root with the least rank is the one whose time is the time of the trace."""
    return span.parent_span_id is not None, span.duration_ns is None, not span.start_ns, rank_of(span)


@lru_cache(maxsize=512)
def _known_hash(parents: tuple[int, ...], codes: tuple[int, ...], names: tuple[str, ...]) -> str:
    return _hash_of(structure_below(parents), codes, names)


def _hash_of(structure: Structure, codes: Sequence[int], names: Sequence[str]) -> str:
    children = structure.children
    digests = [shape_of(code, name, b"") for code, name in zip(codes, names, strict=True)]
    for index in reversed(structure.order):
        if index in children:
            digests[index] = shape_of(codes[index], names[index], join_digests(children[index], digests))
    tops = [digests[index] for index in structure.roots]
    tops += [shape_of(-1, "", join_digests(group, digests)) for group in structure.orphans.values()]
    tops.sort()
    return _new_shape(-2, "", b"".join(tops)).hex()


def _in_order(nodes: list[SpanNode[S]], indexes: list[int]) -> list[SpanNode[S]]:
    """The nodes at these indexes, ordered by start, then id."""
    chosen = [nodes[index] for index in indexes]
    if len(chosen) > 1:
        chosen.sort(key=lambda node: rank_of(node.span))
    return chosen


def rank_of(span: SpanLike) -> tuple[int, bool, Any]:
    """Orders spans by start, then id."""
    return span.start_ns, span.span_id is not None, span.span_id


def join_digests(indexes: Sequence[int], digests: Sequence[bytes]) -> bytes:
    """The digests at these indexes in order, one after the other."""
    if len(indexes) == 1:
        return digests[indexes[0]]
    return b"".join(sorted([digests[index] for index in indexes]))


def shape_of(kind: int, name: str, below: bytes) -> bytes:
    """The digest of a span of this type and name above spans with these digests."""
    # the agents of a service repeat their shapes; only small keys are worth their memory
    return _known_shape(kind, name, below) if len(below) <= 512 and len(name) <= 128 else _new_shape(kind, name, below)


def _new_shape(kind: int, name: str, below: bytes) -> bytes:
    head = f"{kind}\0{len(below)}\0{name}".encode("utf-8", "backslashreplace")
    return blake2b(head + below if len(below) < 1024 else b"".join((head, below)), digest_size=16).digest()


def _first(own: Mapping[str, Any], spellings: tuple[str, ...]) -> Any:
    """As `semconv.read`, with the spellings resolved in advance, because this runs for every model call of every trace."""
    for spelling in spellings:
        if (value := own.get(spelling)) is not None:
            return value
    return None


_known_shape = lru_cache(maxsize=8192)(_new_shape)
