"""What the requests and answers of all OpenAI APIs have in common: parameters, usage, errors and tool definitions. Pure.

Sources: the types of the `openai` package, and `gen-ai/openai.md` of `semantic-conventions-genai`.
"""

from collections.abc import Mapping
from typing import Any, Final

from prela_stream.instrumentation.provider import Failure
from prela_stream.model import semconv
from prela_stream.otel.content import definitions_of
from prela_stream.privacy.media import without_media

API_TYPE: Final = "openai.api.type"
_FALLBACK_KIND: Final = "api_error"
_REQUEST_KEYS: Final = {
    "model": semconv.REQUEST_MODEL,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_completion_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_output_tokens": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "seed": semconv.REQUEST_SEED,
    "n": semconv.REQUEST_CHOICE_COUNT,
    "frequency_penalty": semconv.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": semconv.REQUEST_PRESENCE_PENALTY,
    "reasoning_effort": semconv.REQUEST_REASONING_LEVEL,
    "previous_response_id": semconv.REQUEST_PREVIOUS_RESPONSE_ID,
    "dimensions": semconv.EMBEDDING_DIMENSIONS,
    "service_tier": "openai.request.service_tier",
}
_USAGE_KEYS: Final = {
    "prompt_tokens": semconv.INPUT_TOKENS,
    "input_tokens": semconv.INPUT_TOKENS,
    "completion_tokens": semconv.OUTPUT_TOKENS,
    "output_tokens": semconv.OUTPUT_TOKENS,
}
_INPUT_PARTS: Final = {
    "cached_tokens": semconv.CACHE_READ_TOKENS,
    "cache_write_tokens": semconv.CACHE_WRITE_TOKENS,
    "audio_tokens": semconv.AUDIO_INPUT_TOKENS,
    "image_tokens": semconv.IMAGE_INPUT_TOKENS,
    "text_tokens": semconv.TEXT_INPUT_TOKENS,
}
_OUTPUT_PARTS: Final = {
    "reasoning_tokens": semconv.REASONING_TOKENS,
    "audio_tokens": semconv.AUDIO_OUTPUT_TOKENS,
    "image_tokens": semconv.IMAGE_OUTPUT_TOKENS,
    "text_tokens": semconv.TEXT_OUTPUT_TOKENS,
}


def request_attributes(body: object) -> dict[str, Any]:
    """The model and the parameters of a request, without content. Reads named values only and iterates over none."""
    if not isinstance(body, Mapping):
        return {}
    found = {name: body[key] for key, name in _REQUEST_KEYS.items() if isinstance(body.get(key), str | int | float)}
    for path, name in (
        (("reasoning", "effort"), semconv.REQUEST_REASONING_LEVEL),
        (("conversation", "id"), semconv.CONVERSATION_ID),
        (("prompt", "id"), semconv.PROMPT_NAME),
        (("prompt", "version"), semconv.PROMPT_VERSION),
    ):
        if isinstance(value := dig(body, *path), str):
            found[name] = value
    if isinstance(conversation := body.get("conversation"), str):
        found[semconv.CONVERSATION_ID] = conversation
    wanted = dig(body, "response_format", "type") or dig(body, "text", "format", "type")
    if isinstance(wanted, str):
        found[semconv.OUTPUT_TYPE] = "json" if wanted.startswith("json") else wanted
    return found


def tool_attributes(body: Mapping[str, Any]) -> dict[str, Any]:
    """The tools that a request offers, and its stop sequences."""
    found: dict[str, Any] = {}
    if isinstance(tools := body.get("tools"), list) and (definitions := definitions_of(without_media(tools))):
        found[semconv.TOOL_DEFINITIONS] = definitions
    if isinstance(stop := body.get("stop"), str | list) and stop:
        found[semconv.REQUEST_STOP_SEQUENCES] = [stop] if isinstance(stop, str) else stop
    return found


def answer_attributes(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Id, model, service tier and usage of an answer."""
    found = usage_attributes(answer.get("usage"))
    for key, name in (
        ("id", semconv.RESPONSE_ID),
        ("model", semconv.RESPONSE_MODEL),
        ("service_tier", "openai.response.service_tier"),
        ("system_fingerprint", "openai.response.system_fingerprint"),
    ):
        if isinstance(value := answer.get(key), str) and value:
            found[name] = value
    return found


def usage_attributes(usage: object) -> dict[str, Any]:
    """Token counts. Cached tokens are part of the input and reasoning tokens part of the output, as in the attributes."""
    if not isinstance(usage, Mapping):
        return {}
    found = {name: usage[key] for key, name in _USAGE_KEYS.items() if _is_count(usage.get(key))}
    for details, parts in (
        (("prompt_tokens_details", "input_tokens_details"), _INPUT_PARTS),
        (("completion_tokens_details", "output_tokens_details"), _OUTPUT_PARTS),
    ):
        for detail in details:
            found.update({name: n for key, name in parts.items() if _is_count(n := dig(usage, detail, key))})
    return found


def failure_of(answer: Mapping[str, Any]) -> Failure | None:
    """The error of an error envelope; None for any other document."""
    error = answer.get("error")
    if isinstance(error, str) and error:
        return Failure(_FALLBACK_KIND, error)
    return described_failure(error) if isinstance(error, Mapping) else None


def described_failure(error: Mapping[str, Any]) -> Failure:
    """The failure that a map with `type` or `code`, and `message`, describes."""
    named = [_text(error.get(key)) for key in ("type", "code")]
    kind = next((name for name in named if name not in ("", "error")), _FALLBACK_KIND)
    return Failure(kind, _text(error.get("message")) or kind)


def dig(value: object, *path: str) -> Any:
    """The value at a path of keys; None if it is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
