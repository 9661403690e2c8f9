"""The seam of tail sampling: what a policy is given and what it answers."""

from typing import Protocol

import msgspec

from prela_stream.model.trace import Trace


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's answer about one trace.

    `matched` says whether the policy is about this trace at all; `probability` is with which probability it wants traces like
    this kept (0 where it did not match); `reason` says why, in words that an operator understands without the policy file.
    """

    matched: bool
    probability: float
    reason: str


class Policy(Protocol):
    """A rule about whole traces.

    A policy is pure: the same trace gives the same vote. It must not look at the trace's randomness or hash anything: the
    evaluator draws once for all policies, so that the probability it reports is the probability that was used.
    """

    @property
    def name(self) -> str:
        """Unique in its policy set; stands in every decision that this policy settles."""
        ...

    @property
    def reads(self) -> frozenset[str]:
        """Attribute keys it needs. Only declared keys are decoded: others are missing from `Trace.attributes`."""
        ...

    def vote(self, trace: Trace) -> Vote:
        """The vote about `trace`. Raises nothing for any trace; a missing attribute is no match."""
        ...


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the evaluator made of the votes."""

    kept: bool
    threshold: int
    """56 bits; kept iff the trace's randomness is >= it; 2**56: never."""
    probability: float
    weight: float
    policy: str
    reason: str
    weight_biased: bool = False
