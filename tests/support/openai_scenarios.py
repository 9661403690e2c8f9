"""The 19 scenarios with the `openai` client: with Chat Completions where the API has them, else with Responses."""

import asyncio
import gc
import json
import threading
from typing import Any, Final

import openai
from openai import AsyncOpenAI, OpenAI

from prela_stream.instrumentation.openai.responses import COUNTED_TOKENS
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus, SpanType
from tests.support import openai_api
from tests.support.model_api import Reply
from tests.support.scenarios import DEADLINE, Expected, Row, raised

TEXT: Final = "The weather is rainy."
REQUEST: Final[dict[str, Any]] = {
    "model": "gpt-5",
    "max_tokens": 64,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Paris?"}],
}
HELPER: Final[dict[str, Any]] = {**REQUEST, "stream_options": {"include_usage": True}}
STREAMED: Final[dict[str, Any]] = {**HELPER, "stream": True}
ASK: Final[dict[str, Any]] = {"model": "gpt-5", "input": "Weather in Paris?", "instructions": "Be brief."}
COUNT: Final[dict[str, Any]] = {"model": "gpt-5", "input": "Weather in Paris?"}
INVALID: Final = {"message": "max_tokens: too small", "type": "invalid_request_error", "code": "small", "param": None}
TOOL: Final[dict[str, Any]] = {
    "type": "function", "name": "weather", "description": "Finds.", "strict": False,
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
}  # fmt: skip


def _json(body: object, **reply: Any) -> Reply:
    return Reply(json.dumps(body).encode(), **reply)


def _events(pieces: list[bytes], **reply: Any) -> Reply:
    return Reply(pieces=pieces, content_type="text/event-stream", **reply)


def _halves() -> list[bytes]:
    """A streamed answer in two pieces, with a part of the text in the first one."""
    pieces = openai_api.chat_stream(TEXT)
    return [b"".join(pieces[:2]), b"".join(pieces[2:])]


def _whole(_: threading.Event) -> list[Reply]:
    return [_json(openai_api.chat_answer(TEXT))]


def _stream(_: threading.Event) -> list[Reply]:
    return [_events(_halves())]


def _held(gate: threading.Event) -> list[Reply]:
    return [_events(_halves(), gate=gate)]


def _truncated(_: threading.Event) -> list[Reply]:
    return [_events(_halves()[:1])]


def _response(_: threading.Event) -> list[Reply]:
    return [_json(openai_api.response(TEXT))]


def _retried(_: threading.Event) -> list[Reply]:
    busy = _json({"error": {"message": "Overloaded"}}, status=503, headers={"retry-after-ms": "1"})
    return [busy, busy, _json(openai_api.chat_answer(TEXT))]


def _invalid(_: threading.Event) -> list[Reply]:
    return [_json({"error": INVALID}, status=400)]


def _counted(_: threading.Event) -> list[Reply]:
    return [_json({"object": "response.input_tokens", "input_tokens": 97})]


def _run(_: threading.Event) -> list[Reply]:
    return [_json(openai_api.response("", calls=True)), _json(openai_api.response(TEXT))]


def _run_streamed(_: threading.Event) -> list[Reply]:
    return [_events(openai_api.response_stream("", calls=True)), _events(openai_api.response_stream(TEXT))]


# --- what the application does, with the sync client ---


def create(client: OpenAI) -> Any:
    return client.chat.completions.create(**REQUEST)


def create_stream(client: OpenAI) -> Any:
    stream = client.chat.completions.create(**STREAMED)
    return type(stream), list(stream)


def helper_texts(client: OpenAI) -> Any:
    manager = client.chat.completions.stream(**HELPER)
    with manager as stream:
        return type(manager), type(stream), [event.delta for event in stream if event.type == "content.delta"]


def helper_events(client: OpenAI) -> Any:
    with client.chat.completions.stream(**HELPER) as stream:
        return list(stream), stream.current_completion_snapshot


def helper_final(client: OpenAI) -> Any:
    with client.chat.completions.stream(**HELPER) as stream:
        return stream.get_final_completion()


def raw(client: OpenAI) -> Any:
    response = client.chat.completions.with_raw_response.create(**REQUEST)
    return response.status_code, response.request_id, response.parse(), response.parse(), response.http_response.json()


def raw_stream(client: OpenAI) -> Any:
    return list(client.chat.completions.with_raw_response.create(**STREAMED).parse())


def streaming_read(client: OpenAI) -> Any:
    with client.chat.completions.with_streaming_response.create(**REQUEST) as response:
        return response.read(), response.status_code


def beta_create(client: OpenAI) -> Any:
    return client.beta.responses.create(**ASK)


def count_tokens(client: OpenAI) -> Any:
    return client.responses.input_tokens.count(**COUNT)


