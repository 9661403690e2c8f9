"""The only place that decides. Policies return probabilities; the evaluator draws once and uses one threshold for the weight."""

from collections.abc import Iterator

import msgspec

from prela_stream.model.decision import probability_of, threshold_of, weight_of
from prela_stream.model.ids import RANDOMNESS_RANGE
from prela_stream.model.trace import UNSAMPLED, Trace
from prela_stream.sampling.conditions import Condition, percent
from prela_stream.sampling.drop import Drop
from prela_stream.sampling.policy import Policy, Verdict, Vote
from prela_stream.sampling.policyfile import Mode
from prela_stream.sampling.policyset import PolicySet

NO_POLICY = "(none)"
"""The policy name of a decision in mode `any` if no policy matched."""
DEFAULT_POLICY = "(default)"
"""The policy name of a decision in mode `first_match` if no policy matched."""


_NO_VOTE = Vote(matched=False, probability=0.0, reason="no policy matched")


class Evaluator:
    """Decides traces with one policy set. The same trace always gives the same verdict."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.policy_set = policy_set
        self.reads: frozenset[str] = frozenset().union(*(policy.reads for policy in policy_set.policies))
        """The attribute keys that any policy needs; others are not decoded."""
        self._drops = [policy for policy in policy_set.policies if isinstance(policy, Drop)]
        self._vote = self._first_match if policy_set.mode is Mode.FIRST_MATCH else self._any
        self._keeps = [policy for policy in policy_set.policies if not isinstance(policy, Drop)]
        self._last: tuple[Vote, str, Verdict, Verdict] = (_NO_VOTE, NO_POLICY, *_verdicts(NO_POLICY, _NO_VOTE))
        """The last vote on a trace that is not head-sampled, its policy, and both verdicts: they repeat for most traces."""

    def decide(self, trace: Trace) -> Verdict:
        """Whether `trace` is kept, the probability for such traces, and why.

        The threshold is rounded first and then used for the test and the weight. A head-sampled trace is kept with the lower of
        both probabilities, which is the higher of both thresholds.
        """
        name, vote = self._vote(trace)
        head, biased = head_threshold(trace)
        if head or biased:
            kept, dropped = _verdicts(name, vote, head, biased=biased)
        elif vote is self._last[0] and name == self._last[1]:
            _, _, kept, dropped = self._last
        else:
            kept, dropped = _verdicts(name, vote)
            self._last = vote, name, kept, dropped
        return kept if trace.randomness >= kept.threshold else dropped

    def prepare(self, trace: Trace) -> Iterator[None]:
        """Let the policies read a large trace in steps, so that `decide` takes little time. Yields about once in a millisecond.

        The steps are optional: `decide` returns the same verdict without them.
        """
        results: dict[int, str | None] = {}
        for policy in self.policy_set.policies:
            if isinstance(policy, Condition):
                yield from policy.prepare(trace, results)
        trace.prepared = results

    def _any(self, trace: Trace) -> tuple[str, Vote]:
        """Drop policies first; then the highest probability, the first of equal ones."""
        cap: tuple[str, Vote] | None = None
        for drop in self._drops:
            vote = drop.vote(trace)
            if vote.matched and (cap is None or vote.probability < cap[1].probability):
                cap = drop.name, vote
                if vote.probability == 0.0:
                    return cap
        name, best = NO_POLICY, _NO_VOTE
        for policy in self._keeps:
            vote = policy.vote(trace)
            if vote.matched and (not best.matched or vote.probability > best.probability):
                name, best = policy.name, vote
                if vote.probability == 1.0:
                    break
        if cap is None or best.probability <= cap[1].probability:
            return name, best
        drop_name, vote = cap
        return drop_name, msgspec.structs.replace(
            vote, reason=f"{vote.reason}; otherwise kept by {name}: {best.reason}"
        )

    def _first_match(self, trace: Trace) -> tuple[str, Vote]:
        """The first policy that matches, or the default of the policy set."""
        for policy in self.policy_set.policies:
            vote = policy.vote(trace)
            if vote.matched:
                return policy.name, vote
        default = self.policy_set.default
        reason = f"no policy matched; the default keeps {percent(default)}"
        return DEFAULT_POLICY, Vote(matched=True, probability=default, reason=reason)


def _verdicts(name: str, vote: Vote, head: int = 0, *, biased: bool = False) -> tuple[Verdict, Verdict]:
    """The verdicts on a trace that is kept and on one that is dropped, for this vote and this head-sampling threshold."""
    threshold, reason = threshold_of(vote.probability), vote.reason
    if threshold < head:
        threshold = head
        reason = f"{reason}; head-sampled at {percent(probability_of(head))}"
    kept = Verdict(
        kept=True,
        threshold=threshold,
        probability=probability_of(threshold),
        weight=weight_of(threshold),
        policy=name,
        reason=reason,
        weight_biased=biased,
    )
    return kept, msgspec.structs.replace(kept, kept=False, weight=0.0)


def head_threshold(trace: Trace) -> tuple[int, bool]:
    """The head-sampling threshold of a trace (0: none), and whether a weight computed from it is only an estimate.

    If spans disagree, the smallest threshold counts, because with consistent samplers it decided whether any span was sampled.
    A threshold above the trace's randomness cannot have sampled the trace. It is ignored, as in OpenTelemetry's Collector.
    """
    found = trace.head_thresholds
    if found is UNSAMPLED or not any(found):
        return 0, False
    carried = [threshold for threshold in found if 0 < threshold < RANDOMNESS_RANGE]
    if not carried:
        return 0, False
    smallest = min(carried)
    if smallest > trace.randomness:
        return 0, True
    return smallest, len(found) > 1


__all__ = ["DEFAULT_POLICY", "NO_POLICY", "Evaluator", "Policy", "head_threshold"]
