"""The policies that combine other policies: `and`, `or`, `not`.

All policies share the trace's randomness, so a single draw must realise the combined probability: "a and b" has the lower of both
probabilities, "a or b" the higher.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import NO_MATCH, Condition, Match, Probability
from prela_stream.sampling.policy import Vote

SubPolicies = Annotated[tuple[Condition, ...], msgspec.Meta(min_length=1)]


class Together(Condition, frozen=True, kw_only=True):
    """Matches if all sub-policies match, with the lowest of their probabilities and its own `probability`."""

    policies: SubPolicies
    probability: Probability = 1.0

    @property
    def reads(self) -> frozenset[str]:
        """The attribute keys that the sub-policies read."""
        return union_of_reads(self.policies)

    @property
    def unconditional(self) -> bool:
        """Whether all sub-policies match every trace."""
        return all(policy.unconditional for policy in self.policies)

    def vote(self, trace: Trace) -> Vote:
        """The combined vote, or no match if any sub-policy does not match."""
        probability = self.probability
        reasons = []
        for policy in self.policies:
            vote = policy.vote(trace)
            if not vote.matched:
                return NO_MATCH
            reasons.append(vote.reason)
            probability = min(probability, vote.probability)
        return Vote(matched=True, probability=probability, reason=" and ".join(reasons))

    def prepare(self, trace: Trace, results: dict[int, str | None]) -> Iterator[None]:
        """Prepare the sub-policies."""
        return prepare_all(self.policies, trace, results)

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Its own probability and those of the sub-policies."""
        if self.probability not in (0.0, 1.0):
            yield "probability", self.probability
        yield from fractions_of(self.policies)


class And(Together, frozen=True, kw_only=True, tag="and"):
    """Matches if all sub-policies match; keeps with the lowest of their probabilities and its own."""


class Or(Condition, frozen=True, kw_only=True, tag="or"):
    """Matches if any sub-policy matches; keeps with the highest probability of those that match."""

    policies: SubPolicies

    @property
    def reads(self) -> frozenset[str]:
        """The attribute keys that the sub-policies read."""
        return union_of_reads(self.policies)

    @property
    def unconditional(self) -> bool:
        """Whether any sub-policy matches every trace."""
        return any(policy.unconditional for policy in self.policies)

    def vote(self, trace: Trace) -> Vote:
        """The vote with the highest probability, the first of equal ones."""
        votes = [vote for policy in self.policies if (vote := policy.vote(trace)).matched]
        return max(votes, key=lambda vote: vote.probability, default=NO_MATCH)

    def prepare(self, trace: Trace, results: dict[int, str | None]) -> Iterator[None]:
        """Prepare the sub-policies."""
        return prepare_all(self.policies, trace, results)

    def fractions(self) -> Iterator[tuple[str, float]]:
        """The probabilities of the sub-policies."""
        yield from fractions_of(self.policies)


class Not(Match, frozen=True, kw_only=True, tag="not"):
    """Matches if no sub-policy keeps the trace.

    The opposite of "keep one in ten" has no meaning, so each probability of the sub-policies is 0 or 1.
    """

    policies: SubPolicies

    @property
    def reads(self) -> frozenset[str]:
        """The attribute keys that the sub-policies read."""
        return union_of_reads(self.policies)

    def match(self, trace: Trace) -> str | None:
        """The names or types of the sub-policies that do not keep the trace."""
        votes = [policy.vote(trace) for policy in self.policies]
        if any(vote.matched and vote.probability > 0.0 for vote in votes):
            return None
        return f"not: {' or '.join(policy.name or policy.type for policy in self.policies)}"

    def prepare(self, trace: Trace, results: dict[int, str | None]) -> Iterator[None]:
        """Prepare the sub-policies."""
        return prepare_all(self.policies, trace, results)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Sub-policies with a probability between 0 and 1."""
        for path, value in fractions_of(self.policies):
            yield path, f"expected 0 or 1 inside not, got {value:g}; put the probability on the not itself"


def prepare_all(policies: tuple[Condition, ...], trace: Trace, results: dict[int, str | None]) -> Iterator[None]:
    """Prepare sub-policies; see `Condition.prepare`."""
    for policy in policies:
        yield from policy.prepare(trace, results)


def union_of_reads(policies: tuple[Condition, ...]) -> frozenset[str]:
    """The attribute keys that any of these policies reads."""
    return frozenset[str]().union(*(policy.reads for policy in policies))


def fractions_of(policies: tuple[Condition, ...]) -> Iterator[tuple[str, float]]:
    """The `fractions` of sub-policies with their paths."""
    for index, policy in enumerate(policies):
        for path, value in policy.fractions():
            yield f"policies[{index}].{path}", value
