"""The fields of an item by name, for code that changes an item. The hot path builds the same as a plain tuple."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Fields(NamedTuple):
    """The fields of an item in the order of `SpanHead`, kind included."""

    kind: int
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes | None
    flags: int
    status: int
    revision: int
    child_count: int | None
    inject_count: int | None
    inject_ordinal: int | None
    span_type: int
    start_ns: int
    duration_ns: int | None
    name: str
    randomness: int | None
    threshold: int | None
    attributes: dict[str, Any]
    # Few spans have these: an item without all three ends before them.
    events: Sequence[Any] = ()
    links: Sequence[Any] = ()
    status_message: str | None = None
