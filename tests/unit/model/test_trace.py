"""The time of a trace: that of its root, so that wrong clocks of other hosts change nothing."""

from typing import Any

from prela_stream.model.decision import Trigger
from prela_stream.model.span import REMOTE_PARENT, Resource, SpanHead
from prela_stream.model.trace import Trace
from prela_stream.model.tree import SpanTree

SECOND = 10**9
START = 1_700_000_000 * SECOND


def head(
    number: int, parent: int | None = None, start: float | None = 0.0, seconds: float | None = 1.0, **fields: Any
) -> SpanHead:
    """A span; `start` is in seconds after START, None: missing."""
    return SpanHead(
        0,
        bytes(16),
        bytes([number]) * 8,
        None if parent is None else bytes([parent]) * 8,
        start_ns=0 if start is None else START + int(start * SECOND),
        duration_ns=None if seconds is None else int(seconds * SECOND),
        **fields,
    )


def times(*heads: SpanHead) -> tuple[int, float]:
    """Start in seconds after START, and the duration in seconds."""
    trace = Trace(
        trace_id=bytes(16),
        heads=list(heads),
        attributes=[{} for _ in heads],
        resources=[Resource() for _ in heads],
        trigger=Trigger.COMPLETE,
        complete=True,
    )
    start = trace.start_ns
    return (start - START) // SECOND if start else 0, trace.duration_ns / SECOND


def test_the_duration_is_that_of_the_root() -> None:
    assert times(head(1, seconds=5), head(2, 1, 1, 2)) == (0, 5)


def test_a_child_whose_host_is_behind_or_ahead_changes_nothing() -> None:
    assert times(head(1, seconds=5), head(2, 1, -40, 2), head(3, 1, 4_000, 2)) == (0, 5)


def test_a_missing_start_is_not_1970() -> None:
    assert times(head(1, seconds=5), head(2, 1, None)) == (0, 5)
    assert times(head(1, start=None, seconds=5), head(2, 1, 3)) == (3, 5)
    assert times(head(1, start=None, seconds=None), head(2, 1, 3, 2), head(3, 1, None, 9)) == (3, 2)


def test_without_an_ended_root_the_trace_lasts_from_the_first_start_to_the_last_end() -> None:
    assert times(head(1, seconds=None), head(2, 1, 1, 2)) == (0, 3)
    assert times(head(2, 1, 1, 2), head(3, 1, 5, 1)) == (1, 5)
    assert times(head(2, 1, None, 2), head(3, 1, None, 3)) == (0, 3)


def test_of_several_roots_an_ended_one_without_a_parent_counts() -> None:
    local_root = head(3, 9, -5, 60, flags=REMOTE_PARENT)
    open_root = head(4, None, -9, None)
    assert times(local_root, open_root, head(1, seconds=5)) == (0, 5)


def test_spans_outside_their_parents_time_are_found() -> None:
    spans = [
        head(1, seconds=10),
        head(2, 1, 1, 2),
        head(3, 1, -40, 2),  # its host is behind
        head(4, 1, 9, 2),  # outlives its parent
        head(5, 1, None, 2),  # no start
        head(6, 2, 0.9995, 2.001),  # within the noise of clocks
        head(7, 8, -99),  # its parent is missing
    ]
    assert [spans[index].span_id for index in SpanTree(spans).outside_parent] == [bytes([3]) * 8, bytes([4]) * 8]


def test_a_child_of_an_open_parent_cannot_end_too_late() -> None:
    spans = [head(1, seconds=None), head(2, 1, 500, 2), head(3, 1, -5, 1)]
    assert SpanTree(spans).outside_parent == [2]
