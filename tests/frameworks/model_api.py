"""The model APIs that frameworks call, with fixed answers: OpenAI (chat, responses, embeddings), Anthropic, Gemini and Bedrock.

Groq and Mistral have OpenAI's chat API.

If a request offers a tool and has no result of one, the answer calls the first tool. Otherwise it is a text. Each answer has the
same usage, so the true sum of tokens is the number of requests times USAGE. It needs nothing but Python.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

INPUT_TOKENS: Final = 97
OUTPUT_TOKENS: Final = 25
CACHED_TOKENS: Final = 64
REASONING_TOKENS: Final = 5
TEXT: Final = "The weather in Paris is rainy."
ARGUMENTS: Final = {"location": "Paris"}


@contextmanager
def serving() -> Iterator[tuple[str, list[str]]]:
    """A server in a thread; gives its URL and the kinds of the requests that it has answered."""
    answered: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._send(b"{}", "application/json")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            path = self.path.partition("?")[0]
            for end, answer in _ANSWERS.items():
                if end in path:
                    answered.append(answer.__name__)
                    stream = bool(body.get("stream")) or "stream" in path
                    self._send(*answer(body, stream))
                    return
            self.send_error(404)

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", answered
    finally:
        server.shutdown()
        server.server_close()


def _json(document: object) -> tuple[bytes, str]:
    return json.dumps(document).encode(), "application/json"


def _sse(events: list[Any], *, named: bool = False, done: bool = False) -> tuple[bytes, str]:
    names = [f"event: {event['type']}\n" if named else "" for event in events]
    text = "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(names, events, strict=True))
    return (text + ("data: [DONE]\n\n" if done else "")).encode(), "text/event-stream"


def _arguments_for(tool: object) -> dict[str, Any]:
    return ARGUMENTS if "location" in json.dumps(tool) else {"answer": TEXT} if "answer" in json.dumps(tool) else {}


def chat(body: dict[str, Any], stream: bool) -> tuple[bytes, str]:
    """OpenAI's chat completions."""
    tools = body.get("tools") or []
    results = [message for message in body["messages"] if message["role"] == "tool"]
    usage = {
        "prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
    }  # fmt: skip
    message: dict[str, Any] = {"role": "assistant", "content": TEXT}
    if tools and not results:
        function = {"name": tools[0]["function"]["name"], "arguments": json.dumps(_arguments_for(tools[0]))}
        message = _calling("call_1", function)
    elif tools and tools[-1]["function"]["name"] == "final_answer":  # how agents of smolagents end
        function = {"name": "final_answer", "arguments": json.dumps({"answer": TEXT})}
        message = _calling("call_2", function)
    reason = "tool_calls" if message["content"] is None else "stop"
    head = {"id": "chatcmpl-1", "created": 1_790_000_000, "model": body["model"]}
    if not stream:
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        return _json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    delta = dict(message)
    if "tool_calls" in message:
        delta["tool_calls"] = [{"index": 0, **call} for call in message["tool_calls"]]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({"choices": [], "usage": usage})
    return _sse([{**head, "object": "chat.completion.chunk", **chunk} for chunk in chunks], done=True)


def _calling(call_id: str, function: dict[str, str]) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def responses(body: dict[str, Any], stream: bool) -> tuple[bytes, str]:
    """OpenAI's responses."""
    tools = [tool for tool in body.get("tools") or [] if tool.get("type") == "function"]
    asked = body.get("input")
    is_answered = isinstance(asked, list) and any(item.get("type") == "function_call_output" for item in asked)
    usage = {
        "input_tokens": INPUT_TOKENS, "input_tokens_details": {"cached_tokens": CACHED_TOKENS, "cache_write_tokens": 0},
        "output_tokens": OUTPUT_TOKENS, "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }  # fmt: skip
    item: dict[str, Any] = {
        "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": TEXT, "annotations": []}],
    }  # fmt: skip
    if tools and not is_answered:
        item = {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": tools[0]["name"], "status": "completed",
            "arguments": json.dumps(_arguments_for(tools[0])),
        }  # fmt: skip
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1_790_000_000, "status": "completed", "model": body["model"],
        "output": [item], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto", "tools": body.get("tools") or [],
    }  # fmt: skip
    if not stream:
        return _json(whole)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return _sse([{**event, "sequence_number": number} for number, event in enumerate(events)], named=True)


