"""The common base of the policies of a policy file: settings, votes, and texts for reasons.

A condition returns why a trace matches, or None. It never reads the trace's randomness. Each condition declares the valid values
of its settings as types, and reports contradictions between them with `problems()`.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from prela_stream.model.semconv import read_keys
from prela_stream.model.span import SPAN_TYPE_CODES, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling.policy import Vote

Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Text = Annotated[str, msgspec.Meta(min_length=1)]

_LONGEST_WORD: Final = 60
_UNITS: Final = ((1e3, 1.0, "ms"), (120e3, 1e3, "s"), (7200e3, 60e3, "min"))
"""Upper limit in ms, size of the unit in ms, unit."""
STEP = 1024
"""So many spans of a large trace are tested in about a millisecond."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag=""):
    """A policy that is one table of a policy file. Subclasses add their settings, `match` and `reads`."""

    name: str = ""
    """Unique in the policy set; the type of the policy if the file has no name. Sub-policies need no name."""

    @property
    def type(self) -> str:
        """The `type` of this policy in a policy file."""
        return str(self.__struct_config__.tag)

    @property
    def reads(self) -> frozenset[str]:
        """The attribute keys that it needs, in every spelling."""
        return frozenset()

    @property
    def unconditional(self) -> bool:
        """Whether it matches every trace."""
        return False

    def vote(self, trace: Trace) -> Vote:
        """The vote on `trace`."""
        raise NotImplementedError

    def prepare(self, trace: Trace, results: dict[int, str | None]) -> Iterator[None]:  # noqa: ARG002 - most are quick
        """Do what takes long with a large trace before `vote` is called; see `Evaluator.prepare`.

        Args:
            trace: The trace.
            results: Receives what `match` returns, if that takes long, by the `id()` of the condition: `trace.prepared`.

        Yields:
            About once in a millisecond.
        """
        yield from ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Contradictions in these settings, as pairs of the field and the problem."""
        yield from ()

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Path and value of each probability that is neither 0 nor 1."""
        yield from ()


class Match(Condition, frozen=True, kw_only=True, tag=""):
    """A condition with one fixed probability for the traces that match."""

    probability: Probability = 1.0

    def match(self, trace: Trace) -> str | None:
        """Why `trace` matches, as text; None if it does not match."""
        raise NotImplementedError

    def vote(self, trace: Trace) -> Vote:
        """`probability` if `match` returns a reason, or has returned it in `prepare`."""
        known = trace.prepared
        reason = known[id(self)] if id(self) in known else self.match(trace)
        return NO_MATCH if reason is None else _match(self.probability, reason)

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Its own probability if it is neither 0 nor 1."""
        if self.probability not in (0.0, 1.0):
            yield "probability", self.probability


NO_MATCH = Vote(matched=False, probability=0.0, reason="does not match")


@lru_cache(maxsize=1_024)  # most policies have few reasons
def _match(probability: float, reason: str) -> Vote:
    return Vote(matched=True, probability=probability, reason=reason)


def spellings(*keys: str) -> frozenset[str]:
    """All spellings of these attribute keys."""
    return frozenset(spelling for key in keys for spelling in read_keys(key))


def parts_of(trace: Trace) -> Iterator[range]:
    """The indexes of the spans, in parts of about a millisecond of work."""
    count = len(trace.statuses)
    return (range(start, min(count, start + STEP)) for start in range(0, count, STEP))


def of_type(trace: Trace, indexes: Sequence[int], span_type: SpanType | None) -> Sequence[int]:
    """Those of these spans that have the type; None: all of them, without a look at their heads."""
    if span_type is None:
        return indexes
    code, heads = SPAN_TYPE_CODES[span_type], trace.heads
    return [index for index in indexes if heads[index].span_type == code]


def shorten(value: object) -> str:
    """A value as text for a reason: control characters are escaped, and it is cut to 60 characters."""
    text = value if isinstance(value, str) else str(value)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: _LONGEST_WORD + 1])
    return text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 1] + "…"


def percent(probability: float) -> str:
    """`10 %`, with up to four significant digits."""
    return f"{probability * 100:.4g} %"


def duration(milliseconds: float) -> str:
    """`350 ms`, `42.1 s`, `12.5 min`, `3.2 h`: three significant digits."""
    size, unit = next(
        ((size, unit) for limit, size, unit in _UNITS if milliseconds < limit),
        (3600e3, "h"),
    )
    value = milliseconds / size
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def counted(number: int, noun: str) -> str:
    """`1 span`, `2 spans`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
