"""A trace as rows: the tree from top to bottom, with offsets, and repeated siblings folded into one row. Pure.

A span has the same number in every view of its trace: its place in the whole tree, from 1, also where rows are folded.
"""

from collections.abc import Iterator

import msgspec

from prela_stream.model.span import SpanData
from prela_stream.model.tree import SpanNode, SpanTree
from prela_stream.views.folding import Fold, Folder

Node = SpanNode[SpanData]


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
    fold: Fold[SpanData] | None = None
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
        fold: Replace what repeats by its first repetition and one row (`views.folding`).
    """
    order = list(tree.walk())
    numbers = {node.index: number for number, node in enumerate(order, 1)}
    by_id: dict[str, int] = {}
    for node in order:
        by_id.setdefault(node.span.span_id, numbers[node.index])
    outside = frozenset(tree.outside_parent)
    folder = Folder(order) if fold else None
    starts = [span.start_ns for span in tree.spans if span.start_ns > 0]
    ends = [span.start_ns + (span.duration_ns or 0) for span in tree.spans if span.start_ns > 0]
    return TraceRows(
        rows=tuple(_rows(tree, numbers, outside, folder)),
        start_ns=min(starts, default=0),
        end_ns=max(ends, default=0),
        numbers=by_id,
        services=tuple(dict.fromkeys(name for node in order if (name := node.span.resource.service_name))),
    )


def _rows(
    tree: SpanTree[SpanData], numbers: dict[int, int], outside: frozenset[int], folder: Folder[SpanData] | None
) -> Iterator[TreeRow]:
    stack: list[tuple[Node | Fold[SpanData] | str, int, tuple[bool, ...], list[Node]]] = []

    def push(nodes: list[Node], depth: int, rails: tuple[bool, ...]) -> None:
        entries: list[Node | Fold[SpanData]] = list(nodes) if folder is None else folder.folded(nodes)
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


def _fold_row(fold: Fold[SpanData], numbers: dict[int, int], depth: int, rails: tuple[bool, ...]) -> TreeRow:
    spans = [node.span for node in fold.nodes]
    return TreeRow(
        number=numbers[fold.nodes[0].index],
        depth=depth,
        rails=rails,
        start_ns=min(span.start_ns for span in spans),
        end_ns=max(span.end_ns or span.start_ns for span in spans),
        fold=fold,
    )
