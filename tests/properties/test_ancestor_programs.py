"""The same random programs on the ancestor, `prela` 0.1.0, and on this package: each difference is a named improvement.

A difference that no name explains fails, and so does a name that explains nothing. Each explanation is as narrow as it can be:
where parents or statuses differ, this package has to match the text of the program.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import prela_stream
from prela_stream.testing import CapturedSpans
from tests.support.span_programs import Interpreter, Program, Truth, generate

ancestor = pytest.importorskip("prela", reason="prela 0.1.0 is in the test group")

PROGRAMS = 200
ABSENT = "absent"
SERVICE = "differential"


class Seen(msgspec.Struct, frozen=True):
    """A span as an SDK has delivered it."""

    parent: str | None
    type: str
    status: str
    message: str | None
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]


class Run(msgspec.Struct, frozen=True):
    """What a program has led to."""

    spans: dict[str, Seen]
    times: Counter[str]
    """How often each span was delivered."""
    log: list[tuple[str, str, Any]]


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not the same."""

    field: str
    span: str
    theirs: Any
    found: Any
    truth: Truth

    @property
    def found_is_true(self) -> bool:
        """Whether this package matches the text of the program, if that determines the value."""
        expected = {"parent": self.truth.parent, "status": self.truth.status}
        return bool(self.found == expected.get(self.field, self.found))


class Successor:
    types = prela_stream.SpanType
    statuses = prela_stream.SpanStatus
    trace = staticmethod(prela_stream.trace)

    def __init__(self) -> None:
        self.captured = CapturedSpans()
        self.tracer = prela_stream.Tracer(service_name=None, exporter=self.captured)

    def current_name(self) -> str | None:
        span = prela_stream.get_current_span()
        return None if span is None else span.name

    def set_on_current(self, key: str, value: Any) -> None:
        span = prela_stream.get_current_span()
        assert span is not None
        span.set_attribute(key, value)

    def enter_for_ever(self, name: str) -> Any:
        return self.tracer.span(name).__enter__()

    def delivered(self) -> list[Any]:
        return list(self.captured.spans)


class Theirs:
    types = ancestor.SpanType
    statuses = ancestor.SpanStatus
    trace = staticmethod(ancestor.trace)

    def __init__(self) -> None:
        kept: list[Any] = []

        class Keep(ancestor.BaseExporter):  # type: ignore[misc, name-defined]  # it may not be installed
            def export(self, spans: list[Any]) -> None:
                kept.extend(spans)

            def shutdown(self) -> None: ...

        self.kept = kept
        self.tracer = ancestor.Tracer(service_name=SERVICE, exporter=Keep())

    def current_name(self) -> str | None:
        span = ancestor.get_current_span()
        return None if span is None else span.name

    def set_on_current(self, key: str, value: Any) -> None:
        ancestor.get_current_span().set_attribute(key, value)

    def enter_for_ever(self, name: str) -> Any:
        return self.tracer.start_span(name)  # current from here on; its `with` would end when it is collected

    def delivered(self) -> list[Any]:
        return self.kept


def run(program: Program, sdk: Any) -> Run:
    interpreter = Interpreter(sdk)
    interpreter.run(program)
    spans = sdk.delivered()
    names = {span.span_id: span.name for span in spans}
    seen = {
        span.name: Seen(
            None if span.parent_span_id is None else names.get(span.parent_span_id, "?"),
            span.span_type.value.upper(),
            span.status.value.upper(),
            span.status_message,
            dict(span.attributes),
            [(event.name, event.attributes) for event in span.events],
        )
        for span in spans
    }
    return Run(seen, Counter(span.name for span in spans), interpreter.log)


def differences(program: Program, theirs: Run, mine: Run) -> Iterator[Difference]:
    for name, truth in program.truth.items():
        a, b = theirs.spans.get(name), mine.spans.get(name)
        if theirs.times[name] != mine.times[name]:
            yield Difference("times", name, theirs.times[name], mine.times[name], truth)
        if a is None or b is None:
            continue
        for field in ("parent", "type", "status", "message", "events"):
            if getattr(a, field) != getattr(b, field):
                yield Difference(field, name, getattr(a, field), getattr(b, field), truth)
        for key in {**a.attributes, **b.attributes}:
            if a.attributes.get(key, ABSENT) != b.attributes.get(key, ABSENT):
                pair = a.attributes.get(key, ABSENT), b.attributes.get(key, ABSENT)
                yield Difference(f"attribute {key}", name, *pair, truth)
    assert [entry[:2] for entry in theirs.log] == [entry[:2] for entry in mine.log]
    for (what, name, seen), (_, _, seen_here) in zip(theirs.log, mine.log, strict=True):
        if seen != seen_here:
            truth = program.truth.get(name, Truth(None, "", frozenset()))
            yield Difference(what, name, seen, seen_here, truth)


