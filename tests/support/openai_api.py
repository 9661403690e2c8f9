"""Answers of the OpenAI API as it sends them: chat completions, responses, completions and embeddings, whole and streamed."""

import json
from typing import Any, Final

CHAT_USAGE: Final[dict[str, Any]] = {
    "prompt_tokens": 97,
    "completion_tokens": 25,
    "total_tokens": 122,
    "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 8, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
RESPONSE_USAGE: Final[dict[str, Any]] = {
    "input_tokens": 97,
    "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 8},
    "output_tokens": 25,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 122,
}
CALL: Final[dict[str, Any]] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"location": "Paris"}'},
}


def chat_answer(text: str | None, *, model: str = "gpt-5", calls: bool = False) -> dict[str, Any]:
    """A `chat.completion` with one choice: a text, or a tool call."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": None, "tool_calls": [CALL]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
    return {**_head("chat.completion", model), "choices": [choice], "usage": CHAT_USAGE}


def chat_stream(text: str, *, model: str = "gpt-5", usage: bool = True, calls: bool = False) -> list[bytes]:
    """The events of a streamed chat completion, each encoded: role, pieces, finish reason, usage if asked for, end."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if calls:
        first = {**CALL, "index": 0, "function": {"name": "weather", "arguments": ""}}
        rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"location"', ': "Paris"}')]
        deltas += [{"tool_calls": [one]} for one in (first, *rest)]
    else:
        deltas += [{"content": text[:5]}, {"content": text[5:]}]
    head = _head("chat.completion.chunk", model)
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]})
    if usage:
        chunks.append({**head, "choices": [], "usage": CHAT_USAGE})
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def response(text: str, *, status: str = "completed", calls: bool = False, **changes: Any) -> dict[str, Any]:
    """A `response` with a message or a function call."""
    item: dict[str, Any] = {
        "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }  # fmt: skip
    if calls:
        item = {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "status": "completed",
            "arguments": '{"location": "Paris"}',
        }  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "gpt-5", "output": [item],
        "usage": RESPONSE_USAGE, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **changes,
    }  # fmt: skip


def response_stream(text: str, *, calls: bool = False) -> list[bytes]:
    """The events of a streamed response, each encoded."""
    whole = response(text, calls=calls)
    item = whole["output"][0]
    part = {"item_id": item["id"], "output_index": 0}
    in_part = {**part, "content_index": 0}
    empty: dict[str, Any] = {"arguments": ""} if calls else {"content": []}
    inside: list[dict[str, Any]] = [
        {
            "type": "response.content_part.added",
            **in_part,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        {"type": "response.output_text.delta", **in_part, "delta": text[:5], "logprobs": []},
        {"type": "response.output_text.delta", **in_part, "delta": text[5:], "logprobs": []},
        {"type": "response.output_text.done", **in_part, "text": text, "logprobs": []},
    ]
    if calls:
        arguments = item["arguments"]
        done = {"arguments": arguments, "name": item["name"]}
        inside = [
            {"type": "response.function_call_arguments.delta", **part, "delta": arguments},
            {"type": "response.function_call_arguments.done", **part, **done},
        ]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", **empty}},
        *inside,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(events)
    ]


def completion(text: str) -> dict[str, Any]:
    """A `text_completion` of the older API."""
    choice = {"index": 0, "text": text, "finish_reason": "length", "logprobs": None}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return {**_head("text_completion", "davinci"), "choices": [choice], "usage": usage}


def embeddings() -> dict[str, Any]:
    """One vector."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}]
    return {"object": "list", "model": "embed-1", "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}


def _head(kind: str, model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model, "service_tier": "default"}
