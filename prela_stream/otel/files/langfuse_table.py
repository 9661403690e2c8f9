"""A table of Langfuse's observations as CSV, as its page exports it. Values that are no text are JSON."""

import csv
import io
from typing import Any, Final

from prela_stream.otel.values import parsed

_COLUMNS: Final = frozenset({"id", "traceId", "type", "startTime"})
_LONGEST_FIELD: Final = 1 << 30


def observations_of(data: bytes) -> list[tuple[int, Any]]:
    """The rows as objects of the API, with their first lines; empty if it is no such table. A text is an unreadable row."""
    head = data[: data.find(b"\n") + 1].decode("utf-8", "replace")
    if not {name.strip().strip('"') for name in head.split(",")} >= _COLUMNS:
        return []
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.DictReader(io.StringIO(data.decode("utf-8", "replace"), newline=""))
    found: list[tuple[int, Any]] = []
    line = 2
    try:
        for row in rows:
            found.append((line, {key: parsed(value) for key, value in row.items() if key and value}))
            line = rows.line_num + 1
    except csv.Error as error:
        found.append((line, f"not CSV: {error}"))
    return found
