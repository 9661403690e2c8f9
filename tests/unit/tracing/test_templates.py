"""Span functions as decorators."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import prela_stream as prela
from prela_stream.model.span import SpanType
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.sampler import AlwaysOffSampler
from prela_stream.tracing.tracer import Tracer, get_tracer

tracer = get_tracer()
FUNCTIONS = ["span", "agent", "llm", "tool", "retrieval", "embedding"]


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("form", ["bare", "empty", "named"])
def test_every_span_function_decorates(name: str, form: str, captured: CapturedSpans) -> None:
    function: Any = getattr(prela, name)

    def work(number: int) -> int:
        return number + 1

    decorate: Callable[[Any], Any] = {"bare": lambda: function, "empty": function, "named": lambda: function("other")}[
        form
    ]()
    decorated = decorate(work)
    assert [decorated(1), decorated(2)] == [2, 3]
    wanted = "other" if form == "named" else "work"
    with function(wanted):
        pass
    first, second, by_hand = captured.spans
    assert (first.name, first.span_type, first.attributes) == (wanted, by_hand.span_type, by_hand.attributes)
    assert first.span_id != second.span_id
    assert (decorated.__name__, decorated.__wrapped__) == ("work", work)


def test_arguments_are_those_of_each_span(captured: CapturedSpans) -> None:
    @prela.tool("search", call_id="c1", attributes={"a": 1})
    def tool() -> None: ...

    @tracer.span("step", SpanType.TOOL, {"b": 2})
    def step() -> None: ...

    tool()
    step()
    assert captured.find("search").attributes.items() >= {"gen_ai.tool.call.id": "c1", "a": 1}.items()
    assert (captured.find("step").span_type, captured.find("step").attributes) == (SpanType.TOOL, {"b": 2})


def test_one_decorator_for_several_functions(captured: CapturedSpans) -> None:
    decorate = prela.tool("search", arguments={"query": "q" * 1000})
    for function in (len, max):
        decorate(function)([1])
    first, second = captured.spans
    assert first.attributes == second.attributes
    assert first.attributes["gen_ai.tool.call.arguments"] == {"query": "q" * 1000}


def test_a_decorator_inside_a_span_leaves_no_trace_of_itself(captured: CapturedSpans) -> None:
    with tracer.span("root"), tracer.agent("outer"):

        @prela.tool("closure")
        def closure() -> None: ...

        @prela.agent
        def bare() -> None: ...

        assert len(list(OpenSpans(tracer).heartbeats())) == 2
        closure()
    assert_tree(captured.spans, "root\n  outer [AGENT]\n    closure [TOOL]")
    assert captured.find("outer").child_count == 1


def test_a_template_whose_parent_counts_it_for_good_is_cancelled(captured: CapturedSpans) -> None:
    parent = tracer.start_span("parent")
    template = tracer.span("template", parent=parent)
    template(lambda: None)
    parent.end()
    assert captured.find("parent").child_count == 1
    assert captured.find("template").status == "CANCELLED"


def test_a_span_that_was_entered_does_not_decorate(captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    def work() -> None: ...

    with tracer.span("entered") as span:
        assert span(work) is work
    assert captured.find("entered").status == "SUCCESS"


def test_the_session_of_the_decorator_is_not_that_of_the_call(captured: CapturedSpans) -> None:
    with prela.session("at definition", user_id="u1"):

        @prela.tool("search")
        def tool() -> None: ...

    with prela.session("at call"):
        tool()
    found = captured.find("search").attributes
    assert (found["gen_ai.conversation.id"], "user.id" in found) == ("at call", False)


def test_in_a_trace_that_is_not_sampled(captured: CapturedSpans) -> None:
    tracer.configure(sampler=AlwaysOffSampler())
    with tracer.span("not sampled"):

        @prela.tool("named", attributes={"a": 1})
        def named() -> None: ...

        @prela.tool
        def bare() -> None: ...

        named()
    tracer.configure(sampler=None)
    named()
    bare()
    assert_tree(captured.spans, "named [TOOL]\nbare [TOOL]")
    assert captured.find("named").attributes["a"] == 1


def test_the_tracer_of_the_decorator_makes_the_spans(captured: CapturedSpans) -> None:
    other = Tracer("other service")
    other.tool(len)([])
    other.tool("named")(len)([])
    assert [span.attributes["service.name"] for span in captured.spans] == ["other service"] * 2
