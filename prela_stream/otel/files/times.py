"""Times and durations as files write them: ISO 8601, ns since the epoch, pairs of seconds and ns, and `0.5s`."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from prela_stream.otel.values import as_float, as_int

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)")
_BEYOND_MICROSECONDS: Final = re.compile(r"[.,]\d{6}(\d{1,3})")
_BY_SIZE: Final = ((1e9, 1), (1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1_000))
"""The largest number of ns, s, ms and µs, and ns in it: a time of these years has 10, 13, 16 or 19 digits."""
_UNITS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def nanoseconds_of(value: Any) -> int | None:
    """An ISO 8601 time as ns since the epoch; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    beyond = _BEYOND_MICROSECONDS.search(value)
    nanoseconds = int(beyond[1].ljust(3, "0")) if beyond else 0
    return max((since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000 + nanoseconds, 0)


def moment_of(value: Any) -> int | None:
    """As `time_of`, of a number whose unit is not stated: s, ms, µs or ns since the epoch, by its size."""
    whole = as_int(value)
    number: float | None = as_float(value) if whole is None else whole
    if number is None or number >= 1e17:
        return time_of(value)
    factor = next(unit for limit, unit in _BY_SIZE if number < limit)
    return max(round(number * factor), 0)


def time_of(value: Any) -> int | None:
    """A time as ns since the epoch, from ISO 8601, ns since the epoch, or JavaScript's pair of seconds and ns."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, int) for one in value):
        seconds, nanoseconds = value
        return max(int(seconds) * 1_000_000_000 + int(nanoseconds), 0)
    found = as_int(value)
    return nanoseconds_of(value) if found is None else max(found, 0)


def microseconds_of(value: Any) -> int | None:
    """A time as ns since the epoch, from µs since the epoch or ISO 8601."""
    if (whole := as_int(value)) is not None:
        return max(whole * 1000, 0)  # a float has no room for the ns
    number = as_float(value)
    return nanoseconds_of(value) if number is None else max(round(number * 1000), 0)


def duration_of(value: Any) -> int:
    """A duration in ns, from µs or a text such as `0.000005s`; 0 for anything else."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return round(float(found[1]) * _UNITS[found[2]])
    return max(round((as_float(value) or 0.0) * 1000), 0)