def embeddings(body: dict[str, Any], _: bool) -> tuple[bytes, str]:
    """OpenAI's embeddings."""
    count = len(body["input"]) if isinstance(body["input"], list) else 1
    data = [{"object": "embedding", "index": index, "embedding": [0.1, 0.2]} for index in range(count)]
    return _json(
        {"object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    )


def messages(body: dict[str, Any], stream: bool) -> tuple[bytes, str]:
    """Anthropic's messages. The input has 33 tokens beside the 64 that were read from the cache."""
    tools = body.get("tools") or []
    blocks = [
        block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]
    ]
    usage = {
        "input_tokens": INPUT_TOKENS - CACHED_TOKENS, "cache_read_input_tokens": CACHED_TOKENS,
        "cache_creation_input_tokens": 0, "output_tokens": OUTPUT_TOKENS,
    }  # fmt: skip
    content: dict[str, Any] = {"type": "text", "text": TEXT}
    reason = "end_turn"
    if tools and not any(block.get("type") == "tool_result" for block in blocks):
        content = {"type": "tool_use", "id": "toolu_1", "name": tools[0]["name"], "input": _arguments_for(tools[0])}
        reason = "tool_use"
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [content],
        "stop_reason": reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    if not stream:
        return _json(whole)
    is_text = content["type"] == "text"
    delta: dict[str, Any] = {"type": "text_delta", "text": TEXT}
    if not is_text:
        delta = {"type": "input_json_delta", "partial_json": json.dumps(content["input"])}
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    ended = {"stop_reason": reason, "stop_sequence": None}
    empty: dict[str, Any] = {**content, **({"text": ""} if is_text else {"input": {}})}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": OUTPUT_TOKENS}},
        {"type": "message_stop"},
    ]
    return _sse(events, named=True)


def generate(body: dict[str, Any], stream: bool) -> tuple[bytes, str]:
    """Gemini. Its candidates' tokens exclude the thoughts."""
    parts = [part for content in body.get("contents", []) for part in content.get("parts", [])]
    tools = body.get("tools") or []
    answer: dict[str, Any] = {"text": TEXT}
    if tools and not any("functionResponse" in part for part in parts):
        answer = {"functionCall": {"name": tools[0]["functionDeclarations"][0]["name"], "args": ARGUMENTS}}
    usage = {
        "promptTokenCount": INPUT_TOKENS, "candidatesTokenCount": OUTPUT_TOKENS - REASONING_TOKENS,
        "thoughtsTokenCount": REASONING_TOKENS, "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
        "cachedContentTokenCount": CACHED_TOKENS,
    }  # fmt: skip
    candidate = {"content": {"role": "model", "parts": [answer]}, "finishReason": "STOP", "index": 0}
    whole = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3-pro", "responseId": "resp_g1"}
    return _sse([whole]) if stream else _json(whole)


def converse(body: dict[str, Any], _: bool) -> tuple[bytes, str]:
    """Bedrock's converse. The input has 33 tokens beside the 64 that were read from the cache."""
    tools = (body.get("toolConfig") or {}).get("tools") or []
    usage = {
        "inputTokens": INPUT_TOKENS - CACHED_TOKENS, "outputTokens": OUTPUT_TOKENS, "totalTokens": INPUT_TOKENS + OUTPUT_TOKENS,
        "cacheReadInputTokens": CACHED_TOKENS, "cacheWriteInputTokens": 0,
    }  # fmt: skip
    block: dict[str, Any] = {"text": TEXT}
    if tools:
        block = {"toolUse": {"toolUseId": "tooluse_1", "name": tools[0]["toolSpec"]["name"], "input": ARGUMENTS}}
    return _json(
        {
            "output": {"message": {"role": "assistant", "content": [block]}},
            "stopReason": "tool_use" if tools else "end_turn",
            "usage": usage,
            "metrics": {"latencyMs": 1},
        }
    )


_ANSWERS: Final = {
    "/converse": converse,
    "/chat/completions": chat,
    "/responses": responses,
    "/embeddings": embeddings,
    "/messages": messages,
    "enerateContent": generate,
}
