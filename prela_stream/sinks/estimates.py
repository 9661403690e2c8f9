"""Estimates over all calls from those of kept traces, with their standard errors. Pure.

A kept trace with weight w represents w traces. The estimate of a sum is that of Horvitz and Thompson: each trace's own sum times
its weight. Traces are kept independently of each other, so its variance is estimated by the sum of w * (w - 1) * x**2, where x is
the trace's own sum (Särndal, Swensson, Wretman, "Model Assisted Survey Sampling", 3.5, for Poisson sampling). Calls of one trace
are not independent, which is why the sums of traces count and not the calls. A quantile's error is that of the distribution
function at the quantile, projected through it (Woodruff 1952).

`grouped_totals` estimates nothing: every decision has these values.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from prela_stream.sinks.query import DecidedTotals, Estimate, StatisticRow, Totals

QUANTILES = (0.5, 0.95, 0.99)


class Calls:
    """The calls of one model or tool, trace by trace."""

    def __init__(self) -> None:
        self.stored = 0
        self._sums = [0.0] * 6
        self._variances = [0.0] * 6
        self._durations: list[tuple[float, float, float, int]] = []
        """Milliseconds, what the call represents, the weight of its trace, and the number of the trace."""
        self._traces = 0

    def add(self, weight: float, sums: Sequence[float], durations: "array[float]") -> None:
        """Add the calls of one trace: calls, errors, input tokens, output tokens, calls with a cost, cost."""
        self.stored += int(sums[0])
        for at, value in enumerate(sums):
            self._sums[at] += weight * value
            self._variances[at] += max(weight - 1.0, 0.0) * weight * value * value
        self._traces += 1
        if durations:
            share = weight * sums[0] / len(durations)  # a trace with very many calls has the durations of some of them
            self._durations.extend((duration, share, weight, self._traces) for duration in durations)

    def sum(self, at: int) -> Estimate:
        """The estimate of one of the sums."""
        return Estimate(value=self._sums[at], error=math.sqrt(self._variances[at]))

    def quantiles(self) -> list[Estimate]:
        """The durations at QUANTILES, ms."""
        ordered = sorted(one for one in self._durations if one[1] > 0)
        total = sum(share for _, share, _, _ in ordered)
        if not ordered or not total:
            return [Estimate(value=0.0, error=0.0)] * len(QUANTILES)
        reached, below = [], 0.0
        for _, share, _, _ in ordered:
            below += share
            reached.append(below / total)
        return [self._quantile(ordered, reached, total, q) for q in QUANTILES]

    def _quantile(
        self, ordered: list[tuple[float, float, float, int]], reached: list[float], total: float, q: float
    ) -> Estimate:
        value = _at(ordered, reached, q)
        deviations: dict[int, tuple[float, float]] = {}
        for duration, share, weight, trace in ordered:
            if weight > 1.0:
                own = (share / weight) * ((duration <= value) - q)
                deviations[trace] = (weight, deviations.get(trace, (weight, 0.0))[1] + own)
        variance = sum(weight * (weight - 1.0) * own * own for weight, own in deviations.values())
        error = math.sqrt(variance) / total
        spread = _at(ordered, reached, min(q + error, 1.0)) - _at(ordered, reached, max(q - error, 0.0))
        return Estimate(value=value, error=spread / 2 if error else 0.0)


def statistic_row(name: str, calls: Calls) -> StatisticRow:
    """The row of one model or tool."""
    p50, p95, p99 = calls.quantiles()
    return StatisticRow(
        name=name,
        stored=calls.stored,
        calls=calls.sum(0),
        errors=calls.sum(1),
        input_tokens=calls.sum(2),
        output_tokens=calls.sum(3),
        cost_usd=calls.sum(5) if calls.sum(4).value else None,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
    )


def _at(ordered: list[tuple[float, float, float, int]], reached: list[float], q: float) -> float:
    """The smallest duration at which the distribution reaches `q`."""
    return ordered[min(bisect_left(reached, q - 1e-12), len(ordered) - 1)][0]


def grouped_totals(rows: Iterable[Sequence[Any]]) -> list[DecidedTotals]:
    """Rows of (name, kept, traces, spans, errors, input tokens, output tokens, cost) by name, the most traces first."""
    found: dict[str, dict[bool, Totals]] = {}
    for name, kept, traces, spans, errors, input_tokens, output_tokens, cost in rows:
        found.setdefault(name, {})[bool(kept)] = Totals(
            traces=traces,
            spans=spans,
            errors=errors,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd=cost,
        )
    none = Totals(traces=0, spans=0, errors=0, input_tokens=0, output_tokens=0, cost_usd=None)
    totals = [
        DecidedTotals(name=name, kept=one.get(True, none), dropped=one.get(False, none)) for name, one in found.items()
    ]
    return sorted(totals, key=lambda row: (-row.kept.traces - row.dropped.traces, row.name))
