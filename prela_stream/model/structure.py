"""The parent-child structure of one trace, as indexes into the list of its spans.

A worker summarises every trace that it decides and drops most of them, so a summary uses indexes only. `SpanTree` builds nodes
from the structure for callers that walk the tree.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from prela_stream.model.span import REMOTE_PARENT, SPAN_TYPE_CODES, SpanStatus, SpanType

_ROOT: Final = -1
_MISSING: Final = -2
"""In place of the index of a parent: there is none; it is not among the spans."""
MOST_REMEMBERED: Final = 64
"""The structure of up to so many spans is remembered: a few KB."""


class ChildLike(Protocol):
    """What may be a child of a span."""

    @property
    def parent_span_id(self) -> bytes | str | None: ...


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
    """The spans of a trace as indexes into the given list. Siblings are in the order of that list.

    Traces share it. Do not change the lists.
    """

    parents: tuple[int, ...]
    """The index of each span's parent, or a negative number. It determines all other fields if there are no orphans."""
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
    ids = [span.span_id for span in spans]
    index_of = dict(zip(ids, range(len(ids)), strict=True))
    shared = len(index_of) < len(ids)
    if shared:
        _resolve_shared_ids(spans, index_of)
    parents = parents_of(spans, index_of)
    if shared:
        itself = [span.parent_span_id is not None and span.parent_span_id == span.span_id for span in spans]
        parents = tuple([index if itself[index] else parent for index, parent in enumerate(parents)])
    if _MISSING not in parents:
        return structure_of_parents(parents)
    orphans: dict[bytes | str, list[int]] = {}
    known = list(parents)
    for index, span in enumerate(spans):
        if known[index] == _MISSING:
            if span.flags & REMOTE_PARENT and span.inject_ordinal is None:
                known[index] = _ROOT
            else:
                orphans.setdefault(span.parent_span_id, []).append(index)  # type: ignore[arg-type] # it has a parent
    return _structure(tuple(known), orphans)


def parents_of(spans: Sequence[ChildLike], index_of: Mapping[Any, int]) -> tuple[int, ...]:
    """The index of each span's parent by its id; negative for a root, or if the parent is not in `index_of`."""
    find = index_of.get
    return tuple([_ROOT if (parent := span.parent_span_id) is None else find(parent, _MISSING) for span in spans])


def is_whole(parents: tuple[int, ...]) -> bool:
    """Whether none of these parents is missing."""
    return _MISSING not in parents


def structure_of_parents(parents: tuple[int, ...]) -> Structure:
    """The structure of spans with different ids and these parents, none of which is missing."""
    return structure_below(parents) if len(parents) <= MOST_REMEMBERED else _structure(parents, {})


@lru_cache(maxsize=512)
def structure_below(parents: tuple[int, ...]) -> Structure:
    """The structure of spans with these parents, none of which is missing. The agents of a service repeat their traces."""
    return _structure(parents, {})


def _structure(parents: tuple[int, ...], orphans: dict[bytes | str, list[int]]) -> Structure:
    """The structure of spans with these parents. The index of a span itself is a cycle; `_MISSING` is in `orphans`."""
    roots: list[int] = []
    children: dict[int, list[int]] = {}
    cut: set[int] = set()
    for index, parent in enumerate(parents):
        if parent == _ROOT:
            roots.append(index)
        elif parent == index:
            cut.add(index)
            roots.append(index)
        elif parent in children:
            children[parent].append(index)
        elif parent != _MISSING:
            children[parent] = [index]
    order = _downwards(roots, orphans, children)
    if len(order) < len(parents):
        for _ in cut_cycles(parents, roots=roots, children=children, cut=cut, reached=set(order)):
            pass
        order = _downwards(roots, orphans, children)
    return Structure(parents=parents, roots=roots, orphans=orphans, children=children, cut=cut, order=order)


def codes_of(spans: Sequence[SpanLike]) -> list[int]:
    """The wire code of each span's type; the types may be codes or enum members."""
    kinds: list[Any] = [span.span_type for span in spans]
    return [SPAN_TYPE_CODES[kind] for kind in kinds] if kinds and isinstance(kinds[0], SpanType) else kinds


def type_code(span: SpanLike) -> int:
    """The wire code of a span's type; the type may be a code or an enum member."""
    kind = span.span_type
    return SPAN_TYPE_CODES[kind] if isinstance(kind, SpanType) else kind


def _resolve_shared_ids(spans: Sequence[SpanLike], index_of: dict[Any, int]) -> None:
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


def cut_cycles(
    parents: Sequence[int],
    *,
    roots: list[int],
    children: dict[int, list[int]],
    cut: set[int],
    reached: set[int],
    step: int = 1 << 62,
) -> Iterator[None]:
    """Make each member of a cycle a root. A span that is not in `reached` is in a cycle or below one.

    Yields after each `step` spans.
    """
    losing: set[int] = set()
    for start in range(len(parents)):
        path: dict[int, None] = {}
        index = start
        if start % step == 0:
            yield
        while index not in reached:
            reached.add(index)
            path[index] = None
            index = parents[index]
            if len(path) % step == 0:
                yield
        if index in path:
            members = [*path]
            members = members[members.index(index) :]
            yield
            cut.update(members)
            roots.extend(members)
            losing.update(members)  # the parent of each is one of them
    for number, parent in enumerate(losing):
        if number % step == 0:
            yield
        left = [child for child in children[parent] if child not in cut]
        if left:
            children[parent] = left
        else:
            del children[parent]
