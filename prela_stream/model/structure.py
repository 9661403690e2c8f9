"""Who hangs below whom among the spans of one trace, as places in a list: what every decision needs of a tree, and no more.

`SpanTree` makes nodes of it for those who walk a tree. A worker sums up every trace that it decides, most of which it drops:
it asks only for what works on places.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from prela_stream.model.span import REMOTE_PARENT, SPAN_TYPE_CODES, SpanStatus, SpanType


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


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """The spans of a trace by their places in the list that they were given in. Siblings are in the order of that list."""

    roots: list[int]
    """Spans without a parent, local roots whose parent is not there, and members of cycles."""
    orphans: dict[bytes | str, list[int]]
    """Spans that name a parent which is not there, by that parent."""
    children: dict[int, list[int]]
    """By their parent; only spans that have any."""
    cut: set[int]
    """Members of cycles, which were cut from their parents."""
    order: list[int]
    """Every span once, parents before their children."""


def link(spans: Sequence[SpanLike]) -> Links:
    """Find every span's parent. Of several with one id the earliest start gets the children."""
    count = len(spans)
    ids = [span.span_id for span in spans]
    places: dict[bytes | str | None, int] = dict(zip(ids, range(count), strict=True))
    if len(places) < count:
        _settle_claims(spans, places)
    roots: list[int] = []
    orphans: dict[bytes | str, list[int]] = {}
    children: dict[int, list[int]] = {}
    cut: set[int] = set()
    for place, span in enumerate(spans):
        parent_id = span.parent_span_id
        if parent_id is None:
            roots.append(place)
        elif (parent := places.get(parent_id)) is None:
            if span.flags & REMOTE_PARENT and span.inject_ordinal is None:
                roots.append(place)
            else:
                orphans.setdefault(parent_id, []).append(place)
        elif parent_id == ids[place]:
            cut.add(place)
            roots.append(place)
        elif parent in children:
            children[parent].append(place)
        else:
            children[parent] = [place]
    order = _downwards(roots, orphans, children)
    if len(order) < count:
        _cut_cycles(spans, places, roots=roots, children=children, cut=cut, reached=set(order))
        order = _downwards(roots, orphans, children)
    return Links(roots=roots, orphans=orphans, children=children, cut=cut, order=order)


def type_code(span: SpanLike) -> int:
    """The wire code of a span's type, whichever form it has."""
    kind = span.span_type
    return SPAN_TYPE_CODES[kind] if isinstance(kind, SpanType) else kind


def _settle_claims(spans: Sequence[SpanLike], places: dict[bytes | str | None, int]) -> None:
    for place, span in enumerate(spans):
        first = places[span.span_id]
        if first != place and _claim(span) < _claim(spans[first]):
            places[span.span_id] = place


def _claim(span: SpanLike) -> tuple[Any, ...]:
    """Orders spans that share an id, whatever order they came in."""
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
    for place in order:  # which grows meanwhile
        if place in children:
            order += children[place]
    return order


def _cut_cycles(
    spans: Sequence[SpanLike],
    places: dict[bytes | str | None, int],
    *,
    roots: list[int],
    children: dict[int, list[int]],
    cut: set[int],
    reached: set[int],
) -> None:
    """Make a root of each member of a cycle. Who was not `reached` from above is in one, or below one."""
    losing: set[int] = set()
    for start in range(len(spans)):
        path: dict[int, None] = {}
        place = start
        while place not in reached:
            reached.add(place)
            path[place] = None
            place = places[spans[place].parent_span_id]
        if place in path:
            members = [*path]
            members = members[members.index(place) :]
            cut.update(members)
            roots.extend(members)
            losing.update(members)  # the parent of each is one of them
    for parent in losing:
        left = [child for child in children[parent] if child not in cut]
        if left:
            children[parent] = left
        else:
            del children[parent]
