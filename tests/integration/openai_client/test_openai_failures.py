"""Calls of the OpenAI API that fail, are left early or are cancelled: no difference for the application, and a true span."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from prela_stream.instrumentation.callers import claim, release
from prela_stream.instrumentation.llm_call import CLOSED_EARLY, UNREAD_PARTS
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus
from tests.integration.openai_client.conftest import Instrumented
from tests.support import openai_api
from tests.support.model_api import ModelApi, Reply

TEXT = "The weather is rainy."
CHAT: dict[str, Any] = {"model": "gpt-5", "messages": [{"role": "user", "content": "Weather?"}]}
ASK: dict[str, Any] = {"model": "gpt-5", "input": "Weather?"}
DEADLINE = 30


def pieces_of(api_name: str) -> tuple[bytes, bytes]:
    """A streamed answer in two pieces, with a part of the text in the first one."""
    events = openai_api.chat_stream(TEXT) if api_name == "chat" else openai_api.response_stream(TEXT)
    cut = 2 if api_name == "chat" else 4
    return b"".join(events[:cut]), b"".join(events[cut:])


def open_stream(client: OpenAI, api_name: str) -> Any:
    if api_name == "chat":
        return client.chat.completions.create(**CHAT, stream=True)
    return client.responses.create(**ASK, stream=True)


async def open_stream_async(client: AsyncOpenAI, api_name: str) -> Any:
    if api_name == "chat":
        return await client.chat.completions.create(**CHAT, stream=True)
    return await client.responses.create(**ASK, stream=True)


def check_partial(span: SpanData, status: SpanStatus, reasons: list[str] | None) -> None:
    """What was received is recorded, and nothing is made up."""
    found = span.attributes
    assert (span.status, found.get(semconv.FINISH_REASONS)) == (status, reasons)
    assert semconv.OUTPUT_TOKENS not in found
    ((message,),) = [found[semconv.OUTPUT_MESSAGES]]
    assert message["parts"] == [{"type": "text", "content": TEXT[:5]}]


both = pytest.mark.parametrize("api_name", ["chat", "responses"])


@both
def test_a_stream_that_is_left_early(api: ModelApi, instrumented: Instrumented, api_name: str) -> None:
    gate = threading.Event()
    api.reply = Reply(pieces=list(pieces_of(api_name)), content_type="text/event-stream", gate=gate)
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        with open_stream(client, api_name) as stream:
            for event in stream:
                if TEXT[:5] in repr(event):
                    break
        gate.set()
    (span,) = captured.spans
    check_partial(span, SpanStatus.SUCCESS, None)
    assert span.attributes[CLOSED_EARLY] is True


@both
@pytest.mark.parametrize("is_begun", [True, False], ids=["left early", "never read"])
async def test_an_async_stream_that_is_not_read_to_its_end(
    api: ModelApi, instrumented: Instrumented, api_name: str, is_begun: bool
) -> None:
    gate = threading.Event()
    api.reply = Reply(pieces=list(pieces_of(api_name)), content_type="text/event-stream", gate=gate)
    async with AsyncOpenAI(base_url=api.url, api_key="k") as client:
        with instrumented() as captured:
            async with await open_stream_async(client, api_name) as stream:
                if is_begun:
                    await anext(aiter(stream))
            (span,) = captured.spans
            gate.set()
    assert (span.status, span.attributes[CLOSED_EARLY]) == (SpanStatus.SUCCESS, True)
    assert semconv.OUTPUT_TOKENS not in span.attributes


@both
async def test_a_task_that_is_cancelled(api: ModelApi, instrumented: Instrumented, api_name: str) -> None:
    gate, started = threading.Event(), asyncio.Event()
    api.reply = Reply(pieces=list(pieces_of(api_name)), content_type="text/event-stream", gate=gate)

    async def read(client: AsyncOpenAI) -> None:
        async with await open_stream_async(client, api_name) as stream:
            async for event in stream:
                if TEXT[:5] in repr(event):
                    started.set()

    async with AsyncOpenAI(base_url=api.url, api_key="k") as client:
        with instrumented() as captured:
            task = asyncio.create_task(read(client))
            await asyncio.wait_for(started.wait(), DEADLINE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.set()
    (span,) = captured.spans
    check_partial(span, SpanStatus.CANCELLED, ["error"])


@both
def test_a_stream_that_the_server_truncates_without_an_error(
    api: ModelApi, instrumented: Instrumented, api_name: str
) -> None:
    api.reply = Reply(pieces=[pieces_of(api_name)[0]], content_type="text/event-stream")
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        list(open_stream(client, api_name))
    (span,) = captured.spans
    check_partial(span, SpanStatus.ERROR, ["error"])
    assert span.attributes[semconv.ERROR_TYPE] == "truncated_stream"


@both
def test_a_stream_whose_connection_breaks(api: ModelApi, instrumented: Instrumented, api_name: str) -> None:
    api.reply = Reply(pieces=[pieces_of(api_name)[0]], content_type="text/event-stream", is_cut=True)
    with (
        OpenAI(base_url=api.url, api_key="k") as client,
        instrumented() as captured,
        pytest.raises(openai.APIConnectionError),
    ):
        list(open_stream(client, api_name))
    (span,) = captured.spans
    check_partial(span, SpanStatus.ERROR, ["error"])
    assert span.attributes[semconv.ERROR_TYPE] == "connection_error"
    assert "peer closed" in span.attributes[semconv.ERROR_MESSAGE]


FAILED = {"code": "server_error", "message": "it broke"}
ERRORS: dict[str, tuple[str, bytes]] = {
    "chat": ("chat", b'data: {"error": {"message": "it broke", "type": "server_error"}}\n\n'),
    "responses, error event": (
        "responses",
        b'event: error\ndata: {"type": "error", "code": "server_error", "message": "it broke", "sequence_number": 9}\n\n',
    ),
    "responses, failed": (
        "responses",
        b"data: "
        + json.dumps(
            {
                "type": "response.failed",
                "response": openai_api.response(TEXT[:5], status="failed", error=FAILED),
                "sequence_number": 9,
            }
        ).encode()
        + b"\n\n",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_the_stream(api: ModelApi, instrumented: Instrumented, name: str) -> None:
    api_name, event = ERRORS[name]

    def read(client: OpenAI) -> Any:
        try:
            return list(open_stream(client, api_name))
        except openai.APIError as error:
            return str(error)

    api.reply = Reply(pieces=[pieces_of(api_name)[0], event], content_type="text/event-stream")
    with OpenAI(base_url=api.url, api_key="k") as client:
        expected = read(client)
        with instrumented() as captured:
            assert read(client) == expected
    (span,) = captured.spans
    assert span.status is SpanStatus.ERROR
    assert (span.attributes[semconv.ERROR_TYPE], span.attributes[semconv.ERROR_MESSAGE]) == ("server_error", "it broke")
    assert span.attributes[semconv.FINISH_REASONS] == ["error"]


def test_a_stream_without_its_last_event_whose_choices_have_ended(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = Reply(pieces=openai_api.chat_stream(TEXT)[:-1], content_type="text/event-stream")
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        list(open_stream(client, "chat"))
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.OUTPUT_TOKENS]) == (SpanStatus.SUCCESS, 25)


def test_an_event_that_cannot_be_read_is_counted(api: ModelApi, instrumented: Instrumented) -> None:
    first, rest = pieces_of("chat")
    api.reply = Reply(pieces=[first, b"data: {broken\n\n", rest], content_type="text/event-stream")
    with (
        OpenAI(base_url=api.url, api_key="k") as client,
        instrumented() as captured,
        pytest.raises(ValueError, match=r"."),
    ):
        list(open_stream(client, "chat"))
    (span,) = captured.spans
    assert (span.status, span.attributes[UNREAD_PARTS]) == (SpanStatus.ERROR, 1)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)]
)
@both
def test_an_error_of_the_api(
    api: ModelApi, instrumented: Instrumented, api_name: str, status: int, kind: type[openai.APIStatusError]
) -> None:
    api.reply = Reply(b'{"error": {"message": "no", "type": "some_error", "code": "c"}}', status=status)
    with (
        OpenAI(base_url=api.url, api_key="k", max_retries=0) as client,
        instrumented() as captured,
        pytest.raises(kind) as raised,
    ):
        open_stream(client, api_name)
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.ERROR_TYPE]) == (SpanStatus.ERROR, "some_error")
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes[semconv.ERROR_MESSAGE] == str(raised.value)
    assert span.attributes[semconv.INPUT_MESSAGES]


def test_a_refused_connection(instrumented: Instrumented) -> None:
    with (
        OpenAI(base_url="http://127.0.0.1:9", api_key="k", max_retries=0) as client,
        instrumented() as captured,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(**CHAT)
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.ERROR_TYPE]) == (SpanStatus.ERROR, "connection_error")


@pytest.mark.parametrize(
    ("changes", "reason", "raw"),
    [
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "length",
            "max_output_tokens",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter", None),
        ({"status": "completed"}, "stop", "completed"),
    ],
)
def test_a_response_that_is_incomplete_is_no_error(
    api: ModelApi, instrumented: Instrumented, changes: dict[str, Any], reason: str, raw: str | None
) -> None:
    api.reply = Reply(json.dumps(openai_api.response(TEXT, **changes)).encode())
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        client.responses.create(**ASK)
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.FINISH_REASONS]) == (SpanStatus.SUCCESS, [reason])
    assert span.attributes[semconv.RAW_FINISH_REASONS] == [raw or reason]


def test_requests_of_other_kinds_are_not_traced(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = Reply(b'{"results": [], "id": "m", "model": "m"}')
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        client.moderations.create(input="x")
        client.responses.cancel("resp_1")
    assert captured.spans == []


def test_a_call_that_a_framework_records_has_no_second_span(api: ModelApi, instrumented: Instrumented) -> None:
    framework: dict[str, Any] = {"__name__": "framework.models"}
    exec("def call(function): return function()", framework)
    api.reply = Reply(json.dumps(openai_api.chat_answer(TEXT)).encode())
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        claim("framework", ("framework.models",))
        try:
            framework["call"](lambda: client.chat.completions.create(**CHAT))
            assert captured.spans == []
            client.chat.completions.create(**CHAT)
        finally:
            release("framework")
    assert len(captured.spans) == 1


@pytest.mark.parametrize("broken", ["request_attributes", "tool_attributes", "answer_attributes"])
def test_an_error_of_the_sdk_never_reaches_the_application(
    api: ModelApi, instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError

    read: Callable[[OpenAI], Any] = lambda client: list(open_stream(client, "chat"))  # noqa: E731 - two uses, one line
    api.reply = Reply(pieces=openai_api.chat_stream(TEXT), content_type="text/event-stream")
    monkeypatch.setenv("PRELA_STRICT", "0")
    with OpenAI(base_url=api.url, api_key="k") as client:
        expected = read(client)
        with instrumented() as captured, monkeypatch.context() as patch:
            patch.setattr(f"prela_stream.instrumentation.openai.chat.{broken}", fail)
            assert read(client) == expected
    assert len(captured.spans) == (0 if broken == "request_attributes" else 1)
