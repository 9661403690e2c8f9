"""Root names by a pattern. A store has millions of traces and few names, so that the names are compared, and not the traces."""

import fnmatch
import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_MOST_READ: Final = 2_000
_MOST_MATCHES: Final = 200

# Each step of the recursion finds the next larger name by the index.
_NAMES: Final = """
    WITH RECURSIVE names (name) AS (
        SELECT min(root_name) FROM traces
        UNION ALL
        SELECT (SELECT min(root_name) FROM traces WHERE root_name > name) FROM names WHERE name IS NOT NULL
    )
    SELECT name FROM names WHERE name IS NOT NULL LIMIT ?
"""


def names_that_match(connection: sqlite3.Connection, pattern: str) -> tuple[str, ...] | None:
    """The stored root names that match `*` and `?`; None if there are too many names to compare them."""
    if not re.search(r"[*?]", pattern):
        return (pattern,)
    names = [name for (name,) in connection.execute(_NAMES, (_MOST_READ + 1,))]
    if len(names) > _MOST_READ:
        return None
    found = tuple(name for name in names if matches(pattern, name))
    return found if len(found) <= _MOST_MATCHES else None


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern with `*` and `?`. Takes linear time, unlike GLOB of SQLite; see bpo-40480."""
    return _compiled(pattern)(name) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match
