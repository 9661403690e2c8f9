"""Why a trace was kept or dropped, in words."""

from prela_stream.model.decision import Basis, Decision
from prela_stream.views.formats import clean


def verdict_of(decision: Decision) -> str:
    """`kept by policy errors: status: 1 span with ERROR`."""
    return f"{'kept' if decision.kept else 'dropped'} by policy {clean(decision.policy)}: {clean(decision.reason)}"


def terms_of(decision: Decision) -> str:
    """How the decision was made: trigger, completeness, probability, weight."""
    text = f"by trigger {decision.trigger} ({_evidence(decision)}); kept with probability {decision.probability:g}"
    if decision.kept:
        text += f", represents {decision.weight:g} trace{'' if decision.weight == 1 else 's'}"
    if decision.weight_biased:
        text += " (biased: the head-sampling thresholds of its spans differ)"
    if decision.repeated:
        text += "; it was decided before, longer ago than decisions are remembered"
    return text


def _evidence(decision: Decision) -> str:
    """Whether spans are missing, and how that is known."""
    if decision.basis == Basis.QUIET_TIME:
        return "some spans have no child count, so it was decided by quiet time"
    whole = "every span received" if decision.complete else "spans missing"
    return f"{whole}, by the counting processor" if decision.basis == Basis.COUNTING_PROCESSOR else whole
