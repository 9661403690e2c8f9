"""The `attribute` policy: tests the value of an attribute of a span or of its resource."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from prela_stream.model.semconv import read, read_keys
from prela_stream.model.span import Resource, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Match, Text, of_type, parts_of, shorten, spellings
from prela_stream.sampling.regex import RegexError, compile_regex

_RESOURCE_FIELDS: Final[Mapping[str, str]] = {
    field.encode_name: field.name for field in msgspec.structs.fields(Resource) if field.name != "attributes"
}


class Attribute(Match, frozen=True, kw_only=True, tag="attribute"):
    """Matches if the attribute `key` passes one test, on any span (of `span_type`) or on the resource of any span.

    A test applies to each element of a list. A key is read under all its spellings. A missing attribute passes no test except
    `exists = false`, which matches if no span has the attribute.
    """

    key: Text
    on: Literal["span", "resource"] = "span"
    span_type: SpanType | None = None
    equals: str | bool | int | float | None = None
    one_of: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    regex: str | None = None
    """Searched anywhere in a string, in the syntax of RE2."""
    min: float | None = None
    """The value is a number and at least this."""
    max: float | None = None
    """The value is a number and at most this."""
    exists: bool | None = None

    @property
    def reads(self) -> frozenset[str]:
        """All spellings of its key. Empty with `on = "resource"`, because resources are always decoded."""
        return spellings(self.key) if self.on == "span" else frozenset()

    def match(self, trace: Trace) -> str | None:
        """The key, the value that passed, and the test."""
        return self._reason(self._first(trace, range(len(trace.statuses))))

    def _reason(self, found: str | None) -> str | None:
        if self.exists is False:
            return f"attribute: {self.key} is nowhere" if found is None else None
        return found

    def prepare(self, trace: Trace, results: dict[int, str | None]) -> Iterator[None]:
        """Test a part of the spans in each step."""
        if self.span_type is not None:
            yield from trace.read_heads()
        if self.on == "resource":
            yield from trace.read_resources()
        found: str | None = None
        for part in parts_of(trace):
            if (found := self._first(trace, part)) is not None:
                break
            yield
        results[id(self)] = self._reason(found)

    def _first(self, trace: Trace, among: range) -> str | None:
        """The first value on these spans that passes, with its test. `exists = false` is tested as `exists = true`."""
        indexes = of_type(trace, among, self.span_type)
        values = self._on_resources(trace, indexes) if self.on == "resource" else self._on_spans(trace, indexes)
        if self.exists is False:
            return "exists" if any(value is not None for value in values) else None
        failed: Any = None  # the spans of a trace often have one value
        for index, value in zip(indexes, values, strict=True):
            if value is None or (value.__class__ is str and value == failed):
                continue
            parts = value if isinstance(value, list | tuple) and self.exists is None else (value,)
            for part in parts:
                if test := self._passes(part):
                    where = "resource" if self.on == "resource" else f"span: {shorten(trace.name_of(index))}"
                    return f"attribute: {self.key} {test} ({where})"
            failed = value
        return None

    def _on_spans(self, trace: Trace, indexes: Sequence[int]) -> list[Any]:
        """The value on each span; None if it is missing."""
        attributes = trace.attributes
        if indexes and indexes[-1] - indexes[0] + 1 == len(indexes):
            every = attributes[indexes[0] : indexes[-1] + 1]
        else:
            every = [attributes[index] for index in indexes]
        preferred, *others = read_keys(self.key)
        values = [own.get(preferred) for own in every]
        if others and None in values:
            return [
                read(own, self.key) if own and value is None else value
                for own, value in zip(every, values, strict=True)
            ]
        return values

    def _on_resources(self, trace: Trace, indexes: Sequence[int]) -> list[Any]:
        """The value on the resource of each span; None if it is missing, or if the span before has the same resource."""
        found: list[Any] = []
        last: Resource | None = None
        for index in indexes:
            resource = trace.resources[index]
            found.append(None if resource is last else resource_value(resource, self.key))
            last = resource
        return found

    def _passes(self, value: Any) -> str | None:
        """The test that `value` passed, as text; None if it passed none."""
        if self.exists:
            return "exists"
        if self.equals is not None:
            return f"= {shorten(value)}" if _same(value, self.equals) else None
        if self.one_of is not None:
            return f"= {shorten(value)}" if isinstance(value, str) and value in self.one_of else None
        if self.regex is not None:
            found = compile_regex(self.regex).search(value) if isinstance(value, str) else None
            return None if found is None else f"matches {self.regex} with {shorten(found)}"
        return self._in_range(value)

    def _in_range(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        limits = [(">=", self.min), ("<=", self.max)]
        if (
            math.isnan(value)
            or (self.min is not None and value < self.min)
            or (self.max is not None and value > self.max)
        ):
            return None
        words = " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)
        return f"= {shorten(value)}, which is {words}"

    def problems(self) -> Iterator[tuple[str, str]]:
        """Not exactly one test, an invalid regex, or an empty range."""
        tests = {"equals": self.equals, "one_of": self.one_of, "regex": self.regex, "exists": self.exists}
        given = [name for name, value in tests.items() if value is not None]
        if self.min is not None or self.max is not None:
            given.append("min/max")
        if len(given) != 1:
            got = "none" if not given else " and ".join(given)
            yield "", f"expected exactly one test of equals, one_of, regex, min/max, exists; got {got}"
        if self.min is not None and self.max is not None and self.max < self.min:
            yield "max", f"expected at least min ({self.min:g}), got {self.max:g}"
        if self.regex is not None:
            try:
                compile_regex(self.regex)
            except RegexError as error:
                yield "regex", f"expected a regular expression, got {self.regex!r}: {error}"


def _same(value: Any, wanted: str | float) -> bool:
    """Whether both are equal, and both or neither are booleans, because in Python `True == 1`."""
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def resource_value(resource: Resource, key: str) -> Any:
    """The resource attribute `key` under any spelling, including the fields of `Resource`; None if it is missing or empty."""
    value = read(resource.attributes, key)
    if value is None and key in _RESOURCE_FIELDS:
        value = getattr(resource, _RESOURCE_FIELDS[key]) or None
    return value
