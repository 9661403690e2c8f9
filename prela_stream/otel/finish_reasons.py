"""Why a model stopped, in one vocabulary: each provider and each tracer has its own words for the same five reasons.

The vocabulary is that of the output messages of OpenTelemetry's GenAI conventions (`gen-ai-output-messages.json`): `stop`,
`length`, `tool_call`, `content_filter` and `error`. A word that is not known stays as it is, in lower case.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from prela_stream.otel.values import json_string, parsed

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "stop": (
        *(
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
        ),
        *("done", "unspecified"),
    ),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_length", "model_length"),
        *("model_context_window_exceeded", "token_limit", "token_limit_reached", "incomplete"),
    ),
    "tool_call": (
        *("tool_call", "tool_calls", "tool_use", "function_call", "function_calls", "tool_execution"),
        "requires_action",
    ),
    "content_filter": (
        *("content_filter", "content_filtered", "refusal", "safety", "recitation", "language", "blocklist", "spii"),
        *("prohibited_content", "image_safety", "image_prohibited_content", "image_recitation", "model_armor"),
        *("guardrail_intervened", "moderation", "blocked", "sensitive"),
    ),
    "error": (
        *("error", "failed", "cancelled", "canceled", "error_toxic", "network_error", "insufficient_system_resource"),
        *("malformed_function_call", "malformed_response", "malformed_tool_use", "malformed_model_output"),
        *("unexpected_tool_call", "too_many_tool_calls", "tool_use_failed", "missing_thought_signature"),
    ),
}
"""Written with `_`; `toolUse`, `tool-use` and `TOOL_USE` are `tool_use` too."""
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_ENUM: Final = re.compile(r"<(?:\w+\.)*(\w+): .*>")
"""How Python prints the member of an enumeration."""
_QUOTED: Final = re.compile(r"""['"]([^'"]+)['"]""")
_NORMALISED: Final = {word.replace("_", ""): reason for reason, words in _WORDS.items() for word in words}
_IN_MAPS: Final = ("unified", "type", "reason")


def normalise_finish_reason(raw: str) -> str:
    """One reason in the vocabulary."""
    if raw in _WORDS:
        return raw
    enum = _ENUM.fullmatch(raw)
    word = (enum[1] if enum else raw.strip().rpartition(".")[2]).lower()  # google-genai writes FinishReason.STOP
    return _NORMALISED.get(_SEPARATORS.sub("", word.removeprefix("finish_reason_")), word)


def finish_reasons_of(value: Any) -> list[str]:
    """The raw reasons of an attribute: a list, one string, or a list in a string, as JSON or as Python prints it."""
    if value.__class__ is list:
        return [one for one in value if isinstance(one, str) and one]
    found = parsed(json_string(value))
    if isinstance(found, str):
        if found.startswith(("[", "(")):
            return _QUOTED.findall(found)
        several = [one.strip() for one in found.split(",")]
        if len(several) > 1 and all(normalise_finish_reason(one) in _WORDS for one in several):
            return several
        return [found] if found.lower() not in ("", "none", "null") else []
    if isinstance(found, Mapping):  # version 7 of the Vercel AI SDK
        return next(([one] for key in _IN_MAPS if isinstance(one := found.get(key), str) and one), [])
    if isinstance(found, Sequence) and not isinstance(found, bytes):
        return [one for one in found if isinstance(one, str) and one]
    return []
