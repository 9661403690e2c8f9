"""Spans as tools of many conventions write them: type, model, tokens once, finish reason, readable messages, tools, session.

Each attribute was seen in the code, the documentation or an export of its tool. The expected facts are the same for each model
call.
"""

import json
from typing import Any, Final

import pytest

from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.otel.spans import ForeignEvent
from tests.unit.otel.test_normaliser import read

ASKED: Final = "What is 3 + 4?"
ANSWERED: Final = "It is 7."
OPENAI: Final[dict[str, Any]] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m-1-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWERED}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 97,
        "completion_tokens": 25,
        "total_tokens": 122,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}
RESPONSES: Final = {
    "id": "resp_1",
    "object": "response",
    "model": "m-1-2026",
    "status": "completed",
    "output": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWERED}]},
    ],
    "usage": {
        "input_tokens": 97,
        "output_tokens": 25,
        "total_tokens": 122,
        "input_tokens_details": {"cached_tokens": 64},
        "output_tokens_details": {"reasoning_tokens": 5},
    },
}
ANTHROPIC: Final = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-1-2026",
    "content": [{"type": "text", "text": ANSWERED}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 33,
        "cache_read_input_tokens": 64,
        "cache_creation_input_tokens": 0,
        "output_tokens": 25,
    },
}
GEMINI: Final = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": ANSWERED}]}, "finish_reason": 1}],
    "usage_metadata": {
        "prompt_token_count": 97,
        "candidates_token_count": 20,
        "thoughts_token_count": 5,
        "cached_content_token_count": 64,
        "total_token_count": 122,
    },
    "model_version": "m-1-2026",
}
BEDROCK: Final = {
    "output": {"message": {"role": "assistant", "content": [{"text": ANSWERED}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 33, "outputTokens": 25, "totalTokens": 122, "cacheReadInputTokens": 64},
}
LANGCHAIN: Final = {
    "generations": [
        [
            {
                "text": ANSWERED,
                "generation_info": {"finish_reason": "stop"},
                "message": {
                    "lc": 1,
                    "type": "constructor",
                    "id": ["langchain", "schema", "messages", "AIMessage"],
                    "kwargs": {
                        "content": ANSWERED,
                        "response_metadata": {"finish_reason": "stop"},
                        "usage_metadata": {
                            "input_tokens": 97,
                            "output_tokens": 25,
                            "total_tokens": 122,
                            "input_token_details": {"cache_read": 64},
                            "output_token_details": {"reasoning": 5},
                        },
                    },
                },
            }
        ]
    ],
    "llm_output": None,
}
COHERE: Final = {
    "id": "x",
    "message": {"role": "assistant", "content": [{"type": "text", "text": ANSWERED}]},
    "finish_reason": "COMPLETE",
    "usage": {
        "billed_units": {"input_tokens": 90, "output_tokens": 20},
        "tokens": {"input_tokens": 97, "output_tokens": 25},
    },
}
REQUEST: Final = json.dumps({"model": "m-1", "messages": [{"role": "user", "content": ASKED}]})
PLAIN: Final = json.dumps([{"role": "user", "content": ASKED}])
INFERENCE: Final = "openinference.span.kind"


def raw(answer: object) -> dict[str, Any]:
    """A model call of OpenInference whose facts are in the raw answer alone."""
    return {INFERENCE: "LLM", "llm.model_name": "m-1", "input.value": REQUEST, "output.value": json.dumps(answer)}


CALLS: Final[dict[str, dict[str, Any]]] = {
    "raw answer of OpenAI": raw(OPENAI),
    "raw answer of OpenAI's responses": raw(RESPONSES),
    "raw answer of Anthropic": raw(ANTHROPIC),
    "raw answer of Gemini": raw(GEMINI),
    "raw answer of Bedrock": raw(BEDROCK),
    "raw answer of LangChain": raw(LANGCHAIN),
    "raw answer of LangChain with a short usage": raw(
        {**LANGCHAIN, "llm_output": {"usage": {"input_tokens": 33, "output_tokens": 25}}}
    ),
    "raw answer of Cohere": raw(COHERE),
    "LangSmith": {
        "langsmith.span.kind": "llm",
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "m-1",
        "gen_ai.prompt": json.dumps({"messages": [[{"type": "human", "content": ASKED}]]}),
        "gen_ai.completion": json.dumps(LANGCHAIN),
    },
    "MLflow": {
        "mlflow.spanType": '"CHAT_MODEL"',
        "mlflow.spanInputs": REQUEST,
        "mlflow.spanOutputs": json.dumps(OPENAI),
        "mlflow.chat.tokenUsage": '{"input_tokens": 97, "output_tokens": 25, "total_tokens": 122}',
        "llm.model_name": "m-1",
    },
    "Logfire": {
        "request_data": REQUEST,
        "response_data": json.dumps({"message": OPENAI["choices"][0]["message"], "usage": OPENAI["usage"]}),
        "gen_ai.system": "openai",
        "gen_ai.request.model": "m-1",
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.response.finish_reasons": ["stop"],
    },
    "Genkit": {
        "genkit:metadata:subtype": "model",
        "genkit:input": json.dumps({"messages": [{"role": "user", "content": [{"text": ASKED}]}]}),
        "genkit:output": json.dumps(
            {
                "message": {"role": "model", "content": [{"text": ANSWERED}]},
                "finishReason": "stop",
                "usage": {"inputTokens": 97, "outputTokens": 20, "thoughtsTokens": 5, "totalTokens": 122},
            }
        ),
        "gen_ai.request.model": "m-1",
    },
    "Laminar": {
        "lmnr.span.type": "LLM",
        "lmnr.span.input": PLAIN,
        "lmnr.span.output": json.dumps([{"role": "assistant", "content": ANSWERED}]),
        "gen_ai.request.model": "m-1",
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.response.finish_reasons": ["stop"],
    },
    "promptflow": {
        "framework": "promptflow",
        "span_type": "LLM",
        "inputs": REQUEST,
        "output": json.dumps(OPENAI),
        "llm.response.model": "m-1",
        "llm.usage.prompt_tokens": 97,
        "llm.usage.completion_tokens": 25,
        "llm.usage.total_tokens": 122,
    },
    "Google ADK, before operations": {
        "gen_ai.system": "gcp.vertex.agent",
        "gen_ai.request.model": "m-1",
        "gcp.vertex.agent.session_id": "s",
        "gcp.vertex.agent.llm_request": json.dumps(
            {"model": "m-1", "config": {}, "contents": [{"role": "user", "parts": [{"text": ASKED}]}]}
        ),
        "gcp.vertex.agent.llm_response": json.dumps(
            {
                "content": {"role": "model", "parts": [{"text": ANSWERED}]},
                "finish_reason": "STOP",
                "usage_metadata": GEMINI["usage_metadata"],
            }
        ),
    },
    "any-agent, an early version": {
        "gen_ai.operation.name": "call_llm",
        "gen_ai.request.model": "m-1",
        "genai.input": PLAIN,
        "genai.output": ANSWERED,
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.response.finish_reasons": "stop",
    },
    "Koog": {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.temperature": "1",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": ASKED,
        "gen_ai.prompt.name": "sums",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": ANSWERED,
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.input_tokens": "97",
        "gen_ai.usage.output_tokens": "25",
    },
    "OpenLLMetry 0.6": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-1",
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": ASKED}]}]),
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": ANSWERED}], "finish_reason": "stop"}]
        ),
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "llm.usage.total_tokens": 122,
        "traceloop.association.properties.session_id": "s",
    },
    "Vercel AI 6": {
        "ai.operationId": "ai.streamText.doStream",
        "ai.model.provider": "openai.responses",
        "ai.model.id": "m-1",
        "gen_ai.system": "openai.responses",
        "gen_ai.request.model": "m-1",
        "ai.prompt.messages": json.dumps([{"role": "user", "content": [{"type": "text", "text": ASKED}]}]),
        "ai.response.text": ANSWERED,
        "ai.response.finishReason": "stop",
        "gen_ai.response.finish_reasons": ["stop"],
        "ai.usage.inputTokens": 97,
        "ai.usage.outputTokens": 25,
        "ai.usage.totalTokens": 122,
        "ai.usage.cachedInputTokens": 64,
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
    },
    "Vercel AI 3": {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.id": "m-1",
        "ai.prompt.messages": PLAIN,
        "ai.result.text": ANSWERED,
        "ai.finishReason": "stop",
        "ai.usage.promptTokens": 97,
        "ai.usage.completionTokens": 25,
    },
    "Semantic Kernel": {
        "gen_ai.operation.name": "chat.completions",
        "gen_ai.request.model": "m-1",
        "gen_ai.response.prompt_tokens": 97,
        "gen_ai.response.completion_tokens": 25,
        "gen_ai.response.finish_reason": "Stop",
        "gen_ai.input.messages": PLAIN,
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": ANSWERED}]),
    },
    "Mastra": {
        "mastra.span.type": "model_generation",
        "gen_ai.request.model": "m-1",
        "gen_ai.prompt": REQUEST,
        "gen_ai.completion": json.dumps({"text": ANSWERED}),
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.usage.cached_input_tokens": 64,
        "gen_ai.usage.reasoning_tokens": 5,
        "gen_ai.response.finish_reasons": "stop",
    },
    "LiteLLM": {
        "llm.request.type": "acompletion",
        "gen_ai.request.model": "m-1",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": ASKED,
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": ANSWERED,
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 97,
        "gen_ai.usage.completion_tokens": 25,
    },
    "Haystack": {
        "haystack.component.type": "OpenAIChatGenerator",
        "haystack.component.input": json.dumps({"messages": [{"role": "user", "content": [{"text": ASKED}]}]}),
        "haystack.component.output": json.dumps(
            {
                "replies": [
                    {
                        "role": "assistant",
                        "content": [{"text": ANSWERED}],
                        "meta": {"model": "m-1", "finish_reason": "stop", "usage": OPENAI["usage"]},
                    }
                ]
            }
        ),
    },
    "Logfire, a stream": {
        "request_data": REQUEST,
        "response_data": json.dumps({"combined_chunk_content": ANSWERED, "chunk_count": 3}),
        "gen_ai.request.model": "m-1",
        "gen_ai.response.prompt_tokens": 97,
        "gen_ai.response.completion_tokens": 25,
        "gen_ai.response.finish_reasons": "('stop',)",
    },
    "Pydantic AI, version 1 of its data": {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m-1",
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.response.finish_reasons": '"stop"',
        "events": json.dumps(
            [
                {"event.name": "gen_ai.user.message", "content": ASKED, "role": "user", "gen_ai.message.index": 0},
                {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": ANSWERED}},
            ]
        ),
    },
    "LangSmith, with its own usage": {
        "langsmith.span.kind": "llm",
        "langsmith.usage_metadata": json.dumps(
            {"input_tokens": 97, "output_tokens": 25, "total_tokens": 122, "input_token_details": {"cache_read": 64}}
        ),
        "langsmith.metadata.ls_model_name": "m-1",
        "inputs": REQUEST,
        "outputs": json.dumps({"messages": [{"role": "assistant", "content": ANSWERED, "stop_reason": "end_turn"}]}),
    },
    "OpenInference, lists that were not flattened": {
        INFERENCE: "LLM",
        "llm.model_name": "m-1",
        "llm.input_messages": json.dumps([{"message.role": "user", "message.content": ASKED}]),
        "llm.output_messages": [{"message": {"role": "assistant", "content": ANSWERED}}],
        "llm.token_count.prompt": 97,
        "llm.token_count.completion": 25,
        "llm.finish_reason": "<FinishReason.STOP: 'STOP'>",
    },
    "OpenLLMetry, a completion without a chat": {
        "llm.request.type": "completion",
        "gen_ai.request.model": "m-1",
        "gen_ai.prompt.0.user": ASKED,
        "gen_ai.completion.0.content": ANSWERED,
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 97,
        "gen_ai.usage.completion_tokens": 25,
    },
    "Langtrace": {
        "langtrace.service.type": "llm",
        "llm.model": "m-1",
        "llm.prompts": PLAIN,
        "llm.responses": json.dumps([{"role": "assistant", "content": ANSWERED, "finish_reason": "stop"}]),
        "llm.token.counts": '{"input_tokens": 97, "output_tokens": 25, "total_tokens": 122}',
    },
    "OpenLIT, before events": {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m-1",
        "gen_ai.content.prompt": ASKED,
        "gen_ai.content.completion": ANSWERED,
        "gen_ai.usage.input_tokens": "97.0",
        "gen_ai.usage.output_tokens": 25.0,
        "gen_ai.response.finish_reasons": "stop",
    },
    "Langfuse, a decorated function": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "m-1",
        "langfuse.observation.input": {"args": [], "kwargs": json.loads(REQUEST)},
        "langfuse.observation.output": {"output": {"role": "assistant", "content": ANSWERED, "stop_reason": "stop"}},
        "langfuse.observation.usage_details": {
            "input_tokens": 33,
            "cache_read_input_tokens": 64,
            "output_tokens": 25,
        },
    },
    "Langfuse, Gemini's usage": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "m-1",
        "langfuse.observation.input": {"prompt": ASKED},
        "langfuse.observation.output": {"completion": ANSWERED, "stop_reason": "endTurn"},
        "langfuse.observation.usage_details": {
            "prompt_token_count": 97,
            "candidates_token_count": 20,
            "thoughts_token_count": 5,
            "total_token_count": 122,
        },
    },
    "Langfuse, OpenAI's usage": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "m-1",
        "langfuse.observation.input": {
            "messages": [{"role": "user", "blocks": [{"block_type": "text", "text": ASKED}]}]
        },
        "langfuse.observation.output": {
            "message": {"role": "assistant", "blocks": [{"block_type": "text", "text": ANSWERED}]},
            "finish_reason": "stop",
        },
        "langfuse.observation.usage_details": OPENAI["usage"],
    },
    "Langfuse, by its SDK": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "m-1",
        "langfuse.observation.input": PLAIN,
        "langfuse.observation.output": json.dumps(OPENAI),
        "langfuse.observation.usage_details": '{"input": 33, "input_cached_tokens": 64, "output": 25, "total": 122}',
    },
    "Langfuse, of spans by OpenTelemetry": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.input": PLAIN,
        "langfuse.observation.output": ANSWERED,
        "gen_ai.request.model": "m-1",
        "gen_ai.usage.input_tokens": "97",
        "gen_ai.usage.output_tokens": "25",
        "gen_ai.response.finish_reasons": '["stop"]',
        "langfuse.observation.usage_details": {"input": 97, "output": 25, "input_cache_read": 64, "total": 186},
    },
}


