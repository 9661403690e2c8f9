"""One model call as each tracer records it gives the same attributes."""

import json
from typing import Any

import pytest

from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.otel.normaliser import Normalised, normalise
from prela_stream.otel.spans import ForeignEvent, ForeignSpan

QUESTION = {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]}
CALL = {"type": "tool_call", "name": "weather", "arguments": {"location": "Paris"}, "id": "call_1"}
ANSWER = {"role": "assistant", "parts": [CALL]}


def read(attributes: dict[str, Any], name: str = "call", events: list[ForeignEvent] | None = None) -> Normalised:
    """The meaning of a span with these attributes, which took from 1 s to 2 s."""
    span = ForeignSpan(
        trace_id=bytes(15) + b"1",
        span_id=bytes(7) + b"1",
        name=name,
        start_ns=10**9,
        end_ns=2 * 10**9,
        attributes=attributes,
        events=events or [],
    )
    return normalise(span)


CALLS: dict[str, dict[str, Any]] = {
    "genai 0.1": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "gen_ai.response.finish_reasons": ["tool_call"],
        "gen_ai.input.messages": json.dumps([QUESTION]),
        "gen_ai.output.messages": json.dumps([{**ANSWER, "finish_reason": "tool_call"}]),
    },
    "OpenInference": {
        "openinference.span.kind": "LLM",
        "llm.provider": "openai",
        "llm.model_name": "gpt-5",
        "llm.token_count.prompt": 97,
        "llm.token_count.completion": 25,
        "llm.token_count.total": 122,
        "llm.token_count.prompt_details.cache_read": 64,
        "llm.token_count.completion_details.reasoning": 5,
        "llm.finish_reason": "tool_calls",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "Weather in Paris?",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "weather",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"location": "Paris"}',
    },
    "OpenLLMetry, indexed": {
        "llm.request.type": "chat",
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.prompt_tokens": 97,
        "gen_ai.usage.completion_tokens": 25,
        "llm.usage.total_tokens": 122,
        "gen_ai.usage.cache_read_input_tokens": 64,
        "gen_ai.usage.reasoning_tokens": 5,
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "Weather in Paris?",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.finish_reason": "tool_calls",
        "gen_ai.completion.0.tool_calls.0.id": "call_1",
        "gen_ai.completion.0.tool_calls.0.name": "weather",
        "gen_ai.completion.0.tool_calls.0.arguments": '{"location": "Paris"}',
    },
    "Vercel AI": {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.provider": "openai.chat",
        "ai.model.id": "gpt-5",
        "ai.usage.inputTokens": 97,
        "ai.usage.outputTokens": 25,
        "ai.usage.cachedInputTokens": 64,
        "ai.usage.reasoningTokens": 5,
        "ai.response.finishReason": "tool-calls",
        "ai.prompt.messages": '[{"role": "user", "content": [{"type": "text", "text": "Weather in Paris?"}]}]',
        "ai.response.toolCalls": '[{"toolCallId": "call_1", "toolName": "weather", "input": {"location": "Paris"}}]',
    },
    "Langfuse": {
        "langfuse.observation.type": "generation",
        "gen_ai.system": "openai",
        "langfuse.observation.model.name": "gpt-5",
        "langfuse.observation.usage_details": json.dumps(
            {"input": 33, "input_cache_read": 64, "output": 20, "output_reasoning": 5, "total": 122}
        ),
        "gen_ai.response.finish_reasons": '["tool_calls"]',
        "langfuse.observation.input": '[{"role": "user", "content": "Weather in Paris?"}]',
        "langfuse.observation.output": json.dumps(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": '{"location": "Paris"}'}}],
            }
        ),
    },
}


@pytest.mark.parametrize("attributes", CALLS.values(), ids=CALLS)
def test_a_model_call_of_any_tracer(attributes: dict[str, Any]) -> None:
    found = read(attributes)
    assert found.span_type is SpanType.LLM
    assert found.status is SpanStatus.SUCCESS
    assert found.attributes["gen_ai.provider.name"] == "openai"
    assert found.attributes["gen_ai.request.model"] == "gpt-5"
    assert found.attributes["gen_ai.usage.input_tokens"] == 97
    assert found.attributes["gen_ai.usage.output_tokens"] == 25
    assert found.attributes["gen_ai.usage.cache_read.input_tokens"] == 64
    assert found.attributes["gen_ai.usage.reasoning.output_tokens"] == 5
    assert found.attributes["gen_ai.response.finish_reasons"] == ["tool_call"]
    assert found.attributes["gen_ai.input.messages"] == [QUESTION]
    (answer,) = found.attributes["gen_ai.output.messages"]
    assert answer["role"] == "assistant"
    assert answer["parts"] == [CALL]


