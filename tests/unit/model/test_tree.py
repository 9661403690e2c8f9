"""SpanTree on named cases."""

from typing import Any

import pytest

from prela_stream.codec.spans import decode_head
from prela_stream.model.semconv import COST_USD, INPUT_TOKENS, OUTPUT_TOKENS
from prela_stream.model.span import REMOTE_PARENT, SpanData, SpanHead, SpanType
from prela_stream.model.times import PathSegment, self_time_ns
from prela_stream.model.tree import SpanTree, Totals
from tests.support.items import encode_span

LLM, TOOL, CUSTOM = 1, 2, 5


def head(span_id: int, parent: int | None = None, start: int = 0, duration: int | None = 10, **fields: Any) -> SpanHead:
    return SpanHead(
        kind=0,
        trace_id=bytes(16),
        span_id=bytes([span_id]) * 8,
        parent_span_id=None if parent is None else bytes([parent]) * 8,
        start_ns=start,
        duration_ns=duration,
        **{"name": f"span {span_id}", **fields},
    )


def ids(nodes: Any) -> list[int]:
    return [node.span.span_id[0] for node in nodes]


def stretches(path: list[PathSegment[SpanHead]]) -> list[tuple[int, int, int]]:
    return [(ids([segment.node])[0], segment.start_ns, segment.end_ns) for segment in path]


def test_children_are_ordered_by_start_and_then_id() -> None:
    tree = SpanTree([head(4, 1, 5), head(3, 1, 5), head(2, 1, 9), head(1)])
    assert ids(tree.roots) == [1]
    assert ids(tree.roots[0].children) == [3, 4, 2]
    assert ids(tree.walk()) == [1, 3, 4, 2]
    assert [node.depth for node in tree.walk()] == [0, 1, 1, 1]
    assert (tree.max_depth, tree.max_fan_out, len(tree)) == (1, 3, 4)


def test_orphans_of_one_missing_parent_share_a_placeholder() -> None:
    tree = SpanTree([head(5, 9, 7), head(1), head(3, 8, 2), head(4, 8, 1), head(6, 3)])
    assert [(placeholder.span_id[0], ids(placeholder.children)) for placeholder in tree.placeholders] == [
        (8, [4, 3]),
        (9, [5]),
    ]
    assert ids(tree.orphans) == [4, 3, 5]
    assert all(node.orphan and node.parent is None and node.depth == 1 for node in tree.orphans)
    assert ids(tree.walk()) == [1, 4, 3, 6, 5]
    assert tree.max_depth == 2


def test_a_local_root_is_not_an_orphan_and_is_a_child_of_its_parent_if_that_was_received() -> None:
    local = head(2, 1, flags=REMOTE_PARENT)
    answered = head(3, 9, flags=REMOTE_PARENT, inject_ordinal=0)
    assert ids(SpanTree([local]).roots) == [2]
    assert ids(SpanTree([head(1), local]).roots[0].children) == [2]
    assert SpanTree([answered]).nodes[0].orphan


def test_every_member_of_a_cycle_becomes_a_root() -> None:
    tree = SpanTree([head(1, 3), head(2, 1), head(3, 2), head(4, 2), head(5, 5), head(6)])
    assert ids(tree.roots) == [1, 2, 3, 5, 6]
    assert [node.cycle for node in tree.nodes] == [True, True, True, False, True, False]
    assert ids(tree.roots[1].children) == [4]
    assert sorted(ids(tree.walk())) == [1, 2, 3, 4, 5, 6]


def test_children_of_a_doubled_id_go_to_the_earliest() -> None:
    early, late = head(1, start=1), head(1, start=2)
    for spans in ([early, late, head(2, 1)], [late, head(2, 1), early]):
        tree = SpanTree(spans)
        parent = next(node for node in tree.nodes if node.span is early)
        assert ids(parent.children) == [2]
        assert len(list(tree.walk())) == 3


def test_self_time_excludes_the_time_of_children() -> None:
    spans = [
        head(1, None, 100, 100),
        head(2, 1, 90, 20),
        head(3, 1, 105, 15),
        head(4, 1, 190, 50),
        head(5, 1, 150, None),
    ]
    tree = SpanTree(spans)
    assert self_time_ns(tree.roots[0]) == 100 - 20 - 10
    assert self_time_ns(tree.nodes[1]) == 20
    assert self_time_ns(tree.nodes[4]) is None