@pytest.mark.parametrize("attributes", CALLS.values(), ids=CALLS)
def test_a_model_call_of_any_convention(attributes: dict[str, Any]) -> None:
    found = read(attributes)
    assert found.span_type is SpanType.LLM
    model = found.attributes.get("gen_ai.request.model") or found.attributes["gen_ai.response.model"]
    assert model == "m-1"
    assert found.attributes["gen_ai.usage.input_tokens"] == 97
    assert found.attributes["gen_ai.usage.output_tokens"] == 25
    assert found.attributes.get("gen_ai.usage.cache_read.input_tokens", 64) == 64
    assert found.attributes.get("gen_ai.usage.reasoning.output_tokens", 5) == 5
    assert found.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    (asked,) = found.attributes["gen_ai.input.messages"]
    assert (asked["role"], asked["parts"]) == ("user", [{"type": "text", "content": ASKED}])
    (answered,) = found.attributes["gen_ai.output.messages"]
    assert (answered["role"], answered["parts"]) == ("assistant", [{"type": "text", "content": ANSWERED}])


def test_the_parts_of_a_usage_are_read_from_the_raw_answer() -> None:
    for answer in (OPENAI, RESPONSES, GEMINI, LANGCHAIN):
        found = read(raw(answer)).attributes
        assert found["gen_ai.usage.cache_read.input_tokens"] == 64
        assert found["gen_ai.usage.reasoning.output_tokens"] == 5
    found = read(raw(OPENAI)).attributes
    assert (found["gen_ai.response.model"], found["gen_ai.response.id"]) == ("m-1-2026", "chatcmpl-1")


