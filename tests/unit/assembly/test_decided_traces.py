"""DecidedTraces: how long a decision lives, and what a restart makes of those that were committed."""

from prela_stream.assembly.decided import DecidedTraces
from prela_stream.assembly.options import AssemblyOptions

A, B, C = (bytes([number]) * 16 for number in (1, 2, 3))


def decided() -> DecidedTraces[str]:
    return DecidedTraces(AssemblyOptions(late_window_ms=100))


def test_a_decision_is_live_for_the_window_and_forgotten_for_as_long_again() -> None:
    traces = decided()
    traces.remember(A, "kept", 1_000)
    traces.remember(B, "dropped", 1_050)
    traces.expire(1_099)
    assert dict(traces) == {A: "kept", B: "dropped"}
    assert (A in traces, len(traces), traces.get(A), traces[B]) == (True, 2, "kept", "dropped")
    assert not traces.was_forgotten(A, 1_099)
    traces.expire(1_100)
    assert dict(traces) == {B: "dropped"}
    assert traces.was_forgotten(A, 1_100)
    assert traces.was_forgotten(A, 1_199)
    assert not traces.was_forgotten(A, 1_200)
    assert not traces.was_forgotten(C, 1_100)
    traces.expire(1_250)
    assert (len(traces), traces._forgotten) == (0, {})


def test_a_second_decision_outlives_the_memory_of_the_first() -> None:
    traces = decided()
    traces.remember(A, "first", 1_000)
    traces.expire(1_150)
    traces.remember(A, "second", 1_150)
    traces.expire(1_200)
    assert traces[A] == "second"
    traces.expire(1_250)
    assert traces.was_forgotten(A, 1_349)
    traces.expire(1_350)
    assert not traces._forgotten
    assert not traces._live_queue
    assert not traces._forgotten_queue


def test_both_of_two_decisions_may_be_forgotten_in_one_step() -> None:
    traces = decided()
    traces.remember(A, "first", 1_000)
    traces.expire(1_150)
    traces.remember(A, "second", 1_150)
    traces.expire(1_260)
    assert traces.was_forgotten(A, 1_349)
    traces.expire(1_350)
    assert not traces._forgotten


def test_deciding_again_while_live_changes_the_entry_and_not_the_time() -> None:
    traces = decided()
    traces.remember(A, "first", 1_000)
    traces.remember(A, "second", 1_090)
    assert traces[A] == "second"
    traces.expire(1_100)
    assert A not in traces
    traces.expire(2_000)


def test_a_loaded_decision_takes_effect_when_it_was_made() -> None:
    traces = decided()
    traces.load(A, "first", 1_000, first_offset=10, cut_offset=20)
    traces.load(A, "second", 1_200, first_offset=30, cut_offset=40)
    traces.load(B, "other", 1_100, first_offset=15, cut_offset=30)
    assert [traces.covers(A, offset) for offset in (9, 10, 19, 20, 29, 30, 39, 40)] == [
        False, True, True, False, False, True, True, False,
    ]  # fmt: skip
    assert not traces.covers(C, 15)
    traces.expire(999)
    assert dict(traces) == {}
    traces.expire(1_000)
    assert dict(traces) == {A: "first"}
    traces.expire(1_100)
    assert dict(traces) == {B: "other"}
    assert traces.was_forgotten(A, 1_150)
    traces.expire(1_200)
    assert dict(traces) == {A: "second"}
    assert traces.covers(A, 39)
    traces.expire(1_201)
    assert not traces.covers(A, 39)
    assert (traces._ranges, len(traces._loaded), len(traces._passing)) == ({}, 0, 0)


def test_one_step_over_many_loaded_decisions_ends_where_single_steps_do() -> None:
    one, many = decided(), decided()
    for traces in (one, many):
        for number in range(40):
            trace_id = bytes([number % 7]) * 16
            traces.load(trace_id, f"{number}", 1_000 + 30 * number, first_offset=number, cut_offset=number + 1)
    for now in range(1_000, 2_100, 10):
        many.expire(now)
    one.expire(2_090)
    assert dict(one) == dict(many)
    assert one._forgotten == many._forgotten
    assert one._forgotten
