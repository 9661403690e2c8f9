"""The words of all providers, in every spelling, give one vocabulary."""

from typing import Any, Final

import pytest

from prela_stream.otel.finish_reasons import finish_reasons_of, normalise_finish_reason

REASONS: Final = {
    "stop": "stop STOP end_turn endTurn FinishReason.STOP FINISH_REASON_STOP ChatFinishReason.Stop stopSequence COMPLETE",
    "length": "length Length MAX_TOKENS max_tokens maxTokens ModelLength TokenLimitReached incomplete",
    "tool_call": "tool_call tool_calls tool-calls ToolCalls TOOL_CALL tool_use toolUse function_call function_calls",
    "content_filter": "content_filter content-filter ContentFilter SAFETY refusal LANGUAGE PROHIBITED_CONTENT",
    "error": "error ERROR MALFORMED_FUNCTION_CALL TOO_MANY_TOOL_CALLS insufficient_system_resource",
    "pause_turn": "pause_turn",
    "other": "OTHER",
}


@pytest.mark.parametrize(("raw", "expected"), [(raw, key) for key, words in REASONS.items() for raw in words.split()])
def test_one_vocabulary(raw: str, expected: str) -> None:
    assert normalise_finish_reason(raw) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["stop", "", None, 3], ["stop"]),
        ("stop", ["stop"]),
        ('"stop"', ["stop"]),
        ('["stop", "length"]', ["stop", "length"]),
        ("['stop']", ["stop"]),
        ("('tool_calls',)", ["tool_calls"]),
        ("stop,length", ["stop", "length"]),
        ("it ended, as expected", ["it ended, as expected"]),
        ('{"unified": "stop", "raw": "end_turn"}', ["stop"]),
        ({}, []),
        ("None", []),
        ("", []),
        (None, []),
        (b"stop", []),
    ],
)
def test_the_forms_of_an_attribute(value: Any, expected: list[str]) -> None:
    assert finish_reasons_of(value) == expected
