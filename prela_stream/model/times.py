"""Where the time of a trace went: the self time of each span, and the critical path."""

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from prela_stream.model.structure import SpanLike

if TYPE_CHECKING:  # `SpanTree` uses this module
    from prela_stream.model.tree import SpanNode, SpanTree

S = TypeVar("S", bound=SpanLike)


class PathSegment(msgspec.Struct, Generic[S], frozen=True):
    """An interval of the critical path in which the trace waited for this span itself; times are ns since the epoch."""

    node: "SpanNode[S]"
    start_ns: int
    end_ns: int


def self_time_ns(node: "SpanNode[S]") -> int | None:
    """Time in which the span ran and none of its children did, ns; None while it is open. Open children have no duration."""
    span = node.span
    if span.duration_ns is None:
        return None
    start, end = span.start_ns, span.start_ns + span.duration_ns
    busy = 0
    covered = start
    for child in node.children:  # ordered by start, so one pass computes the union
        child_start = max(child.span.start_ns, covered)
        child_end = min(_end_of(child), end)
        if child_end > child_start:
            busy += child_end - child_start
            covered = child_end
    return max(0, span.duration_ns - busy)


def critical_path(tree: "SpanTree[S]", top: "SpanNode[S] | None" = None) -> list[PathSegment[S]]:
    """The critical path of `top` (default: the first root): what its end waited for, from its start to its end without gaps.

    The path is built backwards from the end. Each moment belongs to the child that ended last before it, and recursively to
    that child's children. Time that belongs to no child belongs to the span itself. An open span ends with the latest known
    end below it.
    """
    if top is None:
        top = next(tree.tops(), None)
    if top is None:
        return []
    segments: list[PathSegment[S]] = []
    stack: list[tuple[SpanNode[S], int, int, list[SpanNode[S]]]] = []
    ends = _ends_of(tree)
    node, floor, at = top, top.span.start_ns, ends[top.index]
    waiting = sorted(node.children, key=lambda child: ends[child.index])
    while True:
        child = _last_before(waiting, ends, floor, at)
        if child is not None:
            begin, end = max(child.span.start_ns, floor), ends[child.index]
            if end < at:
                segments.append(PathSegment(node, end, at))
            stack.append((node, floor, begin, waiting))
            node, floor, at = child, begin, end
            waiting = sorted(node.children, key=lambda inner: ends[inner.index])
            continue
        if at > floor:
            segments.append(PathSegment(node, floor, at))
        if not stack:
            segments.reverse()
            return segments
        node, floor, at, waiting = stack.pop()


def _ends_of(tree: "SpanTree[S]") -> list[int]:
    ends = [_end_of(node) for node in tree.nodes]
    for node in reversed(list(tree.walk())):
        if node.parent is not None and node.parent.span.duration_ns is None:
            ends[node.parent.index] = max(ends[node.parent.index], ends[node.index])
    return ends


def _end_of(node: "SpanNode[S]") -> int:
    return node.span.start_ns + (node.span.duration_ns or 0)


def _last_before(waiting: list["SpanNode[S]"], ends: list[int], floor: int, at: int) -> "SpanNode[S] | None":
    """Remove the child with the last end in (floor, at] from `waiting`, which is ordered by end, and return it."""
    while waiting:
        child = waiting.pop()
        end = ends[child.index]
        if end <= floor:
            return None
        if end <= at and end > child.span.start_ns:
            return child
    return None
