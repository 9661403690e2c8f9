"""A trace as rows: the tree from top to bottom, with offsets, and repeated siblings folded into one row. Pure.

A span has the same number in every view of its trace: its place in the whole tree, from 1, also where rows are folded.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from prela_stream.model.span import SpanData, SpanStatus
from prela_stream.model.tree import SpanNode, SpanTree
from prela_stream.views.facts import LOGICAL_TYPES

MIN_REPEATS: Final = 4
"""Siblings that repeat fewer times than this are not folded."""
LONGEST_PATTERN: Final = 3
"""Longest sequence of siblings that counts as one repetition, as `chat, tool` in a loop."""

Node = SpanNode[SpanData]


class Fold(msgspec.Struct, frozen=True, kw_only=True):
    """Siblings that repeat those above them."""

    nodes: tuple[Node, ...]
    """The topmost spans that are folded, in order."""
    names: tuple[str, ...]
    """The names of one repetition, in order."""
    repeats: int
    """How often that sequence comes again."""
    spans: int
    """Spans in the folded subtrees, these included."""


class TreeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a span, a missing parent, or folded siblings."""

    number: int
    """Of the span, from 1 in order of the whole tree; for folded siblings of their first span; 0 for a missing parent."""
    depth: int
    rails: tuple[bool, ...]
    """For each level from 0 to `depth` - 1: whether the line of that level continues below this row. Its own level is last."""
    start_ns: int
    """Of the span; of folded siblings, the earliest. 0 if it is not known."""
    end_ns: int | None
    """None while it is open."""
    node: Node | None = None
    """None for a missing parent and for folded siblings."""
    fold: Fold | None = None
    missing: str = ""
    """The id of a parent that is not in the trace."""
    outside: bool = False
    """The span starts before its parent or ends after it."""


class TraceRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a trace and what they are drawn against."""

    rows: tuple[TreeRow, ...]
    start_ns: int
    """The earliest start of any span."""
    end_ns: int
    """The latest known end."""
    numbers: dict[str, int]
    """The number of each span by its id; of several spans with one id, the first."""
    services: tuple[str, ...]
    """The services of the spans, in order of appearance, each once."""


def rows_of(tree: SpanTree[SpanData], *, fold: bool = True) -> TraceRows:
    """The rows of a trace, each span once, parents before children.

    Args:
        tree: The spans, at any depth.
        fold: Replace what repeats `MIN_REPEATS` times or more by its first repetition and one row. Spans that failed, were
            cancelled or are open, and what contains them, are not folded.
    """
    order = list(tree.walk())
    numbers = {node.index: number for number, node in enumerate(order, 1)}
    by_id: dict[str, int] = {}
    for node in order:
        by_id.setdefault(node.span.span_id, numbers[node.index])
    outside = frozenset(tree.outside_parent)
    folder = _Folder(order) if fold else None
    starts = [span.start_ns for span in tree.spans if span.start_ns > 0]
    ends = [span.start_ns + (span.duration_ns or 0) for span in tree.spans if span.start_ns > 0]
    return TraceRows(
        rows=tuple(_rows(tree, numbers, outside, folder)),
        start_ns=min(starts, default=0),
        end_ns=max(ends, default=0),
        numbers=by_id,
        services=tuple(dict.fromkeys(name for node in order if (name := node.span.resource.service_name))),
    )


def logical(spans: Sequence[SpanData]) -> tuple[list[SpanData], int]:
    """The spans of agents, models and tools, below their nearest ancestor of these types, and how many others are left out.

    A root and a failed span stay, whatever their type: the trace keeps its name, and no error is hidden.
    """
    tree = SpanTree(spans)
    shown: dict[int, str | None] = {}
    kept: list[SpanData] = []
    for node in tree.walk():
        above = node.span.parent_span_id if node.parent is None else shown[node.parent.index]
        is_shown = node.parent is None or node.span.span_type in LOGICAL_TYPES or node.span.status is SpanStatus.ERROR
        shown[node.index] = node.span.span_id if is_shown else above
        if is_shown:
            moved = node.span.parent_span_id != above
            kept.append(msgspec.structs.replace(node.span, parent_span_id=above) if moved else node.span)
    return kept, len(spans) - len(kept)


def _rows(
    tree: SpanTree[SpanData], numbers: dict[int, int], outside: frozenset[int], folder: "_Folder | None"
) -> Iterator[TreeRow]:
    stack: list[tuple[Node | Fold | str, int, tuple[bool, ...], list[Node]]] = []

    def push(nodes: list[Node], depth: int, rails: tuple[bool, ...]) -> None:
        entries: list[Node | Fold] = list(nodes) if folder is None else folder.folded(nodes)
        for place, entry in enumerate(reversed(entries)):
            stack.append((entry, depth, (*rails, place > 0) if depth else (), []))

    missing = [(str(one.span_id), 0, (), one.children) for one in reversed(tree.placeholders)]
    stack.extend(missing)
    push(tree.roots, 0, ())
    while stack:
        entry, depth, rails, below = stack.pop()
        if isinstance(entry, str):
            yield TreeRow(number=0, depth=0, rails=(), start_ns=0, end_ns=None, missing=entry)
            push(below, 1, ())
        elif isinstance(entry, Fold):
            yield _fold_row(entry, numbers, depth, rails)
        else:
            span = entry.span
            yield TreeRow(
                number=numbers[entry.index],
                depth=depth,
                rails=rails,
                start_ns=span.start_ns,
                end_ns=span.end_ns,
                node=entry,
                outside=entry.index in outside,
            )
            push(entry.children, depth + 1, rails)


def _fold_row(fold: Fold, numbers: dict[int, int], depth: int, rails: tuple[bool, ...]) -> TreeRow:
    spans = [node.span for node in fold.nodes]
    return TreeRow(
        number=numbers[fold.nodes[0].index],
        depth=depth,
        rails=rails,
        start_ns=min(span.start_ns for span in spans),
        end_ns=max(span.end_ns or span.start_ns for span in spans),
        fold=fold,
    )


class _Folder:
    """Finds what repeats among siblings."""

    def __init__(self, order: Sequence[Node]) -> None:
        self._shapes: dict[int, object] = {}
        self._sizes: dict[int, int] = {}
        """The spans of each subtree, by the index of its top."""
        known: dict[object, int] = {}
        for node in reversed(order):
            self._sizes[node.index] = 1 + sum(self._sizes[child.index] for child in node.children)
            below = tuple(self._shapes[child.index] for child in node.children)
            plain = node.span.status is SpanStatus.SUCCESS and None not in below
            shape = (node.span.span_type, node.span.name, below)
            # Equal subtrees share one number, so that no comparison of two shapes descends into them.
            self._shapes[node.index] = known.setdefault(shape, len(known)) if plain else None

    def folded(self, nodes: list[Node]) -> list[Node | Fold]:
        """The siblings, with repetitions replaced."""
        if len(nodes) < MIN_REPEATS:
            return list(nodes)
        shapes = [self._shapes[node.index] for node in nodes]
        found: list[Node | Fold] = []
        at = 0
        while at < len(nodes):
            length, repeats = _repetition(shapes, at)
            if repeats < MIN_REPEATS:
                found.append(nodes[at])
                at += 1
                continue
            first, rest = nodes[at : at + length], nodes[at + length : at + length * repeats]
            found += first
            found.append(
                Fold(
                    nodes=tuple(rest),
                    names=tuple(node.span.name for node in first),
                    repeats=repeats - 1,
                    spans=sum(self._sizes[node.index] for node in rest),
                )
            )
            at += length * repeats
        return found


def _repetition(shapes: list[object], at: int) -> tuple[int, int]:
    """The length of the sequence that begins here and repeats, and how often it is there; the one that covers most."""
    best = (1, 1)
    for length in range(1, LONGEST_PATTERN + 1):
        pattern = shapes[at : at + length]
        if len(pattern) < length or None in pattern:
            break
        repeats = 1
        while shapes[at + length * repeats : at + length * (repeats + 1)] == pattern:
            repeats += 1
        if repeats >= MIN_REPEATS and length * repeats > best[0] * best[1]:
            best = (length, repeats)
    return best
