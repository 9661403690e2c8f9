"""The spans of one trace as a tree, whatever state they are in: late, doubled, without their parents, or in a circle.

A `SpanTree` never refuses: every span it is given stands in it exactly once. It works on `SpanHead` (the worker) and on
`SpanData` (people) alike, and on trees of any depth: nothing here recurses. Its nodes are made when they are first asked for:
what a decision says of its trace needs none.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar

import msgspec

from prela_stream.model import semconv
from prela_stream.model.span import SPAN_TYPE_CODES, SpanType
from prela_stream.model.structure import SpanLike, link

_LLM: Final = SPAN_TYPE_CODES[SpanType.LLM]
_INPUT_TOKENS: Final = semconv.read_keys(semconv.INPUT_TOKENS)
_OUTPUT_TOKENS: Final = semconv.read_keys(semconv.OUTPUT_TOKENS)
_COST: Final = semconv.read_keys(semconv.COST_USD)

S = TypeVar("S", bound=SpanLike)


class SpanNode(msgspec.Struct, Generic[S], eq=False):
    """A span's place in its tree."""

    span: S
    index: int
    """Place among the spans that the tree was made of."""
    parent: "SpanNode[S] | None" = None
    """None for roots, orphans, and where a cycle was cut."""
    depth: int = 0
    """0 for a root; 1 for an orphan, whose placeholder stands beside the roots."""
    orphan: bool = False
    """The span names a parent that is not there."""
    cycle: bool = False
    """The span is its own parent or ancestor; it was cut off there and stands as a root."""
    children: list["SpanNode[S]"] = []
    """By start, then id."""


