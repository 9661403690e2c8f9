"""The one place that decides: modes, caps, the draw, and head sampling."""

from typing import Any

import pytest

from prela_stream.model.decision import probability_of, threshold_of
from prela_stream.model.span import SpanStatus
from prela_stream.sampling.algebra import And
from prela_stream.sampling.attribute import Attribute
from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.drop import Drop
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.latency import Latency
from prela_stream.sampling.policy import Verdict
from prela_stream.sampling.policyfile import Mode
from prela_stream.sampling.policyset import policy_set
from prela_stream.sampling.share import Always, Probabilistic
from prela_stream.sampling.status import Status
from tests.unit.sampling.traces import PlannedSpan, make_trace, trace_id_of

ERROR = SpanStatus.ERROR
LAST = (1 << 56) - 1


def decide(*policies: Condition, spans: list[PlannedSpan] | None = None, randomness: int = LAST, **how: Any) -> Verdict:
    trace = make_trace(*(spans or []), trace_id=trace_id_of(randomness))
    return Evaluator(policy_set(policies, source="test", **how)).decide(trace)


def test_any_takes_the_highest_probability_and_the_first_of_equals() -> None:
    policies = (
        Probabilistic(name="rest", probability=0.1),
        Status(name="a", probability=0.5),
        Latency(name="b", min_ms=0, probability=0.5),
    )
    verdict = decide(*policies, spans=[PlannedSpan("x", status=ERROR)])
    assert (verdict.policy, verdict.probability) == ("a", 0.5)
    assert decide(*policies).policy == "b"
    assert decide(*policies[:2]).policy == "rest"


def test_any_where_nothing_matches_drops_and_says_so() -> None:
    verdict = decide(Status(name="errors"))
    assert verdict == Verdict(
        kept=False, threshold=1 << 56, probability=0.0, weight=0.0, policy="(none)", reason="no policy matched"
    )


def test_the_draw_is_one_comparison_with_the_rounded_threshold() -> None:
    threshold = threshold_of(0.1)
    rest = Probabilistic(name="rest", probability=0.1)
    kept, dropped = decide(rest, randomness=threshold), decide(rest, randomness=threshold - 1)
    assert (kept.kept, dropped.kept) == (True, False)
    assert kept.threshold == dropped.threshold == threshold
    assert kept.probability == dropped.probability == probability_of(threshold)
    assert kept.weight == pytest.approx(1 / probability_of(threshold))
    assert dropped.weight == 0.0


def test_explicit_randomness_of_a_span_goes_before_the_trace_id() -> None:
    half = Probabilistic(name="half", probability=0.5)
    assert decide(half, randomness=LAST).kept
    assert not decide(half, randomness=LAST, spans=[PlannedSpan(randomness=0)]).kept


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_whole_drop_is_first_and_final_wherever_it_stands(place: int) -> None:
    policies: list[Condition] = [Always(name="all"), Status(name="errors")]
    policies.insert(place, Drop(name="probes", policies=(Attribute(key="probe", equals=True),)))
    verdict = decide(*policies, spans=[PlannedSpan("a", status=ERROR, probe=True)])
    assert (verdict.kept, verdict.policy, verdict.probability) == (False, "probes", 0.0)
    assert verdict.reason == "drop: attribute: probe = True (span: a)"
    assert decide(*policies).policy == "all"


def test_a_part_drop_caps_what_the_others_want() -> None:
    drop = Drop(name="noise", policies=(Always(),), probability=0.75)
    verdict = decide(Always(name="all"), drop)
    assert (verdict.policy, verdict.probability) == ("noise", 0.25)
    assert verdict.reason == "drop: always; otherwise kept by all: always"
    below = decide(Probabilistic(name="rest", probability=0.125), drop)
    assert (below.policy, below.probability) == ("rest", 0.125)


