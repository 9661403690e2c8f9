"""The spans of one trace as a tree, whatever state they are in: late, doubled, without their parents, or in a circle.

A `SpanTree` never refuses: every span it is given stands in it exactly once. It works on `SpanHead` (the worker) and on
`SpanData` (people) alike, and on trees of any depth: nothing here recurses. What costs more than a walk waits until it is asked
for.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from prela_stream.model import semconv
from prela_stream.model.span import REMOTE_PARENT, SPAN_TYPE_CODES, SpanStatus, SpanType

_LLM: Final = SPAN_TYPE_CODES[SpanType.LLM]
_INPUT_TOKENS: Final = semconv.read_keys(semconv.INPUT_TOKENS)
_OUTPUT_TOKENS: Final = semconv.read_keys(semconv.OUTPUT_TOKENS)
_COST: Final = semconv.read_keys(semconv.COST_USD)


class SpanLike(Protocol):
    """What a tree needs to know of a span. Within a tree ids are all bytes or all hex, types all codes or all enums."""

    @property
    def span_id(self) -> bytes | str | None: ...
    @property
    def parent_span_id(self) -> bytes | str | None: ...
    @property
    def name(self) -> str: ...
    @property
    def span_type(self) -> int | SpanType: ...
    @property
    def status(self) -> int | SpanStatus: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def duration_ns(self) -> int | None: ...
    @property
    def flags(self) -> int: ...
    @property
    def inject_ordinal(self) -> int | None: ...


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
        self.nodes: list[SpanNode[S]] = [SpanNode(span, index) for index, span in enumerate(spans)]
        """One a span, in the order of the spans."""
        self.roots: list[SpanNode[S]] = []
        """Spans without a parent, local roots and members of cycles; by start, then id."""
        self.placeholders: list[Placeholder[S]] = []
        """One for each parent that is named and not there, ordered by its first orphan."""
        self.max_depth: int = 0
        """Depth of the deepest span; 0 for a single root."""
        self._link()
        self._order: list[SpanNode[S]] = []
        self._descend()
        if len(self._order) < len(self.nodes):
            self._cut_cycles()

    def __len__(self) -> int:
        """The number of spans."""
        return len(self.nodes)

    def _by_id(self) -> dict[bytes | str | None, SpanNode[S]]:
        by_id: dict[bytes | str | None, SpanNode[S]] = {node.span.span_id: node for node in self.nodes}
        if len(by_id) < len(self.nodes):
            for node in self.nodes:
                first = by_id[node.span.span_id]
                if first is not node and _claim(node) < _claim(first):
                    by_id[node.span.span_id] = node
        return by_id

    def _link(self) -> None:
        by_id = self._by_id()
        roots = self.roots
        waiting: dict[bytes | str, Placeholder[S]] = {}
        crowded: list[list[SpanNode[S]]] = []
        for node in self.nodes:
            span = node.span
            parent_id = span.parent_span_id
            if parent_id is None:
                roots.append(node)
                continue
            if parent_id == span.span_id:
                node.cycle = True
                roots.append(node)
                continue
            parent = by_id.get(parent_id)
            if parent is not None:
                node.parent = parent
                siblings = parent.children
            elif span.flags & REMOTE_PARENT and span.inject_ordinal is None:
                roots.append(node)
                continue
            else:
                node.orphan = True
                node.depth = 1
                siblings = waiting.setdefault(parent_id, Placeholder(parent_id)).children
            siblings.append(node)
            if len(siblings) == 2:
                crowded.append(siblings)
        for siblings in crowded:
            siblings.sort(key=_place)
        roots.sort(key=_place)
        self.placeholders = sorted(waiting.values(), key=lambda placeholder: _place(placeholder.children[0]))

    def tops(self) -> Iterator[SpanNode[S]]:
        """The spans at the top: roots, then the orphans of each placeholder."""
        yield from self.roots
        for placeholder in self.placeholders:
            yield from placeholder.children

    def _descend(self) -> None:
        """Put every node that hangs below a top into `_order`, parents before children, siblings in order; set depths."""
        order = self._order
        deepest = 0
        stack = [*self.tops()]
        stack.reverse()
        while stack:
            node = stack.pop()
            order.append(node)
            children = node.children
            if children:
                depth = node.depth + 1
                for child in children:
                    child.depth = depth
                deepest = max(deepest, depth)
                stack.extend(children if len(children) == 1 else reversed(children))
        self.max_depth = max(deepest, 1 if self.placeholders else 0)

    def _cut_cycles(self) -> None:
        reached = {id(node) for node in self._order}
        for start in self.nodes:
            path: list[SpanNode[S]] = []
            node: SpanNode[S] | None = start
            while node is not None and id(node) not in reached:
                reached.add(id(node))
                path.append(node)
                node = node.parent
            on_path = {id(step): place for place, step in enumerate(path)}
            if node is not None and id(node) in on_path:
                for member in path[on_path[id(node)] :]:
                    self._make_root(member)
        self.roots.sort(key=_place)
        self._order.clear()
        self._descend()

    def _make_root(self, node: SpanNode[S]) -> None:
        assert node.parent is not None
        node.parent.children = [child for child in node.parent.children if child is not node]
        node.parent = None
        node.cycle = True
        self.roots.append(node)

    def walk(self) -> Iterator[SpanNode[S]]:
        """Every span once: parents before children, siblings in order, roots first and then the orphans."""
        return iter(self._order)

    @property
    def orphans(self) -> list[SpanNode[S]]:
        """Spans whose parent is not there, placeholder by placeholder."""
        return [node for placeholder in self.placeholders for node in placeholder.children]

    @cached_property
    def max_fan_out(self) -> int:
        """The most children that one span has."""
        return max((len(node.children) for node in self.nodes), default=0)

    @cached_property
    def leaf_llm(self) -> list[S]:
        """LLM spans without an LLM span below them, in order of `walk()`: what sums over model calls have to count."""
        return [node.span for node in self._leaf_llm_nodes]

    @cached_property
    def _codes(self) -> list[int]:
        """Wire code of each span's type."""
        kinds = [span.span_type for span in self.spans]
        return [SPAN_TYPE_CODES[kind] if isinstance(kind, SpanType) else kind for kind in kinds]

    @cached_property
    def _leaf_llm_nodes(self) -> list[SpanNode[S]]:
        codes = self._codes
        calls = [node for node in self._order if codes[node.index] == _LLM]
        if not any(node.children for node in calls):
            return calls
        leaves: list[SpanNode[S]] = []
        above: set[int] = set()
        for node in reversed(self._order):
            is_llm = codes[node.index] == _LLM
            covered = node.index in above
            if is_llm and not covered:
                leaves.append(node)
            if (is_llm or covered) and node.parent is not None:
                above.add(node.parent.index)
        leaves.reverse()
        return leaves

    def totals(self, attributes: Sequence[Mapping[str, Any]]) -> Totals:
        """Tokens and cost, each leaf LLM call once.

        Args:
            attributes: One mapping a span, in the order in which the spans were given. Values that are no counts or no
                finite amounts are passed over.
        """
        tokens_in = tokens_out = 0
        cost: float | None = None
        for node in self._leaf_llm_nodes:
            own = attributes[node.index]
            if own:
                tokens_in += _count(_first(own, _INPUT_TOKENS))
                tokens_out += _count(_first(own, _OUTPUT_TOKENS))
                price = _first(own, _COST)
                if price is not None and isinstance(price, int | float) and not isinstance(price, bool):
                    cost = (cost or 0.0) + price if math.isfinite(price) else cost
        return Totals(input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=cost)

    def shape_hash(self) -> str:
        """32 hex digits that differ where types, names or nesting do; ids, times and the order of siblings do not matter."""
        digests: list[bytes] = [b""] * len(self.nodes)
        codes = self._codes
        for node in reversed(self._order):
            index = node.index
            children = node.children
            digests[index] = _shape(codes[index], node.span.name, _join(children, digests) if children else b"")
        tops = [digests[node.index] for node in self.roots]
        tops += [_shape(-1, "", _join(placeholder.children, digests)) for placeholder in self.placeholders]
        tops.sort()
        return _shape_of(-2, "", b"".join(tops)).hex()


def type_code(span: SpanLike) -> int:
    """The wire code of a span's type, whichever form it has."""
    kind = span.span_type
    return SPAN_TYPE_CODES[kind] if isinstance(kind, SpanType) else kind


def _place(node: SpanNode[S]) -> tuple[int, bool, Any]:
    span_id = node.span.span_id
    return node.span.start_ns, span_id is not None, span_id


def _claim(node: SpanNode[S]) -> tuple[Any, ...]:
    """Orders spans that share an id, whatever order they came in."""
    span = node.span
    parent = span.parent_span_id
    return (
        span.start_ns,
        type_code(span),
        span.name,
        -1 if span.duration_ns is None else span.duration_ns,
        parent is not None,
        parent,
    )


def _join(children: list[SpanNode[S]], digests: list[bytes]) -> bytes:
    if len(children) == 1:
        return digests[children[0].index]
    return b"".join(sorted([digests[child.index] for child in children]))


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
