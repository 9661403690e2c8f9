"""The arithmetic of thresholds against OpenTelemetry's own table, and its edges."""

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prela_stream.model.decision import (
    decision_id_of,
    format_threshold,
    parse_threshold,
    probability_of,
    threshold_of,
    weight_of,
)

NEVER = 1 << 56
PROBABILITIES = st.floats(0.0, 1.0)


@pytest.mark.parametrize(
    ("one_in", "th"),
    # OpenTelemetry, "TraceState: Probability Sampling", the table of 1-in-N at precision 4
    [
        (1, "0"),
        (2, "8"),
        (3, "aaab"),
        (4, "c"),
        (5, "cccd"),
        (8, "e"),
        (10, "e666"),
        (16, "f"),
        (100, "fd70a"),
        (1000, "ffbe77"),
        (10000, "fff9724"),
        (100000, "ffff583a"),
        (1000000, "ffffef39"),
    ],
)
def test_th_of_one_in_n_is_that_of_the_specification(one_in: int, th: str) -> None:
    assert format_threshold(threshold_of(1 / one_in)) == th


def test_zero_is_never_and_one_is_always() -> None:
    assert (threshold_of(0.0), weight_of(NEVER), probability_of(NEVER)) == (NEVER, 0.0, 0.0)
    assert (threshold_of(1.0), weight_of(0), probability_of(0)) == (0, 1.0, 1.0)


@pytest.mark.parametrize("probability", [2.0**-56, 2.0**-57, 1e-300, 5e-324])
def test_the_least_probability_is_one_in_2_to_the_56(probability: float) -> None:
    assert threshold_of(probability) == NEVER - 1
    assert weight_of(NEVER - 1) == 2.0**56


def test_a_probability_next_to_one_rounds_to_always() -> None:
    assert threshold_of(math.nextafter(1.0, 0.0)) == 0


@pytest.mark.parametrize("wrong", [-0.1, 1.0000001, math.nan, math.inf, -math.inf])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"a probability is in [0, 1], got {wrong!r}")):
        threshold_of(wrong)


@given(PROBABILITIES)
@example(2.0**-20)
@example(1 / 16)
@example(math.nextafter(1 / 16, 0.0))
def test_the_written_form_is_short_and_gives_the_threshold_back(probability: float) -> None:
    threshold = threshold_of(probability)
    if threshold == NEVER:
        assert probability == 0.0
        return
    text = format_threshold(threshold)
    assert parse_threshold(text) == threshold
    assert len(text.lstrip("f")) <= 4 or len(text) == 14


@given(PROBABILITIES, PROBABILITIES)
def test_a_higher_probability_never_has_a_higher_threshold(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert threshold_of(low) >= threshold_of(high)


@given(st.floats(2.0**-40, 1.0))
def test_rounding_moves_the_probability_by_as_little_as_documented(probability: float) -> None:
    error = abs(probability_of(threshold_of(probability)) - probability)
    assert error <= (0.00013 * probability if probability < 1 / 16 else 2.0**-17)


@given(PROBABILITIES)
def test_weight_times_probability_is_one(probability: float) -> None:
    threshold = threshold_of(probability)
    assert weight_of(threshold) * probability_of(threshold) == (0.0 if threshold == NEVER else pytest.approx(1.0))


@pytest.mark.parametrize("threshold", [NEVER, -1, NEVER + 1])
def test_never_has_no_written_form(threshold: int) -> None:
    with pytest.raises(ValueError, match=r"`th` holds a threshold in \[0, 2\*\*56\)"):
        format_threshold(threshold)


@pytest.mark.parametrize("text", ["", "g", "E6", "0x1", "-1", "+1", "1_0", " 1", "1\n", "123456789abcdef", "٣"])
def test_a_malformed_th_is_none(text: str) -> None:
    assert parse_threshold(text) is None


def test_trailing_zeros_of_th_do_not_matter() -> None:
    assert parse_threshold("c") == parse_threshold("c0000000000000") == 3 << 54


def test_a_decision_id_names_where_the_trace_began() -> None:
    one = decision_id_of("spans", 1, b"t" * 16, 7)
    assert len(one) == 16
    assert one == decision_id_of("spans", 1, b"t" * 16, 7)
    others = {
        decision_id_of("spans2", 1, b"t" * 16, 7),
        decision_id_of("spans", 2, b"t" * 16, 7),
        decision_id_of("spans", 1, b"u" * 16, 7),
        decision_id_of("spans", 1, b"t" * 16, 8),
        decision_id_of("spans", 17, b"t" * 16, 7),
        decision_id_of("spans", 1, b"t" * 16, 77),
    }
    assert len(others | {one}) == 7
