"""The calls of models and tools in a trace, in sum, for statistics. Pure."""

from array import array
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from prela_stream.model.span import ERROR, PENDING, SPAN_TYPE_CODES, SpanType
from prela_stream.sinks.query import StatisticKey
from prela_stream.sinks.trace_rows import SpanRow

KINDS: Final[tuple[StatisticKey, ...]] = ("model", "tool")
"""Stored as the index."""
MOST_DURATIONS: Final = 512
"""The most durations of one model, or one tool, that are kept of a trace. Its counts and sums have every call."""

_LLM: Final = SPAN_TYPE_CODES[SpanType.LLM]
_TOOL: Final = SPAN_TYPE_CODES[SpanType.TOOL]


class CallSums(msgspec.Struct, kw_only=True):
    """The ended calls of one model, or of one tool, in one trace."""

    calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    priced: int = 0
    """Calls with a cost."""
    cost_usd: float = 0.0
    durations: list[float] = []
    """Milliseconds."""

    def add(self, row: SpanRow, sign: int = 1) -> None:
        """Add a call; with a sign of -1, remove one that was added before (its duration stays)."""
        brief = row.brief
        self.calls += sign
        self.errors += sign * (row.status == ERROR)
        self.input_tokens += sign * (brief.input_tokens or 0)
        self.output_tokens += sign * (brief.output_tokens or 0)
        if brief.cost_usd is not None:
            self.priced += sign
            self.cost_usd += sign * brief.cost_usd
        if sign > 0 and len(self.durations) < MOST_DURATIONS:
            self.durations.append((row.end_ns - row.start_ns) / 1e6)

    def packed(self) -> bytes:
        """The durations as bytes."""
        return array("f", self.durations[:MOST_DURATIONS]).tobytes()


def unpacked(durations: bytes) -> "array[float]":
    """What `packed` packed."""
    found: array[float] = array("f")
    found.frombytes(durations)
    return found


def calls_of(
    rows: Mapping[bytes, SpanRow], replaced: Iterable[SpanRow] = ()
) -> dict[tuple[StatisticKey, str], CallSums]:
    """The ended calls among spans, by kind and name; a model call above another model call is not counted.

    Args:
        rows: Spans of one trace, by their ids.
        replaced: Earlier reports that are in the sums already and must be taken out.
    """
    found: dict[tuple[StatisticKey, str], CallSums] = {}
    for key, name in counted_calls(rows).items():
        _add(found, name, rows[key], 1)
    for row in replaced:
        name_before = _call_of(row)
        if name_before is not None:
            _add(found, name_before, row, -1)
    return found


def counted_calls(rows: Mapping[bytes, SpanRow]) -> dict[bytes, tuple[StatisticKey, str]]:
    """Kind and name of the spans that are ended calls, by span id; a model call above another model call is none."""
    above: set[bytes] = set()
    for row in rows.values():
        if row.span_type == _LLM:
            parent = row.parent_id
            while parent is not None and parent not in above and parent in rows:
                above.add(parent)
                parent = rows[parent].parent_id
    found: dict[bytes, tuple[StatisticKey, str]] = {}
    for key, row in rows.items():
        name = _call_of(row)
        if name is not None and not (row.span_type == _LLM and key in above):
            found[key] = name
    return found


def _call_of(row: SpanRow) -> tuple[StatisticKey, str] | None:
    if row.status == PENDING or row.span_type not in {_LLM, _TOOL}:
        return None
    return ("model", row.brief.model) if row.span_type == _LLM else ("tool", row.brief.tool or row.name[:200])


def _add(
    found: dict[tuple[StatisticKey, str], CallSums], key: tuple[StatisticKey, str], row: SpanRow, sign: int
) -> None:
    sums = found.get(key)
    if sums is None:
        sums = found[key] = CallSums()
    sums.add(row, sign)
