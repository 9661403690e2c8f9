"""The `status` policy: how spans ended."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Final

import msgspec

from prela_stream.model.decision import Trigger
from prela_stream.model.span import PENDING, SPAN_STATUS_CODES, SpanStatus, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Match, counted, of_type, shorten

_OPEN: Final = frozenset({PENDING})


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
        if found := self._with(trace, _codes(self.statuses)):
            names = " or ".join(dict.fromkeys(self.statuses))
            name = shorten(trace.name_of(found[0]))
            return f"status: {counted(len(found), 'span')} with {names} (first: {name})"
        if self._counts_open(trace) and (found := self._with(trace, _OPEN)):
            name = shorten(trace.name_of(found[0]))
            return f"status: its process died with {counted(len(found), 'span')} open (first: {name})"
        return None

    def _counts_open(self, trace: Trace) -> bool:
        return trace.trigger is Trigger.LOST and SpanStatus.ERROR in self.statuses

    def _with(self, trace: Trace, codes: frozenset[int]) -> Sequence[int]:
        """The indexes of the spans with these statuses."""
        statuses = trace.statuses
        if codes.isdisjoint(statuses):
            return ()
        found = [index for index, status in enumerate(statuses) if status in codes]
        return of_type(trace, found, self.span_type)

    def prepare(self, trace: Trace, results: dict[int, str | None]) -> Iterator[None]:  # noqa: ARG002 - the contract
        """The types of spans are in their heads."""
        codes = _codes(self.statuses) | (_OPEN if self._counts_open(trace) else frozenset())
        if self.span_type is not None and not codes.isdisjoint(trace.statuses):
            yield from trace.read_heads()
