"""Answers of any shape: the mapping of a provider never fails, and a bad event costs only itself."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prela_stream.instrumentation.anthropic.messages import CountTokens, CreateMessage
from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.instrumentation.openai.chat import ChatCompletion, TextCompletion
from prela_stream.instrumentation.openai.embeddings import CreateEmbeddings
from prela_stream.instrumentation.openai.responses import CreateDecision, CreateResponse
from prela_stream.instrumentation.provider import Operation
from prela_stream.model import semconv
from tests.support import openai_api

KEYS = st.sampled_from(
    ["type", "id", "model", "usage", "content", "stop_reason", "input_tokens", "output_tokens", "cache_creation", "iterations",
     "text", "thinking", "input", "source", "data", "media_type", "error", "message", "index", "delta", "content_block",
     "partial_json", "system", "messages", "tools", "role", "name", "tool_use_id", "thread", "output_config"]
)  # fmt: skip
KINDS = st.sampled_from(
    ["message", "error", "text", "thinking", "tool_use", "image", "document", "base64", "url", "tool_result", "compaction",
     "message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "ping", "text_delta"]
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | KINDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.just("type"), inner, max_size=6),
    max_leaves=20,
)
OPERATIONS: list[Operation] = [CreateMessage(), CountTokens()]
GOOD: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 10, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}},
    {"type": "message_stop"},
]
DOCUMENT: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "system": [{"type": "text", "text": "s"}], "tools": [{"name": "t", "type": "custom"}], "max_tokens": 5,
    "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAECAw=="}},
        {"type": "tool_result", "tool_use_id": "t1", "content": "no"},
    ]}],
    "content": [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t1", "name": "t", "input": {}}],
    "usage": {"input_tokens": 1, "output_tokens": 2, "cache_creation": {"ephemeral_5m_input_tokens": 1},
              "iterations": [{"type": "compaction", "input_tokens": 1}], "server_tool_use": {"web_search_requests": 1}},
    "error": {"type": "overloaded_error", "message": "Overloaded"},
}  # fmt: skip
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """A copy of JSON data in which one part, at any depth, has any other value."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    copy = value.copy()
    copy[key] = draw(damaged(value[key]))
    return copy


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
@settings(max_examples=300)
@given(document=damaged(DOCUMENT).filter(lambda document: isinstance(document, dict)), content=st.booleans())
def test_a_document_of_any_shape_gives_attributes_or_none(
    operation: Operation, document: dict[str, Any], content: bool
) -> None:
    assert isinstance(operation.request_attributes(document), dict)
    assert isinstance(operation.request_content(document), dict)
    assert isinstance(operation.response_attributes(document, content=content), dict)
    failure = operation.response_failure({**document, "type": "error"})
    assert failure is not None
    assert all(failure)


OPENAI_KEYS = st.sampled_from(
    ["choices", "message", "delta", "content", "role", "tool_calls", "function", "arguments", "output", "input", "status",
     "usage", "prompt_tokens_details", "messages", "tools", "error", "response", "item", "output_index", "index", "type"]
)  # fmt: skip
OPENAI_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["message", "function_call"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(OPENAI_KEYS, inner, max_size=6),
    max_leaves=20,
)
OPENAI: list[Operation] = [ChatCompletion(), TextCompletion(), CreateResponse(), CreateDecision(), CreateEmbeddings()]


@pytest.mark.parametrize("operation", OPENAI, ids=lambda one: type(one).__name__)
@settings(max_examples=200)
@given(document=st.dictionaries(OPENAI_KEYS, OPENAI_JSON, max_size=8), content=st.booleans())
def test_a_document_of_openai_of_any_shape(operation: Operation, document: dict[str, Any], content: bool) -> None:
    assert isinstance(operation.request_attributes(document), dict)
    assert isinstance(operation.request_content(document), dict)
    assert isinstance(operation.response_attributes(document, content=content), dict)
    assert operation.response_failure({**document, "error": {"message": "no"}}) == ("api_error", "no")


@pytest.mark.parametrize("operation", [ChatCompletion(), CreateResponse()], ids=lambda one: type(one).__name__)
@settings(max_examples=200)
@given(bad=OPENAI_JSON, at=st.integers(1, 3), content=st.booleans())
def test_a_bad_event_of_openai_costs_only_itself(operation: Operation, bad: Any, at: int, content: bool) -> None:
    good = (
        openai_api.chat_stream("hello")
        if isinstance(operation, ChatCompletion)
        else openai_api.response_stream("hello")
    )
    if isinstance(bad, dict) and (bad.get("error") or bad.get("choices") or isinstance(bad.get("response"), dict)):
        return  # a valid event of another kind
    stream = operation.stream_state(content=content)
    for event in good[:at]:
        stream.add(StreamEvent(None, event.partition(b"data: ")[2]))
    with suppress(*MALFORMED):
        stream.add(StreamEvent(None, json.dumps(bad).encode()))
    for event in good[at:]:
        stream.add(StreamEvent(None, event.partition(b"data: ")[2]))
    found = operation.response_attributes(stream.answer(), content=content)
    assert stream.is_complete
    assert (found[semconv.OUTPUT_TOKENS], found[semconv.FINISH_REASONS]) == (25, ["stop"])
    assert (semconv.OUTPUT_MESSAGES in found) is content


@settings(max_examples=300)
@given(st.data())
def test_a_bad_event_of_any_shape_costs_only_itself(data: st.DataObject) -> None:
    """The event is put before the ones that follow it in a stream that is whole without it."""
    at = data.draw(st.integers(0, len(GOOD) - 3))
    event = data.draw(damaged(data.draw(st.sampled_from(GOOD[1:5]))))
    content = data.draw(st.booleans())
    if isinstance(event, dict) and event.get("type") in ("error", "message_stop", "message_start", "message_delta"):
        return  # a valid event of another kind
    stream = CreateMessage().stream_state(content=content)
    for one in [*GOOD[:at], event, *GOOD[at:]]:
        name = one["type"] if one is not event else "content_block_delta"
        try:
            stream.add(StreamEvent(name, json.dumps(one).encode()))
        except MALFORMED:
            assert one is event
    found = CreateMessage().response_attributes(stream.answer(), content=content)
    assert stream.is_complete
    assert (found[semconv.RESPONSE_ID], found[semconv.OUTPUT_TOKENS]) == ("msg_1", 25)
    assert found[semconv.FINISH_REASONS] == ["end_turn"]
    assert (semconv.OUTPUT_MESSAGES in found) is content


@settings(max_examples=200)
@given(st.lists(st.sampled_from(GOOD).flatmap(lambda event: damaged(event) | st.just(event)), max_size=8))
def test_events_of_any_shape_give_an_answer(events: list[Any]) -> None:
    stream = CreateMessage().stream_state(content=True)
    for event in events:
        with suppress(*MALFORMED):
            stream.add(StreamEvent("content_block_delta", json.dumps(event).encode()))
    assert isinstance(CreateMessage().response_attributes(stream.answer(), content=True), dict)
