"""Attributes of other tracers that mean the same as one of `model.semconv` and have the same shape: only the name differs.

`semconv.ALIASES` has the names that readers of stored spans understand as well; here is what only a foreign span carries.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from prela_stream.model import semconv

RENAMED: Final[Mapping[str, str]] = {
    **{alias: name for alias, name in semconv.ALIASES.items() if not alias.startswith(("exception.", "tool."))},
    # OpenTelemetry, earlier versions and vendors' own tracers
    "gen_ai.workflow.name": semconv.AGENT_NAME,
    "gen_ai.is_streaming": semconv.REQUEST_STREAM,
    "gen_ai.retrieval.documents": semconv.RETRIEVAL_DOCUMENTS,
    "gen_ai.tool.args": semconv.TOOL_CALL_ARGUMENTS,
    "gen_ai.tool.result": semconv.TOOL_CALL_RESULT,
    "gen_ai.tool.call.arguments": semconv.TOOL_CALL_ARGUMENTS,
    "gen_ai.request.max_output_tokens": semconv.REQUEST_MAX_TOKENS,
    "gen_ai.openai.response.model": semconv.RESPONSE_MODEL,
    "gen_ai.response.finish_reason": semconv.FINISH_REASONS,
    "gcp.vertex.agent.tool_call_args": semconv.TOOL_CALL_ARGUMENTS,
    "gcp.vertex.agent.tool_response": semconv.TOOL_CALL_RESULT,
    "gcp.vertex.agent.session_id": semconv.CONVERSATION_ID,
    "tool_arguments": semconv.TOOL_CALL_ARGUMENTS,
    "tool_response": semconv.TOOL_CALL_RESULT,
    "agent_name": semconv.AGENT_NAME,
    "gen_ai.user.id": semconv.USER_ID,
    "gen_ai.session.id": semconv.CONVERSATION_ID,
    "gen_ai.thread.id": semconv.CONVERSATION_ID,
    "mcp.tool.name": semconv.TOOL_NAME,
    "mlflow.trace.session": semconv.CONVERSATION_ID,
    "mlflow.trace.user": semconv.USER_ID,
    "lmnr.association.properties.session_id": semconv.CONVERSATION_ID,
    "lmnr.association.properties.user_id": semconv.USER_ID,
    "enduser.id": semconv.USER_ID,
    # OpenLLMetry
    "llm.is_streaming": semconv.REQUEST_STREAM,
    "llm.request.temperature": semconv.REQUEST_TEMPERATURE,
    "llm.request.max_tokens": semconv.REQUEST_MAX_TOKENS,
    "llm.top_p": semconv.REQUEST_TOP_P,
    "llm.top_k": semconv.REQUEST_TOP_K,
    "llm.chat.stop_sequences": semconv.REQUEST_STOP_SEQUENCES,
    "traceloop.association.properties.session_id": semconv.CONVERSATION_ID,
    "traceloop.association.properties.user_id": semconv.USER_ID,
    "traceloop.association.properties.thread_id": semconv.CONVERSATION_ID,
    "traceloop.prompt.key": semconv.PROMPT_NAME,
    "traceloop.prompt.version": semconv.PROMPT_VERSION,
    # OpenInference
    "llm.prompt_template.version": semconv.PROMPT_VERSION,
    "reranker.model_name": semconv.REQUEST_MODEL,
    "reranker.top_k": semconv.RETRIEVAL_TOP_K,
    "reranker.query": semconv.RETRIEVAL_QUERY,
    "embedding.model_name": semconv.REQUEST_MODEL,
    "tool_call.id": semconv.TOOL_CALL_ID,
    "tool_call.function.name": semconv.TOOL_NAME,
    "tool_call.function.arguments": semconv.TOOL_CALL_ARGUMENTS,
    "tool.name": semconv.TOOL_NAME,
    "tool.id": semconv.TOOL_CALL_ID,
    "tool.description": semconv.TOOL_DESCRIPTION,
    "tool.parameters": semconv.TOOL_CALL_ARGUMENTS,
    "tool.arguments": semconv.TOOL_CALL_ARGUMENTS,
    "tool.output": semconv.TOOL_CALL_RESULT,
    # Vercel AI SDK
    "ai.model.id": semconv.REQUEST_MODEL,
    "ai.model.provider": semconv.PROVIDER_NAME,
    "ai.response.model": semconv.RESPONSE_MODEL,
    "ai.response.id": semconv.RESPONSE_ID,
    "ai.response.finishReason": semconv.FINISH_REASONS,
    "ai.finishReason": semconv.FINISH_REASONS,
    "ai.settings.temperature": semconv.REQUEST_TEMPERATURE,
    "ai.settings.maxTokens": semconv.REQUEST_MAX_TOKENS,
    "ai.settings.maxOutputTokens": semconv.REQUEST_MAX_TOKENS,
    "ai.settings.topP": semconv.REQUEST_TOP_P,
    "ai.settings.topK": semconv.REQUEST_TOP_K,
    "ai.toolCall.name": semconv.TOOL_NAME,
    "ai.toolCall.id": semconv.TOOL_CALL_ID,
    "ai.toolCall.args": semconv.TOOL_CALL_ARGUMENTS,
    "ai.toolCall.input": semconv.TOOL_CALL_ARGUMENTS,
    "ai.toolCall.result": semconv.TOOL_CALL_RESULT,
    "ai.toolCall.output": semconv.TOOL_CALL_RESULT,
    "ai.telemetry.metadata.sessionId": semconv.CONVERSATION_ID,
    "ai.telemetry.metadata.session_id": semconv.CONVERSATION_ID,
    "ai.telemetry.metadata.threadId": semconv.CONVERSATION_ID,
    "ai.telemetry.metadata.userId": semconv.USER_ID,
    "ai.telemetry.metadata.user_id": semconv.USER_ID,
    # Langfuse
    "langfuse.observation.model.name": semconv.REQUEST_MODEL,
    "langfuse.session.id": semconv.CONVERSATION_ID,
    "langfuse.user.id": semconv.USER_ID,
    "langfuse.observation.prompt.name": semconv.PROMPT_NAME,
    "langfuse.observation.prompt.version": semconv.PROMPT_VERSION,
    # LangSmith
    "langsmith.trace.session_id": semconv.CONVERSATION_ID,
    "langsmith.metadata.session_id": semconv.CONVERSATION_ID,
    "langsmith.metadata.thread_id": semconv.CONVERSATION_ID,
    "langsmith.metadata.conversation_id": semconv.CONVERSATION_ID,
    "langsmith.metadata.user_id": semconv.USER_ID,
    "langsmith.metadata.ls_model_name": semconv.REQUEST_MODEL,
    "langsmith.metadata.ls_provider": semconv.PROVIDER_NAME,
}

PARAMETERS: Final[Mapping[str, str]] = {
    "model": semconv.REQUEST_MODEL,
    "model_name": semconv.REQUEST_MODEL,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "top_k": semconv.REQUEST_TOP_K,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_completion_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_output_tokens": semconv.REQUEST_MAX_TOKENS,
    "maxTokens": semconv.REQUEST_MAX_TOKENS,
    "stop": semconv.REQUEST_STOP_SEQUENCES,
    "stop_sequences": semconv.REQUEST_STOP_SEQUENCES,
    "stream": semconv.REQUEST_STREAM,
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
"""Keys of a request's parameters, as in OpenInference's `llm.invocation_parameters`."""
PARAMETER_MAPS: Final = (
    "llm.invocation_parameters",
    "langfuse.observation.model.parameters",
    "model_request_parameters",
)
"""Attributes that hold a JSON map of parameters."""
_LONGEST_WORD: Final = 64
"""Characters of a provider's name that is kept in a cache."""
PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "az.ai.openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "amazon": "aws.bedrock",
    "aws_bedrock": "aws.bedrock",
    "amazon_bedrock": "aws.bedrock",
    "amazon-bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "azure-openai": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "google.generative-ai": "gcp.gemini",
    "google-genai": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "google.vertex": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "vertexai": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "google_vertexai": "gcp.vertex_ai",
    "mistralai": "mistral_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "langchain": "langchain",
}
"""`gen_ai.provider.name` for the words of other tracers; a word that is not here stays as it is, in lower case."""


def provider_of(word: str) -> str:
    """The name of a provider: `openai.responses` of the Vercel AI SDK is `openai`."""
    return _known_provider(word) if len(word) <= _LONGEST_WORD else _provider_of(word)


def _provider_of(word: str) -> str:
    name = word.strip().lower()
    head = name.partition(".")[0]
    if name.startswith("google.vertex."):
        name = "google.vertex"
    elif not name.startswith("azure.ai.") and head in (
        "openai",
        "anthropic",
        "mistral",
        "groq",
        "cohere",
        "xai",
        "deepseek",
        "perplexity",
        "togetherai",
        "azure",
        "azure-openai",
        "fireworks",
    ):
        name = head
    return PROVIDERS.get(name, name)


_known_provider: Final = lru_cache(maxsize=1_024)(_provider_of)
