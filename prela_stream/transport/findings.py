"""The findings of `prela-stream doctor`: one for each check, for people and for programs."""

from typing import Final, Literal

import msgspec

Role = Literal["agent", "worker", "sink"]
"""Whose permissions are checked: each role uses the topics in another way."""
ROLES: Final[tuple[Role, ...]] = ("agent", "worker", "sink")
CLOCK_S: Final = 5.0
"""Clocks that differ by more are a mistake."""
State = Literal["ok", "wrong", "unknown", "skipped"]
"""`unknown`: it cannot be determined without a change. `skipped`: it requires an earlier check that failed."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one check. For a mistake the text has what was expected, what was found and what to do."""

    check: str
    state: State
    text: str
    expected: str = ""
    came: str = ""
    todo: str = ""


def ok(check: str, text: str) -> Finding:
    """The check passed."""
    return Finding(check=check, state="ok", text=text)


def wrong(check: str, *, expected: str, came: str, todo: str) -> Finding:
    """The check found a mistake."""
    text = f"expected {expected}, got {came}: {todo}"
    return Finding(check=check, state="wrong", text=text, expected=expected, came=came, todo=todo)


def mistake(check: str, line: str) -> Finding:
    """The check found a mistake that `line` describes completely."""
    return Finding(check=check, state="wrong", text=line)


def wrong_clock(*, expected: str, came: str) -> Finding:
    """The clock that stamps records differs from the clock of this machine."""
    todo = "synchronise the clocks of this machine and of the brokers with one time server (NTP)"
    return wrong("clock", expected=expected, came=came, todo=todo)


def unknown(check: str, text: str) -> Finding:
    """The result cannot be determined."""
    return Finding(check=check, state="unknown", text=text)


def skipped(check: str, reason: str) -> Finding:
    """Not checked, because of `reason`."""
    return Finding(check=check, state="skipped", text=reason)


def skipped_after(check: str, earlier: str) -> Finding:
    """Not checked, because an earlier check failed, such as "protocol check of kafka-1:9093"."""
    return skipped(check, f"the {earlier} must pass first")
