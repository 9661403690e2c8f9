"""Attribute names: the canonical spelling that is written, and the aliases that are understood when reading.

The canonical names are OpenTelemetry's GenAI names. These have changed before, other tracers have their own names, and the
ancestor SDK had a third set. So code that reads an attribute calls `read()`, which knows the aliases. `to_genai()` and
`to_ancestor()` translate all attributes of a span, including values. Input tokens include cached tokens (OpenTelemetry).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from prela_stream.model.plain import safe_text

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_ID: Final = "gen_ai.agent.id"
AGENT_DESCRIPTION: Final = "gen_ai.agent.description"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
CONVERSATION_COMPACTED: Final = "gen_ai.conversation.compacted"
USER_ID: Final = "user.id"

REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_STREAM_CURSOR: Final = "gen_ai.request.stream_cursor"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
REQUEST_PREVIOUS_RESPONSE_ID: Final = "gen_ai.request.previous_response.id"
OUTPUT_TYPE: Final = "gen_ai.output.type"
PROMPT_NAME: Final = "gen_ai.prompt.name"
PROMPT_VERSION: Final = "gen_ai.prompt.version"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"

RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
"""A list of `stop`, `length`, `tool_call`, `content_filter` and `error`."""
RAW_FINISH_REASONS: Final = "prela.raw.finish_reasons"
"""The reasons in the words of the provider; present if they differ from the normalised ones."""
RESPONSE_STATUS: Final = "gen_ai.response.status"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds."""

INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
"""Including cached tokens."""
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TEXT_INPUT_TOKENS: Final = "gen_ai.usage.text.input_tokens"
TEXT_OUTPUT_TOKENS: Final = "gen_ai.usage.text.output_tokens"
IMAGE_INPUT_TOKENS: Final = "gen_ai.usage.image.input_tokens"
IMAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.image.output_tokens"
AUDIO_INPUT_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
AUDIO_OUTPUT_TOKENS: Final = "gen_ai.usage.audio.output_tokens"

DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
RETRIEVAL_QUERY: Final = "gen_ai.retrieval.query.text"
RETRIEVAL_TOP_K: Final = "gen_ai.retrieval.top_k"
RETRIEVAL_DOCUMENTS: Final = "gen_ai.retrieval.documents"
EMBEDDING_DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"

TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
TOOL_DESCRIPTION: Final = "gen_ai.tool.description"

EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE_VALUE: Final = "gen_ai.evaluation.score.value"
EVALUATION_SCORE_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"
EVENT_EVALUATION_RESULT: Final = "gen_ai.evaluation.result"

ERROR_TYPE: Final = "error.type"
ERROR_MESSAGE: Final = "error.message"
ERROR_STACKTRACE: Final = "error.stacktrace"
ERROR_CONTEXT: Final = "error.context"
"""Context that the application adds to an error."""
RESEND_COUNT: Final = "http.request.resend_count"

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"

COST_USD: Final = "prela.cost.usd"
"""US dollars. OpenTelemetry has no name for it."""
COST_SOURCE: Final = "prela.cost.source"
"""The price list and its version."""
COST_DATE: Final = "prela.cost.date"
"""The day whose prices were used, as YYYY-MM-DD."""
TRUNCATED: Final = "prela.truncated"
"""Size of the attributes and events of a truncated span before truncation, in bytes; absent on other spans."""
DROPPED_ATTRIBUTES: Final = "prela.dropped_attributes_count"
"""Attributes that were left out because the span was too large, beyond those that became notes."""
DROPPED_EVENTS: Final = "prela.dropped_events_count"
DROPPED_LINKS: Final = "prela.dropped_links_count"
FUNCTION_ARGUMENTS: Final = "prela.function.arguments"
"""Arguments of a function with `@trace(capture_arguments=True)`, by parameter name."""
FUNCTION_RESULT: Final = "prela.function.result"

