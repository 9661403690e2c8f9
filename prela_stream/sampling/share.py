"""Policies that ask nothing of a trace: `always`, and `probabilistic` for a share of all traces."""

from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Match, Probability, percent


class Always(Match, frozen=True, kw_only=True, tag="always"):
    """Matches every trace."""

    @property
    def unconditional(self) -> bool:
        """True."""
        return True

    def match(self, trace: Trace) -> str | None:  # noqa: ARG002 - every trace is alike to it
        """Why: there is nothing to ask."""
        return "always"


class Probabilistic(Match, frozen=True, kw_only=True, tag="probabilistic"):
    """Matches every trace and keeps a share: `always` for a file in which the number is the point, so it has no default."""

    probability: Probability

    @property
    def unconditional(self) -> bool:
        """True."""
        return True

    def match(self, trace: Trace) -> str | None:  # noqa: ARG002 - every trace is alike to it
        """Why: it is one of all."""
        return f"probabilistic: {percent(self.probability)} of all traces"
