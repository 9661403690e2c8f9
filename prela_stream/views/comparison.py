"""Two traces compared: their figures, and their spans matched by place, type and name. Pure."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal

import msgspec

from prela_stream.model.span import SpanData, SpanStatus
from prela_stream.model.tree import SpanNode, SpanTree
from prela_stream.views.facts import facts_of
from prela_stream.views.formats import cost, duration

Change = Literal["same", "changed", "added", "removed"]
_MOST_COMPARED = 2_000
"""Siblings that are matched by their order; of more, the rest is matched one by one."""

Node = SpanNode[SpanData]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both traces, as text."""

    name: str
    before: str
    after: str


class SpanChange(msgspec.Struct, frozen=True, kw_only=True):
    """A span of the first trace, of the second, or of both."""

    change: Change
    span_type: str
    name: str
    depth: int
    before: int = 0
    """Its number in the first trace; 0: it has none there."""
    after: int = 0
    notes: tuple[str, ...] = ()
    """What differs, as `status SUCCESS → ERROR`."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two traces."""

    figures: tuple[Figure, ...]
    spans: tuple[SpanChange, ...]
    """In order of the trees; below a span those of its children."""


def compare(before: Sequence[SpanData], after: Sequence[SpanData]) -> Difference:
    """Compare two traces. Spans are the same if they have the same type and name, below the same parents, in the same order.

    A duration differs if one is at least twice the other and they differ by more than 10 ms.
    """
    first, second = SpanTree(before), SpanTree(after)
    numbers = [{node.index: number for number, node in enumerate(tree.walk(), 1)} for tree in (first, second)]
    figures = [
        Figure(name=name, before=left, after=right)
        for (name, left), (_, right) in zip(_figures(first), _figures(second), strict=True)
    ]
    spans = tuple(_changes(list(first.tops()), list(second.tops()), numbers[0], numbers[1]))
    return Difference(figures=tuple(figures), spans=spans)


def _figures(tree: SpanTree[SpanData]) -> Iterator[tuple[str, str]]:
    spans = tree.spans
    root = None if tree.root is None else spans[tree.root]
    totals = tree.totals([span.attributes for span in spans])
    yield "duration", duration(None if root is None else root.duration_ns)
    yield "spans", f"{len(spans):,}"
    yield "errors", f"{sum(span.status is SpanStatus.ERROR for span in spans):,}"
    yield "calls", f"{len(tree.leaf_llm):,}"
    yield "tokens", f"{totals.input_tokens:,} in, {totals.output_tokens:,} out"
    yield "cost", cost(totals.cost_usd) or "unknown"


def _changes(before: list[Node], after: list[Node], old: dict[int, int], new: dict[int, int]) -> Iterator[SpanChange]:
    """The changes among siblings and below them, without recursion: a trace may be thousands of levels deep."""
    stack: list[tuple[Node | None, Node | None, int]] = [(*pair, 0) for pair in reversed(_pairs(before, after))]
    while stack:
        left, right, depth = stack.pop()
        shown = right or left
        assert shown is not None
        notes = () if left is None or right is None else tuple(_notes(left.span, right.span))
        change: Change = "added" if left is None else "removed" if right is None else "changed" if notes else "same"
        yield SpanChange(
            change=change,
            span_type=shown.span.span_type.value,
            name=shown.span.name,
            depth=depth,
            before=0 if left is None else old[left.index],
            after=0 if right is None else new[right.index],
            notes=notes,
        )
        below = _pairs([] if left is None else left.children, [] if right is None else right.children)
        stack.extend((*pair, depth + 1) for pair in reversed(below))


def _pairs(before: list[Node], after: list[Node]) -> list[tuple[Node | None, Node | None]]:
    """The spans of both sides in one order; equal ones are a pair."""
    left = [(node.span.span_type, node.span.name) for node in before]
    right = [(node.span.span_type, node.span.name) for node in after]
    if left == right:
        return list(zip(before, after, strict=True))
    if max(len(left), len(right)) > _MOST_COMPARED:
        return [*((node, None) for node in before), *((None, node) for node in after)]
    found: list[tuple[Node | None, Node | None]] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            found += zip(before[i1:i2], after[j1:j2], strict=True)
        else:
            found += [(node, None) for node in before[i1:i2]]
            found += [(None, node) for node in after[j1:j2]]
    return found


def _notes(left: SpanData, right: SpanData) -> Iterator[str]:
    if left.status is not right.status:
        yield f"status {left.status} → {right.status}"
    old, new = facts_of(left), facts_of(right)
    for name, one, two in (
        ("model", old.model, new.model),
        ("service", old.service, new.service),
        ("error", old.error_type, new.error_type),
        ("finish", "/".join(old.finish_reasons), "/".join(new.finish_reasons)),
        ("retries", old.retries, new.retries),
        ("tokens in", old.input_tokens, new.input_tokens),
        ("tokens out", old.output_tokens, new.output_tokens),
    ):
        if one != two:
            yield f"{name} {_or_none(one)} → {_or_none(two)}"
    one, two = left.duration_ns, right.duration_ns
    if one is None or two is None:
        return
    if abs(one - two) > 10_000_000 and max(one, two) >= 2 * min(one, two):
        yield f"duration {duration(one)} → {duration(two)}"


def _or_none(value: str | int | None) -> str:
    return "none" if value in (None, "") else f"{value:,}" if isinstance(value, int) else str(value)
