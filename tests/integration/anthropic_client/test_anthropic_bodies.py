"""Recorded bodies of the API, of Bedrock and of gateways, and what the client makes of them.

For each body the application gets the same with and without instrumentation, and the span agrees with what it got: tokens, ids
and stop reason of what was received, and a status that an error of the client decides where the body does not.
"""

import base64
import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import anthropic
import httpx2
import pydantic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from prela_stream import telemetry
from prela_stream.instrumentation.anthropic.client import REQUEST_ID
from prela_stream.instrumentation.llm_call import CLOSED_EARLY, UNREAD_PARTS
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus
from tests.integration.anthropic_client.conftest import Instrumented
from tests.support.model_api import ModelApi, Reply, aws_message, serving_replies, sse

REQUEST: dict[str, Any] = {"model": "claude-x", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
SSE = "text/event-stream"


def message(**changes: Any) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_sequence": None,
        "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 25}, **changes,
    }  # fmt: skip


def delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


START = {"type": "message_start", "message": message(content=[], stop_reason=None)}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
END: list[dict[str, Any]] = [
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 25},
    },
    {"type": "message_stop"},
]
HALF = sse(START, BLOCK, delta("Hello"))
WHOLE = HALF + sse(*END)
OVERLOADED = sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
PING = b"event: ping\ndata:\n\n"


class Expected(NamedTuple):
    """What the span has for one body."""

    status: SpanStatus = SpanStatus.SUCCESS
    tokens: int | None = 25
    finish: str | None = "stop"
    kind: str | None = None
    message: str | None = None
    unread: int | None = None


FINE = Expected()
ERROR = SpanStatus.ERROR
BODIES: dict[str, tuple[bytes, Expected]] = {
    "plain": (WHOLE, FINE),
    "[DONE] at the end": (WHOLE + b"data: [DONE]\n\n", FINE),
    "heartbeats in plain text": (b"data: keep-alive\n\n: comment\n\n" + WHOLE, FINE),
    "pings without data": (PING + HALF + PING + sse(*END) + PING, FINE),
    "CR LF": (WHOLE.replace(b"\n", b"\r\n"), FINE),
    "half of a surrogate pair": (HALF + sse(delta("\ud83d")) + sse(*END), FINE),
    "an event of an unknown kind": (HALF + sse({"type": "new_kind", "x": 1}) + sse(*END), Expected(unread=1)),
    "an error event": (HALF + OVERLOADED, Expected(ERROR, None, "error", "overloaded_error", "Overloaded")),
    "an error event in plain text": (
        HALF + b"event: error\ndata: upstream overloaded\n\n",
        Expected(ERROR, None, "error", "api_error", "upstream overloaded"),
    ),
    "an error event without data": (
        HALF + b"event: error\n\n",
        Expected(ERROR, None, "error", "api_error", "api_error"),
    ),
    "an error event without a name": (
        HALF + OVERLOADED.removeprefix(b"event: error\n"),
        Expected(ERROR, None, "error", "overloaded_error", "Overloaded"),
    ),
    "an error event after the stop reason": (
        HALF + sse(*END[:2]) + OVERLOADED,
        Expected(ERROR, 25, "error", "overloaded_error", "Overloaded"),
    ),
    "cut off": (HALF, Expected(ERROR, None, "error", "truncated_stream")),
    "no event at all": (b"", Expected(ERROR, None, "error", "truncated_stream")),
    "broken JSON in the middle": (
        HALF + sse(delta("x")).replace(b'"x"', b"x") + sse(*END),
        Expected(ERROR, 25, "error", "client_error", unread=1),
    ),
    "broken JSON, and then it is cut off": (
        HALF + sse(delta("x")).replace(b'"x"', b"x"),
        Expected(ERROR, None, "error", "client_error", unread=1),
    ),
    "a named [DONE]": (
        WHOLE + b"event: done\ndata: [DONE]\n\n",
        Expected(ERROR, 25, "error", "client_error", unread=1),
    ),
    "bytes that are no UTF-8": (
        HALF + b'event: content_block_delta\ndata: {"type": "\xff\xfe"}\n\n',
        Expected(ERROR, None, "error", "client_error", unread=1),
    ),
}


@pytest.fixture(scope="module")
def api() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