EVENT_LLM_REQUEST: Final = "llm.request"
EVENT_LLM_RESPONSE: Final = "llm.response"
EVENT_TOOL_CALL: Final = "tool.call"
EVENT_TOOL_RESULT: Final = "tool.result"

ALIASES: Final[Mapping[str, str]] = {
    # earlier OpenTelemetry GenAI spellings, and those of vendors' own tracers
    "gen_ai.system": PROVIDER_NAME,
    "gen_ai.usage.prompt_tokens": INPUT_TOKENS,
    "gen_ai.usage.completion_tokens": OUTPUT_TOKENS,
    "gen_ai.usage.cache_creation.input_tokens": CACHE_WRITE_TOKENS,
    "gen_ai.usage.cache_creation_input_tokens": CACHE_WRITE_TOKENS,
    "gen_ai.usage.cache_read_input_tokens": CACHE_READ_TOKENS,
    "anthropic.tool_result.content": TOOL_CALL_RESULT,
    "anthropic.message.stop_reason": FINISH_REASONS,
    "exception.type": ERROR_TYPE,
    "exception.message": ERROR_MESSAGE,
    "exception.stacktrace": ERROR_STACKTRACE,
    "session.id": CONVERSATION_ID,
    "deployment.environment": DEPLOYMENT_ENVIRONMENT,
    # OpenInference
    "llm.provider": PROVIDER_NAME,
    "llm.model_name": REQUEST_MODEL,
    "llm.request.model_name": REQUEST_MODEL,
    "llm.response.model_name": RESPONSE_MODEL,
    "llm.token_count.prompt": INPUT_TOKENS,
    "llm.token_count.completion": OUTPUT_TOKENS,
    "llm.token_count.prompt_details.cache_read": CACHE_READ_TOKENS,
    "llm.token_count.prompt_details.cache_write": CACHE_WRITE_TOKENS,
    "llm.token_count.completion_details.reasoning": REASONING_TOKENS,
    "llm.finish_reason": FINISH_REASONS,
    "llm.cost.total": COST_USD,
    "agent.name": AGENT_NAME,
    "tool.name": TOOL_NAME,
    "tool.id": TOOL_CALL_ID,
    "tool.parameters": TOOL_CALL_ARGUMENTS,
    # the ancestor SDK; its `llm.system` is the prompt, but elsewhere it is the vendor, so it is not an alias
    "llm.vendor": PROVIDER_NAME,
    "llm.model": REQUEST_MODEL,
    "llm.request.model": REQUEST_MODEL,
    "llm.response.model": RESPONSE_MODEL,
    "llm.response.id": RESPONSE_ID,
    "llm.stream": REQUEST_STREAM,
    "llm.prompt_tokens": INPUT_TOKENS,
    "llm.completion_tokens": OUTPUT_TOKENS,
    "llm.temperature": REQUEST_TEMPERATURE,
    "llm.max_tokens": REQUEST_MAX_TOKENS,
    "llm.input_tokens": INPUT_TOKENS,
    "llm.output_tokens": OUTPUT_TOKENS,
    "llm.stop_reason": FINISH_REASONS,
    "llm.cost_usd": COST_USD,
    "tool.arguments": TOOL_CALL_ARGUMENTS,
    "tool.input": TOOL_CALL_ARGUMENTS,
    "tool.output": TOOL_CALL_RESULT,
    "tool.description": TOOL_DESCRIPTION,
    "retriever.query": RETRIEVAL_QUERY,
    "retrieval.query": RETRIEVAL_QUERY,
    "retrieval.documents": RETRIEVAL_DOCUMENTS,
    "embedding.model": REQUEST_MODEL,
    "embedding.dimensions": EMBEDDING_DIMENSIONS,
}
"""Canonical name by alias."""

_SPELLINGS: Final[dict[str, tuple[str, ...]]] = {}
for _alias, _canonical in ALIASES.items():
    _SPELLINGS[_canonical] = (*_SPELLINGS.get(_canonical, (_canonical,)), _alias)


