"""The time axis of a trace: where a moment is drawn. Long waits are cut to a narrow band, so that the work stays visible. Pure.

An agent that waits for a person overnight works for two minutes of 48 hours. On a linear axis these minutes are thinner than a
line. A wait is time in which no span without children runs.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

_CUT_SHARE: Final = 0.5
"""Waits are cut if they take more of the trace than this."""
_LEAST_SHARE: Final = 0.04
"""A shorter wait is not cut."""
_BAND: Final = 5.0
"""Width of a wait that is cut, in percent of the axis."""
_MOST_BANDS: Final = 8


class Interval(msgspec.Struct, frozen=True):
    """From a start to an end, ns since the epoch."""

    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """The duration, ns."""
        return self.end_ns - self.start_ns


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """A mark of the axis."""

    at: float
    """Percent of the axis."""
    offset_ns: int
    """Time since the start of the trace."""


class TimeScale:
    """Maps moments to percent of the axis.

    Args:
        start_ns: Left end.
        end_ns: Right end.
        cut: Waits that are drawn as narrow bands, ordered, within the axis.
    """

    def __init__(self, start_ns: int, end_ns: int, cut: Sequence[Interval] = ()) -> None:
        self.start_ns, self.end_ns = start_ns, max(end_ns, start_ns + 1)
        self.cut = tuple(cut)
        band = min(_BAND, 40.0 / len(self.cut)) if self.cut else 0.0
        active = self.end_ns - self.start_ns - sum(one.length_ns for one in self.cut)
        self._per_ns = (100.0 - band * len(self.cut)) / max(active, 1)
        self._pieces: list[tuple[int, float, float]] = []
        """Start of each piece, its percent, and its percent per ns."""
        at, moment = 0.0, self.start_ns
        for one in self.cut:
            self._pieces.append((moment, at, self._per_ns))
            at += (one.start_ns - moment) * self._per_ns
            self._pieces.append((one.start_ns, at, band / max(one.length_ns, 1)))
            at, moment = at + band, one.end_ns
        self._pieces.append((moment, at, self._per_ns))

    def at(self, moment_ns: int) -> float:
        """Percent of the axis, from 0 to 100."""
        pieces = self._pieces
        found = pieces[0]
        for piece in pieces:
            if piece[0] > moment_ns:
                break
            found = piece
        return min(100.0, max(0.0, found[1] + (moment_ns - found[0]) * found[2]))

    def ticks(self, most: int = 6) -> list[Tick]:
        """Marks at round offsets, none within a wait that is cut."""
        active = self.end_ns - self.start_ns - sum(one.length_ns for one in self.cut)
        step = _round_step(active / most)
        found: list[Tick] = []
        edges = [self.start_ns, *(moment for one in self.cut for moment in (one.start_ns, one.end_ns)), self.end_ns]
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            offset = -(-(begin - self.start_ns) // step) * step
            while offset < end - self.start_ns:
                at = self.at(self.start_ns + offset)
                if at < 92 and (not found or at - found[-1].at > 60 / most):
                    found.append(Tick(at=round(at, 2), offset_ns=offset))
                offset += step
        return found


def waits_of(work: Iterable[Interval], start_ns: int, end_ns: int) -> list[Interval]:
    """The longest times between `start_ns` and `end_ns` in which no work was done, ordered by start; not the short ones."""
    found: list[Interval] = []
    busy_until = start_ns
    least = (end_ns - start_ns) * _LEAST_SHARE
    for one in sorted(work, key=lambda interval: interval.start_ns):
        if one.start_ns - busy_until > least:
            found.append(Interval(busy_until, min(one.start_ns, end_ns)))
        busy_until = max(busy_until, one.end_ns)
    if end_ns - busy_until > least:
        found.append(Interval(busy_until, end_ns))
    longest = sorted(found, key=lambda interval: -interval.length_ns)[:_MOST_BANDS]
    return sorted(longest, key=lambda interval: interval.start_ns)


def worth_cutting(waits: Sequence[Interval], start_ns: int, end_ns: int) -> bool:
    """Whether the waits take so much of the trace that its work is hard to see."""
    return sum(one.length_ns for one in waits) > (end_ns - start_ns) * _CUT_SHARE


def _round_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, … ns, or of round seconds, minutes, hours and days, that is not below `least`."""
    if least > 30_000_000_000:
        minute = 60_000_000_000
        for step in (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1_440, 2_880, 10_080):
            if step * minute >= least:
                return step * minute
        return int(least) + 1
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= least:
                return step * factor
        step *= 10
