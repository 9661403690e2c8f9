"""Timeouts that the application gives: any value becomes seconds that threads and event loops accept. Nothing is raised."""

from typing import Final

from prela_stream.errors import warn_once
from prela_stream.model.plain import safe_text

LONGEST: Final = 31_536_000.0
"""A year. The clocks of the platform overflow with much more."""
DEFAULT_FLUSH_S: Final = 5.0


def seconds(timeout: object, default: float) -> float:
    """The seconds of a timeout, from 0 to `LONGEST`; `default` for None and, with a warning, for what is no number.

    Args:
        timeout: As the application gave it.
        default: The documented default.
    """
    if timeout is None:
        return default
    if isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout == timeout:  # noqa: PLR0124 - NaN
        return float(min(max(timeout, 0), LONGEST))
    warn_once(f"a timeout is a number of seconds, got {safe_text(timeout)}; {default:g} s are used")
    return default
