"""The Messages API in GenAI attributes: tokens, parts, media and errors."""

from typing import Any

import pytest

from prela_stream.instrumentation.anthropic.messages import (
    CreateMessage,
    content_attributes,
    request_attributes,
    usage_attributes,
)
from prela_stream.model import semconv

TOOL = {
    "name": "search",
    "description": "Finds.",
    "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
}
REQUEST: dict[str, Any] = {
    "model": "claude-demo",
    "max_tokens": 100,
    "temperature": 0.5,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Hello"}],
    "tools": [TOOL],
    "thinking": {"type": "adaptive"},
}


def test_input_tokens_include_cached_ones() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 100,
        "output_tokens": 25,
    }
    assert usage_attributes(usage) == {
        semconv.INPUT_TOKENS: 1110,
        semconv.CACHE_READ_TOKENS: 1000,
        semconv.CACHE_WRITE_TOKENS: 100,
        semconv.OUTPUT_TOKENS: 25,
    }


def test_compactions_are_billed_beside_the_usage() -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 3},
        {"type": "message"},
    ]
    found = usage_attributes({"input_tokens": 1, "output_tokens": 2, "iterations": iterations})
    assert found["anthropic.usage.compaction.input_tokens"] == 12
    assert found["anthropic.usage.compaction.output_tokens"] == 3
    assert found[semconv.INPUT_TOKENS] == 1


@pytest.mark.parametrize(
    "usage", [None, "many", {"input_tokens": "many"}, {"input_tokens": None, "cache_creation": 3}, {}]
)
def test_a_usage_of_an_unknown_shape_gives_no_numbers(usage: object) -> None:
    assert usage_attributes(usage) == {}


def test_request_parameters() -> None:
    assert request_attributes(REQUEST) == {
        semconv.REQUEST_MODEL: "claude-demo",
        semconv.REQUEST_MAX_TOKENS: 100,
        semconv.REQUEST_TEMPERATURE: 0.5,
        "anthropic.thinking.type": "adaptive",
    }


def test_request_parameters_leave_one_shot_iterators_alone() -> None:
    messages = iter([{"role": "user", "content": "Hello"}])
    request_attributes({"model": "m", "messages": messages})
    assert len(list(messages)) == 1


def test_messages_become_parts() -> None:
    found = content_attributes(
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}],
            "messages": [
                {"role": "user", "content": "Hello"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                        {"type": "tool_use", "id": "t1", "name": "search", "input": {"q": "a"}},
                        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
                        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True}],
                },
            ],
        }
    )
    assert found[semconv.SYSTEM_INSTRUCTIONS] == [{"type": "text", "content": "Be brief."}]
    assert found[semconv.TOOL_DEFINITIONS] == [
        {"type": "function", "name": "search", "description": "Finds.", "parameters": TOOL["input_schema"]},
        {"type": "web_search_20250305", "name": "web_search"},
    ]
    assert found[semconv.INPUT_MESSAGES] == [
        {"role": "user", "parts": [{"type": "text", "content": "Hello"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm."},
                {"type": "tool_call", "id": "t1", "name": "search", "arguments": {"q": "a"}},
                {"type": "server_tool_call", "id": "s1", "name": "web_search", "arguments": {}},
                {"type": "server_tool_call_response", "id": "s1", "response": []},
            ],
        },
        {"role": "user", "parts": [{"type": "tool_call_response", "id": "t1", "response": "no", "is_error": True}]},
    ]


def test_media_is_replaced_by_its_type_and_size() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAECAw=="}}
    content = [
        image,
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "tool_result", "tool_use_id": "t1", "content": [image]},
        {"type": "some_new_block", "nested": {"source": image["source"]}},
    ]
    found = content_attributes({"messages": [{"role": "user", "content": content}]})
    parts = found[semconv.INPUT_MESSAGES][0]["parts"]
    assert parts[:3] == [
        {"type": "blob", "modality": "image", "mime_type": "image/png", "size": 4},
        {"type": "uri", "modality": "document", "uri": "https://example.org/a.pdf"},
        {"type": "file", "modality": "image", "file_id": "file_1"},
    ]
    assert parts[4]["type"] == "anthropic_some_new_block"
    assert "AAECAw" not in repr(found)


@pytest.mark.parametrize("body", [None, [], "text", {"messages": "Hello", "tools": "none"}, {"messages": [1, None]}])
def test_a_body_of_an_unknown_shape_gives_no_content_and_no_error(body: object) -> None:
    assert content_attributes(body) in ({}, {semconv.INPUT_MESSAGES: []})
    assert request_attributes(body) == {}


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ({"type": "message"}, None),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ("overloaded_error", "Overloaded"),
        ),
        ({"type": "error", "error": "busy"}, ("api_error", "busy")),
        ({"type": "error", "message": "busy"}, ("api_error", "busy")),
        ({"type": "error"}, ("api_error", "api_error")),
        ({"type": "error", "error": {"type": 7, "message": None}}, ("api_error", "api_error")),
    ],
)
def test_an_error_envelope_has_a_type_and_a_message(answer: dict[str, Any], failure: tuple[str, str] | None) -> None:
    assert CreateMessage().response_failure(answer) == failure
