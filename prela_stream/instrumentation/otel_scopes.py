"""Which instrumentation scopes of OpenTelemetry the bridge passes over: an instrumentor of this SDK traces the same calls.

A call must not give two spans. So while an instrumentor is active, the spans of other instrumentations of its library are not
recorded. Their children hang below the nearest span that is.
"""

import fnmatch
from collections.abc import Sequence
from typing import Final

_patterns: Final[dict[str, tuple[str, ...]]] = {}
"""By the name of the instrumentor that is active."""
_known: Final[dict[str, bool]] = {}
_MOST_KNOWN: Final = 1_000


def ignore_scopes(owner: str, patterns: Sequence[str]) -> None:
    """Pass over the spans of these scopes from now on. Another call of the same owner replaces its patterns.

    Args:
        owner: The name of the instrumentor.
        patterns: Names of scopes, with `*` for any text, as in `*.instrumentation.anthropic`.
    """
    _patterns[owner] = tuple(patterns)
    _known.clear()


def heed_scopes(owner: str) -> None:
    """Undo `ignore_scopes`. Without effect if nothing is ignored."""
    _patterns.pop(owner, None)
    _known.clear()


def is_ignored(scope: str) -> bool:
    """Whether the spans of this scope are passed over."""
    found = _known.get(scope)
    if found is None:
        every = [pattern for patterns in list(_patterns.values()) for pattern in patterns]
        found = any(fnmatch.fnmatchcase(scope, pattern) for pattern in every)
        if len(_known) < _MOST_KNOWN:
            _known[scope] = found
    return found
