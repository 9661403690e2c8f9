"""What kind of work a foreign span is: the evidence in its attributes, strongest first.

A bare `gen_ai.` prefix is never evidence: some tracers put `gen_ai.conversation.id` on every span of a request, plain HTTP
calls included. The name of a span is evidence only where a tracer records nothing else (MCP before it wrote `gen_ai.tool.name`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from prela_stream.model.span import SpanType

_OPERATIONS: Final[Mapping[str, SpanType]] = {
    **dict.fromkeys(
        (
            *("chat", "generate_content", "text_completion", "fetch_response", "call_llm", "completion", "responses"),
            *("chat.completions", "text.completions", "chat_completion"),  # Semantic Kernel and others
            *("acompletion", "atext_completion", "aresponses", "agenerate_content"),  # LiteLLM
        ),
        SpanType.LLM,
    ),
    **dict.fromkeys(("invoke_agent", "create_agent", "invoke_workflow", "agent", "workflow_agent"), SpanType.AGENT),
    "process_thread_run": SpanType.AGENT,  # Azure's agents, whose other operations only prepare or read it
    **dict.fromkeys(
        ("start_thread_run", "create_thread_run", "get_thread_run", "submit_tool_outputs"), SpanType.CUSTOM
    ),
    **dict.fromkeys(("execute_tool", "execute_function", "tool_call"), SpanType.TOOL),
    **dict.fromkeys(("embeddings", "embedding", "embed", "aembedding"), SpanType.EMBEDDING),
    **dict.fromkeys(("retrieval", "retrieve", "search_memory", "rerank", "arerank"), SpanType.RETRIEVAL),
    **dict.fromkeys(
        (
            "plan",
            "create_memory",
            "update_memory",
            "upsert_memory",
            "delete_memory",
            "create_memory_store",
            "delete_memory_store",
            *(
                "framework",
                "workflow",
                "task",
                "chain",
                "vectordb",
            ),  # OpenLIT, which adds the counts of their calls up there
        ),
        SpanType.CUSTOM,
    ),
}
_OPENINFERENCE: Final[Mapping[str, SpanType]] = {
    "AGENT": SpanType.AGENT,
    "LLM": SpanType.LLM,
    "TOOL": SpanType.TOOL,
    "RETRIEVER": SpanType.RETRIEVAL,
    "RERANKER": SpanType.RETRIEVAL,
    "EMBEDDING": SpanType.EMBEDDING,
    **dict.fromkeys(("CHAIN", "GUARDRAIL", "EVALUATOR", "PROMPT", "DECISION", "UNKNOWN"), SpanType.CUSTOM),
}
_TRACELOOP: Final[Mapping[str, SpanType]] = {
    "agent": SpanType.AGENT,
    "tool": SpanType.TOOL,
    "workflow": SpanType.CUSTOM,
    "task": SpanType.CUSTOM,
}
_LLM_REQUESTS: Final[Mapping[str, SpanType]] = {
    key: span_type
    for key, span_type in _OPERATIONS.items()
    if span_type in (SpanType.LLM, SpanType.EMBEDDING, SpanType.RETRIEVAL)
}
_LANGFUSE: Final[Mapping[str, SpanType]] = {
    "generation": SpanType.LLM,
    "agent": SpanType.AGENT,
    "tool": SpanType.TOOL,
    "retriever": SpanType.RETRIEVAL,
    "embedding": SpanType.EMBEDDING,
    **dict.fromkeys(("chain", "evaluator", "guardrail"), SpanType.CUSTOM),
}
"""Without `span` and `event`, which Langfuse gives to what it does not recognise."""
_LANGSMITH: Final[Mapping[str, SpanType]] = {
    "llm": SpanType.LLM,
    "tool": SpanType.TOOL,
    "retriever": SpanType.RETRIEVAL,
    "embedding": SpanType.EMBEDDING,
    "agent": SpanType.AGENT,
    **dict.fromkeys(("chain", "prompt", "parser"), SpanType.CUSTOM),
}
_MLFLOW: Final[Mapping[str, SpanType]] = {
    **_OPENINFERENCE,
    "CHAT_MODEL": SpanType.LLM,
    **dict.fromkeys(("PARSER", "MEMORY", "WORKFLOW", "TASK"), SpanType.CUSTOM),
}
_MASTRA: Final[Mapping[str, SpanType]] = {
    "agent_run": SpanType.AGENT,
    "model_generation": SpanType.LLM,
    "llm_generation": SpanType.LLM,
    **dict.fromkeys(("model_step", "model_chunk", "model_inference", "llm_chunk"), SpanType.CUSTOM),
    **dict.fromkeys(("tool_call", "mcp_tool_call", "client_tool_call"), SpanType.TOOL),
}
"""The parts of a generation repeat its counts, and some exporters name them model calls too."""
_LAMINAR: Final[Mapping[str, SpanType]] = {"LLM": SpanType.LLM, "TOOL": SpanType.TOOL}
_GENKIT: Final[Mapping[str, SpanType]] = {
    "model": SpanType.LLM,
    "tool": SpanType.TOOL,
    "retriever": SpanType.RETRIEVAL,
    "reranker": SpanType.RETRIEVAL,
    "embedder": SpanType.EMBEDDING,
    "agent": SpanType.AGENT,
}
_PROMPTFLOW: Final[Mapping[str, SpanType]] = {
    "llm": SpanType.LLM,
    "embedding": SpanType.EMBEDDING,
    "retrieval": SpanType.RETRIEVAL,
    "tool": SpanType.TOOL,
}
_ADK_REQUEST: Final = "gcp.vertex.agent.llm_request"
_PYDANTIC_RUN: Final = ("pydantic_ai.all_messages", "all_messages_events", "final_result")
_MODELS: Final = (
    "gen_ai.request.model",
    "gen_ai.response.model",
    "llm.model_name",
    "llm.request.model_name",
    "llm.request.model",
    "ai.model.id",
    "embedding.model_name",
)
_USAGE: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.prompt_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.prompt",
    "llm.token_count.completion",
    "llm.usage.total_tokens",
    "ai.usage.promptTokens",
    "ai.usage.completionTokens",
    "ai.usage.inputTokens",
    "ai.usage.outputTokens",
)
MCP_TOOL_CALL: Final = "tools/call"
_MORE: Final = ("agent_name", _ADK_REQUEST, "gen_ai.tool.name", "framework")
"""Further attributes that `span_type_of` reads."""


Evidence = tuple[str, Callable[[str], SpanType | None]]


def may_be_model_call(keys: Collection[str]) -> bool:
    """Whether attributes of these names include a model and a usage."""
    return any(key in keys for key in _MODELS) and any(key in keys for key in _USAGE)


def has_more_evidence(keys: Collection[str]) -> bool:
    """Whether there is evidence beside `EVIDENCE` and a model call."""
    return any(key in keys for key in _MORE)


def span_type_of(
    name: str, attributes: Mapping[str, Any], evidence: Sequence[Evidence], *, may_be_call: bool, has_more: bool
) -> SpanType:
    """The type of a span; CUSTOM if nothing is evidence of another one.

    Args:
        name: Name of the span.
        attributes: All of its attributes.
        evidence: Those of `EVIDENCE` whose attributes it has, in that order.
        may_be_call: Whether `may_be_model_call`.
        has_more: Whether `has_more_evidence`.
    """
    if "._prepare_chat_with_" in name:
        return SpanType.CUSTOM  # the tracer of LlamaIndex gives this method, which calls no model, the kind LLM
    for key, convert in evidence:
        value = attributes.get(key)
        if isinstance(value, str) and value and (found := convert(value)) is not None:
            return found
    is_mcp_call = name.startswith("MCP send tools/call ")
    if not (has_more or may_be_call):
        return SpanType.TOOL if is_mcp_call else SpanType.CUSTOM
    if isinstance(attributes.get("agent_name"), str) and (
        name.endswith(" run") or any(key in attributes for key in _PYDANTIC_RUN)
    ):
        return SpanType.AGENT
    if attributes.get(_ADK_REQUEST) not in (None, "", "{}"):  # Google's ADK before it wrote an operation
        return SpanType.LLM
    if (
        may_be_call
        and any(isinstance(attributes.get(key), str) for key in _MODELS)
        and any(attributes.get(key) for key in _USAGE)
    ):
        return SpanType.LLM
    if isinstance(attributes.get("gen_ai.tool.name"), str) or is_mcp_call:
        return SpanType.TOOL
    if attributes.get("framework") == "promptflow" and isinstance(kind := attributes.get("span_type"), str):
        return _PROMPTFLOW.get(kind.lower(), SpanType.CUSTOM)
    return SpanType.CUSTOM


def _vercel(operation: str) -> SpanType | None:
    """`ai.operationId` of the Vercel AI SDK: the outer span of a call is the agent's loop, its `do…` children are the calls."""
    if operation == "ai.toolCall":
        return SpanType.TOOL
    if operation.endswith((".doGenerate", ".doStream")):
        return SpanType.LLM
    if operation.endswith(".doEmbed"):
        return SpanType.EMBEDDING
    if operation.endswith(".doRerank"):
        return SpanType.RETRIEVAL
    if operation.startswith(("ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject")):
        return SpanType.AGENT
    return SpanType.CUSTOM if operation.startswith("ai.") else None


