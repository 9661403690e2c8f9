"""The `status` policy: how spans ended."""

from functools import cache
from typing import Annotated

import msgspec

from prela_stream.model.decision import Trigger
from prela_stream.model.span import PENDING, SPAN_STATUS_CODES, SpanFields, SpanStatus, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Match, counted, shorten, spans_of


@cache
def _codes(statuses: tuple[SpanStatus, ...]) -> frozenset[int]:
    return frozenset(SPAN_STATUS_CODES[status] for status in statuses)


class Status(Match, frozen=True, kw_only=True, tag="status"):
    """Matches if any span has one of these statuses.

    If a process died, its open spans never end. Such a trace (trigger `lost`) counts as an error, so it also matches ERROR.
    """

    statuses: Annotated[tuple[SpanStatus, ...], msgspec.Meta(min_length=1)] = (SpanStatus.ERROR,)
    span_type: SpanType | None = None

    def match(self, trace: Trace) -> str | None:
        """The number of matching spans, the statuses, and the name of the first one."""
        codes = _codes(self.statuses)
        found: list[SpanFields] = []
        if not codes.isdisjoint(trace.statuses):
            found = [head for _, head in spans_of(trace, self.span_type) if head.status in codes]
        if found:
            names = " or ".join(dict.fromkeys(self.statuses))
            return f"status: {counted(len(found), 'span')} with {names} (first: {shorten(found[0].name)})"
        if trace.trigger is Trigger.LOST and SpanStatus.ERROR in self.statuses:
            open_spans = [head for _, head in spans_of(trace, self.span_type) if head.status == PENDING]
            if open_spans:
                name = shorten(open_spans[0].name)
                return f"status: its process died with {counted(len(open_spans), 'span')} open (first: {name})"
        return None
