"""The `drop` policy: drops traces, or a share of them, whatever the other policies vote."""

import msgspec

from prela_stream.model.trace import Trace
from prela_stream.sampling.algebra import Together
from prela_stream.sampling.policy import Vote


class Drop(Together, frozen=True, kw_only=True, tag="drop"):
    """If all sub-policies match, the trace is dropped with the lowest of their probabilities and its own.

    The `probability` of its vote is 1 minus that. In mode `any` it limits the probability of the other policies; if it is 0,
    they are not evaluated. A policy set contains it at the top level only.
    """

    def vote(self, trace: Trace) -> Vote:
        """The share of such traces that may be kept."""
        vote = super().vote(trace)
        if not vote.matched:
            return vote
        return msgspec.structs.replace(vote, probability=1.0 - vote.probability, reason=f"drop: {vote.reason}")