def check(span: SpanData, expected: Expected) -> None:
    found = span.attributes
    assert span.status is expected.status
    assert found.get(semconv.OUTPUT_TOKENS) == expected.tokens
    assert found.get(semconv.FINISH_REASONS) == ([expected.finish] if expected.finish else None)
    assert found.get(UNREAD_PARTS) == expected.unread
    assert found[REQUEST_ID] == "req_1"
    assert found.get(semconv.ERROR_TYPE) == expected.kind
    if expected.kind is not None:
        assert found[semconv.ERROR_MESSAGE] == span.status_message
        assert span.status_message
    if expected.message is not None:
        assert span.status_message == expected.message
    assert CLOSED_EARLY not in found


@contextmanager
def suppressed(seen: list[Any]) -> Iterator[None]:
    """Add the error that ends the block to `seen`, in place of raising it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever the client raises
        seen.append((type(error), str(error)))


def read(client: Anthropic) -> list[Any]:
    """The events that the application gets, and the error that ends them."""
    seen: list[Any] = []
    with suppressed(seen):
        seen += [event.to_dict() for event in client.messages.create(**REQUEST, stream=True)]
    return seen


def read_with_helper(client: Anthropic) -> list[Any]:
    seen: list[Any] = []
    with suppressed(seen), client.messages.stream(**REQUEST) as stream:
        seen += [event.type for event in stream]
        seen.append(stream.get_final_message().usage.output_tokens)
    return seen


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("reading", [read, read_with_helper], ids=["events", "helper"])
def test_a_streamed_body(
    api: ModelApi, instrumented: Instrumented, name: str, reading: Callable[[Anthropic], list[Any]]
) -> None:
    body, expected = BODIES[name]
    api.reply = Reply(body, content_type=SSE)
    unread = telemetry.UNREAD_PARTS.value("anthropic")
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        plain = reading(client)
        with instrumented() as captured:
            assert reading(client) == plain
            gc.collect()
    (span,) = captured.spans
    check(span, expected)
    if body:
        assert (span.attributes.get(semconv.RESPONSE_ID), span.attributes[semconv.INPUT_TOKENS]) == ("msg_1", 10)
    assert telemetry.UNREAD_PARTS.value("anthropic") - unread == (expected.unread or 0)


@pytest.mark.parametrize("name", BODIES)
async def test_a_streamed_body_async(api: ModelApi, instrumented: Instrumented, name: str) -> None:
    body, expected = BODIES[name]
    middle = len(body) // 2
    api.reply = Reply(pieces=[body[:middle], body[middle:]], content_type=SSE)
    async with AsyncAnthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        with instrumented() as captured:
            with suppressed([]):
                async for _ in await client.messages.create(**REQUEST, stream=True):
                    pass
            gc.collect()
    (span,) = captured.spans
    assert span.status is expected.status
    assert span.attributes.get(semconv.FINISH_REASONS) == ([expected.finish] if expected.finish else None)
    assert span.attributes.get(semconv.ERROR_TYPE) == expected.kind


@pytest.mark.parametrize(
    "content_type",
    [SSE, "Text/Event-Stream; charset=utf-8", "application/octet-stream", "text/plain", "application/json", None],
)
def test_the_request_decides_that_an_answer_is_a_stream(
    api: ModelApi, instrumented: Instrumented, content_type: str | None
) -> None:
    api.reply = Reply(WHOLE, content_type=content_type)
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        assert read_with_helper(client)[-1] == 25
        api.reply = Reply(HALF + OVERLOADED, content_type=content_type)
        read(client)
    whole, failed = captured.spans
    check(whole, FINE)
    check(failed, Expected(ERROR, None, "error", "overloaded_error", "Overloaded"))
    assert semconv.TIME_TO_FIRST_CHUNK in whole.attributes


def test_a_stream_that_the_body_of_the_request_asks_for(api: ModelApi, instrumented: Instrumented) -> None:
    """The client returns the events as text."""
    api.reply = Reply(WHOLE, content_type=SSE)
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        assert client.messages.create(**REQUEST, extra_body={"stream": True}) == WHOLE.decode()
    check(captured.spans[0], FINE)


def test_a_gateway_that_answers_a_stream_request_with_one_document(api: ModelApi, instrumented: Instrumented) -> None:
    """The client gets no event from it; what the gateway sent is a whole answer all the same."""
    api.reply = Reply(json.dumps(message()).encode())
    with Anthropic(base_url=api.url, api_key="k") as client, instrumented() as captured:
        assert read(client) == []
    check(captured.spans[0], FINE)


CHUNK = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}


def bedrock(*events: dict[str, Any]) -> bytes:
    return b"".join(
        aws_message(CHUNK, json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode())
        for event in events
    )


THROTTLED = aws_message(
    {":exception-type": "throttlingException", ":content-type": "application/json", ":message-type": "exception"},
    b'{"message": "Too many requests"}',
)
BEDROCK: dict[str, tuple[bytes, Expected]] = {
    "whole": (bedrock(START, BLOCK, delta("Hello"), *END), FINE),
    "throttled": (
        bedrock(START, BLOCK, delta("Hello")) + THROTTLED,
        Expected(ERROR, None, "error", "throttlingException", "Too many requests"),
    ),
    "cut off": (bedrock(START, BLOCK, delta("Hello")), Expected(ERROR, None, "error", "truncated_stream")),
    "damaged": (
        bedrock(START, BLOCK) + b"\0\0\1\0\0\0\0\1" + bedrock(delta("Hello")),
        Expected(ERROR, None, "error", "client_error", unread=1),
    ),
}


@pytest.mark.parametrize("name", BEDROCK)
@pytest.mark.parametrize("content_type", ["application/vnd.amazon.eventstream", "application/octet-stream"])
def test_the_event_stream_of_bedrock(api: ModelApi, instrumented: Instrumented, name: str, content_type: str) -> None:
    pytest.importorskip("botocore", reason="Bedrock's client decodes its streams with it")
    body, expected = BEDROCK[name]
    api.reply = Reply(body, content_type=content_type)
    client: Any = anthropic.AnthropicBedrock(aws_region="us-east-1", api_key="k", base_url=api.url, max_retries=0)
    with client, instrumented() as captured:
        seen = read_with_helper(client)
        assert (seen[-1] == 25) is (name in ("whole", "cut off"))  # the placeholder of message_start is 25, too
        gc.collect()
    (span,) = captured.spans
    check(span, expected)
    assert span.attributes[semconv.PROVIDER_NAME] == "aws.bedrock"
    assert span.attributes[semconv.REQUEST_MODEL] == "claude-x"
    assert span.attributes[semconv.RESPONSE_ID] == "msg_1"
    assert span.attributes[semconv.INPUT_MESSAGES]


WHOLE_BODIES: dict[str, tuple[Reply, Expected]] = {
    "JSON with another content type": (Reply(json.dumps(message()).encode(), content_type="text/plain"), FINE),
    "a page of a proxy": (
        Reply(b"<html>Sign in</html>", content_type="text/html"),
        Expected(ERROR, None, "error", "unreadable_answer", unread=1),
    ),
    "empty": (Reply(b"", content_type=None), Expected(ERROR, None, "error", "unreadable_answer", unread=1)),
    "broken JSON": (
        Reply(json.dumps(message()).encode()[:-1]),
        Expected(ERROR, None, "error", "client_error", unread=None),
    ),
    "an error envelope": (
        Reply(json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).encode()),
        Expected(ERROR, None, "error", "overloaded_error", "Overloaded"),
    ),
    "another document": (
        Reply(b'{"status": "ok"}'),
        Expected(ERROR, None, "error", "unreadable_answer", unread=1),
    ),
}


@pytest.mark.parametrize("name", WHOLE_BODIES)
def test_a_whole_body(api: ModelApi, instrumented: Instrumented, name: str) -> None:
    api.reply, expected = WHOLE_BODIES[name]
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured, suppressed([]):
        client.messages.create(**REQUEST)
    (span,) = captured.spans
    check(span, expected)


def test_a_connection_that_breaks_after_the_whole_message(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = Reply(WHOLE, content_type=SSE, is_cut=True)
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        assert read(client)[-1][0] is httpx2.RemoteProtocolError
    check(captured.spans[0], Expected(ERROR, 25, "stop", "connection_error"))


class Weather(pydantic.BaseModel):
    degrees: int


def test_an_error_after_the_response_keeps_what_was_received(api: ModelApi, instrumented: Instrumented) -> None:
    """The client parses the text of the answer, which is no JSON of this model."""
    api.reply = Reply(json.dumps(message()).encode())
    client = Anthropic(base_url=api.url, api_key="k", max_retries=0)
    with client, instrumented() as captured, pytest.raises(pydantic.ValidationError) as raised:
        client.messages.parse(**REQUEST, output_format=Weather)
    (span,) = captured.spans
    check(span, Expected(ERROR, 25, "stop", "client_error", str(raised.value)))
    assert span.attributes[semconv.RESPONSE_ID] == "msg_1"
    assert span.attributes["http.response.status_code"] == 200


def test_an_error_of_middleware_after_the_response(api: ModelApi, instrumented: Instrumented) -> None:
    def refuse(request: Any, call_next: Any) -> Any:
        call_next(request)
        raise TimeoutError

    api.reply = Reply(json.dumps(message()).encode())
    client = Anthropic(base_url=api.url, api_key="k", max_retries=0, middleware=[refuse])
    with client, instrumented() as captured, pytest.raises(TimeoutError):
        client.messages.create(**REQUEST)
    check(captured.spans[0], Expected(ERROR, 25, "stop", "client_error", "TimeoutError"))


def test_an_error_of_middleware_with_the_response_of_another_request(api: ModelApi, instrumented: Instrumented) -> None:
    def audit(request: Any, call_next: Any) -> Any:
        call_next(request)
        httpx2.Response(403, request=httpx2.Request("POST", "http://audit.test")).raise_for_status()

    api.reply = Reply(json.dumps(message()).encode())
    client = Anthropic(base_url=api.url, api_key="k", max_retries=0, middleware=[audit])
    with client, instrumented() as captured, pytest.raises(httpx2.HTTPStatusError):
        client.messages.create(**REQUEST)
    (span,) = captured.spans
    check(span, Expected(ERROR, 25, "stop", "client_error"))
    assert span.attributes["http.response.status_code"] == 200


def test_an_error_of_the_application_while_it_reads_is_not_one_of_the_call(
    api: ModelApi, instrumented: Instrumented
) -> None:
    def read_and_fail() -> None:
        with client.messages.stream(**REQUEST) as stream:
            next(iter(stream))
            api.reply = Reply(
                b'{"type": "error", "error": {"type": "invalid_request_error", "message": "x"}}', status=400
            )
            client.messages.create(**REQUEST)  # another call fails, and with it the block

    api.reply = Reply(WHOLE, content_type=SSE)
    client = Anthropic(base_url=api.url, api_key="k", max_retries=0)
    with client, instrumented() as captured, pytest.raises(anthropic.BadRequestError):
        read_and_fail()
    failed, left = captured.spans
    assert (failed.status, left.status) == (ERROR, SpanStatus.SUCCESS)


def test_a_program_that_exits_in_the_middle_of_a_stream(api: ModelApi, instrumented: Instrumented) -> None:
    def read_and_exit() -> None:
        with client.messages.create(**REQUEST, stream=True) as stream:
            next(stream)
            sys.exit(0)

    api.reply = Reply(pieces=[HALF, sse(*END)], content_type=SSE)
    client = Anthropic(base_url=api.url, api_key="k", max_retries=0)
    with client, instrumented() as captured, pytest.raises(SystemExit):
        read_and_exit()
    (span,) = captured.spans
    assert span.status is SpanStatus.SUCCESS


class CompanyClient(anthropic.AnthropicVertex):
    """A subclass under another name."""


class NotBedrockAtAll(Anthropic):
    """A subclass whose name is that of a platform."""


class Gateway(Anthropic):
    """A client that reports a provider that the library does not know."""

    _gen_ai_provider_name = "company.gateway"


def test_the_provider_is_what_the_client_reports(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = Reply(json.dumps(message()).encode())
    renamed = type("Renamed", (anthropic.AnthropicFoundry,), {})
    clients: list[Any] = [
        CompanyClient(region="us-east5", project_id="p", base_url=api.url, access_token="t"),
        NotBedrockAtAll(api_key="k", base_url=api.url),
        Gateway(api_key="k", base_url=api.url),
        renamed(api_key="k", base_url=api.url),
        anthropic.AnthropicFoundry(api_key="k", base_url=api.url).with_options(max_retries=1),
    ]
    with instrumented() as captured:
        for client in clients:
            client.messages.create(**REQUEST)
            client.close()
    providers = [span.attributes[semconv.PROVIDER_NAME] for span in captured.spans]
    assert providers == ["gcp.vertex_ai", "anthropic", "company.gateway", "azure.ai.inference", "azure.ai.inference"]