Explains = Callable[[Difference], bool]
SHARED_STACK = {"gather", "manual", "crossed", "end_inside", "generator"}

IMPROVEMENTS: dict[str, tuple[str, Explains]] = {
    "service once a batch": (
        "The process's name is sent once a batch as a resource attribute, not repeated on every span.",
        lambda d: d.field == "attribute service.name" and (d.theirs, d.found) == (SERVICE, ABSENT),
    ),
    "stacktrace": (
        "An error has the `error.stacktrace` that the ancestor's page promises and its code does not write.",
        lambda d: d.field == "attribute error.stacktrace" and d.theirs == ABSENT and "Traceback" in d.found,
    ),
    "cancelled is not success": (
        "Cancelled work is CANCELLED and has the reason; the ancestor reports SUCCESS.",
        lambda d: d.truth.status == "CANCELLED" and (
            (d.field == "status" and (d.theirs, d.found) == ("SUCCESS", "CANCELLED"))
            or (d.field == "message" and (d.theirs, d.found) == (None, "broken"))
            or (d.field == "attribute error.type" and d.theirs == ABSENT and d.found == "CancelledError")
            or (d.field == "attribute error.message" and (d.theirs, d.found) == (ABSENT, "broken"))
        ),
    ),
    "a message for a silent error": (
        "An error without a text has its type as status message and `error.message`, so that a list of spans shows a reason.",
        lambda d: d.field in ("message", "attribute error.message") and (d.theirs, d.found) == ("", "SilentError"),
    ),
    "parents are true": (
        "The current span is one immutable context variable; the ancestor's tasks and generators share a stack.",
        lambda d: d.field == "parent" and d.found_is_true and bool(SHARED_STACK & d.truth.causes),
    ),
    "the current span is true": (
        "For the same reason `get_current_span()` is the span whose block the code is in.",
        lambda d: d.field == "current" and str(d.found) == d.span and str(d.theirs) != d.span,
    ),
    "every ended span is delivered": (
        "Spans are delivered as they end; the ancestor's wait for a root that may stay open, end first or be popped by another.",
        lambda d: d.field == "times" and (d.theirs, d.found) == (0, 1) and bool(d.truth.causes),
    ),
    "nothing is raised into the application": (
        "A change after the end, a second end, or an end in another order have no effect; the ancestor raises.",
        lambda d: d.theirs in ("RuntimeError", "ValueError") and d.found is None,
    ),
    "the application's dict is its own": (
        "Attributes that are given are copied; the ancestor writes its own into the application's dict.",
        lambda d: d.field == "the application's own dict" and d.found == ["k"] and d.theirs == ["k", "more", "service.name"],
    ),
    "one call's attributes are not the next one's": (
        "For the same reason what a call of one decorated function sets does not show up on that of another, before or after.",
        lambda d: (
            (d.field == "attribute first" and (d.theirs, d.found) == (1, ABSENT))
            or (d.field == "attribute function.name" and (d.theirs, d.found) == ("two", "one"))
        ),
    ),
    "a span does not change after its end": (
        "Values are encoded when the span ends; the ancestor keeps references to them.",
        lambda d: d.field == "attribute value" and (d.theirs, d.found) == ([1, 2], [1]),
    ),
    "values arrive as they are stored": (
        "A value that MessagePack has no type for is made into one that it has, instead of failing in the exporter.",
        lambda d: d.field == "attribute odd" and (d.theirs, d.found) == ({1, 2}, [1, 2]),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)


def test_each_difference_is_a_named_improvement_and_each_improvement_is_seen() -> None:
    explained: Counter[str] = Counter()
    unexplained: list[str] = []
    for seed in range(PROGRAMS):
        program = generate(seed)
        for difference in differences(program, run(program, Theirs()), run(program, Successor())):
            name = next((name for name, (_, explains) in IMPROVEMENTS.items() if explains(difference)), None)
            if name is None:
                unexplained.append(f"program {seed}: {difference}")
            else:
                explained[name] += 1
    assert unexplained == []
    assert set(explained) == set(IMPROVEMENTS), "an improvement that no program shows"


def test_ours_is_what_each_program_says() -> None:
    for seed in range(PROGRAMS):
        program = generate(seed)
        result = run(program, Successor())
        found = {name: (span.parent, span.status) for name, span in result.spans.items()}
        assert found == {name: (truth.parent, truth.status) for name, truth in program.truth.items()}, f"program {seed}"
        assert set(result.times.values()) == {1}


def test_the_programs_are_worth_running() -> None:
    programs = [generate(seed) for seed in range(PROGRAMS)]
    sizes = sorted(len(program.truth) for program in programs)
    assert sizes[len(sizes) // 2] >= 10
    assert {cause for program in programs for truth in program.truth.values() for cause in truth.causes} >= SHARED_STACK
