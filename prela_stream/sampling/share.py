"""The policies that match every trace: `always`, and `probabilistic` for a share of all traces."""

from functools import cache

from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Match, Probability, percent


class Always(Match, frozen=True, kw_only=True, tag="always"):
    """Matches every trace."""

    @property
    def unconditional(self) -> bool:
        """True."""
        return True

    def match(self, trace: Trace) -> str | None:  # noqa: ARG002 - it matches every trace
        """Always the same reason."""
        return "always"


class Probabilistic(Match, frozen=True, kw_only=True, tag="probabilistic"):
    """Matches every trace and keeps a share. As `always`, but `probability` has no default."""

    probability: Probability

    @property
    def unconditional(self) -> bool:
        """True."""
        return True

    def match(self, trace: Trace) -> str | None:  # noqa: ARG002 - it matches every trace
        """The share."""
        return _reason(self.probability)


@cache
def _reason(probability: float) -> str:
    return f"probabilistic: {percent(probability)} of all traces"