def read_keys(key: str) -> tuple[str, ...]:
    """Every spelling of the attribute `key`, the canonical one first; `key` may be an alias."""
    canonical = ALIASES.get(key, key)
    return _SPELLINGS.get(canonical, (canonical,))


_CONTENT: Final = (
    INPUT_MESSAGES,
    OUTPUT_MESSAGES,
    SYSTEM_INSTRUCTIONS,
    TOOL_DEFINITIONS,
    TOOL_CALL_ARGUMENTS,
    TOOL_CALL_RESULT,
    REQUEST_STOP_SEQUENCES,
)
_OTHER_CONTENT: Final = (
    *("prompt", "prompts", "completion", "messages", "system_prompt"),
    *("prela.function.arguments", "prela.function.result", "function.arguments", "function.result"),
    *("gen_ai.prompt", "gen_ai.prompt.*", "gen_ai.completion", "gen_ai.completion.*", "gen_ai.content.*"),
    *(RETRIEVAL_QUERY, RETRIEVAL_DOCUMENTS, EVALUATION_EXPLANATION),
    *("input.value", "output.value", "llm.input_messages.*", "llm.output_messages.*", "llm.prompts.*", "llm.tools.*"),
    *("llm.prompt", "llm.prompts", "llm.completion", "llm.response", "llm.system", "llm.messages", "llm.content"),
    *("llm.prompt_template.*", "llm.function_call", "embedding.embeddings.*", "embedding.text", "embedding.vector"),
    *("tool.input", "tool.output", "tool.result", "tool.arguments", "tool_call.function.arguments"),
    *("retrieval.query", "retrieval.documents", "retrieval.documents.*", "document.content"),
    *("traceloop.entity.input", "traceloop.entity.output"),
)
"""Content in other conventions, and in attributes that people write by hand."""
CONTENT_NAMES: Final = (*(spelling for name in _CONTENT for spelling in read_keys(name)), *_OTHER_CONTENT)
"""Attributes that hold what people and models wrote. A name that ends in `.*` is a prefix."""


def read(attributes: Mapping[str, Any], key: str) -> Any:
    """The value of `key` under any of its spellings, the canonical one first; None if it is missing.

    The shape of a value may differ between spellings: canonical finish reasons are a list, others are one string.
    """
    for spelling in read_keys(key):
        value = attributes.get(spelling)
        if value is not None:
            return value
    return None


_FIRST_CHUNK_MS: Final = "llm.time_to_first_token_ms"
_SYSTEM: Final = "llm.system"
_KIND: Final = "openinference.span.kind"
_TOTAL: Final = "llm.total_tokens"
_TOTALS: Final = (_TOTAL, "llm.token_count.total", "gen_ai.usage.total_tokens")
"""Names of a sum that OpenTelemetry does not name, because it can be derived."""
_DERIVED: Final = frozenset({_TOTAL, _SYSTEM, _FIRST_CHUNK_MS, "llm.latency_ms"})
_ANCESTOR: Final[Mapping[str, str]] = {
    PROVIDER_NAME: "llm.vendor",
    REQUEST_MODEL: "llm.model",
    REQUEST_TEMPERATURE: "llm.temperature",
    REQUEST_MAX_TOKENS: "llm.max_tokens",
    REQUEST_STREAM: "llm.stream",
    RESPONSE_MODEL: "llm.response.model",
    RESPONSE_ID: "llm.response.id",
    INPUT_TOKENS: "llm.input_tokens",
    OUTPUT_TOKENS: "llm.output_tokens",
    COST_USD: "llm.cost_usd",
    AGENT_NAME: "agent.name",
    TOOL_NAME: "tool.name",
    TOOL_DESCRIPTION: "tool.description",
    TOOL_CALL_RESULT: "tool.output",
    RETRIEVAL_QUERY: "retrieval.query",
    RETRIEVAL_DOCUMENTS: "retrieval.documents",
    EMBEDDING_DIMENSIONS: "embedding.dimensions",
}