@pytest.mark.parametrize(("asked", "expected"), [(33, 97), (97, 97), (7, 7)])
def test_parts_that_only_the_raw_answer_has(asked: int, expected: int) -> None:
    given = {"llm.token_count.prompt": asked, "llm.token_count.completion": 25, "llm.finish_reason": "stop"}
    found = read({**raw(ANTHROPIC), **given}).attributes
    assert found["gen_ai.usage.cache_read.input_tokens"] == 64
    assert found["gen_ai.usage.input_tokens"] == expected
    assert found["gen_ai.usage.output_tokens"] == 25


def test_empty_parameters_are_none() -> None:
    found = read({INFERENCE: "LLM", "llm.invocation_parameters": '{"temperature": "", "top_p": 1}'}).attributes
    assert "gen_ai.request.temperature" not in found
    assert found["gen_ai.request.top_p"] == 1


def test_attributes_have_priority_over_the_raw_answer() -> None:
    found = read({**raw(OPENAI), "llm.token_count.prompt": 7, "llm.finish_reason": "length"}).attributes
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (7, 25)
    assert found["gen_ai.response.finish_reasons"] == ["length"]


def test_the_last_message_of_a_history_is_the_answer() -> None:
    history = [
        {"role": "assistant", "content": "a", "usage_metadata": {"input_tokens": 1, "output_tokens": 1}},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c", "usage_metadata": {"input_tokens": 97, "output_tokens": 25}},
    ]
    found = read(raw(history)).attributes
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (97, 25)


