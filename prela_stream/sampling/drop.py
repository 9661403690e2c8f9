"""The `drop` policy: what must not be kept, or only rarely, whatever the other policies say."""

from collections.abc import Iterator

import msgspec

from prela_stream.model.trace import Trace
from prela_stream.sampling.algebra import SubPolicies, fractions_of, union_of_reads, vote_of_all
from prela_stream.sampling.conditions import Condition, Probability
from prela_stream.sampling.policy import Vote


class Drop(Condition, frozen=True, kw_only=True, tag="drop"):
    """Where all sub-policies match, the trace is dropped with the least of their probabilities and of its own.

    Its vote's `probability` is what is left: 1 minus that. In mode `any` it is a cap on the other policies' probability, and
    where it is 0 the matter is settled before they are asked. It stands at the top of a policy set only.
    """

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
        """What may be kept of traces like this one."""
        vote = vote_of_all(self.policies, self.probability, trace)
        if not vote.matched:
            return vote
        return msgspec.structs.replace(vote, probability=1.0 - vote.probability, reason=f"drop: {vote.reason}")

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Its own and those of the sub-policies."""
        if self.probability not in (0.0, 1.0):
            yield "probability", self.probability
        yield from fractions_of(self.policies)
