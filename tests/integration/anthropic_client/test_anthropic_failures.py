"""Calls that fail, and streams that are not read to the end: each has one span, with what is known.

The application gets the error that it gets without instrumentation. More of them are in the table of scenarios.
"""

import asyncio
import socket
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from prela_stream.instrumentation.llm_call import CLOSED_EARLY
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus
from prela_stream.tracing.tracer import get_tracer
from tests.integration.anthropic_client.conftest import Instrumented
from tests.support.processes import DEADLINE

REQUEST: dict[str, Any] = {
    "model": "claude-demo",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "What about lithium?"}],
}


def behaving(behaviour: str) -> dict[str, Any]:
    return {**REQUEST, "extra_headers": {"x-demo-behaviour": behaviour}}


def whole_text(client: Anthropic) -> str:
    message: anthropic.types.Message = client.messages.create(**REQUEST)
    assert message.content[0].type == "text"
    return message.content[0].text


def answer_text(span: SpanData) -> str:
    text = span.attributes[semconv.OUTPUT_MESSAGES][0]["parts"][0]["content"]
    assert isinstance(text, str)
    return text


def check_partial(span: SpanData, status: SpanStatus, whole: str) -> None:
    """The span has what was received. What only the end of a stream has is absent."""
    assert span.status is status
    assert span.attributes[semconv.INPUT_TOKENS] > 0
    assert semconv.OUTPUT_TOKENS not in span.attributes  # message_start's count is a placeholder
    assert whole.startswith(answer_text(span))
    assert 0 < len(answer_text(span)) < len(whole)


@pytest.mark.parametrize(
    ("behaviour", "kind", "status", "resent"),
    [
        ("bad_request", "invalid_request_error", 400, None),
        ("unauthorized", "authentication_error", 401, None),
        ("rate_limited", "rate_limit_error", 429, 2),
        ("down", "overloaded_error", 529, 2),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_an_error_of_the_api(
    client: Anthropic,
    instrumented: Instrumented,
    behaviour: str,
    kind: str,
    status: int,
    resent: int | None,
    streaming: bool,
) -> None:
    request = {**behaving(behaviour), "stream": streaming}
    with pytest.raises(anthropic.APIStatusError) as expected:
        client.messages.create(**request)
    with instrumented() as captured, get_tracer().span("agent") as agent, pytest.raises(type(expected.value)) as raised:
        client.messages.create(**request)
    assert str(raised.value) == str(expected.value)
    (span,) = [span for span in captured.spans if span.name != "agent"]
    assert span.status is SpanStatus.ERROR
    assert span.parent_span_id == agent.span_id
    assert span.attributes[semconv.ERROR_TYPE] == kind
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes.get(semconv.RESEND_COUNT) == resent
    assert span.attributes[semconv.FINISH_REASONS] == ["error"]
    assert span.attributes[semconv.ERROR_MESSAGE] == span.status_message == str(expected.value)
    assert span.attributes[semconv.INPUT_MESSAGES]


def test_a_refused_connection(instrumented: Instrumented) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    nowhere = Anthropic(base_url=f"http://127.0.0.1:{port}", api_key="demo", max_retries=0)
    with nowhere as client, instrumented() as captured, pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**REQUEST)
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.ERROR_TYPE]) == (SpanStatus.ERROR, "connection_error")


def test_a_timeout(client: Anthropic, instrumented: Instrumented) -> None:
    request = {**REQUEST, "extra_headers": {"x-demo-latency-ms": "5000"}}
    with instrumented() as captured, pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.05, max_retries=0).messages.create(**request)
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.ERROR_TYPE]) == (SpanStatus.ERROR, "client_timeout_error")


def test_arguments_that_the_client_refuses(client: Anthropic, instrumented: Instrumented) -> None:
    looped: list[Any] = []
    looped.append(looped)
    with pytest.raises(ValueError) as expected:  # noqa: PT011 - the message is compared below
        client.messages.create(**{**REQUEST, "messages": looped})
    with instrumented() as captured, pytest.raises(ValueError) as raised:  # noqa: PT011
        client.messages.create(**{**REQUEST, "messages": looped})
    assert str(raised.value) == str(expected.value)
    assert [span.status for span in captured.spans] == [SpanStatus.ERROR]


def test_a_stream_helper_that_is_left_early_even_by_an_error_of_the_application(
    client: Anthropic, instrumented: Instrumented
) -> None:
    whole = whole_text(client)

    def show(text: str) -> None:
        raise ZeroDivisionError

    with instrumented() as captured, pytest.raises(ZeroDivisionError), client.messages.stream(**REQUEST) as stream:
        show(next(iter(stream.text_stream)))
    (span,) = captured.spans
    check_partial(span, SpanStatus.SUCCESS, whole)  # the model did nothing wrong


