"""SpanTree on any spans at all."""

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from prela_stream.model.span import SpanHead
from prela_stream.model.times import self_time_ns
from prela_stream.model.tree import SpanTree

span_ids = st.integers(0, 9).map(lambda number: bytes([number]) * 8)
heads = st.builds(
    SpanHead,
    kind=st.just(0),
    trace_id=st.just(bytes(16)),
    span_id=span_ids,
    parent_span_id=st.none() | span_ids,
    flags=st.sampled_from([0, 1, 4]),
    inject_ordinal=st.none() | st.just(0),
    span_type=st.integers(0, 7),
    start_ns=st.integers(0, 5),
    duration_ns=st.none() | st.integers(0, 9),
    name=st.sampled_from(["a", "b", "\udc80"]),
)
spans = st.lists(heads, max_size=12)
distinct_spans = st.lists(heads, max_size=10, unique_by=lambda head: head.span_id)


@given(spans)
@settings(max_examples=200)
def test_every_span_is_in_the_tree_once(given: list[SpanHead]) -> None:
    tree = SpanTree(given)
    order = list(tree.walk())
    assert sorted(node.index for node in order) == list(range(len(given)))
    assert all(node.span is given[node.index] for node in order)
    seen: set[int] = set()
    for node in order:
        if node.parent is None:
            assert node.orphan or any(node is root for root in tree.roots)
            assert node.depth == int(node.orphan)
        else:
            assert node.parent.index in seen
            assert node.depth == node.parent.depth + 1
            assert node.parent.span.span_id == node.span.parent_span_id
            assert any(node is child for child in node.parent.children)
        seen.add(node.index)
    assert tree.max_depth == max((node.depth for node in order), default=0)
    assert tree.max_fan_out == max((len(node.children) for node in order), default=0)


@given(spans)
@settings(max_examples=200)
def test_times_add_up(given: list[SpanHead]) -> None:
    tree = SpanTree(given)
    for node in tree.nodes:
        own, duration = self_time_ns(node), node.span.duration_ns
        assert (own is None) == (duration is None)
        if own is not None and duration is not None:
            ticks = set(range(node.span.start_ns, node.span.start_ns + duration))
            for child in node.children:
                ticks -= set(range(child.span.start_ns, child.span.start_ns + (child.span.duration_ns or 0)))
            assert own == len(ticks)
        path = tree.critical_path(node)
        assert all(segment.start_ns < segment.end_ns for segment in path)
        assert all(one.end_ns == two.start_ns for one, two in pairwise(path))
        if path:
            assert path[0].start_ns == node.span.start_ns
        if duration is not None:
            assert sum(segment.end_ns - segment.start_ns for segment in path) == duration


@given(spans, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_the_order_of_spans_does_not_change_the_shape(given: list[SpanHead], rng: random.Random) -> None:
    shuffled = list(given)
    rng.shuffle(shuffled)
    assert SpanTree(shuffled).shape_hash() == SpanTree(given).shape_hash()


@given(distinct_spans, st.permutations(range(10)))
@settings(max_examples=200)
def test_ids_do_not_change_the_shape(given: list[SpanHead], names: list[int]) -> None:
    def renamed(span_id: bytes | None) -> bytes | None:
        return None if span_id is None else bytes([100 + names[span_id[0]]]) * 8

    others = [
        SpanHead(
            kind=0,
            trace_id=bytes(16),
            span_id=renamed(head.span_id),
            parent_span_id=renamed(head.parent_span_id),
            flags=head.flags,
            inject_ordinal=head.inject_ordinal,
            span_type=head.span_type,
            start_ns=head.start_ns,
            duration_ns=head.duration_ns,
            name=head.name,
        )
        for head in given
    ]
    assert SpanTree(others).shape_hash() == SpanTree(given).shape_hash()


@given(distinct_spans)
@settings(max_examples=200)
def test_leaf_llm_spans_are_those_without_an_llm_span_below(given: list[SpanHead]) -> None:
    tree = SpanTree(given)
    expected = []
    for node in tree.walk():
        below = [other for other in tree.walk() if other.span.span_type == 1 and _is_below(other, node)]
        if node.span.span_type == 1 and not below:
            expected.append(node.span)
    assert tree.leaf_llm == expected


def _is_below(node: object, top: object) -> bool:
    while node is not None:
        node = getattr(node, "parent", None)
        if node is top:
            return True
    return False