TYPES: Final[list[tuple[dict[str, Any], str, SpanType]]] = [
    *(
        ({INFERENCE: kind}, "", span_type)
        for kind, span_type in {
            "LLM": SpanType.LLM,
            "AGENT": SpanType.AGENT,
            "TOOL": SpanType.TOOL,
            "CHAIN": SpanType.CUSTOM,
            "RETRIEVER": SpanType.RETRIEVAL,
            "RERANKER": SpanType.RETRIEVAL,
            "EMBEDDING": SpanType.EMBEDDING,
            "GUARDRAIL": SpanType.CUSTOM,
            "EVALUATOR": SpanType.CUSTOM,
            "PROMPT": SpanType.CUSTOM,
        }.items()
    ),
    ({"langfuse.observation.type": "generation", "ai.operationId": "ai.generateText"}, "", SpanType.AGENT),
    ({"langfuse.observation.type": "span", "agent_name": "qa", "all_messages_events": "[]"}, "", SpanType.AGENT),
    ({"langfuse.observation.type": "span", "gen_ai.operation.name": "chain"}, "", SpanType.CUSTOM),
    ({"langfuse.observation.type": "span", "gen_ai.tool.name": "t"}, "", SpanType.TOOL),
    ({"langfuse.observation.type": "guardrail"}, "", SpanType.CUSTOM),
    ({"gen_ai.operation.name": "chain", "langsmith.span.kind": "chain"}, "", SpanType.CUSTOM),
    ({"gen_ai.operation.name": "chat.completions"}, "", SpanType.LLM),
    ({"mlflow.spanType": "RETRIEVER"}, "", SpanType.RETRIEVAL),
    ({"spring.ai.kind": "chat_client", "gen_ai.operation.name": "framework"}, "", SpanType.CUSTOM),
    (
        {"gen_ai.operation.name": "framework", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3},
        "",
        SpanType.CUSTOM,
    ),
    ({"fi.span.kind": "LLM"}, "", SpanType.LLM),
    ({"rpc.system": "jsonrpc", "rpc.method": "tools/call"}, "MCP request: tools/call add", SpanType.TOOL),
    ({"rpc.system": "grpc", "rpc.method": "Export"}, "", SpanType.CUSTOM),
    ({"logfire.msg_template": "Agent run: {name!r}", "name": "a"}, "", SpanType.AGENT),
    ({"logfire.msg_template": "a {b}", "name": "a"}, "", SpanType.CUSTOM),
    ({"logfire.span_type": "pending_span", "gen_ai.operation.name": "chat"}, "", SpanType.CUSTOM),
    ({"agent_name": "a", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3}, "agent run", SpanType.AGENT),
    (
        {"gen_ai.operation.name": "process_thread_run", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3},
        "",
        SpanType.AGENT,
    ),
    ({"mastra.span.type": "agent_run"}, "", SpanType.AGENT),
    ({"mastra.span.type": "tool_call", "gen_ai.operation.name": "tool_call"}, "", SpanType.TOOL),
    ({"mastra.span.type": "model_step", INFERENCE: "LLM"}, "", SpanType.CUSTOM),
    ({"mastra.span.type": "workflow_run"}, "", SpanType.CUSTOM),
    ({"ai.operationId": "ai.rerank.doRerank"}, "", SpanType.RETRIEVAL),
    (
        {"llm.request.type": "aembedding", "gen_ai.request.model": "e", "gen_ai.usage.prompt_tokens": 3},
        "",
        SpanType.EMBEDDING,
    ),
    ({"haystack.component.type": "InMemoryBM25Retriever"}, "", SpanType.RETRIEVAL),
    ({"haystack.component.type": "PromptBuilder"}, "", SpanType.CUSTOM),
    ({"span.type": "tool", "session.id": "s", "tool_name": "Bash"}, "claude_code.tool", SpanType.TOOL),
    ({"span.type": "interaction", "session.id": "s"}, "claude_code.interaction", SpanType.AGENT),
    ({"span.type": "web", "session.id": "s"}, "", SpanType.CUSTOM),
    (
        {
            "request_data": '{"input": ["a"], "model": "e", "encoding_format": "float"}',
            "gen_ai.request.model": "e",
            "gen_ai.usage.input_tokens": 3,
        },
        "",
        SpanType.EMBEDDING,
    ),
    ({"mlflow.spanType": '"PARSER"'}, "", SpanType.CUSTOM),
    ({"lmnr.span.type": "DEFAULT"}, "", SpanType.CUSTOM),
    ({"genkit:metadata:subtype": "flow"}, "", SpanType.CUSTOM),
    ({"gen_ai.span.kind": "TOOL"}, "", SpanType.TOOL),
    ({"gcp.vertex.agent.llm_request": "{}", "gen_ai.operation.name": "execute_tool"}, "", SpanType.TOOL),
    ({"gcp.vertex.agent.llm_request": "{}"}, "", SpanType.CUSTOM),
    ({"agent_name": "alone"}, "", SpanType.CUSTOM),
    ({"mcp.method.name": "initialize", "mcp.session.id": "s"}, "", SpanType.CUSTOM),
    ({"gen_ai.system": "openai", "gen_ai.agent.name": "a"}, "POST", SpanType.CUSTOM),
]


@pytest.mark.parametrize(("attributes", "name", "span_type"), TYPES)
def test_the_type_of_a_span_of_any_convention(attributes: dict[str, Any], name: str, span_type: SpanType) -> None:
    assert read(attributes, name).span_type is span_type


