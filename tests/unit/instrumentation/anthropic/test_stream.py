"""Messages that are put together from stream events, with events among them that are malformed or unknown."""

import json
from typing import Any

import pytest

from prela_stream.demo.model_script import answer, stream_events
from prela_stream.instrumentation.anthropic.messages import response_attributes
from prela_stream.instrumentation.anthropic.stream import MessageStream
from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.model import semconv

REQUEST: dict[str, Any] = {
    "model": "claude-demo",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
    "tools": [{"name": "search", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}],
}


def add(stream: MessageStream, event: dict[str, Any]) -> bool:
    return stream.add(StreamEvent(event["type"], json.dumps(event).encode()))


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_makes_the_message_that_is_sent_whole(seed: int) -> None:
    reply = answer(REQUEST, seed=seed)
    stream = MessageStream(content=True)
    for event in stream_events(reply):
        assert not stream.is_complete
        assert add(stream, event)
    assert stream.is_complete
    assert stream.has_output
    assert stream.failure is None
    assert response_attributes(stream.answer(), content=True) == response_attributes(reply.message(), content=True)


def test_half_a_stream_has_no_output_tokens_and_no_stop_reason_but_its_text() -> None:
    reply = answer({**REQUEST, "tools": []}, seed=1)
    events = [event for event in stream_events(reply) if event["type"] not in ("message_delta", "message_stop")]
    stream = MessageStream(content=True)
    for event in events[:-3]:
        add(stream, event)
    found = response_attributes(stream.answer(), content=True)
    assert found[semconv.INPUT_TOKENS] > 0
    assert not {semconv.OUTPUT_TOKENS, semconv.FINISH_REASONS} & set(found)
    text = found[semconv.OUTPUT_MESSAGES][0]["parts"][-1]["content"]
    assert text
    assert reply.content[-1]["text"].startswith(text)


def test_a_tool_call_that_was_cut_keeps_its_arguments_as_text() -> None:
    stream = MessageStream(content=True)
    add(stream, {"type": "message_start", "message": {"usage": {"input_tokens": 1}}})
    block = {"type": "tool_use", "name": "s", "input": {}}
    add(stream, {"type": "content_block_start", "index": 0, "content_block": block})
    delta = {"type": "input_json_delta", "partial_json": '{"q": "so'}
    add(stream, {"type": "content_block_delta", "index": 0, "delta": delta})
    parts = response_attributes(stream.answer(), content=True)[semconv.OUTPUT_MESSAGES][0]["parts"]
    assert parts[0]["arguments"] == '{"q": "so'


def test_without_content_no_text_is_kept() -> None:
    stream = MessageStream(content=False)
    for event in stream_events(answer(REQUEST, seed=1)):
        add(stream, event)
    found = response_attributes(stream.answer(), content=False)
    assert semconv.OUTPUT_MESSAGES not in found
    assert "lithium" not in repr(vars(stream))
    assert found[semconv.OUTPUT_TOKENS] > 1
    assert stream.has_output


@pytest.mark.parametrize("start", [[], [{"type": "message_start", "message": {}}]])
def test_a_stream_without_the_start_of_its_message_is_not_understood(start: list[dict[str, Any]]) -> None:
    stream = MessageStream(content=True)
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}}
    assert all(add(stream, event) for event in [*start, end])
    assert not add(stream, {"type": "message_stop"})
    assert response_attributes(stream.answer(), content=True)[semconv.OUTPUT_TOKENS] == 25


@pytest.mark.parametrize(
    ("name", "data", "is_understood"),
    [
        (None, b"keep-alive", True),
        (None, b"[DONE]", True),
        ("ping", b"", True),
        ("ping", b"anything", True),
        ("message_delta", b"", True),
        ("content_block_delta", b'{"type": "content_block_delta", "index": 0, "delta": {"text": oops}}', False),
        ("done", b"[DONE]", False),
        ("message_delta", b'["a list"]', False),
        ("new", b'{"type": "new"}', False),
        ("content_block_delta", b'{"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta"}}', False),
        ("content_block_delta", b'{"type": "content_block_delta", "index": 0, "delta": {"text": "\\ud83d"}}', True),
        ("message_delta", b'{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "x": NaN}', True),
    ],
)
def test_what_the_client_ignores_or_reads_is_understood(name: str | None, data: bytes, is_understood: bool) -> None:
    stream = MessageStream(content=True)
    assert stream.add(StreamEvent(name, data)) is is_understood
    assert stream.failure is None


@pytest.mark.parametrize(
    ("name", "data", "failure"),
    [
        (
            "error",
            b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}',
            ("overloaded_error", "busy"),
        ),
        ("error", b'{"error": {"type": "overloaded_error", "message": "busy"}}', ("overloaded_error", "busy")),
        ("error", b'{"type": "overloaded_error", "message": "busy"}', ("overloaded_error", "busy")),
        ("error", b"upstream overloaded", ("api_error", "upstream overloaded")),
        ("error", b"", ("api_error", "api_error")),
        (
            None,
            b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}',
            ("overloaded_error", "busy"),
        ),
    ],
)
def test_an_error_event_has_a_type_and_a_message(name: str | None, data: bytes, failure: tuple[str, str]) -> None:
    stream = MessageStream(content=False)
    assert stream.add(StreamEvent(name, data))
    assert stream.failure == failure
