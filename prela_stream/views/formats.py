"""How numbers, times and text of other programs are written for people."""

import re
from typing import Final

from prela_stream.text import visible

_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor moves
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)


def clean(text: str, *, lines: bool = False) -> str:
    """Text of a span as a terminal may show it: without escape sequences; invisible and bidi characters are escaped.

    Args:
        text: Anything.
        lines: Keep line breaks and tabs; else they become blanks.
    """
    safe = visible(_SEQUENCE.sub("", text.replace("\r\n", "\n")))
    return safe if lines else safe.replace("\n", " ").replace("\t", " ")


def cut(text: str, limit: int | None) -> str:
    """The first `limit` characters, and how many are not shown; everything for None."""
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def duration(ns: int | None) -> str:
    """`870 µs`, `12 ms`, `3.42 s`, `2 m 05 s`, `3 h 12 m`, `2 d 04 h`; `open` for None."""
    if ns is None:
        return "open"
    if ns < 999_500:
        return f"{ns / 1e3:.0f} µs"
    if ns < 999_500_000:
        return f"{ns / 1e6:.0f} ms"
    if ns < 59_995_000_000:
        return f"{ns / 1e9:.2f} s"
    seconds = round(ns / 1e9)
    if seconds < 3_600:
        return f"{seconds // 60} m {seconds % 60:02} s"
    minutes = seconds // 60
    if minutes < 1_440:
        return f"{minutes // 60} h {minutes % 60:02} m"
    return f"{minutes // 1_440} d {minutes % 1_440 // 60:02} h"


def age(ns: int) -> str:
    """How long ago, in one unit and at most four characters: `now`, `45s`, `12m`, `3h`, `6d`, `20w`, `3y`."""
    seconds = max(ns, 0) // 1_000_000_000
    if seconds < 1:
        return "now"
    for limit, unit, name in ((60, 1, "s"), (3_600, 60, "m"), (86_400, 3_600, "h"), (14 * 86_400, 86_400, "d")):
        if seconds < limit:
            return f"{seconds // unit}{name}"
    weeks = seconds // (7 * 86_400)
    return f"{weeks}w" if weeks < 104 else f"{seconds // (365 * 86_400)}y"


def count(number: int) -> str:
    """`950`, `12.3k`, `4.1M`."""
    for limit, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= limit * 0.99995:
            return f"{number / limit:.1f}{unit}"
    return str(number)


def tokens(into: int, out: int) -> str:
    """`1.2k → 300`: input and output; empty where there are none."""
    return f"{count(into)} → {count(out)}" if into or out else ""


def cost(usd: float | None) -> str:
    """`$12.30`, `$0.0123`, `$0.000075`; empty for unknown, which is not $0."""
    if usd is None:
        return ""
    return f"${usd:.{2 if usd >= 1 or usd == 0 else 4 if usd >= 0.001 else 6}f}"


def offset(ns: int) -> str:
    """Time since the start of a trace: `+0`, `+12 ms`; before it `-3 ms`."""
    return "+0" if ns == 0 else f"{'+' if ns > 0 else '-'}{duration(abs(ns))}"


def plural(number: int, word: str) -> str:
    """`1 span`, `2 spans`, `1,200 spans`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
