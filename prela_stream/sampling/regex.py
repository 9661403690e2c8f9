"""Regular expressions of policies, in the syntax of RE2: the time of a search is linear in the length of the text.

Python's `re` backtracks: on a hostile value `(a+)+$` takes longer than the worker lives, and no signal ends a search. So RE2 does
the work (extra `regex`). Without it, only expressions that need little backtracking are accepted: they have no quantifier.
"""

import importlib
import re
from functools import lru_cache
from typing import Any, Final, Protocol

SEARCHED: Final = 65_536
"""Number of characters of a text that are searched, because a value can be a whole prompt."""
_MOST_BRANCHES: Final = 20
"""Most `|` of an expression without RE2. So a search from one character takes at most e ** (20 / e) attempts."""
_MOST_BYTES: Final = 8 << 20
"""Memory of a compiled expression in RE2."""
_NO_SYNTAX: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:[aimsx-]+:|[aimsx-]+\)|P<\w+>|:)", re.DOTALL)
"""Escapes, classes, and the heads of groups: the parts of an expression in which `*`, `+`, `?`, `{` and `|` are no operators."""


class RegexError(ValueError):
    """An expression that cannot be used; the text is the reason."""


class Regex(Protocol):
    """A compiled expression."""

    def search(self, text: str) -> str | None:
        """The first match in the first `SEARCHED` characters of `text`; None if there is none."""
        ...


class _Linear:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def search(self, text: str) -> str | None:
        """See `Regex.search`."""
        found = self._compiled.search(text[:SEARCHED].encode(errors="replace"))
        return None if found is None else found.group().decode(errors="replace")


class _Simple:
    def __init__(self, compiled: re.Pattern[str]) -> None:
        self._compiled = compiled

    def search(self, text: str) -> str | None:
        """See `Regex.search`."""
        found = self._compiled.search(text, 0, SEARCHED)
        return None if found is None else found.group()


@lru_cache(maxsize=256)
def compile_regex(pattern: str) -> Regex:
    """Compile an expression of a policy file; raises RegexError."""
    re2 = _re2()
    return _simple(pattern) if re2 is None else _linear(re2, pattern)


def _re2() -> Any:
    try:
        return importlib.import_module("re2")
    except ImportError:
        return None


def _linear(re2: Any, pattern: str) -> Regex:
    options = re2.Options()
    options.max_mem = _MOST_BYTES
    options.log_errors = False
    try:
        return _Linear(re2.compile(pattern.encode(), options))
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise RegexError(text) from error


def _simple(pattern: str) -> Regex:
    try:
        compiled = re.compile(pattern, re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise RegexError(str(error)) from error
    operators = _NO_SYNTAX.sub("", pattern)
    if found := re.search(r"[*+?{]", operators):
        msg = (
            f"{found.group()!r} needs an engine that takes linear time: install prela-stream[regex]. Without it, an expression "
            "has no quantifier"
        )
        raise RegexError(msg)
    if operators.count("|") > _MOST_BRANCHES:
        msg = f"more than {_MOST_BRANCHES} alternatives need an engine that takes linear time: install prela-stream[regex]"
        raise RegexError(msg)
    return _Simple(compiled)
