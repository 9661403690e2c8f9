"""Why a model stopped, in one vocabulary: each provider and each tracer has its own words for the same five reasons.

The vocabulary is that of the output messages of OpenTelemetry's GenAI conventions (`gen-ai-output-messages.json`): `stop`,
`length`, `tool_call`, `content_filter` and `error`. A word that is not known stays as it is, in lower case.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from prela_stream.otel.values import parsed

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "stop": (
        "stop",
        "end_turn",
        "stop_sequence",
        "eos",
        "eos_token",
        "end",
        "completed",
        "complete",
        "finish",
        "finished",
        "finish_reason_stop",
        "finish_reason_unspecified",
        "done",
    ),
    "length": (
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_completion_tokens",
        "model_length",
        "model_context_window_exceeded",
        "finish_reason_max_tokens",
        "token_limit",
        "incomplete",
    ),
    "tool_call": (
        "tool_call",
        "tool_calls",
        "tool_use",
        "function_call",
        "tool-calls",
        "tool-call",
        "toolcalls",
        "tooluse",
        "requires_action",
    ),
    "content_filter": (
        "content_filter",
        "content-filter",
        "content_filtered",
        "refusal",
        "safety",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
        "image_safety",
        "guardrail_intervened",
        "moderation",
        "blocked",
    ),
    "error": (
        "error",
        "failed",
        "malformed_function_call",
        "unexpected_tool_call",
        "error_toxic",
        "cancelled",
        "canceled",
        "network_error",
    ),
}
_NORMALISED: Final = {word: reason for reason, words in _WORDS.items() for word in words}


def normalise_finish_reason(raw: str) -> str:
    """One reason in the vocabulary."""
    word = raw.strip().rpartition(".")[2].lower()  # google-genai writes FinishReason.STOP
    return _NORMALISED.get(word, word)


def finish_reasons_of(value: Any) -> list[str]:
    """The raw reasons of an attribute: a list, one string, or a JSON array in a string."""
    found = parsed(value)
    if isinstance(found, str):
        return [found] if found else []
    if isinstance(found, Sequence) and not isinstance(found, bytes):
        return [one for one in found if isinstance(one, str) and one]
    return []
