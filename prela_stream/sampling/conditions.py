"""What the policies of a policy file have in common: their settings, how a match becomes a vote, and words for operators.

A condition says about a trace why it matches, or None. It never sees the trace's randomness. The checks that a file of
policies needs (what a value may be, what contradicts what) stand with each condition, as types and as `problems()`.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from prela_stream.model.semconv import read_keys
from prela_stream.model.span import SPAN_TYPE_CODES, SpanHead, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling.policy import Vote

Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Text = Annotated[str, msgspec.Meta(min_length=1)]

_LONGEST_WORD: Final = 60
_UNITS: Final = ((1e3, 1.0, "ms"), (120e3, 1e3, "s"), (7200e3, 60e3, "min"))
"""Below how many milliseconds, of how many milliseconds, which unit."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag=""):
    """A policy that is one table of a policy file. Subclasses add their settings, `match`, and what they read."""

    name: str = ""
    """Unique in the policy set; the policy's type where the file gives none. Sub-policies need none."""

    @property
    def type(self) -> str:
        """The word that stands for this kind of policy in a policy file."""
        return str(self.__struct_config__.tag)

    @property
    def reads(self) -> frozenset[str]:
        """Attribute keys it needs, every spelling of them."""
        return frozenset()

    @property
    def unconditional(self) -> bool:
        """Whether it matches every trace."""
        return False

    def vote(self, trace: Trace) -> Vote:
        """The vote about `trace`."""
        raise NotImplementedError

    def problems(self) -> Iterator[tuple[str, str]]:
        """What contradicts itself in these settings: pairs of the field and of what is wrong with it."""
        yield from ()

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Path and value of each probability in it that is neither 0 nor 1."""
        yield from ()


class Match(Condition, frozen=True, kw_only=True, tag=""):
    """A condition that matches or does not, and wants what matches kept with one fixed probability."""

    probability: Probability = 1.0

    def match(self, trace: Trace) -> str | None:
        """Why `trace` matches, in words; None if it does not."""
        raise NotImplementedError

    def vote(self, trace: Trace) -> Vote:
        """`probability` where `match` gives a reason."""
        reason = self.match(trace)
        return NO_MATCH if reason is None else Vote(matched=True, probability=self.probability, reason=reason)

    def fractions(self) -> Iterator[tuple[str, float]]:
        """Its own probability, if that is a fraction."""
        if self.probability not in (0.0, 1.0):
            yield "probability", self.probability


NO_MATCH = Vote(matched=False, probability=0.0, reason="does not match")


def spellings(*keys: str) -> frozenset[str]:
    """All spellings of these attribute keys."""
    return frozenset(spelling for key in keys for spelling in read_keys(key))


def spans_of(trace: Trace, span_type: SpanType | None) -> Iterator[tuple[int, SpanHead]]:
    """Index and head of the spans of one type; of all with None."""
    code = None if span_type is None else SPAN_TYPE_CODES[span_type]
    return ((i, head) for i, head in enumerate(trace.heads) if code is None or head.span_type == code)


def shorten(value: object) -> str:
    """A value in a reason: control characters escaped, cut to 60 characters."""
    text = value if isinstance(value, str) else str(value)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: _LONGEST_WORD + 1])
    return text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 1] + "…"


def percent(probability: float) -> str:
    """`10 %`, with up to four digits that matter."""
    return f"{probability * 100:.4g} %"


def duration(milliseconds: float) -> str:
    """`350 ms`, `42.1 s`, `12.5 min`, `3.2 h`: three digits that matter."""
    size, unit = next(
        ((size, unit) for limit, size, unit in _UNITS if milliseconds < limit),
        (3600e3, "h"),
    )
    value = milliseconds / size
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def count(number: int, noun: str) -> str:
    """`1 span`, `2 spans`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