def look_up(attributes: Mapping[str, Any], key: str, duration_ms: float | None = None) -> Any:
    """An attribute of a span under any of its spellings, in the shape of the requested spelling; None if it is missing.

    Derives what the ancestor SDK stored: `llm.total_tokens`, and `llm.latency_ms` from `duration_ms`.
    """
    if key in attributes:
        return attributes[key]
    if key in ALIASES or key in _DERIVED:
        translated = to_ancestor(attributes, duration_ms=duration_ms)
        return translated[key] if key in translated else read(attributes, key)
    return to_genai(attributes).get(key)


def to_genai(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with canonical names by ALIASES and values in OpenTelemetry's shape. Unknown attributes are unchanged.

    If one fact has several names, the canonical one has priority, then the others in the order of ALIASES.
    """
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        canonical = ALIASES.get(key, key)
        if canonical not in found:
            best = read(attributes, canonical)
            found[canonical] = value if best is None else best
    if isinstance(reason := found.get(FINISH_REASONS), str):
        found[FINISH_REASONS] = [reason]
    if isinstance(milliseconds := found.get(_FIRST_CHUNK_MS), int | float):
        del found[_FIRST_CHUNK_MS]
        found.setdefault(TIME_TO_FIRST_CHUNK, milliseconds / 1000)
    if isinstance(system := found.get(_SYSTEM), str):
        # OpenInference writes the vendor here. The ancestor SDK, which names the vendor elsewhere, writes the system prompt.
        if _KIND in attributes:
            del found[_SYSTEM]
            found.setdefault(PROVIDER_NAME, system)
        elif PROVIDER_NAME in found:
            del found[_SYSTEM]
            found.setdefault(SYSTEM_INSTRUCTIONS, [{"type": "text", "content": system}])
    total = _total(found)
    for name in _TOTALS:
        if total is not None and found.get(name) == total:
            del found[name]
    return found


def to_ancestor(attributes: Mapping[str, Any], *, duration_ms: float | None = None) -> dict[str, Any]:
    """Attributes with the names of the ancestor SDK, for code that reads those. Others are unchanged.

    Args:
        attributes: The attributes of a span.
        duration_ms: The duration of the span in milliseconds, which becomes `llm.latency_ms` of a model call.
    """
    genai = to_genai(attributes)
    found = {_ANCESTOR.get(key, key): value for key, value in genai.items()}
    reasons = found.pop(FINISH_REASONS, None)
    reasons = found.pop(RAW_FINISH_REASONS, None) or reasons  # the ancestor stored the words of the provider
    if isinstance(reasons, list | tuple) and reasons:
        found["llm.finish_reason"] = found["llm.stop_reason"] = reasons[0]
    if isinstance(seconds := found.get(TIME_TO_FIRST_CHUNK), int | float):
        del found[TIME_TO_FIRST_CHUNK]
        found[_FIRST_CHUNK_MS] = seconds * 1000
    if (instructions := found.pop(SYSTEM_INSTRUCTIONS, None)) is not None:
        found[_SYSTEM] = _text_of_parts(instructions)
    if (arguments := found.pop(TOOL_CALL_ARGUMENTS, None)) is not None:
        found["tool.arguments"] = arguments if isinstance(arguments, str) else _json(arguments)
    if (total := _total(genai)) is not None:
        found.setdefault(_TOTAL, total)
    if duration_ms is not None and (REQUEST_MODEL in genai or PROVIDER_NAME in genai):
        found.setdefault("llm.latency_ms", duration_ms)
    return found


def _total(genai: Mapping[str, Any]) -> int | None:
    into, out = genai.get(INPUT_TOKENS), genai.get(OUTPUT_TOKENS)
    return into + out if isinstance(into, int) and isinstance(out, int) else None


def _text_of_parts(instructions: Any) -> Any:
    if isinstance(instructions, list) and all(isinstance(part, Mapping) for part in instructions):
        return "\n".join(str(part.get("content", "")) for part in instructions)
    return instructions


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return safe_text(value)