def test_of_several_part_drops_the_lowest_cap_counts() -> None:
    drops = [Drop(name=f"d{p}", policies=(Always(),), probability=p) for p in (0.25, 0.75, 0.5)]
    verdict = decide(*drops, Always(name="all"))
    assert (verdict.policy, verdict.probability) == ("d0.75", 0.25)


def test_first_match_stops_at_the_first_and_drop_takes_its_turn() -> None:
    policies = (
        Status(name="errors"),
        Drop(name="probes", policies=(Attribute(key="probe", equals=True),)),
        Probabilistic(name="rest", probability=0.5),
    )
    assert (
        decide(*policies, spans=[PlannedSpan("a", status=ERROR, probe=True)], mode=Mode.FIRST_MATCH).policy == "errors"
    )
    dropped = decide(*policies, spans=[PlannedSpan("a", probe=True)], mode=Mode.FIRST_MATCH)
    assert (dropped.kept, dropped.policy) == (False, "probes")
    assert decide(*policies, mode=Mode.FIRST_MATCH).policy == "rest"


@pytest.mark.parametrize("default", [1.0, 0.25, 0.0])
def test_first_match_without_a_match_takes_the_default(default: float) -> None:
    verdict = decide(Status(name="errors"), mode=Mode.FIRST_MATCH, default=default)
    assert (verdict.policy, verdict.probability, verdict.kept) == ("(default)", default, default > 0)
    assert verdict.reason == f"no policy matched; the default keeps {default * 100:g} %"


def test_head_sampling_is_the_smaller_probability_of_both() -> None:
    quarter, half = threshold_of(0.25), threshold_of(0.5)
    spans = [PlannedSpan(threshold=quarter), PlannedSpan(threshold=quarter)]
    verdict = decide(Probabilistic(name="half", probability=0.5), spans=spans)
    assert (verdict.threshold, verdict.weight, verdict.weight_biased) == (quarter, 4.0, False)
    assert verdict.reason == "probabilistic: 50 % of all traces; head-sampled at 25 %"
    verdict = decide(Probabilistic(name="tenth", probability=0.125), spans=[PlannedSpan(threshold=half)])
    assert (verdict.weight, verdict.weight_biased) == (8.0, False)
    assert "head-sampled" not in verdict.reason


def test_spans_that_disagree_on_head_sampling_mark_the_weight() -> None:
    spans = [PlannedSpan(threshold=threshold_of(p)) for p in (0.25, 0.5)]
    verdict = decide(Always(name="all"), spans=spans)
    assert (verdict.kept, verdict.weight, verdict.weight_biased) == (True, 2.0, True)
    some_without = [PlannedSpan(threshold=threshold_of(0.25)), PlannedSpan()]
    verdict = decide(Always(name="all"), spans=some_without)
    assert (verdict.weight, verdict.weight_biased) == (4.0, True)


def test_a_head_threshold_that_cannot_be_true_drops_no_error() -> None:
    spans = [PlannedSpan("x", status=ERROR, threshold=threshold_of(0.25))]
    verdict = decide(Status(name="errors"), spans=spans, randomness=5)
    assert (verdict.kept, verdict.weight, verdict.weight_biased) == (True, 1.0, True)


def test_keep_all_head_sampling_changes_nothing() -> None:
    verdict = decide(Always(name="all"), spans=[PlannedSpan(threshold=0)])
    assert (verdict.weight, verdict.weight_biased, verdict.reason) == (1.0, False, "always")


def test_reads_is_what_any_policy_needs_at_any_depth() -> None:
    deep = And(policies=(Attribute(key="a", exists=True), Drop(policies=(Attribute(key="b", exists=True),))))
    policies = (
        deep,
        Attribute(name="c", key="c", exists=True),
        Attribute(name="r", key="r", on="resource", exists=True),
    )
    assert Evaluator(policy_set(policies, source="test")).reads == {"a", "b", "c"}
    assert Evaluator(policy_set([Always()], source="test")).reads == set()