EVIDENCE: Final[tuple[Evidence, ...]] = (
    ("logfire.span_type", lambda value: SpanType.CUSTOM if value == "pending_span" else None),
    ("mastra.span.type", lambda value: _MASTRA.get(value.lower())),
    ("gen_ai.operation.name", lambda value: _OPERATIONS.get(value.lower())),
    ("mcp.method.name", lambda value: SpanType.TOOL if value == MCP_TOOL_CALL else None),
    ("rpc.method", lambda value: SpanType.TOOL if value == MCP_TOOL_CALL else None),  # Logfire's tracer of MCP
    ("openinference.span.kind", lambda value: _OPENINFERENCE.get(value.upper())),
    ("traceloop.span.kind", lambda value: _TRACELOOP.get(value.lower())),
    ("llm.request.type", lambda value: _LLM_REQUESTS.get(value.lower())),
    ("langsmith.span.kind", lambda value: _LANGSMITH.get(value.lower())),
    ("ai.operationId", _vercel),
    ("langfuse.observation.type", lambda value: _LANGFUSE.get(value.lower())),
    ("mlflow.spanType", lambda value: _MLFLOW.get(value.strip('"').upper())),
    ("lmnr.span.type", lambda value: _LAMINAR.get(value.upper())),
    ("genkit:metadata:subtype", lambda value: _GENKIT.get(value.lower())),
    ("gen_ai.span.kind", lambda value: _OPENINFERENCE.get(value.upper())),
    ("fi.span.kind", lambda value: _OPENINFERENCE.get(value.upper())),
    ("langtrace.service.type", lambda value: SpanType.LLM if value == "llm" else None),
)
"""Strongest first. Logfire's pending spans repeat others before they end. Mastra's exporters derive the other kinds from its
type, and Langfuse derives its type from the others.
"""
