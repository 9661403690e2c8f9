"""Where the time of a trace went: what each span did itself, and what the end of the trace waited for."""

from typing import Generic, TypeVar

import msgspec

from prela_stream.model.structure import SpanLike
from prela_stream.model.tree import SpanNode, SpanTree

S = TypeVar("S", bound=SpanLike)


class PathSegment(msgspec.Struct, Generic[S], frozen=True):
    """A stretch of time that a span, and no child of it, was what the trace waited for; ns since the epoch."""

    node: SpanNode[S]
    start_ns: int
    end_ns: int


def self_time_ns(node: SpanNode[S]) -> int | None:
    """How long the span ran while none of its children did, ns; None while it is open. Open children count as nothing."""
    span = node.span
    if span.duration_ns is None:
        return None
    start, end = span.start_ns, span.start_ns + span.duration_ns
    busy = 0
    covered = start
    for child in node.children:  # by start, so one pass makes the union
        child_start = max(child.span.start_ns, covered)
        child_end = min(_end_of(child), end)
        if child_end > child_start:
            busy += child_end - child_start
            covered = child_end
    return max(0, span.duration_ns - busy)


def critical_path(tree: SpanTree[S], top: SpanNode[S] | None = None) -> list[PathSegment[S]]:
    """What the end of `top` (default: the first root) waited for, from its start to its end without gaps.

    Going back from the end, time belongs to the child that ended last before, and there to its child in turn; what no
    child accounts for is the span's own. An open span ends with the last end below it that is known.
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


def _ends_of(tree: SpanTree[S]) -> list[int]:
    ends = [_end_of(node) for node in tree.nodes]
    for node in reversed(list(tree.walk())):
        if node.parent is not None and node.parent.span.duration_ns is None:
            ends[node.parent.index] = max(ends[node.parent.index], ends[node.index])
    return ends


def _end_of(node: SpanNode[S]) -> int:
    return node.span.start_ns + (node.span.duration_ns or 0)


def _last_before(waiting: list[SpanNode[S]], ends: list[int], floor: int, at: int) -> SpanNode[S] | None:
    """Take the child that ended last within (floor, at] off `waiting`, which is in order of ends; later ones are passed."""
    while waiting:
        child = waiting.pop()
        end = ends[child.index]
        if end <= floor:
            return None
        if end <= at and end > child.span.start_ns:
            return child
    return None
