"""Attribute names: the one spelling that we write, and the other spellings that we understand on read.

We write OpenTelemetry's GenAI names. Those are still in development and have moved before, other tracers have their own, and
the ancestor SDK had a third set; so whoever reads an attribute asks `read()`, which knows the aliases. Counts of input tokens
include cached ones, as OpenTelemetry defines them.
"""

from collections.abc import Mapping
from typing import Any, Final

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
USER_ID: Final = "user.id"

REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
REQUEST_STREAM: Final = "gen_ai.request.stream"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"

RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
"""A list of strings."""
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds."""

INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
"""With cached ones."""
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"

TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"

ERROR_TYPE: Final = "error.type"
ERROR_MESSAGE: Final = "error.message"
ERROR_STACKTRACE: Final = "error.stacktrace"
RESEND_COUNT: Final = "http.request.resend_count"

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"

COST_USD: Final = "prela.cost.usd"
"""US dollars. OpenTelemetry has no name for it."""
TRUNCATED: Final = "prela.truncated"
"""Size of the span's attributes and events in bytes before it was cut to fit; absent where nothing was cut."""

ALIASES: Final[Mapping[str, str]] = {
    # earlier OpenTelemetry GenAI spellings, and those of vendors' own tracers
    "gen_ai.system": PROVIDER_NAME,
    "gen_ai.usage.prompt_tokens": INPUT_TOKENS,
    "gen_ai.usage.completion_tokens": OUTPUT_TOKENS,
    "gen_ai.usage.cache_creation.input_tokens": CACHE_WRITE_TOKENS,
    "gen_ai.usage.cache_creation_input_tokens": CACHE_WRITE_TOKENS,
    "gen_ai.usage.cache_read_input_tokens": CACHE_READ_TOKENS,
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
    # the ancestor SDK; its `llm.system` is the prompt, elsewhere the vendor, so that one is nobody's alias
    "llm.vendor": PROVIDER_NAME,
    "llm.model": REQUEST_MODEL,
    "llm.temperature": REQUEST_TEMPERATURE,
    "llm.max_tokens": REQUEST_MAX_TOKENS,
    "llm.input_tokens": INPUT_TOKENS,
    "llm.output_tokens": OUTPUT_TOKENS,
    "llm.stop_reason": FINISH_REASONS,
    "tool.arguments": TOOL_CALL_ARGUMENTS,
}
"""Alias → the name that we write."""

_SPELLINGS: Final[dict[str, tuple[str, ...]]] = {}
for _alias, _canonical in ALIASES.items():
    _SPELLINGS[_canonical] = (*_SPELLINGS.get(_canonical, (_canonical,)), _alias)


def read_keys(key: str) -> tuple[str, ...]:
    """Every spelling under which the attribute `key` may stand, the one that we write first; `key` may be an alias itself."""
    canonical = ALIASES.get(key, key)
    return _SPELLINGS.get(canonical, (canonical,))


def read(attributes: Mapping[str, Any], key: str) -> Any:
    """The value of `key` under any of its spellings, our own first; None where there is none.

    The shape of a value may differ between spellings: finish reasons are a list in ours and one string in others.
    """
    for spelling in read_keys(key):
        value = attributes.get(spelling)
        if value is not None:
            return value
    return None
