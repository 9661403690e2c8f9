"""The parent-child structure of one trace, as indexes into the list of its spans.

A worker summarises every trace that it decides and drops most of them, so a summary uses indexes only. `SpanTree` builds nodes
from the structure for callers that walk the tree.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from prela_stream.model.span import REMOTE_PARENT, SPAN_TYPE_CODES, SpanStatus, SpanType


class SpanLike(Protocol):
    """The fields of a span that a tree reads. In one tree all ids have one type (bytes or hex), and so have all span types."""

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


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """The spans of a trace as indexes into the given list. Siblings are in the order of that list."""

    roots: list[int]
    """Spans without a parent, local roots whose parent is missing, and members of cycles."""
    orphans: dict[bytes | str, list[int]]
    """Spans whose parent is missing, by the id of that parent."""
    children: dict[int, list[int]]
    """Children by the index of their parent; only parents that have children."""
    cut: set[int]
    """Members of cycles, which were cut from their parents."""
    order: list[int]
    """Every span once, parents before their children."""


def structure_of(spans: Sequence[SpanLike]) -> Structure:
    """Find the parent of every span. If several spans share an id, the one with the earliest start gets the children."""
    count = len(spans)
    ids = [span.span_id for span in spans]
    index_of: dict[bytes | str | None, int] = dict(zip(ids, range(count), strict=True))
    if len(index_of) < count:
        _resolve_shared_ids(spans, index_of)
    roots: list[int] = []
    orphans: dict[bytes | str, list[int]] = {}
    children: dict[int, list[int]] = {}
    cut: set[int] = set()
    for index, span in enumerate(spans):
        parent_id = span.parent_span_id
        if parent_id is None:
            roots.append(index)
        elif (parent := index_of.get(parent_id)) is None:
            if span.flags & REMOTE_PARENT and span.inject_ordinal is None:
                roots.append(index)
            else:
                orphans.setdefault(parent_id, []).append(index)
        elif parent_id == ids[index]:
            cut.add(index)
            roots.append(index)
        elif parent in children:
            children[parent].append(index)
        else:
            children[parent] = [index]
    order = _downwards(roots, orphans, children)
    if len(order) < count:
        _cut_cycles(spans, index_of, roots=roots, children=children, cut=cut, reached=set(order))
        order = _downwards(roots, orphans, children)
    return Structure(roots=roots, orphans=orphans, children=children, cut=cut, order=order)


def type_code(span: SpanLike) -> int:
    """The wire code of a span's type; the type may be a code or an enum member."""
    kind = span.span_type
    return SPAN_TYPE_CODES[kind] if isinstance(kind, SpanType) else kind


def _resolve_shared_ids(spans: Sequence[SpanLike], index_of: dict[bytes | str | None, int]) -> None:
    for index, span in enumerate(spans):
        first = index_of[span.span_id]
        if first != index and _precedence(span) < _precedence(spans[first]):
            index_of[span.span_id] = index


def _precedence(span: SpanLike) -> tuple[Any, ...]:
    """Orders spans that share an id, independent of their order of arrival."""
    parent = span.parent_span_id
    return (
        span.start_ns,
        type_code(span),
        span.name,
        -1 if span.duration_ns is None else span.duration_ns,
        parent is not None,
        parent,
    )


def _downwards(roots: list[int], orphans: dict[bytes | str, list[int]], children: dict[int, list[int]]) -> list[int]:
    order = [*roots]
    for group in orphans.values():
        order += group
    for index in order:  # the list grows during the loop
        if index in children:
            order += children[index]
    return order


def _cut_cycles(
    spans: Sequence[SpanLike],
    index_of: dict[bytes | str | None, int],
    *,
    roots: list[int],
    children: dict[int, list[int]],
    cut: set[int],
    reached: set[int],
) -> None:
    """Make each member of a cycle a root. A span that is not in `reached` is in a cycle or below one."""
    losing: set[int] = set()
    for start in range(len(spans)):
        path: dict[int, None] = {}
        index = start
        while index not in reached:
            reached.add(index)
            path[index] = None
            index = index_of[spans[index].parent_span_id]
        if index in path:
            members = [*path]
            members = members[members.index(index) :]
            cut.update(members)
            roots.extend(members)
            losing.update(members)  # the parent of each is one of them
    for parent in losing:
        left = [child for child in children[parent] if child not in cut]
        if left:
            children[parent] = left
        else:
            del children[parent]