TOOL: Final = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
DEFINED: Final = {"type": "function", **TOOL}
OFFERS: Final[dict[str, dict[str, Any]]] = {
    "genai 0.1": {"gen_ai.operation.name": "chat", "gen_ai.tool.definitions": json.dumps([DEFINED])},
    "OpenInference": {
        INFERENCE: "LLM",
        "llm.tools.0.tool.json_schema": json.dumps({"type": "function", "function": TOOL}),
    },
    "OpenInference, in its parameters": {
        INFERENCE: "LLM",
        "llm.invocation_parameters": json.dumps({"tools": [{"type": "function", "function": TOOL}]}),
    },
    "OpenLLMetry": {
        "llm.request.type": "chat",
        "llm.request.functions.0.name": "add",
        "llm.request.functions.0.description": "Adds.",
        "llm.request.functions.0.parameters": json.dumps(TOOL["parameters"]),
    },
    "Vercel AI": {"ai.operationId": "ai.generateText.doGenerate", "ai.prompt.tools": [json.dumps(DEFINED)]},
    "Pydantic AI": {
        "gen_ai.operation.name": "chat",
        "model_request_parameters": json.dumps(
            {"function_tools": [{"name": "add", "description": "Adds.", "parameters_json_schema": TOOL["parameters"]}]}
        ),
    },
    "Langfuse, in the request": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.input": json.dumps(
            {"messages": [{"role": "user", "content": ASKED}], "tools": [{"type": "function", "function": TOOL}]}
        ),
    },
    "Langfuse, as messages": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.input": json.dumps(
            [
                {"role": "user", "content": ASKED},
                {"role": "tool", "content": {"type": "function", "function": TOOL}},
            ]
        ),
    },
    "Langfuse, by name": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.tool_definitions": {"add": json.dumps(DEFINED)},
    },
    "Google ADK": {
        "gcp.vertex.agent.llm_request": json.dumps({"config": {"tools": [{"function_declarations": [TOOL]}]}}),
    },
    "Anthropic, in the request": {
        INFERENCE: "LLM",
        "input.value": json.dumps(
            {"tools": [{"name": "add", "description": "Adds.", "input_schema": TOOL["parameters"]}], "messages": []}
        ),
    },
}


@pytest.mark.parametrize("attributes", OFFERS.values(), ids=OFFERS)
def test_the_tools_that_a_request_offers(attributes: dict[str, Any]) -> None:
    found = read(attributes).attributes
    assert found["gen_ai.tool.definitions"] == [DEFINED]
    for message in found.get("gen_ai.input.messages", []):
        assert message["parts"] == [{"type": "text", "content": ASKED}]


def test_tool_calls_beside_a_definition_stay_messages() -> None:
    calls = [{"function": {"name": "add", "arguments": "{}"}, "id": "c", "type": "function"}]
    asked = [{"role": "tool", "content": json.dumps(calls)}, {"role": "tool", "content": "7", "tool_call_id": "c"}]
    found = read({"langfuse.observation.type": "generation", "langfuse.observation.input": asked}).attributes
    assert [message["role"] for message in found["gen_ai.input.messages"]] == ["tool", "tool"]
    assert "gen_ai.tool.definitions" not in found


NAMES: Final = [
    ("session.id", "gen_ai.conversation.id"),
    ("langfuse.session.id", "gen_ai.conversation.id"),
    ("mlflow.trace.session", "gen_ai.conversation.id"),
    ("lmnr.association.properties.session_id", "gen_ai.conversation.id"),
    ("traceloop.association.properties.thread_id", "gen_ai.conversation.id"),
    ("ai.telemetry.metadata.sessionId", "gen_ai.conversation.id"),
    ("langsmith.metadata.thread_id", "gen_ai.conversation.id"),
    ("gcp.vertex.agent.session_id", "gen_ai.conversation.id"),
    ("langfuse.user.id", "user.id"),
    ("mlflow.trace.user", "user.id"),
    ("enduser.id", "user.id"),
    ("agent.name", "gen_ai.agent.name"),
    ("gen_ai.workflow.name", "gen_ai.agent.name"),
    ("traceloop.prompt.key", "gen_ai.prompt.name"),
    ("langfuse.observation.prompt.name", "gen_ai.prompt.name"),
    ("llm.prompt_template.version", "gen_ai.prompt.version"),
]


@pytest.mark.parametrize(("given", "canonical"), NAMES)
def test_the_names_of_sessions_users_agents_and_prompts(given: str, canonical: str) -> None:
    assert read({given: "x", "unknown.name": 1}).attributes == {canonical: "x", "unknown.name": 1}


PROVIDERS: Final = {
    "openai.responses": "openai",
    "anthropic.messages": "anthropic",
    "azure": "azure.ai.openai",
    "azure.ai.inference": "azure.ai.inference",
    "azure-openai.chat": "azure.ai.openai",
    "google.generative-ai": "gcp.gemini",
    "google.vertex.chat": "gcp.vertex_ai",
    "amazon-bedrock": "aws.bedrock",
    "AWS": "aws.bedrock",
    "gcp.vertex.agent": "gcp.vertex.agent",
    "some.other": "some.other",
}


@pytest.mark.parametrize(("given", "expected"), PROVIDERS.items())
def test_the_provider(given: str, expected: str) -> None:
    assert read({"gen_ai.system": given}).attributes == {"gen_ai.provider.name": expected}


