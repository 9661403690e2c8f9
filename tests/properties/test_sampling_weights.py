"""I12: the weights of kept traces add up to the number of traces that had a chance, for any set of policies."""

import hashlib
import random
from collections.abc import Iterator

import pytest

from prela_stream.model.decision import threshold_of
from prela_stream.model.span import SpanStatus
from prela_stream.model.trace import Trace
from prela_stream.sampling.algebra import And, Not, Or
from prela_stream.sampling.attribute import Attribute
from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.drop import Drop
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.latency import Latency
from prela_stream.sampling.policyfile import Mode
from prela_stream.sampling.policyset import PolicySet, default_policies, policy_set
from prela_stream.sampling.share import Always, Probabilistic
from prela_stream.sampling.status import Status
from tests.unit.sampling.traces import PlannedSpan, make_trace

TRACES = 20_000
SIGMAS = 5
STATUSES = (SpanStatus.SUCCESS,) * 17 + (SpanStatus.ERROR, SpanStatus.ERROR, SpanStatus.CANCELLED)


def traces(seed: int, threshold: int | None) -> Iterator[Trace]:
    """Traces of all kinds, as a head sampler with this threshold marks them; also those that it lets not through."""
    dice = random.Random(seed)
    for number in range(TRACES):
        span = PlannedSpan(
            "work",
            status=dice.choice(STATUSES),
            seconds=dice.choice((0.1, 1, 5, 31)),
            threshold=threshold,
            tier=dice.choice(("gold", "free", "free")),
            tokens=dice.randrange(1000),
        )
        trace_id = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=16).digest()
        yield make_trace(span, trace_id=trace_id)


def random_condition(dice: random.Random, depth: int = 0) -> Condition:
    probability = dice.choice((1.0, 0.5, 0.1, 0.013, dice.random()))
    kind = dice.randrange(4 if depth == 2 else 7)
    if kind == 0:
        return Status(statuses=(dice.choice(STATUSES),), probability=probability)
    if kind == 1:
        return Latency(min_ms=dice.choice((500, 4000, 30_000)), probability=probability)
    if kind == 2:
        return Attribute(key="tokens", min=dice.randrange(1000), probability=probability)
    if kind == 3:
        return Attribute(key="tier", one_of=("gold",), probability=probability)
    subs = tuple(random_condition(dice, depth + 1) for _ in range(2))
    if kind == 4:
        return And(policies=subs, probability=probability)
    if kind == 5:
        return Or(policies=subs)
    return Not(policies=(Status(), Latency(min_ms=4000)), probability=probability)


def random_set(seed: int) -> PolicySet:
    dice = random.Random(seed)
    policies = [random_condition(dice) for _ in range(3)]
    if dice.random() < 0.7:
        policies.append(Drop(policies=(random_condition(dice, 2),), probability=dice.choice((1.0, 0.5))))
    policies.append(Probabilistic(probability=dice.choice((0.1, 0.02, 0.3))))
    mode = dice.choice(list(Mode))
    if mode is Mode.FIRST_MATCH:
        dice.shuffle(policies)
    return policy_set(policies, mode=mode, default=dice.random(), source=f"seed {seed}")


def check_unbiased(chosen: PolicySet, seed: int, head: float = 1.0) -> int:
    """Compare the sum of weights with the truth; returns how many traces were kept.

    The truth includes traces that the head sampler excluded, because the weights have to represent them too.
    """
    evaluator = Evaluator(chosen)
    threshold = threshold_of(head)
    truth = weights = variance = 0.0
    kept = 0
    for trace in traces(seed, threshold or None):
        verdict = evaluator.decide(trace)
        probability = min(verdict.probability, head)
        if probability > 0.0:
            truth += 1
            variance += (1 - probability) / probability
        if trace.randomness >= threshold:
            assert verdict.kept == (trace.randomness >= verdict.threshold)
            assert (verdict.weight > 0.0) == verdict.kept
            assert not verdict.weight_biased
            weights += verdict.weight
            kept += verdict.kept
    assert abs(weights - truth) <= SIGMAS * variance**0.5 + 1e-6 * truth
    return kept


@pytest.mark.parametrize("seed", range(8))
def test_weights_of_random_policy_sets_are_unbiased(seed: int) -> None:
    assert 0 < check_unbiased(random_set(seed), seed) <= TRACES


@pytest.mark.parametrize("seed", [100, 101])
def test_weights_are_unbiased_behind_a_head_sampler(seed: int) -> None:
    assert check_unbiased(random_set(seed), seed, 0.25) > 0


def test_weights_of_the_built_in_policies_are_unbiased() -> None:
    kept = check_unbiased(default_policies(), 7)
    assert TRACES * 0.3 < kept < TRACES * 0.6


def test_keeping_all_weighs_one_each() -> None:
    assert check_unbiased(policy_set([Always()], source="all"), 8) == TRACES
