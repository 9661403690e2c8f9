"""The `status` policy: how spans ended."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Final

import msgspec

from prela_stream.model.decision import Trigger
from prela_stream.model.span import PENDING, SPAN_STATUS_CODES, SpanStatus, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Match, counted, of_type, parts_of, shorten

_NONE: Final[frozenset[int]] = frozenset()


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
        codes = self._codes_in(trace)
        return self._reason(trace, self._with(trace, codes, range(len(trace.statuses)))) if codes else None

    def prepare(self, trace: Trace, results: dict[int, str | None]) -> Iterator[None]:
        """Find the spans in steps; their types are in their heads."""
        codes = self._codes_in(trace)
        if codes and self.span_type is not None:
            yield from trace.read_heads()
        found: list[int] = []
        for part in parts_of(trace) if codes else ():
            found += self._with(trace, codes, part)
            yield
        results[id(self)] = self._reason(trace, found)

    def _codes_in(self, trace: Trace) -> frozenset[int]:
        """The statuses to find; none if no span has one of them."""
        codes = _codes(self.statuses)
        if trace.trigger is Trigger.LOST and SpanStatus.ERROR in self.statuses:
            codes |= {PENDING}
        return _NONE if codes.isdisjoint(trace.statuses) else codes

    def _with(self, trace: Trace, codes: frozenset[int], among: range) -> Sequence[int]:
        """The indexes of the spans with these statuses."""
        statuses = trace.statuses
        return of_type(trace, [index for index in among if statuses[index] in codes], self.span_type)

    def _reason(self, trace: Trace, found: Sequence[int]) -> str | None:
        if not found:
            return None
        codes, statuses = _codes(self.statuses), trace.statuses
        ended = [index for index in found if statuses[index] in codes]
        if ended:
            names = " or ".join(dict.fromkeys(self.statuses))
            name = shorten(trace.name_of(ended[0]))
            return f"status: {counted(len(ended), 'span')} with {names} (first: {name})"
        name = shorten(trace.name_of(found[0]))
        return f"status: its process died with {counted(len(found), 'span')} open (first: {name})"