TOOL_CALLS: Final[dict[str, dict[str, Any]]] = {
    "genai 0.1": {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.call.arguments": '{"a": 3}',
        "gen_ai.tool.call.result": '{"sum": 7}',
    },
    "OpenInference": {INFERENCE: "TOOL", "tool.name": "add", "input.value": '{"a": 3}', "output.value": '{"sum": 7}'},
    "OpenLLMetry": {
        "traceloop.span.kind": "tool",
        "traceloop.entity.name": "add",
        "traceloop.entity.input": '{"a": 3}',
        "traceloop.entity.output": '{"sum": 7}',
    },
    "Vercel AI": {
        "ai.operationId": "ai.toolCall",
        "ai.toolCall.name": "add",
        "ai.toolCall.args": '{"a": 3}',
        "ai.toolCall.result": '{"sum": 7}',
    },
    "Langfuse": {
        "langfuse.observation.type": "tool",
        "langfuse.observation.input": {"a": 3},
        "langfuse.observation.output": {"sum": 7},
    },
    "LangSmith": {"langsmith.span.kind": "tool", "gen_ai.prompt": '{"a": 3}', "gen_ai.completion": '{"sum": 7}'},
    "MLflow": {"mlflow.spanType": "TOOL", "mlflow.spanInputs": '{"a": 3}', "mlflow.spanOutputs": '{"sum": 7}'},
    "Genkit": {"genkit:metadata:subtype": "tool", "genkit:input": '{"a": 3}', "genkit:output": '{"sum": 7}'},
    "Pydantic AI": {"gen_ai.tool.name": "add", "tool_arguments": '{"a": 3}', "tool_response": '{"sum": 7}'},
    "any-agent": {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.args": '{"a": 3}',
        "genai.output": '{"sum": 7}',
    },
    "Google ADK": {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gcp.vertex.agent.tool_call_args": '{"a": 3}',
        "gcp.vertex.agent.tool_response": '{"sum": 7}',
        "gcp.vertex.agent.llm_request": "{}",
    },
    "genai with plain names": {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "input": '{"a": 3}',
        "output": '{"sum": 7}',
    },
    "Logfire, OpenAI's agents": {
        "logfire.msg_template": "Function: {name}",
        "name": "add",
        "input": '{"a": 3}',
        "output": '{"sum": 7}',
        "gen_ai.system": "openai",
    },
    "Spring AI": {
        "spring.ai.kind": "tool_call",
        "gen_ai.operation.name": "framework",
        "spring.ai.tool.definition.name": "add",
        "spring.ai.tool.call.arguments": '{"a": 3}',
        "spring.ai.tool.call.result": '{"sum": 7}',
    },
    "MCP of OpenLLMetry": {
        "mcp.method.name": "tools/call",
        "mcp.request.argument": '{"a": 3}',
        "mcp.response.value": '{"sum": 7}',
    },
}


@pytest.mark.parametrize("attributes", TOOL_CALLS.values(), ids=TOOL_CALLS)
def test_a_tool_call_of_any_convention(attributes: dict[str, Any]) -> None:
    found = read(attributes, "add")
    assert found.span_type is SpanType.TOOL
    assert found.attributes["gen_ai.tool.name"] == "add"
    assert found.attributes["gen_ai.tool.call.arguments"] == {"a": 3}
    assert found.attributes["gen_ai.tool.call.result"] == {"sum": 7}


RETRIEVALS: Final[dict[str, dict[str, Any]]] = {
    "OpenInference": {
        INFERENCE: "RETRIEVER",
        "input.value": "sums",
        "retrieval.documents.0.document.content": "3 + 4 = 7",
    },
    "OpenInference, a list that was not flattened": {
        INFERENCE: "RETRIEVER",
        "input.value": "sums",
        "retrieval.documents": json.dumps([{"document.content": "3 + 4 = 7"}]),
    },
    "Spring AI": {
        "spring.ai.kind": "vector_store",
        "db.operation.name": "query",
        "db.vector.query.content": "sums",
        "db.vector.query.response.documents": '[{"content": "3 + 4 = 7"}]',
    },
    "a reranker": {
        INFERENCE: "RERANKER",
        "reranker.query": "sums",
        "reranker.input_documents.0.document.content": "no",
        "reranker.output_documents.0.document.content": "3 + 4 = 7",
    },
    "Langfuse": {
        "langfuse.observation.type": "retriever",
        "langfuse.observation.input": '{"query": "sums"}',
        "langfuse.observation.output": '[{"content": "3 + 4 = 7"}]',
    },
    "MLflow": {
        "mlflow.spanType": "RETRIEVER",
        "mlflow.spanInputs": '{"query": "sums"}',
        "mlflow.spanOutputs": '[{"content": "3 + 4 = 7"}]',
    },
    "LangSmith": {
        "langsmith.span.kind": "retriever",
        "gen_ai.prompt": '{"query": "sums"}',
        "gen_ai.completion": '{"documents": [{"content": "3 + 4 = 7"}]}',
    },
}


@pytest.mark.parametrize("attributes", RETRIEVALS.values(), ids=RETRIEVALS)
def test_a_retrieval_of_any_convention(attributes: dict[str, Any]) -> None:
    found = read(attributes)
    assert found.span_type is SpanType.RETRIEVAL
    assert found.attributes["gen_ai.retrieval.query.text"] == "sums"
    assert found.attributes["gen_ai.retrieval.documents"] == [{"content": "3 + 4 = 7"}]


@pytest.mark.parametrize(
    "attributes",
    [{"llm.prompts": json.dumps([ASKED])}, {"llm.prompts.0.prompt.text": ASKED}, {"llm.prompts": [ASKED]}],
)
def test_prompts_of_a_completion(attributes: dict[str, Any]) -> None:
    found = read({INFERENCE: "LLM", "llm.choices.0.completion.text": ANSWERED, **attributes}).attributes
    assert found["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": ASKED}]}]
    assert found["gen_ai.output.messages"] == [{"role": "assistant", "parts": [{"type": "text", "content": ANSWERED}]}]


