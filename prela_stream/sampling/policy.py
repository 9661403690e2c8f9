"""The interface of tail sampling: a policy receives a trace and returns a vote."""

from typing import Protocol

import msgspec

from prela_stream.model.trace import Trace


class Vote(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The vote of a policy on one trace.

    `matched`: whether the policy applies to this trace. `probability`: the probability with which the policy keeps such traces
    (0 if it did not match). `reason`: why, in words that an operator understands without the policy file.
    """

    matched: bool
    probability: float
    reason: str


class Policy(Protocol):
    """A rule about whole traces.

    A policy is pure: the same trace gives the same vote. It must not read the trace's randomness or derive any from a hash. The
    evaluator draws once for all policies, so that the reported probability is the one that was used.
    """

    @property
    def name(self) -> str:
        """Unique in its policy set; the `policy` of every decision whose probability it set."""
        ...

    @property
    def reads(self) -> frozenset[str]:
        """The attribute keys that it needs. Only declared keys are decoded; others are missing from `Trace.attributes`."""
        ...

    def vote(self, trace: Trace) -> Vote:
        """The vote on `trace`. It raises nothing for any trace. A missing attribute is no match."""
        ...


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result of the evaluator."""

    kept: bool
    threshold: int
    """56 bits; kept iff the trace's randomness is >= it; 2**56: never."""
    probability: float
    weight: float
    policy: str
    reason: str
    weight_biased: bool = False