class Placeholder(msgspec.Struct, Generic[S], eq=False):
    """Stands for a parent that is not there: its orphans are siblings all the same."""

    span_id: bytes | str
    """The id that the orphans name."""
    children: list[SpanNode[S]] = []
    """By start, then id."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and cost over the leaf LLM calls of a trace."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """The sum of what is known; None: nothing is."""


class SpanTree(Generic[S]):
    """The tree, or the trees, of the spans of one trace.

    Args:
        spans: In any order. Of several with one id the earliest start gets the children; the others stand as leaves.

    A span whose parent is in another process and not counted (a local root) is a root where its parent is not there. Every
    member of a cycle is cut from its parent and stands as a root.
    """

    def __init__(self, spans: Sequence[S]) -> None:
        self.spans = spans
        self._links = link(spans)
        kinds = [span.span_type for span in spans]
        self._codes = [SPAN_TYPE_CODES[kind] if isinstance(kind, SpanType) else kind for kind in kinds]

    def __len__(self) -> int:
        """The number of spans."""
        return len(self.spans)

    @cached_property
    def nodes(self) -> list[SpanNode[S]]:
        """One a span, in the order of the spans."""
        links = self._links
        nodes = [SpanNode(span, place) for place, span in enumerate(self.spans)]
        for place, below in links.children.items():
            nodes[place].children = _in_order(nodes, below)
        for group in links.orphans.values():
            for place in group:
                nodes[place].orphan = True
                nodes[place].depth = 1
        for place in links.cut:
            nodes[place].cycle = True
        for place in links.order:
            parent = nodes[place]
            for child in parent.children:
                child.parent = parent
                child.depth = parent.depth + 1
        return nodes

    @cached_property
    def roots(self) -> list[SpanNode[S]]:
        """Spans without a parent, local roots and members of cycles; by start, then id."""
        return _in_order(self.nodes, self._links.roots)

    @cached_property
    def placeholders(self) -> list[Placeholder[S]]:
        """One for each parent that is named and not there, ordered by its first orphan."""
        nodes = self.nodes
        absent = [Placeholder(parent_id, _in_order(nodes, group)) for parent_id, group in self._links.orphans.items()]
        return sorted(absent, key=lambda placeholder: _rank(placeholder.children[0].span))

    @property
    def foremost(self) -> int | None:
        """Index of the span to call the trace after: the first root, or where there is none the first to start."""
        spans, roots = self.spans, self._links.roots
        if len(roots) == 1:
            return roots[0]
        if roots:
            return min(roots, key=lambda place: _rank(spans[place]))
        return min(range(len(spans)), key=lambda place: spans[place].start_ns, default=None)

    @cached_property
    def max_depth(self) -> int:
        """Depth of the deepest span; 0 for a single root."""
        return max((node.depth for node in self.nodes), default=0)

    @cached_property
    def max_fan_out(self) -> int:
        """The most children that one span has."""
        return max(map(len, self._links.children.values()), default=0)

    def tops(self) -> Iterator[SpanNode[S]]:
        """The spans at the top: roots, then the orphans of each placeholder."""
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
        """Spans whose parent is not there, placeholder by placeholder."""
        return [node for placeholder in self.placeholders for node in placeholder.children]

    @cached_property
    def leaf_llm(self) -> list[S]:
        """LLM spans without an LLM span below them, in order of `walk()`: what sums over model calls have to count."""
        leaves = set(self._leaf_llm())
        return [node.span for node in self.walk() if node.index in leaves]

    def _leaf_llm(self) -> list[int]:
        """Places of the LLM spans without an LLM span below them, in no order that means anything."""
        codes, children = self._codes, self._links.children
        calls = [place for place, code in enumerate(codes) if code == _LLM]
        if children.keys().isdisjoint(calls):
            return calls
        leaves: list[int] = []
        holds = [False] * len(codes)  # whether a span is an LLM span or above one
        for place in reversed(self._links.order):
            covered = any(holds[child] for child in children.get(place, ()))
            is_llm = codes[place] == _LLM
            holds[place] = covered or is_llm
            if is_llm and not covered:
                leaves.append(place)
        return leaves

    def totals(self, attributes: Sequence[Mapping[str, Any]]) -> Totals:
        """Tokens and cost, each leaf LLM call once.

        Args:
            attributes: One mapping a span, in the order in which the spans were given. Values that are no counts or no
                finite amounts are passed over.
        """
        tokens_in = tokens_out = 0
        prices: list[float] = []
        for place in self._leaf_llm():
            own = attributes[place]
            if own:
                tokens_in += _count(_first(own, _INPUT_TOKENS))
                tokens_out += _count(_first(own, _OUTPUT_TOKENS))
                price = _first(own, _COST)
                if isinstance(price, int | float) and not isinstance(price, bool) and math.isfinite(price):
                    prices.append(price)
        prices.sort()  # a sum of floats depends on their order, and that must not depend on the order of arrival
        return Totals(input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=sum(prices, 0.0) if prices else None)

    def shape_hash(self) -> str:
        """32 hex digits that differ where types, names or nesting do; ids, times and the order of siblings do not matter."""
        links, codes, spans = self._links, self._codes, self.spans
        children = links.children
        digests = [b""] * len(spans)
        for place in reversed(links.order):
            below = _join(children[place], digests) if place in children else b""
            digests[place] = _shape(codes[place], spans[place].name, below)
        tops = [digests[place] for place in links.roots]
        tops += [_shape(-1, "", _join(group, digests)) for group in links.orphans.values()]
        tops.sort()
        return _shape_of(-2, "", b"".join(tops)).hex()


def _in_order(nodes: list[SpanNode[S]], places: list[int]) -> list[SpanNode[S]]:
    """The nodes at these places, by start, then id."""
    chosen = [nodes[place] for place in places]
    if len(chosen) > 1:
        chosen.sort(key=lambda node: _rank(node.span))
    return chosen


def _rank(span: SpanLike) -> tuple[int, bool, Any]:
    return span.start_ns, span.span_id is not None, span.span_id


def _join(places: list[int], digests: list[bytes]) -> bytes:
    if len(places) == 1:
        return digests[places[0]]
    return b"".join(sorted([digests[place] for place in places]))


def _shape(kind: int, name: str, below: bytes) -> bytes:
    # the agents of one service make the same shapes over and over; only small keys are worth their memory
    return _known_shape(kind, name, below) if len(below) <= 512 and len(name) <= 128 else _shape_of(kind, name, below)


def _shape_of(kind: int, name: str, below: bytes) -> bytes:
    head = f"{kind}\0{len(below)}\0{name}".encode("utf-8", "backslashreplace")
    return blake2b(head + below if len(below) < 1024 else b"".join((head, below)), digest_size=16).digest()


def _first(own: Mapping[str, Any], spellings: tuple[str, ...]) -> Any:
    """As `semconv.read`, with the spellings looked up once and for all: this runs for every model call of every trace."""
    for spelling in spellings:
        if (value := own.get(spelling)) is not None:
            return value
    return None


_known_shape = lru_cache(maxsize=8192)(_shape_of)


_MOST: Final = 1 << 53


def _count(value: object) -> int:
    if value.__class__ is int:
        return value if 0 <= value < _MOST else 0
    return 0
