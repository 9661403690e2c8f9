"""The histograms of a trace list as SVG that the server draws: no script is needed to see them, and they are printed. Pure."""

import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from prela_stream.sinks.query import Bar, TraceStatus

STATUSES: Final[tuple[TraceStatus, ...]] = ("error", "pending", "cancelled", "success")
"""From the bottom of a bar to its top."""
_HEIGHT: Final = 100.0


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a column with one status, in percent of the chart."""

    status: str
    y: float
    height: float


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One bar of a chart."""

    x: float
    width: float
    low: int
    high: int
    pieces: tuple[Piece, ...]
    label: str
    """What a tooltip and a screen reader get."""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram that can be brushed: a range of columns is a range of values."""

    columns: tuple[Column, ...]
    most: int
    low: int
    high: int
    first: str
    last: str


def chart(bars: Sequence[Bar], write: Callable[[int], str]) -> Chart | None:
    """The columns of a histogram; None if there is nothing to draw.

    Args:
        bars: In order, without gaps.
        write: How a value is written, for labels.
    """
    most = max((bar.total for bar in bars), default=0)
    if not most:
        return None
    width = 100.0 / len(bars)
    columns = tuple(
        Column(
            x=round(index * width, 3),
            width=round(width, 3),
            low=bar.low,
            high=bar.high,
            pieces=_pieces(bar, most),
            label=_label(bar, write),
        )
        for index, bar in enumerate(bars)
    )
    return Chart(
        columns=columns,
        most=most,
        low=bars[0].low,
        high=bars[-1].high,
        first=write(bars[0].low),
        last=write(bars[-1].high),
    )


def _pieces(bar: Bar, most: int) -> tuple[Piece, ...]:
    """Heights follow the square root, so that one trace is seen beside a thousand."""
    total = bar.total
    if not total:
        return ()
    full = math.sqrt(total / most) * _HEIGHT
    found: list[Piece] = []
    bottom = _HEIGHT
    for status in STATUSES:
        count = bar.counts.get(status, 0)
        if count:
            height = max(full * count / total, 2.0 if status == "error" else 0.0)
            bottom -= height
            found.append(Piece(status=status, y=round(bottom, 2), height=round(height, 2)))
    return tuple(found)


def _label(bar: Bar, write: Callable[[int], str]) -> str:
    failed = bar.counts.get("error", 0)
    text = f"{write(bar.low)} to {write(bar.high)}: {bar.total:,} trace{'' if bar.total == 1 else 's'}"
    return f"{text}, {failed:,} failed" if failed else text
