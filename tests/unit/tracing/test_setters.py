"""Helpers for agents, models, tools, retrieval and embeddings: right types and names, and nothing that was not set."""

from typing import Any

import pytest

from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.testing import capture_spans
from prela_stream.tracing.sampler import AlwaysOffSampler
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()


def test_setters_follow_the_conventions_and_skip_none() -> None:
    with capture_spans() as captured, tracer.span("x", SpanType.LLM) as span:
        span.set_llm(model="claude", finish_reason="end_turn", input_tokens=7, output_tokens=0)
        span.set_tool(name="search", result=["page"])
        span.set_retrieval(documents=[{"id": 1, "score": 0.5}])
        span.set_service(name="search-service", environment="prod")
    assert captured.find("x").attributes == {
        "gen_ai.request.model": "claude",
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 0,
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.result": ["page"],
        "gen_ai.retrieval.documents": [{"id": 1, "score": 0.5}],
        "service.name": "search-service",
        "deployment.environment.name": "prod",
    }


def test_an_error_without_an_exception() -> None:
    with capture_spans() as captured, tracer.tool("t") as span:
        span.set_error("timeout", "no answer within 5 s", context={"host": "a"})
    found = captured.find("t")
    assert (found.status, found.status_message) == (SpanStatus.ERROR, "no answer within 5 s")
    assert found.attributes["error.type"] == "timeout"
    assert found.attributes["error.context"] == {"host": "a"}
    assert "error.stacktrace" not in found.attributes


def test_events_of_models_and_tools() -> None:
    with capture_spans() as captured, tracer.llm("x") as span:
        span.add_llm_request([{"role": "user", "content": "Hello"}], system="be brief")
        span.add_llm_response("Hi", finish_reason="end_turn")
        span.add_tool_call("search", {"q": 1}, call_id="c1")
        span.add_tool_result(["page"], call_id="c1", is_error=False)
    assert [(event.name, event.attributes) for event in captured.find("x").events] == [
        ("llm.request", {"messages": [{"role": "user", "content": "Hello"}], "system": "be brief"}),
        ("llm.response", {"content": "Hi", "finish_reason": "end_turn"}),
        ("tool.call", {"name": "search", "arguments": {"q": 1}, "id": "c1"}),
        ("tool.result", {"result": ["page"], "id": "c1", "is_error": False}),
    ]


@pytest.mark.parametrize("name", ["llm.model", "gen_ai.request.model", "llm.model_name"])
def test_an_attribute_is_found_under_any_of_its_names(name: str) -> None:
    with capture_spans() as captured:
        with tracer.span("span") as span:
            span.set_llm(model="claude")
        with tracer.span("ancestor") as ancestor:
            ancestor.set_attribute("llm.model", "claude")
    assert (span.attribute(name), ancestor.attribute(name)) == ("claude", "claude")
    assert [span.attribute(name) for span in captured.spans] == ["claude", "claude"]


def test_values_that_the_ancestor_stored_are_derived() -> None:
    with capture_spans() as captured, tracer.llm("x", model="m") as span:
        span.set_llm(input_tokens=7, output_tokens=5, finish_reason="end_turn")
        assert span.attribute("llm.latency_ms") is None
    found = captured.find("x")
    assert found.attribute("llm.total_tokens") == 12
    assert found.attribute("llm.stop_reason") == "end_turn"
    assert found.attribute("llm.latency_ms") == found.duration_ms
    assert found.attribute("gen_ai.response.finish_reasons") == ["end_turn"]
    assert found.attribute("never.set") is None


def test_after_the_end_and_on_unsampled_spans_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    def say_all(span: Any) -> None:
        span.set_llm(model="m")
        span.set_tool(name="t")
        span.set_retrieval(query="q")
        span.set_service(name="s")
        span.set_error("k")
        span.add_llm_request([])
        span.add_llm_response("")
        span.add_tool_call("t")
        span.add_tool_result(1)

    with capture_spans() as captured:
        with tracer.span("x") as span:
            pass
        say_all(span)
    assert captured.find("x").attributes == {}
    assert (span.events, span.status) == ((), SpanStatus.SUCCESS)
    with capture_spans(AlwaysOffSampler()) as captured, tracer.agent("a") as outer, tracer.llm("l") as inner:
        say_all(outer)
        say_all(inner)
    assert captured.items == []
