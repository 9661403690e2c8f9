"""The parameters of a list in the URL: what is written there, and the query that it means. Pure."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, get_args

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.query import SortKey, TraceQuery
from prela_stream.text import show

_UNITS: Final = {"ms": 1e6, "s": 1e9, "m": 60e9, "h": 3_600e9, "d": 86_400e9}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)")
_EPOCH_MS: Final = re.compile(r"[0-9]{11,15}")
_LONGEST: Final = 500
_LAST_NS: Final = (1 << 63) - 1
SORTS: Final[tuple[SortKey, ...]] = get_args(SortKey)
_TEXTS: Final = ("service", "name", "session", "user", "model", "tool", "error_type", "policy")
NAMES: Final = (
    *("q", "status", *_TEXTS, "attr", "since", "until"),
    *("min", "max", "tokens", "cost", "dropped", "sort", "after"),
)
"""Every parameter of a list."""


class ListParameters(msgspec.Struct, frozen=True, kw_only=True):
    """A list as its URL describes it."""

    values: Mapping[str, str]
    """The parameters that are set, as they were written."""
    query: TraceQuery
    sort: SortKey
    after: str | None

    def but(self, **changes: str | None) -> dict[str, str]:
        """The parameters of the same list with these changes, from its first page; None removes one."""
        merged = {**self.values, "after": "", **{name: value or "" for name, value in changes.items()}}
        return {name: value for name, value in merged.items() if value}

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """Name and value of every condition."""
        return [(name, value) for name, value in self.values.items() if name not in ("sort", "after")]


def read_parameters(pairs: Iterable[tuple[str, str]], now_ns: int) -> ListParameters:
    """The list that these parameters describe.

    Args:
        pairs: From the query string; the last of several counts, unknown ones are left out.
        now_ns: The present, for `since=15m`.

    Raises:
        ConfigurationError: A value is not what its parameter expects.
    """
    values = {name: value.strip()[:_LONGEST] for name, value in pairs if name in NAMES and value.strip()}
    sort = values.get("sort", "newest")
    if sort not in SORTS:
        raise _wrong("sort", f"one of {', '.join(SORTS)}", sort)
    query = TraceQuery(**_texts(values), **_status(values.get("status")), **_bounds(values, now_ns))
    return ListParameters(values=values, query=query, sort=sort, after=values.get("after"))


def _texts(values: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {name: values[name] for name in _TEXTS if name in values}
    given["text"] = values.get("q")
    given["dropped"] = values.get("dropped") in ("1", "true", "yes")
    if "attr" in values:
        if "=" not in values["attr"]:
            raise _wrong("attr", "key=value", values["attr"])
        given["attributes"] = (values["attr"],)
    return given


def _bounds(values: Mapping[str, str], now_ns: int) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, field in (("since", "since_ns"), ("until", "until_ns")):
        if name in values:
            given[field] = moment_of(name, values[name], now_ns)
    for name, field in (("min", "min_duration_ms"), ("max", "max_duration_ms")):
        if name in values:
            given[field] = duration_ns(name, values[name]) / 1e6
    if "tokens" in values:
        given["min_tokens"] = int(_number("tokens", values["tokens"]))
    if "cost" in values:
        given["min_cost_usd"] = _number("cost", values["cost"].lstrip("$"))
    return given


def _status(value: str | None) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case "error":
            return {"errors": True}
        case "success" | "cancelled" | "pending":
            return {"status": value}
    raise _wrong("status", "error, success, cancelled or pending", value)


def moment_of(name: str, text: str, now_ns: int) -> int:
    """`15m` (ago), milliseconds since the epoch, or an ISO time of the server's zone, as ns since the epoch."""
    if found := _DURATION.fullmatch(text):
        return max(0, now_ns - int(float(found[1]) * _UNITS[found[2]]))
    if _EPOCH_MS.fullmatch(text):
        return min(int(text) * 1_000_000, _LAST_NS)
    try:
        at = int(datetime.fromisoformat(text).astimezone().timestamp() * 1e6) * 1_000
        if 0 <= at <= _LAST_NS:
            return at
    except (ValueError, OverflowError, OSError):
        pass
    raise _wrong(name, "a duration ago (15m, 2h, 7d) or an ISO time (2026-11-22T10:00)", text)


def duration_ns(name: str, text: str) -> int:
    """`250ms`, `1.5s`, `2m` in ns."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise _wrong(name, "a number with ms, s, m, h or d, as in 1.5s", text)
    return int(float(found[1]) * _UNITS[found[2]])


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise _wrong(name, "a number that is not negative", text)
    return value


def _wrong(name: str, expected: str, text: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: expected {expected}, got {show(text)}")