CALLED: Final = {"type": "tool_call", "name": "add", "arguments": {"a": 3}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"sum": 7}', [{"type": "text", "content": '{"sum": 7}'}]),
        ('[{"sum": 7}]', [{"type": "text", "content": '[{"sum": 7}]'}]),
        ({"sum": 7}, [{"type": "text", "content": '{"sum":7}'}]),
        (
            {"role": "assistant", "content": '{"text": "7", "score": 1}'},
            [{"type": "text", "content": '{"text": "7", "score": 1}'}],
        ),
        ({"role": "assistant", "content": None, "refusal": "No."}, [{"type": "text", "content": "No."}]),
        ({"role": "assistant", "content": "[1, 2]"}, [{"type": "text", "content": "[1, 2]"}]),
        ({"role": "assistant", "content": '[{"text": "7"}]'}, [{"type": "text", "content": "7"}]),
        (
            {"role": "model", "parts": [{"text": "I add.", "thought": True}]},
            [{"type": "reasoning", "content": "I add."}],
        ),
        (
            {"role": "assistant", "parts": [{"type": "tool_call", "name": "add", "arguments": '{"a": 3}'}]},
            [CALLED],
        ),
        (
            {"role": "assistant", "function_call_name": "add", "function_call_arguments_json": '{"a": 3}'},
            [CALLED],
        ),
        (
            [{"role": "tool", "content": [{"type": "tool-result", "output": {"type": "json", "value": {"sum": 7}}}]}],
            [{"type": "tool_call_response", "response": {"sum": 7}}],
        ),
        ('[{"name": "add", "arguments": "{\\"a\\": 3}"}]', [CALLED]),
        ('[{"toolCallId": "c", "toolName": "add", "input": "{\\"a\\": 3}"}]', [{**CALLED, "id": "c"}]),
        (
            [{"type": "Microsoft.Extensions.AI.TextReasoningContent", "content": {"text": "I add."}}],
            [{"type": "reasoning", "content": "I add."}],
        ),
    ],
)
def test_parts_of_an_answer(answer: Any, expected: list[Any]) -> None:
    found = read({"gen_ai.operation.name": "chat", "genai.output": answer}).attributes
    assert [message["parts"] for message in found["gen_ai.output.messages"]] == [expected]


def test_names_below_a_prompt_are_no_messages() -> None:
    given = {
        "gen_ai.operation.name": "chat",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": ASKED,
        "gen_ai.prompt.name": "sums",
        "gen_ai.prompt.version": "2",
        "gen_ai.prompt.variable.a": "3",
    }
    found = read(given).attributes
    assert found["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": ASKED}]}]
    assert {key for key in found if key.startswith("gen_ai.prompt.")} == {
        "gen_ai.prompt.name",
        "gen_ai.prompt.version",
        "gen_ai.prompt.variable.a",
    }


def test_numbers_that_were_written_as_texts() -> None:
    found = read({"gen_ai.request.temperature": "0.5", "gen_ai.request.max_tokens": "200", "gen_ai.response.id": "3"})
    assert found.attributes == {
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 200,
        "gen_ai.response.id": "3",
    }
    parameters = read({"llm.invocation_parameters": '{"max_tokens": "high", "top_p": "1"}'}).attributes
    assert (parameters["gen_ai.request.max_tokens"], parameters["gen_ai.request.top_p"]) == ("high", 1)


def test_events_of_azure_and_of_the_details() -> None:
    azure = [
        ForeignEvent(
            name="gen_ai.user.message",
            time_ns=1,
            attributes={"gen_ai.event.content": json.dumps({"role": "user", "content": ASKED})},
        ),
        ForeignEvent(
            name="gen_ai.choice",
            time_ns=2,
            attributes={
                "gen_ai.event.content": json.dumps(
                    {"message": {"content": ANSWERED}, "finish_reason": "stop", "index": 0}
                )
            },
        ),
    ]
    found = read({"gen_ai.operation.name": "chat"}, events=azure)
    assert found.attributes["gen_ai.input.messages"][0]["parts"] == [{"type": "text", "content": ASKED}]
    assert found.attributes["gen_ai.output.messages"][0]["parts"] == [{"type": "text", "content": ANSWERED}]
    assert found.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    details = ForeignEvent(
        name="gen_ai.client.inference.operation.details",
        time_ns=1,
        attributes={
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
            "gen_ai.tool.definitions": json.dumps([DEFINED]),
            "gen_ai.input.messages": PLAIN,
        },
    )
    found = read({"gen_ai.operation.name": "chat"}, events=[details])
    assert found.attributes["gen_ai.system_instructions"] == [{"type": "text", "content": "Be brief."}]
    assert found.attributes["gen_ai.tool.definitions"] == [DEFINED]
    assert found.attributes["gen_ai.input.messages"][0]["parts"] == [{"type": "text", "content": ASKED}]


def test_an_embedding_counts_its_tokens() -> None:
    found = read(
        {
            INFERENCE: "EMBEDDING",
            "embedding.model_name": "e-1",
            "embedding.embeddings.0.embedding.text": "hello",
            "embedding.embeddings.0.embedding.vector": [0.5],
            "llm.token_count.prompt": 7,
            "llm.token_count.total": 7,
        }
    ).attributes
    assert (found["gen_ai.request.model"], found["gen_ai.usage.input_tokens"]) == ("e-1", 7)
    assert found["embedding.embeddings.0.embedding.vector"] == [0.5]
    vercel = read({"ai.operationId": "ai.embed.doEmbed", "ai.model.id": "e-1", "ai.usage.tokens": 7}).attributes
    assert (vercel["gen_ai.request.model"], vercel["gen_ai.usage.input_tokens"]) == ("e-1", 7)


def test_audio_tokens() -> None:
    found = read({INFERENCE: "LLM", "llm.token_count.prompt": 9, "llm.token_count.prompt_details.audio": 4}).attributes
    assert found["gen_ai.usage.audio.input_tokens"] == 4
    assert found["gen_ai.usage.input_tokens"] == 9


def test_claude_code_counts_its_cached_tokens() -> None:
    found = read(
        {
            "span.type": "llm_request",
            "session.id": "s",
            "model": "claude-1",
            "gen_ai.request.model": "claude-1",
            "input_tokens": 2,
            "output_tokens": 25,
            "cache_read_tokens": 64,
            "cache_creation_tokens": 31,
            "stop_reason": "tool_use",
            "success": True,
        },
        "claude_code.llm_request",
    )
    assert found.span_type is SpanType.LLM
    assert found.attributes == {
        "gen_ai.operation.name": "chat",
        "span.type": "llm_request",
        "success": True,
        "gen_ai.conversation.id": "s",
        "gen_ai.request.model": "claude-1",
        "gen_ai.usage.input_tokens": 97,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.cache_write.input_tokens": 31,
        "gen_ai.response.finish_reasons": ["tool_call"],
        "prela.raw.finish_reasons": ["tool_use"],
    }


