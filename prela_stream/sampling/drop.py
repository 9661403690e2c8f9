"""The `drop` policy: what must not be kept, or only rarely, whatever the other policies say."""

import msgspec

from prela_stream.model.trace import Trace
from prela_stream.sampling.algebra import Together
from prela_stream.sampling.policy import Vote


class Drop(Together, frozen=True, kw_only=True, tag="drop"):
    """Where all sub-policies match, the trace is dropped with the least of their probabilities and of its own.

    Its vote's `probability` is what is left: 1 minus that. In mode `any` it is a cap on the other policies' probability, and
    where it is 0 the matter is settled before they are asked. It stands at the top of a policy set only.
    """

    def vote(self, trace: Trace) -> Vote:
        """What may be kept of traces like this one."""
        vote = super().vote(trace)
        if not vote.matched:
            return vote
        return msgspec.structs.replace(vote, probability=1.0 - vote.probability, reason=f"drop: {vote.reason}")
