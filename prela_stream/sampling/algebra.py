"""The policies that are made of policies: `and`, `or`, `not`.

Probabilities combine so that the result is one that a single draw can realise: all policies share the trace's randomness, so
"a and b" is kept as often as the rarer of the two, and "a or b" as often as the more frequent.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import NO_MATCH, Condition, Match, Probability
from prela_stream.sampling.policy import Vote

SubPolicies = Annotated[tuple[Condition, ...], msgspec.Meta(min_length=1)]


class Together(Condition, frozen=True, kw_only=True):
    """A policy of policies that have to match together; the least of their probabilities and of its own counts."""

    policies: SubPolicies
    probability: Probability = 1.0

    @property
    def reads(self) -> frozenset[str]:
        """What the sub-policies read."""
        return union_of_reads(self.policies)

    @property
    def unconditional(self) -> bool:
        """Whether all sub-policies are."""
        return all(policy.unconditional for policy in self.policies)

    def vote(self, trace: Trace) -> Vote:
        """All or nothing."""
        probability = self.probability
        reasons = []
        for policy in self.policies:
            vote = policy.vote(trace)
            if not vote.matched:
                return NO_MATCH
            reasons.append(vote.reason)
            probability = min(probability, vote.probability)
        return Vote(matched=True, probability=probability, reason=" and ".join(reasons))

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Its own and those of the sub-policies."""
        if self.probability not in (0.0, 1.0):
            yield "probability", self.probability
        yield from fractions_of(self.policies)


class And(Together, frozen=True, kw_only=True, tag="and"):
    """Matches where all sub-policies match; keeps with the least of their probabilities and of its own."""


class Or(Condition, frozen=True, kw_only=True, tag="or"):
    """Matches where any sub-policy matches; keeps with the highest probability of those that do."""

    policies: SubPolicies

    @property
    def reads(self) -> frozenset[str]:
        """What the sub-policies read."""
        return union_of_reads(self.policies)

    @property
    def unconditional(self) -> bool:
        """Whether any sub-policy is."""
        return any(policy.unconditional for policy in self.policies)

    def vote(self, trace: Trace) -> Vote:
        """The highest vote, the first of equals."""
        votes = [vote for policy in self.policies if (vote := policy.vote(trace)).matched]
        return max(votes, key=lambda vote: vote.probability, default=NO_MATCH)

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Those of the sub-policies."""
        yield from fractions_of(self.policies)


class Not(Match, frozen=True, kw_only=True, tag="not"):
    """Matches where no sub-policy wants the trace kept.

    The opposite of "keep one in ten" has no honest meaning, so the sub-policies' probabilities are 0 or 1.
    """

    policies: SubPolicies

    @property
    def reads(self) -> frozenset[str]:
        """What the sub-policies read."""
        return union_of_reads(self.policies)

    def match(self, trace: Trace) -> str | None:
        """Which kinds of policy did not want it."""
        votes = [policy.vote(trace) for policy in self.policies]
        if any(vote.matched and vote.probability > 0.0 for vote in votes):
            return None
        return f"not: {' or '.join(policy.name or policy.type for policy in self.policies)}"

    def problems(self) -> Iterator[tuple[str, str]]:
        """Sub-policies with a probability between 0 and 1."""
        for path, value in fractions_of(self.policies):
            yield path, f"expected 0 or 1 inside not, got {value:g}; put the probability on the not itself"


def union_of_reads(policies: tuple[Condition, ...]) -> frozenset[str]:
    """Attribute keys that any of these reads."""
    return frozenset[str]().union(*(policy.reads for policy in policies))


def fractions_of(policies: tuple[Condition, ...]) -> Iterator[tuple[str, float]]:
    """`fractions` of sub-policies, with their paths."""
    for index, policy in enumerate(policies):
        for path, value in policy.fractions():
            yield f"policies[{index}].{path}", value
