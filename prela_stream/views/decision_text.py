"""Why a trace was kept or dropped, in words."""

from prela_stream.model.decision import Decision
from prela_stream.views.formats import clean


def verdict_of(decision: Decision) -> str:
    """`kept by policy errors: status: 1 span with ERROR`."""
    return f"{'kept' if decision.kept else 'dropped'} by policy {clean(decision.policy)}: {clean(decision.reason)}"


def terms_of(decision: Decision) -> str:
    """How the decision was made: trigger, completeness, probability, weight."""
    whole = "every span received" if decision.complete else "spans missing"
    text = f"by trigger {decision.trigger} ({whole}); kept with probability {decision.probability:g}"
    if decision.kept:
        text += f", represents {decision.weight:g} trace{'' if decision.weight == 1 else 's'}"
    if decision.weight_biased:
        text += " (biased: the head-sampling thresholds of its spans differ)"
    if decision.repeated:
        text += "; it was decided before, longer ago than decisions are remembered"
    return text
