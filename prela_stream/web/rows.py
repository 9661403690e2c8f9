"""The rows of a trace page: the tree and the waterfall in one list, in the order in which they are shown. Pure.

A row is flat and knows its depth, so that a browser collapses and searches without a tree. Siblings that repeat are folded into
one row with a count. The logical view contains only what the agent did: agents, models, tools, retrieval and embeddings.
"""

from collections.abc import Iterator, Sequence

import msgspec

from prela_stream.model.span import SpanStatus
from prela_stream.model.tree import SpanNode, SpanTree
from prela_stream.sinks.query import LightSpan
from prela_stream.views.facts import LOGICAL_TYPES
from prela_stream.views.folding import Fold, Folder
from prela_stream.web.timescale import Interval, TimeScale, waits_of, worth_cutting

Node = SpanNode[LightSpan]


class Bar(msgspec.Struct, frozen=True):
    """A piece of the waterfall, in percent of the axis."""

    x: float
    width: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the page."""

    kind: str
    """A span type in small letters, or `fold` (several siblings) or `missing` (a parent that was not received)."""
    depth: int
    name: str
    span_id: str = ""
    """Of a fold, its first span; empty for a missing parent."""
    status: str = "success"
    service: str = ""
    """Only where it differs from the parent's."""
    bar: Bar | None = None
    path: tuple[Bar, ...] = ()
    """The pieces of the critical path that this span itself took."""
    start_ns: int = 0
    offset_ns: int = 0
    duration_ns: int | None = None
    below: int = 0
    """Spans below this one; of a fold, the spans in it."""
    repeats: int = 0
    """Of a fold: how often the rows above it come again."""
    failed_below: int = 0
    notes: tuple[str, ...] = ()
    span: LightSpan | None = None
    """None for a fold and for a missing parent."""
    has_rows: bool = False
    """Whether rows below belong to this one."""
    folded: bool = False
    """Whether it is inside a fold, which is closed at first."""


