"""The 19 scenarios with the `anthropic` client."""

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator
from typing import Any, Final

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from anthropic.resources.beta.messages import Messages

from prela_stream.instrumentation.anthropic.messages import COUNTED_TOKENS
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus, SpanType
from tests.support.model_api import Reply, sse
from tests.support.scenarios import DEADLINE, Expected, Row, raised

TEXT: Final = "The weather is rainy."
REQUEST: Final[dict[str, Any]] = {
    "model": "claude-x",
    "max_tokens": 64,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Weather in Paris?"}],
}
STREAMED: Final[dict[str, Any]] = {**REQUEST, "stream": True}
USAGE: Final = {
    "input_tokens": 10, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100, "output_tokens": 25,
}  # fmt: skip
OVERLOADED: Final = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
INVALID: Final = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too small"}}
CALL: Final = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}


def message(*blocks: dict[str, Any], stop: str | None = "end_turn", **changes: Any) -> dict[str, Any]:
    content = list(blocks) or [{"type": "text", "text": TEXT}]
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_sequence": None,
        "content": content, "stop_reason": stop, "usage": USAGE, **changes,
    }  # fmt: skip


def _delta(**delta: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def events(*, calls: bool = False) -> list[bytes]:
    """A streamed answer in two pieces, with a part of the text in the first one."""
    begun = message(stop=None, content=[], usage={**USAGE, "output_tokens": 1})
    block: dict[str, Any] = {**CALL, "input": {}} if calls else {"type": "text", "text": ""}
    deltas = [_delta(type="text_delta", text=TEXT[:5]), _delta(type="text_delta", text=TEXT[5:])]
    if calls:
        deltas = [_delta(type="input_json_delta", partial_json=part) for part in ('{"city": ', '"Paris"}')]
    ended = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    start = {"type": "message_start", "message": begun}
    return [
        sse(start, {"type": "content_block_start", "index": 0, "content_block": block}, deltas[0]),
        sse(
            deltas[1],
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 25}},
            {"type": "message_stop"},
        ),
    ]


def _json(body: object, **reply: Any) -> Reply:
    return Reply(json.dumps(body).encode(), **reply)


def _whole(_: threading.Event) -> list[Reply]:
    return [_json(message())]


def _stream(_: threading.Event) -> list[Reply]:
    return [Reply(pieces=events(), content_type="text/event-stream")]


def _held(gate: threading.Event) -> list[Reply]:
    return [Reply(pieces=events(), content_type="text/event-stream", gate=gate)]


def _truncated(_: threading.Event) -> list[Reply]:
    return [Reply(pieces=events()[:1], content_type="text/event-stream")]


def _retried(_: threading.Event) -> list[Reply]:
    busy = _json(OVERLOADED, status=529, headers={"retry-after-ms": "1"})
    return [busy, busy, _json(message())]


def _invalid(_: threading.Event) -> list[Reply]:
    return [_json(INVALID, status=400)]


def _counted(_: threading.Event) -> list[Reply]:
    return [_json({"input_tokens": 1110})]


def _run(_: threading.Event) -> list[Reply]:
    return [_json(message(CALL, stop="tool_use")), _json(message())]


def _run_streamed(_: threading.Event) -> list[Reply]:
    return [Reply(pieces=events(calls=calls), content_type="text/event-stream") for calls in (True, False)]


# --- what the application does, with the sync client ---


def create(client: Anthropic) -> Any:
    return client.messages.create(**REQUEST)


def create_stream(client: Anthropic) -> Any:
    stream = client.messages.create(**STREAMED)
    return type(stream), list(stream)


def helper_texts(client: Anthropic) -> Any:
    manager = client.messages.stream(**REQUEST)
    with manager as stream:
        return type(manager), type(stream), list(stream.text_stream)


def helper_events(client: Anthropic) -> Any:
    with client.messages.stream(**REQUEST) as stream:
        return list(stream), stream.current_message_snapshot


def helper_final(client: Anthropic) -> Any:
    with client.messages.stream(**REQUEST) as stream:
        return stream.get_final_message(), stream.get_final_text(), stream.request_id


def raw(client: Anthropic) -> Any:
    response = client.messages.with_raw_response.create(**REQUEST)
    return response.status_code, response.request_id, response.parse(), response.parse(), response.http_response.json()


def raw_stream(client: Anthropic) -> Any:
    return list(client.messages.with_raw_response.create(**STREAMED).parse())


def streaming_read(client: Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**REQUEST) as response:
        return response.read(), response.status_code


def beta_create(client: Anthropic) -> Any:
    return client.beta.messages.create(**REQUEST)