def bad_request(client: OpenAI) -> Any:
    try:
        return client.chat.completions.create(**REQUEST)
    except openai.BadRequestError as error:
        return raised(error), error.body, error.request_id, error.code


def _has_text(chunk: Any) -> bool:
    return bool(chunk.choices and chunk.choices[0].delta.content)


def break_and_close(client: OpenAI) -> Any:
    seen = []
    with client.chat.completions.create(**STREAMED) as stream:
        for chunk in stream:
            seen.append(chunk)
            if _has_text(chunk):
                break
    return seen


def break_and_drop(client: OpenAI) -> Any:
    seen = []
    for chunk in client.chat.completions.create(**STREAMED):
        seen.append(chunk)
        if _has_text(chunk):
            break
    gc.collect()
    return seen


def never_iterated(client: OpenAI) -> Any:
    stream: Any = client.chat.completions.create(**STREAMED)
    kind = type(stream)
    del stream
    gc.collect()
    return kind


def interrupted(client: OpenAI) -> Any:
    seen = []
    try:
        with client.chat.completions.create(**STREAMED) as stream:
            for chunk in stream:
                seen.append(chunk)
                if _has_text(chunk):
                    raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        return seen, raised(error)
    return seen


def weather(arguments: dict[str, object]) -> str:
    return f"rainy in {arguments['location']}"


async def weather_async(arguments: dict[str, object]) -> str:
    return f"rainy in {arguments['location']}"


def tool_runner(client: OpenAI) -> Any:
    from openai.lib.responses_tool_runner import RegisteredFunction, ResponsesToolRunner

    return ResponsesToolRunner(functions=[RegisteredFunction(TOOL, weather)]).run(client, ASK)  # type: ignore[arg-type]


def tool_runner_streaming(client: OpenAI) -> Any:
    from openai.lib.responses_tool_runner import RegisteredFunction, ResponsesToolRunner

    seen: list[Any] = []
    runner = ResponsesToolRunner(functions=[RegisteredFunction(TOOL, weather)])  # type: ignore[arg-type]
    turns = list(runner.iterate(client, ASK, stream=True, on_event=seen.append))  # type: ignore[arg-type]
    return seen, [(turn.response, turn.step, turn.completed_call_ids) for turn in turns]


# --- the same, with the async client ---


async def create_async(client: AsyncOpenAI) -> Any:
    return await client.chat.completions.create(**REQUEST)


async def create_stream_async(client: AsyncOpenAI) -> Any:
    stream = await client.chat.completions.create(**STREAMED)
    return type(stream), [chunk async for chunk in stream]


async def helper_texts_async(client: AsyncOpenAI) -> Any:
    manager = client.chat.completions.stream(**HELPER)
    async with manager as stream:
        return type(manager), type(stream), [event.delta async for event in stream if event.type == "content.delta"]


async def helper_events_async(client: AsyncOpenAI) -> Any:
    async with client.chat.completions.stream(**HELPER) as stream:
        return [event async for event in stream], stream.current_completion_snapshot


async def helper_final_async(client: AsyncOpenAI) -> Any:
    async with client.chat.completions.stream(**HELPER) as stream:
        return await stream.get_final_completion()


async def raw_async(client: AsyncOpenAI) -> Any:
    response = await client.chat.completions.with_raw_response.create(**REQUEST)
    return response.status_code, response.request_id, response.parse(), response.parse(), response.http_response.json()


async def raw_stream_async(client: AsyncOpenAI) -> Any:
    response = await client.chat.completions.with_raw_response.create(**STREAMED)
    return [chunk async for chunk in response.parse()]


async def streaming_read_async(client: AsyncOpenAI) -> Any:
    async with client.chat.completions.with_streaming_response.create(**REQUEST) as response:
        return await response.read(), response.status_code


async def beta_create_async(client: AsyncOpenAI) -> Any:
    return await client.beta.responses.create(**ASK)


async def count_tokens_async(client: AsyncOpenAI) -> Any:
    return await client.responses.input_tokens.count(**COUNT)


async def bad_request_async(client: AsyncOpenAI) -> Any:
    try:
        return await client.chat.completions.create(**REQUEST)
    except openai.BadRequestError as error:
        return raised(error), error.body, error.request_id, error.code


async def break_and_close_async(client: AsyncOpenAI) -> Any:
    seen = []
    async with await client.chat.completions.create(**STREAMED) as stream:
        async for chunk in stream:
            seen.append(chunk)
            if _has_text(chunk):
                break
    return seen


async def break_and_drop_async(client: AsyncOpenAI) -> Any:
    seen = []
    async for chunk in await client.chat.completions.create(**STREAMED):
        seen.append(chunk)
        if _has_text(chunk):
            break
    gc.collect()
    return seen


