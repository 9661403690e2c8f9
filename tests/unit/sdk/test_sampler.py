"""Head samplers: one decision a trace, by its randomness, with an honest threshold."""

import random

import pytest

from prela_stream import telemetry
from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import probability_of, threshold_of, weight_of
from prela_stream.model.ids import RANDOMNESS_RANGE, trace_randomness
from prela_stream.sdk.context import attach, new_trace_context
from prela_stream.sdk.sampler import (
    AlwaysOffSampler,
    AlwaysOnSampler,
    BaseSampler,
    ProbabilitySampler,
    RateLimitingSampler,
)
from prela_stream.sdk.tracer import get_current_span, get_tracer
from prela_stream.testing import capture_spans

tracer = get_tracer()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def randomness() -> random.Random:
    return random.Random(20)


def test_probability_sampler_decides_by_the_shared_arithmetic() -> None:
    sampler = ProbabilitySampler(0.25)
    threshold = threshold_of(0.25)
    edge = bytes(9) + threshold.to_bytes(7, "big")
    below = bytes(9) + (threshold - 1).to_bytes(7, "big")
    assert sampler.decide(edge).sampled
    assert not sampler.decide(below).sampled
    assert sampler.decide(edge).threshold == threshold
    assert sampler.should_sample(edge.hex())
    assert not sampler.should_sample(below.hex())


def test_the_whole_trace_follows_the_decision_at_its_root_and_carries_the_threshold() -> None:
    with capture_spans(sampler=ProbabilitySampler(0.5)) as captured:
        for _ in range(200):
            with tracer.span("root"), tracer.span("child"):
                pass
    spans = captured.spans
    assert {span.threshold for span in spans} == {threshold_of(0.5)}
    assert all(trace_randomness(bytes.fromhex(span.trace_id)) >= threshold_of(0.5) for span in spans)
    assert len(captured.named("root")) == len(captured.named("child"))
    assert 50 < len(captured.named("root")) < 150  # 7 standard deviations


def test_unsampled_spans_keep_the_trace_together_hold_nothing_and_are_counted() -> None:
    before = telemetry.UNSAMPLED_SPANS.value()
    with capture_spans(sampler=AlwaysOffSampler()) as captured:
        with tracer.span("root", attributes={"a": 1}) as root:
            root.set_attribute("b", 2)
            root.add_event("e")
            with tracer.span("child") as child, tracer.span("grandchild") as grandchild:
                child.set_status("ERROR")
                assert grandchild.trace_id == root.trace_id
                assert not grandchild.sampled
                assert get_current_span() is root
            with attach(tracer.start_span("explicit", parent=root)) as _, tracer.span("below") as below:
                assert below.trace_id == root.trace_id
            assert get_current_span() is root
        assert get_current_span() is None
        assert not root.sampled
        assert captured.items == []
    assert telemetry.UNSAMPLED_SPANS.value() - before == 4  # root, child, grandchild, below; "explicit" has not ended


def test_explicit_context_overrules_the_sampler() -> None:
    with capture_spans(sampler=AlwaysOffSampler()) as captured:
        with new_trace_context(sampled=True), tracer.span("kept"):
            pass
        with new_trace_context(sampled=None), tracer.span("left to the sampler"):
            pass
    assert [span.name for span in captured.spans] == ["kept"]


def test_always_on_says_that_no_sampling_happened() -> None:
    with capture_spans(sampler=AlwaysOnSampler()) as captured, tracer.span("x"):
        pass
    assert captured.find("x").threshold is None
    assert AlwaysOnSampler().should_sample("00")
    assert not AlwaysOffSampler().should_sample("00")


def test_a_users_own_sampler_needs_only_a_yes_or_no_and_its_errors_keep_the_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    class Picky(BaseSampler):
        answer: object = False

        def should_sample(self, trace_id: str) -> bool:
            assert len(trace_id) == 32
            if self.answer is None:
                raise RuntimeError("cannot say")
            return bool(self.answer)

    with capture_spans(sampler=Picky()) as captured:
        with tracer.span("no"):
            pass
        Picky.answer = True
        with tracer.span("yes"):
            pass
        Picky.answer = None
        with tracer.span("broken"):
            pass
    assert [span.name for span in captured.spans] == ["yes", "broken"]


def arrivals(sampler: RateLimitingSampler, clock: Clock, count: int, rng: random.Random) -> tuple[int, float]:
    """`count` traces spread over the next second: how many are kept, and how many those stand for."""
    kept, weight = 0, 0.0
    for _ in range(count):
        clock.now += 1 / count
        decision = sampler.decide(rng.randbytes(16))
        if decision.sampled:
            assert decision.threshold is not None
            kept += 1
            weight += weight_of(decision.threshold)
    clock.now = float(round(clock.now))
    return kept, weight


def test_rate_limit_holds_on_steady_traffic_and_weights_stay_true(randomness: random.Random) -> None:
    clock = Clock()
    sampler = RateLimitingSampler(20, clock=clock)
    arrivals(sampler, clock, 2_000, randomness)
    seconds = [arrivals(sampler, clock, 2_000, randomness) for _ in range(50)]
    assert sum(kept for kept, _ in seconds) / 50 == pytest.approx(20, rel=0.15)
    assert sum(weight for _, weight in seconds) / 50 == pytest.approx(2_000, rel=0.15)


def test_a_burst_out_of_silence_is_weighed_without_bias(randomness: random.Random) -> None:
    keeps, weights = [], []
    for _ in range(150):
        clock = Clock()
        kept, weight = arrivals(RateLimitingSampler(10, clock=clock), clock, 1_000, randomness)
        keeps.append(kept)
        weights.append(weight)
    assert sum(weights) / 150 == pytest.approx(1_000, rel=0.05)
    assert sum(keeps) / 150 == pytest.approx(10 * (1 + 4.6), rel=0.1)  # limit * (1 + ln 100), as documented


def test_traffic_below_the_limit_is_kept_whole(randomness: random.Random) -> None:
    clock = Clock()
    sampler = RateLimitingSampler(20, clock=clock)
    assert [arrivals(sampler, clock, 15, randomness) for _ in range(3)] == [(15, 15.0)] * 3
    assert RateLimitingSampler(0).next_threshold() == RANDOMNESS_RANGE


def test_less_than_one_trace_a_second(randomness: random.Random) -> None:
    clock = Clock()
    sampler = RateLimitingSampler(0.1, clock=clock)
    assert probability_of(sampler.next_threshold()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_a_wrong_rate_is_a_configuration_error(rate: object) -> None:
    with pytest.raises(ConfigurationError, match="a sampling rate is a number of at least 0 and at most 1, got"):
        ProbabilitySampler(rate)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("rate", [-1, float("inf"), float("nan"), "5", None])
def test_a_wrong_limit_is_a_configuration_error(rate: object) -> None:
    with pytest.raises(ConfigurationError, match="a number of traces a second is a number of at least 0, got"):
        RateLimitingSampler(rate)  # type: ignore[arg-type]  # the point of the test
