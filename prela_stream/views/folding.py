"""Which siblings repeat those above them and become one row: the one rule of the command line, the page and the exports. Pure.

A sequence of one to `LONGEST_PATTERN` siblings that repeats `MIN_REPEATS` times or more becomes its first repetition and a fold.
Two subtrees are equal if types, names and shapes are. A span that failed, was cancelled or is open, and what contains one, is
never folded, so that no fold hides what went wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from prela_stream.model.span import SpanStatus
from prela_stream.model.structure import SpanLike
from prela_stream.model.tree import SpanNode

MIN_REPEATS: Final = 4
"""Siblings that repeat fewer times than this are not folded."""
LONGEST_PATTERN: Final = 3
"""Longest sequence of siblings that counts as one repetition, as `chat, tool` in a loop."""


S = TypeVar("S", bound=SpanLike)


class Fold(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """Siblings that repeat those above them."""

    nodes: tuple[SpanNode[S], ...]
    """The topmost spans that are folded, in order."""
    names: tuple[str, ...]
    """The names of one repetition, in order."""
    repeats: int
    """How often that sequence comes again."""
    spans: int
    """Spans in the folded subtrees, these included."""


class Folder(Generic[S]):
    """Finds what repeats among siblings.

    Args:
        order: Every span that is shown, parents before children.
        children: The shown spans below one; None: the children in the tree.
    """

    def __init__(
        self, order: Sequence[SpanNode[S]], children: Mapping[int, Sequence[SpanNode[S]]] | None = None
    ) -> None:
        self._shapes: dict[int, int | None] = {}
        self._sizes: dict[int, int] = {}
        """The spans of each subtree, by the index of its top."""
        known: dict[object, int] = {}
        shapes, sizes = self._shapes, self._sizes
        for node in reversed(order):
            below = node.children if children is None else children.get(node.index, ())
            inner = tuple([shapes[child.index] for child in below])
            sizes[node.index] = 1 + sum([sizes[child.index] for child in below])
            plain = node.span.status is SpanStatus.SUCCESS and None not in inner
            # Equal subtrees share one number, so that no comparison of two shapes descends into them.
            shape = (node.span.span_type, node.span.name, inner)
            shapes[node.index] = known.setdefault(shape, len(known)) if plain else None

    def folded(self, nodes: Sequence[SpanNode[S]]) -> list[SpanNode[S] | Fold[S]]:
        """The siblings, with repetitions replaced."""
        if len(nodes) < MIN_REPEATS:
            return list(nodes)
        shapes = [self._shapes[node.index] for node in nodes]
        found: list[SpanNode[S] | Fold[S]] = []
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


def _repetition(shapes: Sequence[int | None], at: int) -> tuple[int, int]:
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