async def never_iterated_async(client: AsyncOpenAI) -> Any:
    stream: Any = await client.chat.completions.create(**STREAMED)
    kind = type(stream)
    del stream
    gc.collect()
    return kind


async def cancelled(client: AsyncOpenAI) -> Any:
    seen: list[Any] = []
    started = asyncio.Event()

    async def read() -> None:
        async with await client.chat.completions.create(**STREAMED) as stream:
            async for chunk in stream:
                seen.append(chunk)
                if _has_text(chunk):
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


async def tool_runner_async(client: AsyncOpenAI) -> Any:
    from openai.lib.responses_tool_runner import AsyncRegisteredFunction, AsyncResponsesToolRunner

    functions = [AsyncRegisteredFunction(TOOL, weather_async)]  # type: ignore[arg-type]
    return await AsyncResponsesToolRunner(functions=functions).run(client, ASK)  # type: ignore[arg-type]


async def tool_runner_streaming_async(client: AsyncOpenAI) -> Any:
    from openai.lib.responses_tool_runner import AsyncRegisteredFunction, AsyncResponsesToolRunner

    seen: list[Any] = []

    async def note(event: Any) -> None:
        seen.append(event)

    runner = AsyncResponsesToolRunner(functions=[AsyncRegisteredFunction(TOOL, weather_async)])  # type: ignore[arg-type]
    turns = [turn async for turn in runner.iterate(client, ASK, stream=True, on_event=note)]  # type: ignore[arg-type]
    return seen, [(turn.response, turn.step, turn.completed_call_ids) for turn in turns]


# --- what is recorded ---

_CLIENT: Final[dict[str, Any]] = {semconv.PROVIDER_NAME: "openai", "server.address": "127.0.0.1"}
_BRIEF: Final = {"type": "text", "content": "Be brief."}
_QUESTION: Final = {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]}
_RECEIVED: Final[dict[str, Any]] = {"http.response.status_code": 200, "openai.request.id": "req_1"}
_CHAT: Final[dict[str, Any]] = {
    **_CLIENT,
    "openai.api.type": "chat_completions",
    semconv.OPERATION_NAME: "chat",
    semconv.REQUEST_MODEL: "gpt-5",
    semconv.REQUEST_MAX_TOKENS: 64,
    semconv.INPUT_MESSAGES: [{"role": "system", "parts": [_BRIEF]}, _QUESTION],
}
_BEGUN: Final[dict[str, Any]] = {
    **_RECEIVED,
    semconv.RESPONSE_ID: "chatcmpl-1",
    semconv.RESPONSE_MODEL: "gpt-5",
    "openai.response.service_tier": "default",
}
_USAGE: Final[dict[str, Any]] = {
    semconv.INPUT_TOKENS: 97,
    semconv.CACHE_READ_TOKENS: 64,
    semconv.CACHE_WRITE_TOKENS: 8,
    semconv.OUTPUT_TOKENS: 25,
    semconv.REASONING_TOKENS: 5,
}
_ANSWER: Final[dict[str, Any]] = {
    semconv.FINISH_REASONS: ["stop"],
    semconv.OUTPUT_MESSAGES: [
        {"role": "assistant", "parts": [{"type": "text", "content": TEXT}], "finish_reason": "stop"}
    ],
}
_WHOLE: Final[dict[str, Any]] = {
    **_CHAT, **_BEGUN, **_USAGE, **_ANSWER, "gen_ai.usage.audio.input_tokens": 0,
}  # fmt: skip
_STREAM: Final[dict[str, Any]] = {semconv.REQUEST_STREAM: True}
_HALF: Final[dict[str, Any]] = {
    **_CHAT,
    **_BEGUN,
    **_STREAM,
    semconv.OUTPUT_MESSAGES: [{"role": "assistant", "parts": [{"type": "text", "content": TEXT[:5]}]}],
}
_RESPONSE: Final[dict[str, Any]] = {
    **_CLIENT,
    **_RECEIVED,
    **_USAGE,
    **_ANSWER,
    "openai.api.type": "responses",
    semconv.OPERATION_NAME: "chat",
    semconv.REQUEST_MODEL: "gpt-5",
    semconv.RESPONSE_MODEL: "gpt-5",
    semconv.RESPONSE_ID: "resp_1",
    semconv.RESPONSE_STATUS: "completed",
    semconv.RAW_FINISH_REASONS: ["completed"],
    semconv.SYSTEM_INSTRUCTIONS: [_BRIEF],
    semconv.INPUT_MESSAGES: [_QUESTION],
}
_ERROR: Final = {semconv.FINISH_REASONS: ["error"]}
_CUT: Final = "the stream ended before its [DONE] event, so the answer is not complete"


def _chat(attributes: dict[str, Any], **changes: Any) -> Expected:
    return Expected("chat gpt-5", SpanType.LLM, attributes, **changes)


