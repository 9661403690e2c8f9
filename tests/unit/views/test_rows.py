"""The rows of a trace: order, rails, numbers and folds."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.model.tree import SpanTree
from prela_stream.views.rows import TraceRows, rows_of
from tests.support.agent_traces import MS, START, conversation, deep, loop, made, with_failures
from tests.support.examples import examples

ids = st.integers(1, 9)


@st.composite
def any_spans(draw: st.DrawFn) -> list[SpanData]:
    """Spans with shared ids, missing parents and cycles."""
    return [
        made(
            draw(ids), draw(st.none() | ids), draw(st.sampled_from("ab")), draw(st.sampled_from(SpanType)),
            at=draw(st.integers(0, 5)), ms=draw(st.none() | st.integers(0, 9)), status=draw(st.sampled_from(SpanStatus)),
        )
        for _ in range(draw(st.integers(1, 14)))
    ]  # fmt: skip


def of(spans: list[SpanData], **options: bool) -> TraceRows:
    return rows_of(SpanTree(spans), **options)


def sketch(rows: TraceRows) -> list[str]:
    """One line for each row, with its rails."""
    lines = []
    for row in rows.rows:
        rails = "".join("│" if rail else " " for rail in row.rails[:-1])
        end = "" if not row.rails else "├" if row.rails[-1] else "└"
        what = f"missing {row.missing[-2:]}" if row.missing else row.node.span.name if row.node else ""
        if row.fold is not None:
            what = f"{row.fold.repeats} x {'+'.join(row.fold.names)} = {row.fold.spans}"
        lines.append(f"{rails}{end}{row.number} {what}")
    return lines


def test_rows_are_in_order_of_the_tree_with_their_offsets() -> None:
    rows = of(conversation())
    assert sketch(rows) == ["1 plan trip", "├2 chat sonnet", "├3 distance", "└4 chat sonnet"]
    assert [(row.start_ns - rows.start_ns) // MS for row in rows.rows] == [0, 1, 42, 55]
    assert (rows.start_ns, rows.end_ns) == (START, START + 100 * MS)
    assert rows.numbers == {f"{number:016x}": number for number in (1, 2, 3, 4)}
    assert rows.services == ("travel",)


def test_orphans_are_below_their_missing_parent() -> None:
    rows = of(with_failures())
    assert sketch(rows)[-2:] == ["0 missing 05", "└5 lost child"]
    assert rows.services == ("travel", "index")


def test_what_repeats_is_folded_and_keeps_its_numbers() -> None:
    lines = sketch(of(loop(10)))
    assert lines == ["1 plan trip", "├2 chat sonnet", "├3 search", "└4 9 x chat sonnet+search = 18"]
    assert len(sketch(of(loop(10), fold=False))) == 21
    assert len(sketch(of(loop(3)))) == 7, "three rounds are not folded"


def test_a_failure_is_never_folded() -> None:
    spans = loop(10)
    spans[9] = msgspec.structs.replace(spans[9], status=SpanStatus.ERROR)
    lines = sketch(of(spans))
    assert "├10 chat sonnet" in lines
    assert [line for line in lines if " x " in line] == [
        "├4 3 x chat sonnet+search = 6",
        "├13 4 x search+chat sonnet = 8",
    ]


def test_a_row_covers_the_time_of_what_it_folds() -> None:
    fold = of(loop(10)).rows[-1]
    assert ((fold.start_ns - START) // MS, ((fold.end_ns or 0) - START) // MS) == (21, 197)


def test_a_deep_chain_has_a_row_for_each_level() -> None:
    rows = of(deep(3_000))
    assert [row.depth for row in rows.rows] == list(range(3_000))


@given(any_spans())
@examples(200)
def test_every_span_is_in_exactly_one_row(spans: list[SpanData]) -> None:
    for fold in (False, True):
        tree = SpanTree(spans)
        rows = rows_of(tree, fold=fold)
        covered = 0
        for row in rows.rows:
            assert len(row.rails) == row.depth
            covered += row.fold.spans if row.fold is not None else row.node is not None
        assert covered == len(spans)
        shown = [row.node.index for row in rows.rows if row.node is not None]
        order = [node.index for node in tree.walk()]
        assert shown == ([index for index in order if index in set(shown)] if fold else order)
        for row in rows.rows:
            if row.node is not None:
                assert order[row.number - 1] == row.node.index
