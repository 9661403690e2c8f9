"""The rows of a trace page."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.model.tree import SpanTree
from prela_stream.sinks.query import LightSpan
from prela_stream.views.rows import rows_of
from prela_stream.web.rows import Row, waterfall

START = 1_790_000_000_000_000_000
MS = 1_000_000


def light(
    index: int, parent: int | None, name: str = "", start: float = 0, ms: float | None = 10, **more: Any
) -> LightSpan:
    return LightSpan(
        **{
            "span_id": f"{index:016x}",
            "parent_span_id": None if parent is None else f"{parent:016x}",
            "name": name or f"span {index}",
            "span_type": SpanType.CUSTOM,
            "status": SpanStatus.SUCCESS,
            "start_ns": START + int(start * MS),
            "duration_ns": None if ms is None else int(ms * MS),
            **more,
        }
    )


def rows(*spans: LightSpan, **options: Any) -> list[Row]:
    return waterfall(SpanTree(list(spans)), **options).rows


def outline(found: list[Row]) -> list[tuple[int, str]]:
    return [(row.depth, row.name) for row in found]


def test_the_tree_is_in_order_with_its_depths() -> None:
    found = rows(light(3, 2, "c", 2), light(1, None, "a"), light(2, 1, "b", 1), light(4, 1, "d", 5))
    assert outline(found) == [(0, "a"), (1, "b"), (2, "c"), (1, "d")]
    assert [row.has_rows for row in found] == [True, True, False, False]
    assert [row.below for row in found] == [3, 1, 0, 0]


def test_failed_spans_are_counted_at_every_ancestor() -> None:
    found = rows(light(1, None), light(2, 1), light(3, 2, status=SpanStatus.ERROR))
    assert [row.failed_below for row in found] == [1, 1, 0]


def test_orphans_are_below_a_row_of_their_missing_parent() -> None:
    found = rows(light(2, 9, "b"), light(3, 9, "c", 1), light(4, 8, "d", 2))
    assert [(row.kind, row.depth) for row in found] == [
        ("missing", 0),
        ("custom", 1),
        ("custom", 1),
        ("missing", 0),
        ("custom", 1),
    ]


def test_repeated_siblings_are_folded_and_can_be_opened() -> None:
    found = rows(
        light(1, None, "a"), *(light(index, 1, "get", index) for index in range(10, 20)), light(30, 1, "z", 40)
    )
    fold = next(row for row in found if row.kind == "fold")
    assert (fold.repeats, fold.below, fold.name) == (9, 9, "get")
    assert [row.folded for row in found if row.name == "get" and row.kind != "fold"] == [False, *[True] * 9]
    assert found[-1].name == "z"
    assert not found[-1].folded


def test_a_loop_is_folded_with_what_is_below_its_spans_and_a_failure_is_not() -> None:
    spans = [light(1, None, "a")]
    for turn in range(0, 60, 6):
        spans += [
            light(10 + turn, 1, "chat", turn),
            light(11 + turn, 1, "tool", turn + 1),
            light(12 + turn, 11 + turn, "http"),
        ]
    found = rows(*spans)
    assert [(row.repeats, row.below, row.name) for row in found if row.kind == "fold"] == [(9, 27, "chat, tool")]
    assert [row.name for row in found if not row.folded and row.kind != "fold"] == ["a", "chat", "tool", "http"]
    spans[-1] = light(66, 65, "http", status=SpanStatus.ERROR)
    found = rows(*spans)
    assert [row.name for row in found if row.failed_below and not row.folded] == ["a", "tool"]
    assert next(row for row in found if row.status == "error").folded is False


@given(st.lists(st.sampled_from("abc"), max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_the_page_folds_what_the_command_line_folds(names: list[str], failed: list[bool]) -> None:
    """One rule: the spans that a terminal prints are the rows of the page that no fold hides."""
    spans = [light(1, None, "root")]
    for index, name in enumerate(names, 2):
        spans.append(
            light(
                index,
                1,
                name,
                index,
                status=SpanStatus.ERROR if failed[index - 2] and name == "a" else SpanStatus.SUCCESS,
            )
        )
    whole = [
        SpanData(
            trace_id=f"{1:032x}", span_id=one.span_id, parent_span_id=one.parent_span_id, name=one.name, status=one.status,
            start_ns=one.start_ns, duration_ns=one.duration_ns,
        )
        for one in spans
    ]  # fmt: skip
    terminal = [
        ("", row.fold.repeats) if row.fold else (row.node.span.span_id if row.node else "", 0)
        for row in rows_of(SpanTree(whole)).rows
    ]
    page = [("", row.repeats) if row.kind == "fold" else (row.span_id, 0) for row in rows(*spans) if not row.folded]
    assert page == terminal


def test_the_logical_view_keeps_agents_models_tools_roots_and_failures() -> None:
    spans = [
        light(1, None, "http"),
        light(2, 1, "agent", span_type=SpanType.AGENT),
        light(3, 2, "plumbing"),
        light(4, 3, "chat", span_type=SpanType.LLM),
        light(5, 3, "failed", 2, status=SpanStatus.ERROR),
    ]
    drawn = waterfall(SpanTree(spans), logical=True)
    assert outline(drawn.rows) == [(0, "http"), (1, "agent"), (2, "chat"), (2, "failed")]
    assert drawn.hidden == 1


def test_bars_are_at_their_times_and_open_ones_reach_the_present() -> None:
    found = rows(light(1, None, ms=None), light(2, 1, start=50, ms=25), cut=False, now_ns=START + 100 * MS)
    assert found[0].bar is not None
    assert (found[0].bar.x, found[0].bar.width) == (0, 100)
    assert found[1].bar is not None
    assert (found[1].bar.x, found[1].bar.width) == (50, 25)


def test_the_critical_path_covers_the_trace() -> None:
    found = rows(light(1, None, ms=100), light(2, 1, start=10, ms=40), light(3, 1, start=60, ms=30), cut=False)
    assert sum(bar.width for row in found for bar in row.path) == 100


def test_a_span_without_a_start_is_not_drawn_in_1970() -> None:
    found = rows(light(1, None), light(2, 1, start_ns=0), cut=False)
    assert found[0].bar is not None
    assert found[0].bar.width == 100
    assert next(row for row in found if row.name == "span 2").bar is None


parents = st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=30)


@given(parents, st.booleans())
def test_every_span_is_there_once_whatever_its_parents(given_parents: list[int | None], logical: bool) -> None:
    spans = [light(index, parent, "same" if index % 3 else "", index) for index, parent in enumerate(given_parents)]
    found = rows(*spans, logical=False)
    assert sorted(row.span_id for row in found if row.span) == sorted(span.span_id for span in spans)
    assert len(rows(*spans, logical=logical)) > 0
    for above, row in itertools.pairwise(found):
        assert row.depth <= above.depth + 1
