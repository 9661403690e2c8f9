"""Fragments of kept traces are joined, however the records of several workers are mixed."""

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.codec.sampled import KeptFragment
from prela_stream.sinks.fragments import COMMIT_MS, FragmentJoiner
from tests.support.kept import decision, fragment, fragments_of, span


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_each_trace_is_joined_once_and_offsets_wait_for_the_first_incomplete_one(
    counts: list[int], data: st.DataObject
) -> None:
    traces = [fragments_of(number, count) for number, count in enumerate(counts)]
    waiting = [list(trace) for trace in traces]
    joined = FragmentJoiner()
    begun: dict[int, int] = {}
    out: list[list[KeptFragment]] = []
    offset = 0
    while any(waiting):
        number = data.draw(st.sampled_from([at for at, rest in enumerate(waiting) if rest]))
        offset += data.draw(st.integers(1, 3))
        whole = joined.add(waiting[number].pop(0), offset=offset, timestamp_ms=offset)
        begun.setdefault(number, offset)
        if not waiting[number]:
            del begun[number]
            assert whole == traces[number]
            out.append(whole)
        else:
            assert whole == []
        assert joined.first_offset() == min(begun.values(), default=None)
    assert len(out) == len(traces)
    assert joined.given_up == 0


def test_a_second_copy_of_a_trace_changes_nothing() -> None:
    a, b, c = fragments_of(1, 3)
    joined = FragmentJoiner()
    copies = [joined.add(one, offset=at, timestamp_ms=at) for at, one in enumerate([a, a, b, a, b, c])]
    assert copies == [[], [], [], [], [], [a, b, c]]
    assert joined.first_offset() is None


def test_a_trace_with_a_missing_fragment_is_given_up() -> None:
    a, b, c = fragments_of(1, 3)
    joined = FragmentJoiner()
    assert [joined.add(one, offset=at, timestamp_ms=at) for at, one in enumerate([b, c])] == [[], []]
    assert (joined.given_up, joined.first_offset()) == (2, None)
    assert [joined.add(one, offset=at, timestamp_ms=at) for at, one in enumerate([a, c])] == [[], []]
    assert (joined.given_up, joined.first_offset()) == (3, None)


def test_a_trace_that_no_commit_can_complete_stops_no_offset() -> None:
    torn, _ = fragments_of(1, 2)
    young, rest = fragments_of(2, 2)
    joined = FragmentJoiner()
    joined.add(torn, offset=0, timestamp_ms=1_000)
    joined.add(young, offset=1, timestamp_ms=1_000 + COMMIT_MS - 1)
    assert (joined.given_up, joined.first_offset()) == (0, 0)
    assert joined.add(rest, offset=2, timestamp_ms=1_000 + COMMIT_MS) == [young, rest]
    assert (joined.given_up, joined.first_offset()) == (1, None)


def test_late_spans_are_returned_at_once() -> None:
    first, _ = fragments_of(1, 2)
    late = fragment(decision(1), [span(1, 7)], fragment=99, late=True)
    joined = FragmentJoiner()
    joined.add(first, offset=0, timestamp_ms=0)
    assert joined.add(late, offset=1, timestamp_ms=1) == [late]
    assert joined.first_offset() == 0