def count_tokens(client: Anthropic) -> Any:
    return client.messages.count_tokens(model="claude-x", messages=REQUEST["messages"])


def bad_request(client: Anthropic) -> Any:
    try:
        return client.messages.create(**REQUEST)
    except anthropic.BadRequestError as error:
        return raised(error), error.body, error.request_id


def _has_text(event: Any) -> bool:
    return bool(event.type == "content_block_delta")


def break_and_close(client: Anthropic) -> Any:
    seen = []
    with client.messages.create(**STREAMED) as stream:
        for event in stream:
            seen.append(event)
            if _has_text(event):
                break
    return seen


def break_and_drop(client: Anthropic) -> Any:
    seen = []
    for event in client.messages.create(**STREAMED):
        seen.append(event)
        if _has_text(event):
            break
    gc.collect()
    return seen


def never_iterated(client: Anthropic) -> Any:
    stream: Any = client.messages.create(**STREAMED)
    kind = type(stream)
    del stream
    gc.collect()
    return kind


def interrupted(client: Anthropic) -> Any:
    seen = []
    try:
        with client.messages.create(**STREAMED) as stream:
            for event in stream:
                seen.append(event)
                if _has_text(event):
                    raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        return seen, raised(error)
    return seen


@anthropic.beta_tool
def weather(city: str) -> str:
    """Finds.

    Args:
        city: Its name.
    """
    return f"rainy in {city}"


@anthropic.beta_async_tool(name="weather")
async def weather_async(city: str) -> str:
    """Finds.

    Args:
        city: Its name.
    """
    return f"rainy in {city}"


def tool_runner(client: Anthropic) -> Any:
    return list(client.beta.messages.tool_runner(**REQUEST, tools=[weather]))


def tool_runner_streaming(client: Anthropic) -> Any:
    runner = client.beta.messages.tool_runner(**REQUEST, tools=[weather], stream=True)
    return [(list(stream), stream.get_final_message()) for stream in runner]


# --- the same, with the async client ---


async def create_async(client: AsyncAnthropic) -> Any:
    return await client.messages.create(**REQUEST)


async def create_stream_async(client: AsyncAnthropic) -> Any:
    stream = await client.messages.create(**STREAMED)
    return type(stream), [event async for event in stream]


async def helper_texts_async(client: AsyncAnthropic) -> Any:
    manager = client.messages.stream(**REQUEST)
    async with manager as stream:
        return type(manager), type(stream), [text async for text in stream.text_stream]


async def helper_events_async(client: AsyncAnthropic) -> Any:
    async with client.messages.stream(**REQUEST) as stream:
        return [event async for event in stream], stream.current_message_snapshot


async def helper_final_async(client: AsyncAnthropic) -> Any:
    async with client.messages.stream(**REQUEST) as stream:
        return await stream.get_final_message(), await stream.get_final_text(), stream.request_id


async def raw_async(client: AsyncAnthropic) -> Any:
    response = await client.messages.with_raw_response.create(**REQUEST)
    parsed = [await response.parse(), await response.parse()]
    return response.status_code, response.request_id, *parsed, response.http_response.json()


async def raw_stream_async(client: AsyncAnthropic) -> Any:
    response = await client.messages.with_raw_response.create(**STREAMED)
    return [event async for event in await response.parse()]


async def streaming_read_async(client: AsyncAnthropic) -> Any:
    async with client.messages.with_streaming_response.create(**REQUEST) as response:
        return await response.read(), response.status_code


async def beta_create_async(client: AsyncAnthropic) -> Any:
    return await client.beta.messages.create(**REQUEST)


async def count_tokens_async(client: AsyncAnthropic) -> Any:
    return await client.messages.count_tokens(model="claude-x", messages=REQUEST["messages"])


async def bad_request_async(client: AsyncAnthropic) -> Any:
    try:
        return await client.messages.create(**REQUEST)
    except anthropic.BadRequestError as error:
        return raised(error), error.body, error.request_id


async def break_and_close_async(client: AsyncAnthropic) -> Any:
    seen = []
    async with await client.messages.create(**STREAMED) as stream:
        async for event in stream:
            seen.append(event)
            if _has_text(event):
                break
    return seen


async def break_and_drop_async(client: AsyncAnthropic) -> Any:
    seen = []
    async for event in await client.messages.create(**STREAMED):
        seen.append(event)
        if _has_text(event):
            break
    gc.collect()
    return seen


async def never_iterated_async(client: AsyncAnthropic) -> Any:
    stream: Any = await client.messages.create(**STREAMED)
    kind = type(stream)
    del stream
    gc.collect()
    return kind


