"""Text of any origin as people may be shown it: nothing invisible, no credentials, not too long. Knows nothing of the project."""

import json
import logging
import re
from collections.abc import Mapping
from datetime import date, time
from pathlib import PurePath
from typing import Any, Final

_LONGEST_VALUE: Final = 60
_PICTURES: Final = "\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
"""Emoji and symbols. Between them a zero width joiner, and after them a variation selector, belong to what is shown."""
INVISIBLE: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and line feed
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners and fillers of scripts
    "\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164"  # zero width, bidi marks and isolates, blanks
    "\ud800-\udfff\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff"  # surrogates, selectors, byte order mark
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # formats of shorthand and music, tags
    "]"
    f"|(?<![{_PICTURES}\ufe0f])\u200d|\u200d(?![{_PICTURES}])"
    f"|(?<![#*0-9\u00a9\u00ae\u203c\u2049\u2122\u2139{_PICTURES}])\ufe0f"
)
_LINE_BREAKS: Final = str.maketrans({"\n": "\\n", "\t": "\\t"})
_USER_INFO: Final = re.compile(r"(?<=//)[^/\s,\"']*@|(?<![^\s,\"'\[(=])[^\s/:@,\"'\[(=]+:[^\s/,\"']*@")
_URL_QUERY: Final = re.compile(r"(?<=://)([^\s\"'<>?]*)\?[^\s\"'<>]+")
_SECRET_NAME: Final = re.compile(
    r"passw|secret|token|credential|api_?key|jaas|authorization|private_?key", re.IGNORECASE
)
_SECRET_PAIR: Final = re.compile(
    r"(?P<name>[\w.-]*(?:passw|secret|token|credential|api_?key)[\w.-]*(?:[\"']\s*:|[\"']?\s*=)\s*)"
    r"(?P<value>\"[^\"]*\"?|'[^']*'?|[^\s,;&]+)",
    re.IGNORECASE,
)
HIDDEN: Final = "<hidden>"


def visible(text: str, *, lines: bool = True) -> str:
    """`text` with every invisible, control and bidi character escaped, as `\\x1b` or `\\u202e`.

    Args:
        text: Anything, lone surrogates included.
        lines: Whether line feeds and tabs stay; if not, they are escaped too.
    """
    shown = INVISIBLE.sub(escaped, text)
    return shown if lines else shown.translate(_LINE_BREAKS)


def escaped(found: re.Match[str]) -> str:
    """One character as Python writes it in a string."""
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def without_user_info(text: str) -> str:
    """`text` with `<hidden>` for `user:password` in front of a host, and for the query of a URL, which may hold a key."""
    if "@" in text:
        text = _USER_INFO.sub(f"{HIDDEN}@", text)
    return _URL_QUERY.sub(rf"\1?{HIDDEN}", text) if "://" in text else text


def without_credentials(text: str) -> str:
    """As `without_user_info`; the values of `password=…` and the like are replaced too."""
    return _SECRET_PAIR.sub(lambda found: found["name"] + HIDDEN, without_user_info(text))


class VisibleFormatter(logging.Formatter):
    """Formats a log record without invisible characters and without credentials in URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return visible(without_user_info(super().format(record)))


def is_secret_name(name: str) -> bool:
    """Whether the name of a setting announces a credential."""
    return _SECRET_NAME.search(name) is not None


def show(value: Any, name: str = "") -> str:
    """A value as a settings file writes it, in at most 60 visible characters.

    Tables are not shown, because they may hold credentials; neither is the value of a setting whose `name` announces one.
    """
    if is_secret_name(name):
        return f"a {_kind(value)} that is not shown"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping | list | tuple) for part in value):
        return f"a list of {len(value)} tables or lists"
    if isinstance(value, str):
        value = without_credentials(value[: _LONGEST_VALUE * 20])
    elif isinstance(value, list | tuple):
        value = [without_credentials(part) if isinstance(part, str) else part for part in value[:_LONGEST_VALUE]]
    try:
        text = _integer(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False, default=_foreign)
    except ValueError:  # an integer in a list with more digits than Python converts
        return f"a {_kind(value)}"
    text = visible(text[: _LONGEST_VALUE * 2], lines=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _integer(value: int) -> str:
    """Python refuses the decimal digits of numbers with more than 4,300 of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value.bit_length() < 256 else f"a number of about {value.bit_length() * 3 // 10} digits"


def _foreign(value: object) -> str:
    """A value that no settings file can hold. Only types of the standard library are asked for their text."""
    return str(value) if isinstance(value, PurePath | date | time) else f"<{type(value).__name__}>"


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "table"
    if isinstance(value, list | tuple):
        return "list"
    return "string" if isinstance(value, str) else "value"
