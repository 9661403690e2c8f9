"""The conditions of a query as SQL of ClickHouse. Values are bound, never written into the text."""

import re
from typing import Final

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.briefs import wanted_tokens
from prela_stream.sinks.clickhouse.words import wanted_words
from prela_stream.sinks.query import SortKey, TraceQuery
from prela_stream.sinks.trace_rows import LABEL_CHARS, STATUSES

SORTS: Final[dict[SortKey, tuple[str, str]]] = {
    "newest": ("start_ns", "DESC"),
    "oldest": ("start_ns", "ASC"),
    "slowest": ("duration_ns", "DESC"),
    "costliest": ("cost_usd", "DESC"),
    "most_tokens": ("tokens", "DESC"),
    "most_spans": ("spans", "DESC"),
}
_INT64: Final = (1 << 63) - 1
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")


class Where:
    """The test of a query, and its values by name."""

    def __init__(self) -> None:
        self.tests: list[str] = []
        self.values: dict[str, object] = {}

    def add(self, test: str, *values: object) -> None:
        """Add a test with a `{}` for each value."""
        names = []
        for value in values:
            name = f"v{len(self.values)}"
            self.values[name] = value
            names.append(f"%({name})s")
        self.tests.append(test.format(*names))

    @property
    def test(self) -> str:
        """All tests."""
        return " AND ".join(f"({one})" for one in self.tests) or "1"


def where_of(query: TraceQuery) -> Where | None:
    """The conditions on `traces`, or on `decisions` for dropped traces; None if no trace can match."""
    where = Where()
    if query.dropped:
        if wanted_tokens(query) != wanted_tokens(TraceQuery(service=query.service)) or (query.text or "").strip():
            return None
        where.add("kept = 0 AND trace_id NOT IN (SELECT trace_id FROM traces_)")
        if query.service is not None:
            where.add("service = {}", label(query.service))
    else:
        tokens = wanted_tokens(query)
        if tokens:
            where.add("hasAll(labels, {})", tokens)
        if query.text is not None and query.text.strip():
            words = wanted_words(query.text)
            if not words:
                return None
            for word, beginning in words:
                test = "match(words, {})" if beginning else "hasToken(words, {})"
                value = rf"(^|\s){re.escape(word)}" if beginning else word
                where.add("trace_id IN (SELECT trace_id FROM words_ WHERE " + test + ")", value)  # noqa: S608 - constants
    _add_plain(where, query)
    return where


def _add_plain(where: Where, query: TraceQuery) -> None:
    if query.name is not None:
        name = label(query.name)
        if re.search(r"[*?]", name):
            parts = re.split(r"([*?])", re.sub(r"\*+", "*", name))
            pattern = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
            where.add("match(root_name, {})", f"(?s)^{pattern}$")
        else:
            where.add("root_name = {}", name)
    if query.policy is not None:
        where.add("policy = {}", label(query.policy))
    if query.status is not None:
        if query.status not in STATUSES:
            msg = f"status: expected one of {', '.join(STATUSES)}, got {query.status!r}"
            raise ConfigurationError(msg)
        where.add("status = {}", STATUSES.index(query.status))
    if query.errors is not None:
        where.add("status = {}" if query.errors else "status <> {}", STATUSES.index("error"))
    for test, value in (
        ("start_ns >= {}", query.since_ns),
        ("start_ns < {}", query.until_ns),
        ("duration_ns >= {}", None if query.min_duration_ms is None else _ns(query.min_duration_ms)),
        ("duration_ns < {}", None if query.max_duration_ms is None else _ns(query.max_duration_ms)),
        ("tokens >= {}", query.min_tokens),
    ):
        if value is not None:
            where.add(test, min(max(value, -_INT64), _INT64))
    if query.min_cost_usd is not None:
        where.add("cost_usd >= {}", query.min_cost_usd)


def add_below(where: Where, sort: SortKey, after: str) -> None:
    """Only rows below a cursor; raises ConfigurationError for what is no cursor of this sort."""
    column, direction = SORTS[sort]
    kind, _, rest = after.partition(":")
    value, _, identity = rest.rpartition(":")
    try:
        if kind != sort or not _TRACE_ID.fullmatch(identity) or not (value or sort == "costliest"):
            raise ValueError(after)
        number = None if not value else float(value) if sort == "costliest" else int(value)
    except ValueError:
        msg = f"after: expected the cursor of a row that was sorted by {sort}, got {after!r}"
        raise ConfigurationError(msg) from None
    sign = ">" if direction == "ASC" else "<"
    if number is None:
        where.add(f"{column} IS NULL AND trace_id {sign} {{}}", identity)
    elif column == "cost_usd":
        where.add(
            f"{column} < {{}} OR ({column} = {{}} AND trace_id < {{}}) OR {column} IS NULL", number, number, identity
        )
    else:
        where.add(f"({column}, trace_id) {sign} ({{}}, {{}})", number, identity)


def cursor_of(sort: str, value: float | None, identity: str) -> str:
    """Where a page continues."""
    return f"{sort}:{'' if value is None else repr(value)}:{identity}"


def label(text: str) -> str:
    """A text of a user as it is stored."""
    return text.encode("utf-8", "replace").decode()[:LABEL_CHARS]


def _ns(milliseconds: float) -> int:
    return round(min(max(milliseconds, 0.0), 1e12) * 1e6)