@pytest.mark.parametrize(
    "system",
    ["Add.", [{"type": "text", "text": "Add."}], {"parts": [{"text": "Add."}]}, {"role": "user", "parts": ["Add."]}],
)
def test_the_instructions_beside_the_messages(system: Any) -> None:
    contents = [{"role": "user", "parts": [{"text": ASKED}]}]
    for request in (
        {"system": system, "messages": [{"role": "user", "content": ASKED}]},
        {"systemInstruction": system, "contents": contents},
        {"config": {"system_instruction": system}, "contents": contents},
    ):
        found = read({"langfuse.observation.type": "generation", "langfuse.observation.input": request}).attributes
        assert [(one["role"], one["parts"][0]["content"]) for one in found["gen_ai.input.messages"]] == [
            ("system", "Add."),
            ("user", ASKED),
        ]


def test_a_choice_with_tool_calls_alone() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}
    for message in ({"tool_calls": [call]}, {"role": "assistant", "tool_calls": [call]}):
        choice = ForeignEvent(name="gen_ai.choice", time_ns=1, attributes={"message": json.dumps(message)})
        found = read({"gen_ai.operation.name": "chat"}, events=[choice]).attributes
        assert found["gen_ai.output.messages"][0]["parts"] == [{**CALLED, "id": "c"}]


def test_a_level_of_langfuse_is_an_error() -> None:
    found = read({"langfuse.observation.level": "ERROR", "langfuse.observation.status_message": "no quota"})
    assert (found.status, found.attributes["error.message"]) == (SpanStatus.ERROR, "no quota")
    assert read({"langfuse.observation.level": "WARNING"}).status is SpanStatus.SUCCESS


ASKED_PARTS: Final = [{"type": "text", "content": ASKED}]


@pytest.mark.parametrize(
    "messages",
    [
        [json.dumps({"role": "user", "parts": ASKED_PARTS})],
        str([{"role": "user", "content": ASKED}]),
        json.dumps(PLAIN),
        [{"type": "human", "data": {"content": ASKED, "type": "human"}}],
        [["human", ASKED]],
        [{"role": "user", "content": {"parts": [{"text": ASKED}]}}],
        [{"role": "user", "message": ASKED}],
        [{"role": "user", "text": ASKED}],
        [{"type": "USER", "contents": [{"type": "TEXT", "text": ASKED}]}],
        [{"messageType": "USER", "text": ASKED}],
        [{"kind": "request", "parts": [{"part_kind": "user-prompt", "content": ASKED}]}],
        ASKED,
    ],
)
def test_messages_of_frameworks(messages: Any) -> None:
    for value in (messages, messages if isinstance(messages, str) else json.dumps(messages)):
        found = read({"gen_ai.operation.name": "chat", "gen_ai.input.messages": value}).attributes
        assert found["gen_ai.input.messages"] == [{"role": "user", "parts": ASKED_PARTS}]


@pytest.mark.parametrize(
    "answer",
    [
        [{"role": "assistant", "content": [{"toolInvocation": {"toolName": "add", "args": {"a": 3}}}]}],
        [{"role": "assistant", "toolCalls": [{"function": {"name": "add", "arguments": '{"a": 3}'}}]}],
        [{"role": "model", "content": [{"toolRequest": {"name": "add", "input": {"a": 3}}}]}],
        [{"kind": "response", "parts": [{"part_kind": "tool-call", "tool_name": "add", "args": {"a": 3}}]}],
    ],
)
def test_tool_calls_of_frameworks(answer: Any) -> None:
    found = read({"gen_ai.operation.name": "chat", "gen_ai.output.messages": json.dumps(answer)}).attributes
    assert found["gen_ai.output.messages"] == [{"role": "assistant", "parts": [CALLED]}]


def test_a_text_that_looks_like_what_python_prints_stays_a_text() -> None:
    for text in ("['", "[{'a': __import__('os')}]", "{'a': 1", "['" + "a" * 100_000 + "']"):
        found = read({"gen_ai.operation.name": "chat", "gen_ai.input.messages": text}).attributes
        assert found["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": text}]}]


def test_a_tool_call_in_the_content_and_beside_it_is_one_part() -> None:
    at = "llm.output_messages.0.message"
    function = {"function.name": "add", "function.arguments": '{"a": 3}', "id": "c"}
    flattened = {
        INFERENCE: "LLM",
        f"{at}.role": "assistant",
        f"{at}.contents.0.message_content.type": "tool_use",
        **{f"{at}.contents.0.tool_call.{key}": value for key, value in function.items()},
        **{f"{at}.tool_calls.0.tool_call.{key}": value for key, value in function.items()},
    }
    langchain = {
        "type": "ai",
        "content": [{"type": "tool_use", "id": "c", "name": "add", "input": {"a": 3}}],
        "tool_calls": [{"name": "add", "args": {"a": 3}, "id": "c"}],
    }
    for attributes in (flattened, {INFERENCE: "LLM", "output.value": json.dumps(langchain)}):
        (answer,) = read(attributes).attributes["gen_ai.output.messages"]
        assert answer["parts"] == [{**CALLED, "id": "c"}]


def test_costs_without_a_total_are_added() -> None:
    for details, cost in (({"input": 0.25, "output": "0.5"}, 0.75), ({"input": 0.25, "total": 2}, 2)):
        found = read({"langfuse.observation.type": "generation", "langfuse.observation.cost_details": details})
        assert found.attributes["prela.cost.usd"] == cost
