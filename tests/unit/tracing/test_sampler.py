"""Head samplers: one decision per trace, by its randomness, with a true threshold."""

import random
import subprocess
import sys

import pytest

from prela_stream import telemetry
from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import format_threshold, parse_threshold, probability_of, threshold_of, weight_of
from prela_stream.model.ids import RANDOMNESS_RANGE, trace_randomness
from prela_stream.propagation.w3c import extract, inject
from prela_stream.testing import capture_spans
from prela_stream.tracing.context import attach, new_trace_context
from prela_stream.tracing.sampler import (
    AlwaysOffSampler,
    AlwaysOnSampler,
    BaseSampler,
    HeadDecision,
    ProbabilitySampler,
    RateLimitingSampler,
)
from prela_stream.tracing.tracer import Tracer, get_tracer

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


def test_explicit_context_overrules_the_sampler() -> None:
    with capture_spans(sampler=AlwaysOffSampler()) as captured:
        with new_trace_context(sampled=True), tracer.span("kept"):
            pass
        with new_trace_context(sampled=None), tracer.span("left to the sampler"):
            pass
    assert [span.name for span in captured.spans] == ["kept"]


@pytest.mark.parametrize(
    "sampler",
    [AlwaysOnSampler(), AlwaysOffSampler(), ProbabilitySampler(0.5), ProbabilitySampler(0), RateLimitingSampler(1)],
    ids=["on", "off", "half", "none", "limited"],
)
@pytest.mark.parametrize("flags", ["00", "01"])
def test_every_sampler_follows_the_decision_of_a_remote_parent(sampler: BaseSampler, flags: str) -> None:
    context = extract({"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-{flags}", "tracestate": "ot=th:8"})
    assert context is not None
    with capture_spans(sampler=sampler) as captured, attach(context):
        for _ in range(20):
            with tracer.span("remote"), tracer.span("child"):
                headers = inject({})
    assert len(captured.spans) == (40 if flags == "01" else 0)
    assert {span.threshold for span in captured.spans} <= {threshold_of(0.5)}
    assert headers["traceparent"].endswith("-01") == (flags == "01")
    assert ("th:8" in headers.get("tracestate", "")) == (flags == "01")


def test_a_tracer_with_another_sampler_follows_the_decision_at_the_root() -> None:
    with capture_spans() as captured:
        never = Tracer(sampler=AlwaysOffSampler())
        with tracer.span("root"), never.span("inside"):
            pass
        with never.span("root"), tracer.span("inside"):
            pass
    assert [span.name for span in captured.spans] == ["inside", "root"]


def test_another_process_picks_the_same_traces_at_the_same_rate() -> None:
    ids = [random.Random(number).randbytes(16).hex() for number in range(300)]
    code = (
        "import sys; from prela_stream import ProbabilitySampler\n"
        "print([ProbabilitySampler(0.3).should_sample(one) for one in sys.argv[1:]])"
    )
    done = subprocess.run([sys.executable, "-c", code, *ids], capture_output=True, text=True, check=True)
    mine = [ProbabilitySampler(0.3).should_sample(one) for one in ids]
    assert done.stdout.strip() == str(mine)
    assert 50 < sum(mine) < 130


@pytest.mark.parametrize("rate", [1 / 3, 0.1, 1e-6, 0.999999])
def test_a_rate_is_rounded_to_four_hex_digits_before_it_is_used(rate: float) -> None:
    threshold = ProbabilitySampler(rate).next_threshold()
    written = format_threshold(threshold)
    assert parse_threshold(written) == threshold
    assert probability_of(threshold) == pytest.approx(rate, rel=1e-3)
    assert weight_of(threshold) * probability_of(threshold) == pytest.approx(1)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        1,
        "yes",
        HeadDecision(True, -1),
        HeadDecision(True, RANDOMNESS_RANGE),
        HeadDecision(True, 0.5),  # type: ignore[arg-type]
        HeadDecision(True, True),
        RuntimeError("no decision"),
    ],
    ids=repr,
)
def test_an_invalid_decision_keeps_the_trace_and_is_counted(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    class Own(BaseSampler):
        def should_sample(self, trace_id: str) -> bool:
            return True

        def decide(self, trace_id: bytes) -> HeadDecision:
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]  # what the test is about

    error = "RuntimeError" if isinstance(answer, Exception) else "TypeError"
    before = telemetry.SWALLOWED.value("sampler.decide", error)
    with capture_spans(sampler=Own()) as captured, tracer.span("kept"):
        pass
    assert captured.find("kept").threshold is None
    assert telemetry.SWALLOWED.value("sampler.decide", error) == before + 1


def test_a_custom_sampler_with_a_threshold_has_a_weight() -> None:
    class Half(BaseSampler):
        def should_sample(self, trace_id: str) -> bool:
            raise AssertionError("decide() is asked")

        def decide(self, trace_id: bytes) -> HeadDecision:
            return HeadDecision(trace_randomness(trace_id) >= 1 << 55, 1 << 55)

    with capture_spans(sampler=Half()) as captured:
        for _ in range(200):
            with tracer.span("x"):
                pass
    assert 50 < len(captured.spans) < 150
    assert {span.threshold for span in captured.spans} == {1 << 55}


def test_always_on_has_no_threshold() -> None:
    with capture_spans(sampler=AlwaysOnSampler()) as captured, tracer.span("x"):
        pass
    assert captured.find("x").threshold is None
    assert AlwaysOnSampler().should_sample("00")
    assert not AlwaysOffSampler().should_sample("00")


def test_a_custom_sampler_needs_only_a_bool_and_its_errors_keep_the_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    class Picky(BaseSampler):
        answer: object = False

        def should_sample(self, trace_id: str) -> bool:
            assert len(trace_id) == 32
            if self.answer is None:
                raise RuntimeError("no decision")
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
    """Start `count` traces within the next second; returns how many are kept, and the sum of their weights."""
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


def test_a_burst_after_silence_is_weighted_without_bias(randomness: random.Random) -> None:
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


def test_less_than_one_trace_per_second(randomness: random.Random) -> None:
    clock = Clock()
    sampler = RateLimitingSampler(0.1, clock=clock)
    assert probability_of(sampler.next_threshold()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_a_wrong_rate_is_a_configuration_error(rate: object) -> None:
    with pytest.raises(ConfigurationError, match="the sampling rate must be a number of at least 0 and at most 1, got"):
        ProbabilitySampler(rate)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("rate", [-1, float("inf"), float("nan"), "5", None])
def test_a_wrong_limit_is_a_configuration_error(rate: object) -> None:
    with pytest.raises(ConfigurationError, match="traces_per_second must be a number of at least 0, got"):
        RateLimitingSampler(rate)  # type: ignore[arg-type]  # the point of the test


def test_a_sampler_that_forgets_to_return_keeps_the_trace_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(BaseSampler):
        def should_sample(self, trace_id: str) -> bool:
            return None  # type: ignore[return-value]  # what the test is about

    monkeypatch.setenv("PRELA_STRICT", "0")
    before = telemetry.SWALLOWED.value("sampler.decide", "TypeError")
    with capture_spans(sampler=Forgetful()) as captured, get_tracer().span("kept"):
        pass
    assert [span.name for span in captured] == ["kept"]
    assert telemetry.SWALLOWED.value("sampler.decide", "TypeError") == before + 1