def test_a_raw_finish_reason_is_kept_beside_the_normalised_one() -> None:
    found = read({"gen_ai.operation.name": "chat", "gen_ai.response.finish_reasons": ["end_turn", "MAX_TOKENS"]})
    assert found.attributes["gen_ai.response.finish_reasons"] == ["stop", "length"]
    assert found.attributes["prela.raw.finish_reasons"] == ["end_turn", "MAX_TOKENS"]


def test_a_model_without_usage_and_a_bare_prefix_are_no_evidence() -> None:
    assert read({"gen_ai.conversation.id": "c", "http.method": "POST"}).span_type is SpanType.CUSTOM
    assert read({"gen_ai.request.model": "m"}).span_type is SpanType.CUSTOM
    assert read({"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3}).span_type is SpanType.LLM


@pytest.mark.parametrize(
    ("attributes", "name", "span_type"),
    [
        ({"gen_ai.operation.name": "invoke_workflow"}, "", SpanType.AGENT),
        ({"gen_ai.operation.name": "search_memory"}, "", SpanType.RETRIEVAL),
        ({"gen_ai.operation.name": "plan"}, "", SpanType.CUSTOM),
        ({"openinference.span.kind": "CHAIN", "llm.request.type": "chat"}, "", SpanType.CUSTOM),
        ({"openinference.span.kind": "reranker"}, "", SpanType.RETRIEVAL),
        ({"traceloop.span.kind": "tool"}, "", SpanType.TOOL),
        ({"langsmith.span.kind": "llm"}, "", SpanType.LLM),
        ({"ai.operationId": "ai.streamText"}, "", SpanType.AGENT),
        ({"ai.operationId": "ai.embed.doEmbed"}, "", SpanType.EMBEDDING),
        ({"mcp.method.name": "tools/call"}, "", SpanType.TOOL),
        ({}, "MCP send tools/call weather", SpanType.TOOL),
        ({"gen_ai.tool.name": "weather"}, "", SpanType.TOOL),
    ],
)
def test_the_order_of_evidence(attributes: dict[str, Any], name: str, span_type: SpanType) -> None:
    assert read(attributes, name).span_type is span_type


def test_a_block_without_text_costs_only_itself() -> None:
    found = read({"gen_ai.input.messages": [{"content": None}], "gen_ai.output.messages": [ANSWER]}).attributes
    assert found["gen_ai.output.messages"] == [ANSWER]


def test_unknown_attributes_pass_through_unchanged() -> None:
    unknown = {"customer.tier": "gold", "nested": {"a": [1, None]}, "input.value": "as it is"}
    assert read(unknown).attributes == unknown


def test_a_different_value_under_an_older_name_is_kept() -> None:
    found = read({"gen_ai.conversation.id": "a", "session.id": "b"})
    assert found.attributes == {"gen_ai.conversation.id": "a", "session.id": "b"}


def test_a_tool_call_gets_name_arguments_and_result() -> None:
    found = read(
        {"openinference.span.kind": "TOOL", "input.value": '{"city": "Tokyo"}', "output.value": "sunny"},
        name="get_weather",
    )
    assert found.attributes["gen_ai.tool.name"] == "get_weather"
    assert found.attributes["gen_ai.tool.call.arguments"] == {"city": "Tokyo"}
    assert found.attributes["gen_ai.tool.call.result"] == "sunny"
    assert read({}, "MCP send tools/call weather").attributes["gen_ai.tool.name"] == "weather"


def test_the_schema_of_a_tool_is_not_taken_for_the_arguments_of_a_call() -> None:
    schema = '{"type": "object", "properties": {"city": {"type": "string"}}}'
    tool = {"openinference.span.kind": "TOOL", "tool.parameters": schema}
    found = read({**tool, "input.value": '{"city": "Tokyo"}'}, name="get_weather").attributes
    assert (found["gen_ai.tool.call.arguments"], found["tool.parameters"]) == ({"city": "Tokyo"}, schema)
    older = read({**tool, "tool.parameters": '{"city": "Tokyo"}'}, name="get_weather").attributes
    assert older["gen_ai.tool.call.arguments"] == {"city": "Tokyo"}


def test_a_retrieval_gets_its_documents() -> None:
    found = read(
        {
            "openinference.span.kind": "RETRIEVER",
            "input.value": "revenue",
            "retrieval.documents.0.document.content": "first",
            "retrieval.documents.0.document.metadata": '{"source": "a.txt"}',
            "retrieval.documents.1.document.content": "second",
        }
    )
    assert found.attributes["gen_ai.retrieval.query.text"] == "revenue"
    assert found.attributes["gen_ai.retrieval.documents"] == [
        {"content": "first", "metadata": {"source": "a.txt"}},
        {"content": "second"},
    ]


def test_messages_in_events_are_read_and_consumed() -> None:
    events = [
        ForeignEvent(name="gen_ai.user.message", time_ns=1, attributes={"content": "Weather in Paris?"}),
        ForeignEvent(
            name="gen_ai.choice", time_ns=2, attributes={"message": '{"content": "Rain"}', "finish_reason": "end_turn"}
        ),
        ForeignEvent(name="retry", time_ns=3),
    ]
    found = read({"gen_ai.operation.name": "chat"}, events=events)
    assert found.attributes["gen_ai.input.messages"] == [QUESTION]
    assert found.attributes["gen_ai.output.messages"][0]["parts"] == [{"type": "text", "content": "Rain"}]
    assert found.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert [event.name for event in found.events] == ["retry"]


def test_an_error_takes_its_type_from_the_exception() -> None:
    span = ForeignSpan(
        trace_id=bytes(15) + b"1",
        span_id=bytes(7) + b"1",
        start_ns=1,
        end_ns=2,
        status="error",
        status_message="it broke",
        events=[
            ForeignEvent(
                name="exception", time_ns=1, attributes={"exception.type": "ValueError", "exception.message": "bad"}
            )
        ],
    )
    found = normalise(span)
    assert found.status is SpanStatus.ERROR
    assert found.attributes == {"error.type": "ValueError", "error.message": "bad"}
    assert found.status_message == "it broke"
    assert [event.name for event in found.events] == ["exception"]


def test_a_span_without_an_end_is_pending() -> None:
    span = ForeignSpan(trace_id=bytes(15) + b"1", span_id=bytes(7) + b"1")
    assert normalise(span).status is SpanStatus.PENDING


HI = [{"type": "text", "content": "hi"}]
RESULT = [{"type": "tool_call_response", "response": "4", "id": "t"}]
SHAPES: list[tuple[Any, list[Any]]] = [
    ('{"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}', [HI]),
    ([[{"type": "human", "content": "hi"}]], [HI]),
    ([{"lc": 1, "type": "constructor", "id": ["x", "AIMessage"], "kwargs": {"content": "hi"}}], [HI]),
    ([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "4"}]}], [RESULT]),
    ([{"type": "function_call_output", "call_id": "t", "output": "4"}], [RESULT]),
    (
        '[{"toolUse": {"toolUseId": "t", "name": "add", "input": {"a": 1}}}]',
        [[{"type": "tool_call", "name": "add", "arguments": {"a": 1}, "id": "t"}]],
    ),
    ("plain text", [[{"type": "text", "content": "plain text"}]]),
]


@pytest.mark.parametrize(("value", "parts"), SHAPES)
def test_messages_of_any_provider(value: Any, parts: list[Any]) -> None:
    found = read({"openinference.span.kind": "LLM", "input.value": value})
    assert [message["parts"] for message in found.attributes["gen_ai.input.messages"]] == parts


def test_a_structured_answer_of_any_agent_is_the_text_of_a_message() -> None:
    answer = '{"steps": [{"number": 1}]}'
    found = read({"gen_ai.operation.name": "call_llm", "gen_ai.request.model": "m", "gen_ai.output": answer})
    assert found.attributes["gen_ai.output.messages"] == [
        {"role": "assistant", "parts": [{"type": "text", "content": answer}]}
    ]
    assert "gen_ai.output" not in found.attributes
