"""Times as people write them on a command line, and documents for programs. What is pure is in `views.formats`."""

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import Decision
from prela_stream.model.span import to_datetime
from prela_stream.sinks.documents import decision_document, span_document
from prela_stream.sinks.query import StoredTrace
from prela_stream.text import INVISIBLE, show
from prela_stream.views.formats import age, clean, cost, count, duration, tokens

__all__ = [
    "age",
    "clean",
    "cost",
    "count",
    "duration",
    "milliseconds",
    "moment",
    "since",
    "to_json",
    "tokens",
    "trace_document",
]

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)")
_ISO: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:\d{2})?)?", re.ASCII
)
"""Without the forms that may be taken for something else: 20261122, 2026-W47, 10:00."""
_LONGEST_MS: Final = 36_500 * 86_400_000
_LAST_NS: Final = (1 << 63) - 1


def moment(time_ns: int) -> str:
    """A time in the local zone, to the second; the date only where it is not today."""
    local = to_datetime(time_ns).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M:%S")


def milliseconds(text: str) -> float:
    """`250ms`, `1.5s`, `2m`, `1h`, `7d` as ms; raises ConfigurationError for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        msg = f"a duration is a number with ms, s, m, h or d, as in 1.5s; got {show(text)}"
        raise ConfigurationError(msg)
    value = float(found[1]) * _UNITS[found[2]]
    if value > _LONGEST_MS:
        msg = f"a duration is at most 36,500d (100 years); got {show(text)}"
        raise ConfigurationError(msg)
    return value


def since(text: str, now_ns: int) -> int:
    """`15m` (ago) or an ISO date or time as ns since the epoch; raises ConfigurationError.

    A time without a zone is local. It is refused if the clocks show it twice or never, on the day on which they change.
    """
    given = text.strip()
    if _DURATION.fullmatch(given):
        return max(0, now_ns - int(milliseconds(given) * 1e6))
    try:
        moment_ = datetime.fromisoformat(given.replace(" ", "T")) if _ISO.fullmatch(given) else None
        if moment_ is not None:
            if moment_.tzinfo is None and moment_.astimezone() != moment_.replace(fold=1).astimezone():
                msg = f"the local time {show(given)} occurs twice or never, because the clocks change; add its zone, as in +01:00"
                raise ConfigurationError(msg)
            time_ns = int(moment_.astimezone().timestamp() * 1e6) * 1_000
            if 0 <= time_ns <= _LAST_NS:
                return time_ns
    except ConfigurationError:
        raise
    except (ValueError, OverflowError, OSError):
        pass
    msg = (
        "a time is a duration ago with a unit (ms, s, m, h, d), as in 15m, or an ISO date or time from 1970 to 2262, as in "
        f"2026-11-22 or 2026-11-22T10:00; got {show(text)}"
    )
    raise ConfigurationError(msg)


def to_json(document: Any) -> str:
    """One JSON document in one line. Characters that would act on a terminal are escaped, which JSON allows."""
    return INVISIBLE.sub(_json_escape, msgspec.json.encode(document).decode())


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))


def trace_document(stored: StoredTrace | None, decision: Decision) -> dict[str, Any]:
    """A trace with its decision and spans; ids in hex, times in ns. `row` is null where only the decision is there."""
    spans = [] if stored is None else [span_document(span) for span in stored.spans]
    return {"row": None if stored is None else stored.row, "decision": decision_document(decision), "spans": spans}
