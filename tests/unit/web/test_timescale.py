"""Where a moment is drawn, and which waits are cut."""

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.web.timescale import Interval, TimeScale, waits_of, worth_cutting

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND


@given(
    st.integers(1, 10**18),
    st.lists(st.integers(0, 10**15), min_size=2, max_size=12, unique=True),
    st.lists(st.integers(0, 10**15), min_size=2, max_size=30),
)
def test_later_moments_are_never_drawn_before_earlier_ones(start: int, edges: list[int], moments: list[int]) -> None:
    ordered = sorted(start + edge for edge in edges)
    end = max(ordered[-1], start + max(moments)) + 1
    cut = [Interval(low, high) for low, high in zip(ordered[::2], ordered[1::2], strict=False)]
    scale = TimeScale(start, end, cut)
    drawn = [scale.at(start + moment) for moment in sorted(moments)]
    assert drawn == sorted(drawn)
    assert 0 <= drawn[0] <= drawn[-1] <= 100
    assert scale.at(start) == 0
    assert scale.at(end) > 99.9


def test_a_wait_of_two_days_leaves_the_work_visible() -> None:
    work = [Interval(0, 60 * SECOND), Interval(48 * HOUR - 60 * SECOND, 48 * HOUR)]
    waits = waits_of(work, 0, 48 * HOUR)
    assert waits == [Interval(60 * SECOND, 48 * HOUR - 60 * SECOND)]
    assert worth_cutting(waits, 0, 48 * HOUR)
    linear, cut = TimeScale(0, 48 * HOUR), TimeScale(0, 48 * HOUR, waits)
    assert linear.at(60 * SECOND) < 0.1
    assert cut.at(60 * SECOND) > 40
    assert cut.at(48 * HOUR - 60 * SECOND) - cut.at(60 * SECOND) < 6


def test_short_pauses_are_no_waits() -> None:
    work = [Interval(0, 49), Interval(51, 100)]
    assert waits_of(work, 0, 100) == []


def test_overlapping_work_is_counted_once() -> None:
    work = [Interval(0, 100), Interval(10, 20), Interval(190, 200)]
    assert waits_of(work, 0, 200) == [Interval(100, 190)]


def test_marks_are_at_round_offsets_outside_of_waits() -> None:
    assert [tick.offset_ns for tick in TimeScale(0, 10 * SECOND).ticks(5)] == [
        0,
        2 * SECOND,
        4 * SECOND,
        6 * SECOND,
        8 * SECOND,
    ]
    waits = [Interval(60 * SECOND, 48 * HOUR)]
    ticks = TimeScale(0, 48 * HOUR + 60 * SECOND, waits).ticks(5)
    assert all(not 60 * SECOND < tick.offset_ns < 48 * HOUR for tick in ticks)
    assert len(ticks) > 1