class Waterfall(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace page shows of the spans."""

    rows: list[Row]
    scale: TimeScale
    waits: list[Interval]
    hidden: int
    """Spans that the logical view leaves out."""
    is_cut: bool
    """Whether waits are drawn as narrow bands."""
    can_cut: bool


class _Context(msgspec.Struct, frozen=True, kw_only=True):
    tree: SpanTree[LightSpan]
    scale: TimeScale
    end_ns: int
    path: dict[int, list[Bar]]
    outside: frozenset[int]
    below: list[int]
    failed: list[int]


def waterfall(
    tree: SpanTree[LightSpan], *, logical: bool = False, cut: bool | None = None, now_ns: int | None = None
) -> Waterfall:
    """The rows of a trace.

    Args:
        tree: The spans.
        logical: Only what the agent did.
        cut: Draw long waits as narrow bands; None: if they take more than half of the trace.
        now_ns: The present, to which the bars of open spans extend; None: to the last known end.
    """
    start, end = _bounds(tree.spans, now_ns)
    waits = waits_of(_work(tree, end), start, end)
    can_cut = bool(waits)
    is_cut = can_cut and (worth_cutting(waits, start, end) if cut is None else cut)
    scale = TimeScale(start, end, waits if is_cut else ())
    below, failed = _counts_below(tree)
    context = _Context(
        tree=tree,
        scale=scale,
        end_ns=end,
        path=_path_bars(tree, scale),
        outside=frozenset(tree.outside_parent),
        below=below,
        failed=failed,
    )
    shown = [not logical or _is_logical(node) for node in tree.nodes]
    rows = list(_rows(context, shown))
    return Waterfall(rows=rows, scale=scale, waits=waits, hidden=shown.count(False), is_cut=is_cut, can_cut=can_cut)


def _is_logical(node: Node) -> bool:
    """A root and a failed span stay, whatever their type: the trace keeps its name, and no error is hidden."""
    return node.parent is None or node.span.span_type in LOGICAL_TYPES or node.span.status == SpanStatus.ERROR


def _bounds(spans: Sequence[LightSpan], now_ns: int | None) -> tuple[int, int]:
    """First start and last end; a missing start (0) is not 1970."""
    known = [span for span in spans if span.start_ns]
    if not known:
        return 0, max((span.duration_ns or 0 for span in spans), default=1)
    end = max(span.start_ns + (span.duration_ns or 0) for span in known)
    return min(span.start_ns for span in known), max(end, now_ns or 0)


def _work(tree: SpanTree[LightSpan], end_ns: int) -> Iterator[Interval]:
    """When something was done: the time of the spans without children."""
    for node in tree.nodes:
        span = node.span
        if not node.children and span.start_ns:
            until = end_ns if span.duration_ns is None else span.start_ns + span.duration_ns
            yield Interval(span.start_ns, until)


def _path_bars(tree: SpanTree[LightSpan], scale: TimeScale) -> dict[int, list[Bar]]:
    found: dict[int, list[Bar]] = {}
    root = tree.root
    top = None if root is None else tree.nodes[root]
    for segment in tree.critical_path(top):
        found.setdefault(segment.node.index, []).append(_bar(scale, segment.start_ns, segment.end_ns))
    return found


def _bar(scale: TimeScale, start_ns: int, end_ns: int) -> Bar:
    x, end = scale.at(start_ns), scale.at(end_ns)
    width = max(end - x, 0.15)
    return Bar(round(min(x, 99.85), 2), round(width, 2))


def _counts_below(tree: SpanTree[LightSpan]) -> tuple[list[int], list[int]]:
    """For each span, how many are below it, and how many of those failed."""
    below, failed = [0] * len(tree), [0] * len(tree)
    for node in reversed(list(tree.walk())):
        if node.parent is not None:
            at = node.parent.index
            below[at] += below[node.index] + 1
            failed[at] += failed[node.index] + (node.span.status == SpanStatus.ERROR)
    return below, failed


def _rows(context: _Context, shown: list[bool]) -> Iterator[Row]:
    """Every shown span once, with the rows of missing parents and folds between them."""
    children: dict[int, list[Node]] = {}
    tops: list[Node] = []
    nearest: dict[int, int] = {}
    for node in context.tree.walk():
        above = -1 if node.parent is None else nearest[node.parent.index]
        nearest[node.index] = node.index if shown[node.index] else above
        if shown[node.index]:
            (tops if above < 0 else children.setdefault(above, [])).append(node)
    orphans = {node.index for node in context.tree.orphans}
    missing: set[str | None] = set()
    folder = Folder([node for node in context.tree.walk() if shown[node.index]], children)
    stack: list[tuple[Node | Fold[LightSpan], int, bool]] = [
        (top, 1 if top.index in orphans else 0, False) for top in reversed(tops)
    ]
    while stack:
        item, depth, folded = stack.pop()
        if isinstance(item, Fold):
            yield _fold_row(item, depth, folded)
            stack.extend([(node, depth + 1, True) for node in reversed(item.nodes)])
            continue
        if item.index in orphans and item.span.parent_span_id not in missing:
            missing.add(item.span.parent_span_id)
            yield Row(kind="missing", depth=0, name=item.span.parent_span_id or "", status="missing")
        yield _row(context, item, depth, folded, has_rows=item.index in children)
        if (below := children.get(item.index)) is not None:
            stack.extend([(entry, depth + 1, folded) for entry in reversed(folder.folded(below))])


def _fold_row(fold: Fold[LightSpan], depth: int, inside: bool) -> Row:
    return Row(
        kind="fold",
        depth=depth,
        name=", ".join(name or "(no name)" for name in fold.names),
        span_id=fold.nodes[0].span.span_id,
        repeats=fold.repeats,
        below=fold.spans,
        duration_ns=sum(node.span.duration_ns or 0 for node in fold.nodes),
        has_rows=True,
        folded=inside,
    )


def _row(context: _Context, node: Node, depth: int, folded: bool, *, has_rows: bool) -> Row:
    span = node.span
    until = context.end_ns if span.duration_ns is None else span.start_ns + span.duration_ns
    above = "" if node.parent is None else node.parent.span.service
    return Row(
        kind=span.span_type.value.lower(),
        depth=depth,
        name=span.name,
        span_id=span.span_id,
        status=span.status.value.lower(),
        service="" if span.service == above else span.service,
        bar=_bar(context.scale, span.start_ns, until) if span.start_ns else None,
        path=tuple(context.path.get(node.index, ())),
        start_ns=span.start_ns,
        offset_ns=span.start_ns - context.scale.start_ns if span.start_ns else 0,
        duration_ns=span.duration_ns,
        below=context.below[node.index],
        failed_below=context.failed[node.index],
        notes=tuple(_notes(context, node)),
        span=span,
        has_rows=has_rows,
        folded=folded,
    )


def _notes(context: _Context, node: Node) -> Iterator[str]:
    if node.cycle:
        yield "its parents form a cycle"
    if node.index in context.outside:
        yield "outside its parent's time"
    if not node.span.start_ns:
        yield "its start is not known"
