"""How a page writes moments, clocks and shares; numbers and durations are in `views.formats`."""

from datetime import datetime

from prela_stream.model.span import to_datetime
from prela_stream.views import formats


def moment(time_ns: int) -> str:
    """A time of the server's zone, to the second."""
    return _local(time_ns).strftime("%Y-%m-%d %H:%M:%S")


def clock(time_ns: int) -> str:
    """The time of day in the server's zone, to the second."""
    return _local(time_ns).strftime("%H:%M:%S")


def iso(time_ns: int) -> str:
    """A time in UTC for programs and for the `datetime` attribute."""
    return to_datetime(time_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def percent(share: float) -> str:
    """`100 %`, `5 %`, `0.13 %`."""
    return f"{share * 100:.3g} %"


def weight(value: float) -> str:
    """A number of traces that need not be whole: `20`, `3.3`, `1,200`."""
    return f"{value:,.0f}" if value >= 100 or abs(value - round(value)) < 0.05 else f"{value:.1f}"


def short(value: float) -> str:
    """A number of an estimate: `950`, `12.3k`, `0.4`."""
    return formats.count(round(value)) if value >= 10 else f"{value:.3g}"


def _local(time_ns: int) -> datetime:
    return to_datetime(time_ns).astimezone()
