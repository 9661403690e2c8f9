"""What a look at a set-up finds: one line a check, for people and for machines."""

from typing import Final, Literal

import msgspec

Role = Literal["agent", "worker", "sink"]
"""Whose rights are looked at: each of them does something else with the topics."""
ROLES: Final[tuple[Role, ...]] = ("agent", "worker", "sink")
CLOCK_S: Final = 5.0
"""Clocks that differ by more are wrong."""
State = Literal["ok", "wrong", "unknown", "skipped"]
"""`unknown`: it cannot be found out by looking. `skipped`: an earlier mistake leaves nothing to look at."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One check and what came of it. Of a mistake the text says what was expected, what came and what to do."""

    check: str
    state: State
    text: str
    expected: str = ""
    came: str = ""
    todo: str = ""


def ok(check: str, text: str) -> Finding:
    """It is as it must be."""
    return Finding(check=check, state="ok", text=text)


def wrong(check: str, *, expected: str, came: str, todo: str) -> Finding:
    """It keeps something from working."""
    text = f"expected {expected}, got {came}: {todo}"
    return Finding(check=check, state="wrong", text=text, expected=expected, came=came, todo=todo)


def mistake(check: str, line: str) -> Finding:
    """It keeps something from working, as a line says that is whole already."""
    return Finding(check=check, state="wrong", text=line)


def wrong_clock(*, expected: str, came: str) -> Finding:
    """Records are stamped by another time than this machine's."""
    todo = "set the clocks of this machine and of the brokers by one time server (NTP)"
    return wrong("clock", expected=expected, came=came, todo=todo)


def unknown(check: str, text: str) -> Finding:
    """It cannot be found out."""
    return Finding(check=check, state="unknown", text=text)


def skipped(check: str, after: str) -> Finding:
    """Not looked at, because of what `after` found."""
    return Finding(check=check, state="skipped", text=f"not looked at: it rests on {after}")
