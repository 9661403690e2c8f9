"""DecidedTraces: how long a decision lives, and what a restart makes of those that were committed."""

from prela_stream.assembly.decided import DecidedTraces
from prela_stream.assembly.options import AssemblyOptions

IDS = [bytes([number]) * 16 for number in range(8)]
A, B, C = IDS[1:4]


def decided() -> DecidedTraces:
    return DecidedTraces(AssemblyOptions(late_window_ms=100))


def live(traces: DecidedTraces) -> dict[bytes, bytes | None]:
    return {trace_id: traces.entry(trace_id) for trace_id in IDS if trace_id in traces}


def test_a_decision_is_live_for_the_window_and_forgotten_for_as_long_again() -> None:
    traces = decided()
    traces.remember(A, b"kept", 1_000)
    traces.remember(B, None, 1_050)
    traces.expire(1_099)
    assert live(traces) == {A: b"kept", B: None}
    assert (A in traces, C in traces, len(traces), traces.entry(C)) == (True, False, 2, None)
    assert not traces.was_forgotten(A, 1_099)
    traces.expire(1_100)
    assert live(traces) == {B: None}
    assert traces.was_forgotten(A, 1_100)
    assert traces.was_forgotten(A, 1_199)
    assert not traces.was_forgotten(A, 1_200)
    assert not traces.was_forgotten(C, 1_100)
    traces.expire(1_250)
    assert (len(traces), traces.size) == (0, 0)


def test_a_second_decision_outlives_the_memory_of_the_first() -> None:
    traces = decided()
    traces.remember(A, b"first", 1_000)
    traces.expire(1_150)
    traces.remember(A, b"second", 1_150)
    traces.expire(1_200)
    assert traces.entry(A) == b"second"
    traces.expire(1_250)
    assert traces.was_forgotten(A, 1_349)
    traces.expire(1_350)
    assert traces.size == 0


def test_both_of_two_decisions_may_be_forgotten_in_one_step() -> None:
    traces = decided()
    traces.remember(A, b"first", 1_000)
    traces.expire(1_150)
    traces.remember(A, b"second", 1_150)
    traces.expire(1_260)
    assert traces.was_forgotten(A, 1_349)
    traces.expire(1_350)
    assert traces.size == 0


def test_deciding_again_while_live_changes_the_entry_and_not_the_time() -> None:
    traces = decided()
    traces.remember(A, b"first", 1_000)
    traces.remember(A, b"second", 1_090)
    assert traces.entry(A) == b"second"
    traces.expire(1_100)
    assert A not in traces
    traces.expire(2_000)


def test_a_loaded_decision_takes_effect_when_it_was_made() -> None:
    traces = decided()
    traces.load(A, b"first", 1_000, first_offset=10, cut_offset=20)
    traces.load(A, b"second", 1_200, first_offset=30, cut_offset=40)
    traces.load(B, b"other", 1_100, first_offset=15, cut_offset=30)
    assert [traces.covers(A, offset) for offset in (9, 10, 19, 20, 29, 30, 39, 40)] == [
        False, True, True, False, False, True, True, False,
    ]  # fmt: skip
    assert not traces.covers(C, 15)
    traces.expire(999)
    assert live(traces) == {}
    traces.expire(1_000)
    assert live(traces) == {A: b"first"}
    traces.expire(1_100)
    assert live(traces) == {B: b"other"}
    assert traces.was_forgotten(A, 1_150)
    traces.expire(1_200)
    assert live(traces) == {A: b"second"}
    assert traces.covers(A, 39)
    traces.expire(1_201)
    assert not traces.covers(A, 39)
    assert (traces._loaded._blocks, traces._loaded._index.count) == ([], 0)


def test_one_step_over_many_loaded_decisions_ends_where_single_steps_do() -> None:
    one, many = decided(), decided()
    for traces in (one, many):
        for number in range(40):
            trace_id = bytes([number % 7]) * 16
            traces.load(trace_id, b"%d" % number, 1_000 + 30 * number, first_offset=number, cut_offset=number + 1)
    for now in range(1_000, 2_100, 10):
        many.expire(now)
    one.expire(2_090)
    assert live(one) == live(many)
    forgotten = [trace_id for trace_id in IDS if one.was_forgotten(trace_id, 2_090)]
    assert forgotten == [trace_id for trace_id in IDS if many.was_forgotten(trace_id, 2_090)]
    assert forgotten
    assert one.size == many.size