async def test_an_async_stream_that_is_left_early(
    client: Anthropic, async_client: AsyncAnthropic, instrumented: Instrumented
) -> None:
    whole = whole_text(client)
    with instrumented() as captured:
        async with async_client.messages.stream(**REQUEST) as stream:
            async for _ in stream.text_stream:
                break
        (span,) = captured.spans
    check_partial(span, SpanStatus.SUCCESS, whole)
    assert span.attributes[CLOSED_EARLY] is True


def test_a_streaming_response_that_is_never_read(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured, client.messages.with_streaming_response.create(**REQUEST) as response:
        assert response.status_code == 200
    (span,) = captured.spans
    assert span.status is SpanStatus.SUCCESS
    assert semconv.OUTPUT_TOKENS not in span.attributes


@pytest.mark.parametrize("reading", ["in the stream", "beside the stream"])
async def test_a_task_that_is_cancelled_in_the_middle(
    client: Anthropic, async_client: AsyncAnthropic, instrumented: Instrumented, reading: str
) -> None:
    whole = whole_text(client)
    started = asyncio.Event()

    async def read() -> None:
        async with async_client.messages.stream(**behaving("stall")) as stream:
            async for _ in stream.text_stream:
                started.set()
                if reading == "beside the stream":
                    await asyncio.Event().wait()

    with instrumented() as captured:
        async with get_tracer().span("agent") as agent:
            task = asyncio.create_task(read())
            await asyncio.wait_for(started.wait(), DEADLINE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    (span,) = [span for span in captured.spans if span.name != "agent"]
    check_partial(span, SpanStatus.CANCELLED, whole)
    assert span.parent_span_id == agent.span_id
    assert span.attributes[semconv.FINISH_REASONS] == ["error"]


async def test_a_request_that_is_cancelled_before_its_answer(
    async_client: AsyncAnthropic, instrumented: Instrumented
) -> None:
    sent = asyncio.Event()

    async def note(_request: object) -> None:
        sent.set()

    http = anthropic.DefaultAsyncHttpxClient(event_hooks={"request": [note]})
    request = {**REQUEST, "extra_headers": {"x-demo-latency-ms": "3600000"}}
    async with async_client.with_options(http_client=http) as client:
        with instrumented() as captured:
            task = asyncio.create_task(client.messages.create(**request))
            await asyncio.wait_for(sent.wait(), DEADLINE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    (span,) = captured.spans
    assert span.status is SpanStatus.CANCELLED
    assert span.attributes[semconv.INPUT_MESSAGES]


@pytest.mark.parametrize("helper", [False, True])
def test_a_stream_that_the_server_truncates_without_an_error(
    client: Anthropic, instrumented: Instrumented, helper: bool
) -> None:
    whole = whole_text(client)
    with instrumented() as captured:
        if helper:
            with client.messages.stream(**behaving("truncated")) as stream:
                assert "".join(stream.text_stream) != whole
        else:
            list(client.messages.create(**behaving("truncated"), stream=True))
    (span,) = captured.spans
    check_partial(span, SpanStatus.ERROR, whole)
    assert span.attributes[semconv.ERROR_TYPE] == "truncated_stream"
    assert span.attributes[semconv.FINISH_REASONS] == ["error"]
    assert span.status_message is not None
    assert "message_stop" in span.status_message


def test_a_stream_whose_connection_breaks(client: Anthropic, instrumented: Instrumented) -> None:
    whole = whole_text(client)
    with instrumented() as captured, pytest.raises(Exception, match="peer closed connection"):
        list(client.messages.create(**behaving("cut"), stream=True))
    (span,) = captured.spans
    check_partial(span, SpanStatus.ERROR, whole)
    assert span.attributes[semconv.ERROR_TYPE] == "connection_error"


async def test_an_error_event_in_the_stream(
    client: Anthropic, async_client: AsyncAnthropic, instrumented: Instrumented
) -> None:
    whole = whole_text(client)
    with instrumented() as captured, pytest.raises(anthropic.APIStatusError):
        async for _ in await async_client.messages.create(**behaving("stream_error"), stream=True):
            pass
    (span,) = captured.spans
    check_partial(span, SpanStatus.ERROR, whole)
    assert span.attributes[semconv.ERROR_TYPE] == "overloaded_error"
    assert span.status_message == "Overloaded"


@pytest.mark.parametrize("reason", ["max_tokens", "refusal"])
def test_an_answer_that_stops_for_another_reason_is_no_error(
    client: Anthropic, instrumented: Instrumented, reason: str
) -> None:
    with instrumented() as captured:
        client.messages.create(**behaving(reason))
    (span,) = captured.spans
    assert (span.status, span.attributes[semconv.RAW_FINISH_REASONS]) == (SpanStatus.SUCCESS, [reason])