def test_the_critical_path_follows_the_last_child_to_end() -> None:
    spans = [
        head(1, None, 0, 100),
        head(2, 1, 10, 30),
        head(3, 1, 10, 60),  # concurrent with 2, and ends later
        head(4, 3, 20, 30),
        head(5, 1, 80, 15),
        head(6, 1, 85, 500),  # ends after its parent, so nothing waits for it
    ]
    assert stretches(SpanTree(spans).critical_path()) == [
        (1, 0, 10),
        (3, 10, 20),
        (4, 20, 50),
        (3, 50, 70),
        (1, 70, 80),
        (5, 80, 95),
        (1, 95, 100),
    ]


def test_the_critical_path_of_an_open_root_ends_where_the_last_known_end_is() -> None:
    tree = SpanTree([head(1, None, 0, None), head(2, 1, 10, 30)])
    assert stretches(tree.critical_path()) == [(1, 0, 10), (2, 10, 40)]
    assert SpanTree([]).critical_path() == []


def test_leaf_llm_calls_are_counted_once() -> None:
    spans = [
        head(1, span_type=0),
        head(2, 1, span_type=LLM),  # the span of a framework around that of the client
        head(3, 2, span_type=CUSTOM),
        head(4, 3, span_type=LLM),
        head(5, 1, 5, span_type=LLM),
        head(6, 5, span_type=TOOL),
    ]
    usage: list[dict[str, Any]] = [
        {INPUT_TOKENS: 1_000},
        {INPUT_TOKENS: 100, COST_USD: 5.0},
        {},
        {INPUT_TOKENS: 100, OUTPUT_TOKENS: 7, COST_USD: 0.5},
        {"llm.token_count.prompt": 20, OUTPUT_TOKENS: True, COST_USD: float("nan")},
        {OUTPUT_TOKENS: 1},
    ]
    tree = SpanTree(spans)
    assert [span.span_id for span in tree.leaf_llm] == [spans[3].span_id, spans[4].span_id]
    assert tree.totals(usage) == Totals(input_tokens=120, output_tokens=7, cost_usd=0.5)
    assert SpanTree(spans[4:]).totals(usage[4:]).cost_usd is None


def test_the_shape_hash_depends_on_the_shape_only() -> None:
    base = [head(1, name="agent"), head(2, 1, 3, name="a"), head(3, 1, 4, name="b")]
    swapped = [head(1, name="agent"), head(2, 1, 9, name="b"), head(3, 1, 4, 99, name="a")]
    assert SpanTree(base).shape_hash() == SpanTree(swapped).shape_hash()
    others = [
        [*base[:2], head(3, 2, name="b")],
        [*base[:2], head(3, 1, name="c")],
        [*base[:2], head(3, 1, name="b", span_type=LLM)],
        [*base, head(4, 1, name="b")],
        [*base[:2], head(3, 7, name="b")],
        base[:2],
        [],
    ]
    hashes = {SpanTree(spans).shape_hash() for spans in [base, *others]}
    assert len(hashes) == len(others) + 1
    assert all(len(text) == 32 and bytes.fromhex(text) for text in hashes)


def test_span_data_and_heads_make_the_same_tree() -> None:
    data = [
        SpanData(trace_id="00" * 16, span_id=f"{i:016x}", parent_span_id=f"{i // 2:016x}" if i > 1 else None, name=f"n{i}",
                 span_type=kind, start_ns=10 - i, duration_ns=i)
        for i, kind in enumerate([SpanType.AGENT, SpanType.LLM, SpanType.TOOL, SpanType.LLM, SpanType.CUSTOM], 1)
    ]  # fmt: skip
    heads = [decode_head(encode_span(span)) for span in data]
    assert SpanTree(data).shape_hash() == SpanTree(heads).shape_hash()
    assert [node.span.name for node in SpanTree(data).walk()] == [node.span.name for node in SpanTree(heads).walk()]
    assert [span.name for span in SpanTree(data).leaf_llm] == [span.name for span in SpanTree(heads).leaf_llm] == ["n4"]


@pytest.mark.parametrize("names", [1, 1_000_000])
def test_a_chain_of_any_depth_is_supported(names: int) -> None:
    count = 100_000
    ids = [i.to_bytes(8, "big") for i in range(count)]
    chain = [
        SpanHead(
            0, bytes(16), ids[i], ids[i - 1] if i else None, start_ns=i, duration_ns=count - i, name=str(i % names)
        )
        for i in range(count)
    ]
    tree = SpanTree(chain[::-1])
    assert tree.max_depth == count - 1
    assert len(tree.shape_hash()) == 32
    assert len(tree.critical_path()) == count
    assert tree.leaf_llm == []
    circle = SpanTree([SpanHead(0, bytes(16), ids[0], ids[-1], name="0"), *chain[1:]])
    assert len(circle.roots) == count