async def cancelled(client: AsyncAnthropic) -> Any:
    seen: list[Any] = []
    started = asyncio.Event()

    async def read() -> None:
        async with await client.messages.create(**STREAMED) as stream:
            async for event in stream:
                seen.append(event)
                if _has_text(event):
                    started.set()

    task = asyncio.create_task(read())
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([task, waiting], timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError as error:
        return seen, raised(error)
    return seen


async def tool_runner_async(client: AsyncAnthropic) -> Any:
    return [turn async for turn in client.beta.messages.tool_runner(**REQUEST, tools=[weather_async])]


async def tool_runner_streaming_async(client: AsyncAnthropic) -> Any:
    runner: AsyncIterator[Any] = client.beta.messages.tool_runner(**REQUEST, tools=[weather_async], stream=True)
    return [([event async for event in stream], await stream.get_final_message()) async for stream in runner]


# --- what is recorded ---

_QUESTION: Final[dict[str, Any]] = {
    semconv.SYSTEM_INSTRUCTIONS: [{"type": "text", "content": "Be brief."}],
    semconv.INPUT_MESSAGES: [{"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]}],
}
_CLIENT: Final[dict[str, Any]] = {semconv.PROVIDER_NAME: "anthropic", "server.address": "127.0.0.1"}
_REQUESTED: Final[dict[str, Any]] = {
    **_CLIENT,
    **_QUESTION,
    semconv.OPERATION_NAME: "chat",
    semconv.REQUEST_MODEL: "claude-x",
    semconv.REQUEST_MAX_TOKENS: 64,
}
_RECEIVED: Final[dict[str, Any]] = {"http.response.status_code": 200, "anthropic.request.id": "req_1"}
_BEGUN: Final[dict[str, Any]] = {
    semconv.RESPONSE_ID: "msg_1",
    semconv.RESPONSE_MODEL: "claude-x",
    semconv.INPUT_TOKENS: 1110,
    semconv.CACHE_READ_TOKENS: 1000,
    semconv.CACHE_WRITE_TOKENS: 100,
}
_TURN: Final[dict[str, Any]] = {
    semconv.OUTPUT_TOKENS: 25,
    semconv.FINISH_REASONS: ["stop"],
    semconv.RAW_FINISH_REASONS: ["end_turn"],
    semconv.OUTPUT_MESSAGES: [
        {"role": "assistant", "parts": [{"type": "text", "content": TEXT}], "finish_reason": "stop"}
    ],
}
_WHOLE: Final[dict[str, Any]] = {**_REQUESTED, **_RECEIVED, **_BEGUN, **_TURN}
_STREAM: Final[dict[str, Any]] = {semconv.REQUEST_STREAM: True}
_HALF: Final[dict[str, Any]] = {
    **_REQUESTED,
    **_RECEIVED,
    **_BEGUN,
    **_STREAM,
    semconv.OUTPUT_MESSAGES: [{"role": "assistant", "parts": [{"type": "text", "content": TEXT[:5]}]}],
}


def _chat(attributes: dict[str, Any], **changes: Any) -> Expected:
    return Expected("chat claude-x", SpanType.LLM, attributes, **changes)


_ANSWERED: Final = (_chat(_WHOLE),)
_READ: Final = (_chat({**_WHOLE, **_STREAM}),)
_CLOSED: Final = (_chat({**_HALF, "prela.stream.closed_early": True}),)
_CUT: Final = "the stream ended before its message_stop event, so the answer is not complete"
_ERROR: Final = {semconv.FINISH_REASONS: ["error"]}


def _spans_of_run(**more: Any) -> tuple[Expected, ...]:
    tool = {
        "type": "function", "name": "weather", "description": "Finds.",
        "parameters": {
            "additionalProperties": False, "type": "object", "required": ["city"],
            "properties": {"city": {"description": "Its name.", "title": "City", "type": "string"}},
        },
    }  # fmt: skip
    call = {"type": "tool_call", "id": "toolu_1", "name": "weather", "arguments": {"city": "Paris"}}
    result = {"type": "tool_call_response", "id": "toolu_1", "response": "rainy in Paris"}
    asked: dict[str, Any] = {
        **_WHOLE,
        **more,
        semconv.TOOL_DEFINITIONS: [tool],
        semconv.FINISH_REASONS: ["tool_call"],
        semconv.RAW_FINISH_REASONS: ["tool_use"],
        semconv.OUTPUT_MESSAGES: [{"role": "assistant", "parts": [call], "finish_reason": "tool_call"}],
    }
    agent = {
        semconv.PROVIDER_NAME: "anthropic",
        semconv.OPERATION_NAME: "invoke_agent",
        semconv.REQUEST_MODEL: "claude-x",
        semconv.AGENT_NAME: "tool_runner",
    }
    executed = {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: "weather",
        semconv.TOOL_CALL_ID: "toolu_1",
        semconv.TOOL_CALL_ARGUMENTS: {"city": "Paris"},
        semconv.TOOL_CALL_RESULT: "rainy in Paris",
    }
    answered: dict[str, Any] = {**asked, **_TURN}
    if hasattr(Messages, "thread"):  # the server holds the conversation so far, with instructions and tools
        del answered[semconv.SYSTEM_INSTRUCTIONS], answered[semconv.TOOL_DEFINITIONS]
        answered[semconv.REQUEST_PREVIOUS_RESPONSE_ID] = "msg_1"
        answered[semconv.INPUT_MESSAGES] = [{"role": "user", "parts": [result]}]
    else:
        answered[semconv.INPUT_MESSAGES] = [
            *_QUESTION[semconv.INPUT_MESSAGES],
            {"role": "assistant", "parts": [call]},
            {"role": "user", "parts": [result]},
        ]
    return (
        Expected("tool_runner", SpanType.AGENT, agent, events=()),
        _chat(asked, is_below_agent=True),
        Expected("weather", SpanType.TOOL, executed, events=(), is_below_agent=True),
        _chat(answered, is_below_agent=True),
    )


_COUNTED = {**_CLIENT, **_RECEIVED, semconv.REQUEST_MODEL: "claude-x", COUNTED_TOKENS: 1110}
ROWS: Final[dict[str, Row]] = {
    "create": Row(_whole, create, create_async, _ANSWERED),
    "create a stream and read it": Row(_stream, create_stream, create_stream_async, _READ),
    "stream helper: texts": Row(_stream, helper_texts, helper_texts_async, _READ),
    "stream helper: events": Row(_stream, helper_events, helper_events_async, _READ),
    "stream helper: final answer": Row(_stream, helper_final, helper_final_async, _READ),
    "raw response": Row(_whole, raw, raw_async, _ANSWERED),
    "raw response of a stream": Row(_stream, raw_stream, raw_stream_async, _READ),
    "streaming response and read()": Row(_whole, streaming_read, streaming_read_async, _ANSWERED),
    "beta create": Row(_whole, beta_create, beta_create_async, _ANSWERED),
    "count tokens": Row(
        _counted,
        count_tokens,
        count_tokens_async,
        (Expected("count_tokens claude-x", SpanType.CUSTOM, _COUNTED, events=()),),
    ),
    "overloaded twice, then an answer": Row(
        _retried,
        create,
        create_async,
        (_chat({**_WHOLE, semconv.RESEND_COUNT: 2}, events=("llm.request", "retry 529", "retry 529", "llm.response")),),
    ),
    "400": Row(
        _invalid,
        bad_request,
        bad_request_async,
        (
            _chat(
                {
                    **_REQUESTED,
                    **_RECEIVED,
                    **_ERROR,
                    "http.response.status_code": 400,
                    semconv.ERROR_TYPE: "invalid_request_error",
                    semconv.ERROR_MESSAGE: f"Error code: 400 - {INVALID}",
                },
                status=SpanStatus.ERROR,
                message=f"Error code: 400 - {INVALID}",
                events=("llm.request",),
            ),
        ),
    ),
    "break and close": Row(_held, break_and_close, break_and_close_async, _CLOSED),
    "break and drop": Row(_held, break_and_drop, break_and_drop_async, _CLOSED),
    "never iterated": Row(
        _held,
        never_iterated,
        never_iterated_async,
        (
            _chat(
                {**_REQUESTED, **_RECEIVED, **_STREAM, "prela.stream.closed_early": True},
                events=("llm.request",),
            ),
        ),
    ),
    "cancelled in the middle": Row(
        _held,
        interrupted,
        cancelled,
        (_chat({**_HALF, **_ERROR}, status=SpanStatus.CANCELLED, message=""),),
    ),
    "truncated by the server": Row(
        _truncated,
        create_stream,
        create_stream_async,
        (
            _chat(
                {**_HALF, **_ERROR, semconv.ERROR_TYPE: "truncated_stream", semconv.ERROR_MESSAGE: _CUT},
                status=SpanStatus.ERROR,
                message=_CUT,
            ),
        ),
    ),
    "tool runner": Row(_run, tool_runner, tool_runner_async, _spans_of_run()),
    "tool runner with streams": Row(
        _run_streamed, tool_runner_streaming, tool_runner_streaming_async, _spans_of_run(**_STREAM)
    ),
}