def _spans_of_run(**more: Any) -> tuple[Expected, ...]:
    call = {"type": "tool_call", "name": "weather", "arguments": {"location": "Paris"}, "id": "call_1"}
    result = {"type": "tool_call_response", "response": "rainy in Paris", "id": "call_1"}
    definition = {key: TOOL[key] for key in ("type", "name", "description", "parameters")}
    turn = {**_RESPONSE, **more, semconv.TOOL_DEFINITIONS: [definition]}
    asked: dict[str, Any] = {
        **turn,
        semconv.FINISH_REASONS: ["tool_call"],
        semconv.OUTPUT_MESSAGES: [{"role": "assistant", "parts": [call], "finish_reason": "tool_call"}],
    }
    history = [_QUESTION, {"role": "assistant", "parts": [call]}, {"role": "tool", "parts": [result]}]
    agent = {
        semconv.PROVIDER_NAME: "openai",
        semconv.OPERATION_NAME: "invoke_agent",
        semconv.REQUEST_MODEL: "gpt-5",
        semconv.AGENT_NAME: "responses_tool_runner",
    }
    executed = {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: "weather",
        semconv.TOOL_CALL_ID: "call_1",
        semconv.TOOL_CALL_ARGUMENTS: {"location": "Paris"},
        semconv.TOOL_CALL_RESULT: "rainy in Paris",
    }
    return (
        Expected("responses_tool_runner", SpanType.AGENT, agent, events=()),
        _chat(asked, is_below_agent=True),
        Expected("weather", SpanType.TOOL, executed, events=(), is_below_agent=True),
        _chat({**turn, semconv.INPUT_MESSAGES: history}, is_below_agent=True),
    )


_ANSWERED: Final = (_chat(_WHOLE),)
_READ: Final = (_chat({**_WHOLE, **_STREAM}),)
_CLOSED: Final = (_chat({**_HALF, "prela.stream.closed_early": True}),)
_COUNTED: Final = {
    **_CLIENT, **_RECEIVED, "openai.api.type": "responses", semconv.REQUEST_MODEL: "gpt-5", COUNTED_TOKENS: 97,
}  # fmt: skip
_REFUSED: Final = f"Error code: 400 - {INVALID['message'] if openai.__version__ >= '3' else {'error': INVALID}}"
ROWS: Final[dict[str, Row]] = {
    "create": Row(_whole, create, create_async, _ANSWERED),
    "create a stream and read it": Row(_stream, create_stream, create_stream_async, _READ),
    "stream helper: texts": Row(_stream, helper_texts, helper_texts_async, _READ, since="1.92"),
    "stream helper: events": Row(_stream, helper_events, helper_events_async, _READ, since="1.92"),
    "stream helper: final answer": Row(_stream, helper_final, helper_final_async, _READ, since="1.92"),
    "raw response": Row(_whole, raw, raw_async, _ANSWERED),
    "raw response of a stream": Row(_stream, raw_stream, raw_stream_async, _READ),
    "streaming response and read()": Row(_whole, streaming_read, streaming_read_async, _ANSWERED),
    "beta create": Row(_response, beta_create, beta_create_async, (_chat(_RESPONSE),), since="3.54"),
    "count tokens": Row(
        _counted,
        count_tokens,
        count_tokens_async,
        (Expected("count_tokens gpt-5", SpanType.CUSTOM, _COUNTED, events=()),),
        since="3.54",
    ),
    "overloaded twice, then an answer": Row(
        _retried,
        create,
        create_async,
        (_chat({**_WHOLE, semconv.RESEND_COUNT: 2}, events=("llm.request", "retry 503", "retry 503", "llm.response")),),
    ),
    "400": Row(
        _invalid,
        bad_request,
        bad_request_async,
        (
            _chat(
                {
                    **_CHAT,
                    **_RECEIVED,
                    **_ERROR,
                    "http.response.status_code": 400,
                    semconv.ERROR_TYPE: "invalid_request_error",
                    semconv.ERROR_MESSAGE: _REFUSED,
                },
                status=SpanStatus.ERROR,
                message=_REFUSED,
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
        (_chat({**_CHAT, **_RECEIVED, **_STREAM, "prela.stream.closed_early": True}, events=("llm.request",)),),
    ),
    "cancelled in the middle": Row(
        _held, interrupted, cancelled, (_chat({**_HALF, **_ERROR}, status=SpanStatus.CANCELLED, message=""),)
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
    "tool runner": Row(_run, tool_runner, tool_runner_async, _spans_of_run(), since="3.54"),
    "tool runner with streams": Row(
        _run_streamed,
        tool_runner_streaming,
        tool_runner_streaming_async,
        _spans_of_run(**_STREAM),
        since="3.54",
    ),
}
