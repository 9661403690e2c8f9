"""The scripted model: deterministic, well-formed, and its conversations end."""

import json
from typing import Any

from anthropic.types import Message

from prela_stream.demo.model_script import Answer, answer, count_tokens, stream_events

TOOLS = [
    {"name": "search", "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}}},
    {"name": "calculator", "input_schema": {"type": "object", "properties": {"expression": {"type": "string"}}}},
]


def request(text: str = "What about lithium?", **more: Any) -> dict[str, Any]:
    return {"model": "claude-demo", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}


def next_turn(body: dict[str, Any], reply: Answer) -> dict[str, Any]:
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "42"}
        for block in reply.content
        if block["type"] == "tool_use"
    ]
    turn = [{"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]
    return {**body, "messages": [*body["messages"], *turn]}


def test_the_same_request_and_seed_give_the_same_answer_and_another_seed_another_one() -> None:
    assert answer(request(), seed=1) == answer(request(), seed=1)
    assert len({answer(request(), seed=seed).content[0]["text"] for seed in range(20)}) > 5


def test_a_conversation_with_tools_ends_after_at_most_three_rounds() -> None:
    for seed in range(30):
        body = request(tools=TOOLS)
        rounds = 0
        while (reply := answer(body, seed=seed)).stop_reason == "tool_use":
            rounds += 1
            body = next_turn(body, reply)
        assert 1 <= rounds <= 3
        assert reply.stop_reason == "end_turn"


def test_a_runaway_asks_for_the_same_tool_with_the_same_arguments() -> None:
    body = request(tools=TOOLS)
    calls = []
    for _ in range(8):
        reply = answer(body, seed=3, behaviour="runaway")
        assert reply.stop_reason == "tool_use"
        calls += [(block["name"], json.dumps(block["input"])) for block in reply.content if block["type"] == "tool_use"]
        body = next_turn(body, reply)
    assert len(calls) == 8
    assert len(set(calls)) == 1


def test_the_stream_holds_what_the_message_holds() -> None:
    reply = answer(request(tools=TOOLS, thinking={"type": "adaptive"}), seed=2)
    text, arguments, thinking = "", "", ""
    events = list(stream_events(reply))
    for event in events:
        if event["type"] == "content_block_delta":
            text += event["delta"].get("text", "")
            arguments += event["delta"].get("partial_json", "")
            thinking += event["delta"].get("thinking", "")
    assert [events[0]["type"], events[-2]["type"], events[-1]["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["usage"]["output_tokens"] == 1  # the API's placeholder; the truth comes last
    assert events[-2]["usage"]["output_tokens"] == reply.usage["output_tokens"] > 1
    assert thinking == reply.content[0]["thinking"]
    assert text == reply.content[1]["text"]
    assert json.loads(arguments) == reply.content[2]["input"]


def test_later_turns_read_from_the_cache_and_all_input_is_counted() -> None:
    body = request(tools=TOOLS, system="You are careful. " * 20)
    first = answer(body, seed=1)
    second = answer(next_turn(body, first), seed=1)
    assert first.usage["cache_creation_input_tokens"] > 0
    assert first.usage["cache_read_input_tokens"] == 0
    assert second.usage["cache_read_input_tokens"] > first.usage["cache_creation_input_tokens"]
    keys = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert sum(first.usage[key] for key in keys) == count_tokens(body)


def test_the_client_library_accepts_the_message() -> None:
    reply = answer(request(tools=TOOLS, thinking={"type": "adaptive"}), seed=2)
    message = Message.model_validate(reply.message())
    assert [block.type for block in message.content][:3] == ["thinking", "text", "tool_use"]
