"""Message batches: a span for a batch that is created and for results that are read, and no difference for the application."""

import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic

from prela_stream.instrumentation.anthropic.batches import BATCH_ID, REQUEST_COUNT, RESULTS, STATUS, USAGE
from prela_stream.instrumentation.llm_call import CLOSED_EARLY, UNREAD_PARTS
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from tests.integration.anthropic_client.conftest import Instrumented
from tests.support.model_api import ModelApi, Reply, serving_replies

SECRET = "What about lithium?"
ANSWER = "It is soft."
REQUESTS: list[Any] = [
    {
        "custom_id": str(number),
        "params": {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": SECRET}]},
    }
    for number in range(3)
]


def message(number: int) -> dict[str, Any]:
    return {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": "claude-x", "stop_sequence": None,
        "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 20 + number, "cache_read_input_tokens": 5},
    }  # fmt: skip


def line(number: int, result: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": str(number), "result": result}).encode()


ERRORED = {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "no"}}}
LINES = [
    line(1, {"type": "succeeded", "message": message(1)}),
    line(2, ERRORED),
    line(3, {"type": "succeeded", "message": message(2)}),
    line(4, {"type": "expired"}),
]
BODY = b"\n".join(LINES)
JSONL = "application/binary"


@pytest.fixture(scope="module")
def server() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


@pytest.fixture
def api(server: ModelApi) -> ModelApi:
    server.reply = Reply(json.dumps(batch(server.url)).encode())
    server.replies = iter(())
    server.requests.clear()
    return server


def batch(url: str) -> dict[str, Any]:
    counts = {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 1}
    return {
        "id": "msgbatch_1", "type": "message_batch", "processing_status": "ended", "request_counts": counts,
        "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z", "ended_at": None,
        "archived_at": None, "cancel_initiated_at": None,
        "results_url": f"{url}/v1/messages/batches/msgbatch_1/results",
    }  # fmt: skip


def send_results(api: ModelApi, *pieces: bytes, is_cut: bool = False) -> None:
    """Answer the two requests of `results()`: for the batch, and for its results."""
    found = Reply(json.dumps(batch(api.url)).encode())
    api.replies = iter([found, Reply(pieces=list(pieces), content_type=JSONL, is_cut=is_cut)])


def check_created(spans: list[SpanData]) -> None:
    (span,) = spans
    assert (span.name, span.span_type, span.status) == ("create_batch", SpanType.CUSTOM, SpanStatus.SUCCESS)
    assert span.attributes[BATCH_ID] == "msgbatch_1"
    assert span.attributes[STATUS] == "ended"
    assert span.attributes[REQUEST_COUNT] == 3
    check_no_model_call(span)


def check_no_model_call(span: SpanData) -> None:
    assert span.attributes[semconv.PROVIDER_NAME] == "anthropic"
    assert not [name for name in span.attributes if name.startswith("gen_ai.usage.")]
    assert not {semconv.REQUEST_STREAM, semconv.FINISH_REASONS} & set(span.attributes)
    assert SECRET not in repr(span)
    assert ANSWER not in repr(span)


def check_read(span: SpanData) -> None:
    found = span.attributes
    assert (span.name, span.span_type, span.status) == ("batch_results", SpanType.CUSTOM, SpanStatus.SUCCESS)
    assert found[BATCH_ID] == "msgbatch_1"
    counts = {name.removeprefix(RESULTS): value for name, value in found.items() if name.startswith(RESULTS)}
    assert counts == {"succeeded": 2, "errored": 1, "canceled": 0, "expired": 1}
    assert (found[f"{USAGE}input_tokens"], found[f"{USAGE}output_tokens"]) == (30, 43)  # the input includes the cached
    assert found[f"{USAGE}cache_read.input_tokens"] == 10
    assert not {CLOSED_EARLY, UNREAD_PARTS} & set(found)
    check_no_model_call(span)


@pytest.mark.parametrize("is_beta", [False, True])
@pytest.mark.parametrize("content", [False, True])
def test_a_batch_that_is_created(api: ModelApi, instrumented: Instrumented, is_beta: bool, content: bool) -> None:
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        batches: Any = client.beta.messages.batches if is_beta else client.messages.batches
        expected = batches.create(requests=iter(REQUESTS))
        with instrumented(capture_content=content) as captured:
            assert batches.create(requests=iter(REQUESTS)) == expected
    check_created(captured.spans)
    assert [body["requests"] for _, body in api.requests] == [REQUESTS, REQUESTS]


@pytest.mark.parametrize("is_beta", [False, True])
async def test_a_batch_that_is_created_async(api: ModelApi, instrumented: Instrumented, is_beta: bool) -> None:
    async with AsyncAnthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        batches: Any = client.beta.messages.batches if is_beta else client.messages.batches
        expected = await batches.create(requests=REQUESTS)
        with instrumented() as captured:
            assert await batches.create(requests=REQUESTS) == expected
    check_created(captured.spans)


PIECES: dict[str, list[bytes]] = {
    "without a line feed at the end": [BODY],
    "with one": [BODY + b"\n"],
    "a line feed in a piece alone": [LINES[0], b"\n", b"\n".join(LINES[1:])],
    "cut within lines": [BODY[:7], BODY[7:300], BODY[300:]],
    "CR LF": [b"\r\n".join(LINES)],
}


@pytest.mark.parametrize("is_beta", [False, True])
@pytest.mark.parametrize("name", PIECES)
def test_results_that_are_read(api: ModelApi, instrumented: Instrumented, name: str, is_beta: bool) -> None:
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        batches: Any = client.beta.messages.batches if is_beta else client.messages.batches
        send_results(api, *PIECES[name])
        plain = batches.results("msgbatch_1")
        expected = list(plain)
        assert len(expected) == 4
        send_results(api, *PIECES[name])
        with instrumented() as captured:
            results = batches.results("msgbatch_1")
            assert captured.spans == [], "the span ends when the results are read"
            assert type(results) is type(plain)
            assert list(results) == expected
    (span,) = captured.spans
    check_read(span)


@pytest.mark.parametrize("is_beta", [False, True])
async def test_results_that_are_read_async(api: ModelApi, instrumented: Instrumented, is_beta: bool) -> None:
    async with AsyncAnthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        batches: Any = client.beta.messages.batches if is_beta else client.messages.batches
        send_results(api, BODY)
        expected = [one async for one in await batches.results("msgbatch_1")]
        send_results(api, BODY[:100], BODY[100:])
        with instrumented() as captured:
            assert [one async for one in await batches.results("msgbatch_1")] == expected
    (span,) = captured.spans
    check_read(span)


def test_a_batch_without_results_has_zero_of_each_kind(api: ModelApi, instrumented: Instrumented) -> None:
    send_results(api, b"")
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        assert list(client.messages.batches.results("msgbatch_1")) == []
    (span,) = captured.spans
    assert span.status is SpanStatus.SUCCESS
    assert [value for name, value in span.attributes.items() if name.startswith(RESULTS)] == [0, 0, 0, 0]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_results_that_are_left_early(api: ModelApi, instrumented: Instrumented, how: str) -> None:
    send_results(api, LINES[0] + b"\n", b"\n".join(LINES[1:]))
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        results = client.messages.batches.results("msgbatch_1")
        next(results)
        if how == "close":
            results.close()
        del results
        gc.collect()
    (span,) = captured.spans
    assert (span.status, span.attributes[CLOSED_EARLY]) == (SpanStatus.SUCCESS, True)


def test_results_whose_connection_breaks(api: ModelApi, instrumented: Instrumented) -> None:
    send_results(api, BODY + b"\n", is_cut=True)
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        with pytest.raises(Exception, match="peer closed connection"):
            list(client.messages.batches.results("msgbatch_1"))
        gc.collect()
    (span,) = captured.spans
    assert span.status is SpanStatus.ERROR
    assert span.attributes[f"{RESULTS}succeeded"] == 2


def test_a_result_of_an_unknown_kind_is_counted_as_unread(api: ModelApi, instrumented: Instrumented) -> None:
    send_results(api, line(1, {"type": "new_kind"}) + b"\n" + LINES[0])
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        assert len(list(client.messages.batches.results("msgbatch_1"))) == 2
    (span,) = captured.spans
    assert (span.status, span.attributes[UNREAD_PARTS]) == (SpanStatus.SUCCESS, 1)
    assert span.attributes[f"{RESULTS}succeeded"] == 1


@pytest.mark.parametrize("rest", [b"\n" + LINES[1], b""], ids=["in the middle", "at the end"])
def test_a_line_that_is_no_json_is_an_error(api: ModelApi, instrumented: Instrumented, rest: bytes) -> None:
    send_results(api, LINES[0] + b'\n{"custom_id": ' + rest)
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client, instrumented() as captured:
        with pytest.raises(json.JSONDecodeError):
            list(client.messages.batches.results("msgbatch_1"))
        gc.collect()
    (span,) = captured.spans
    assert (span.status, span.attributes[UNREAD_PARTS]) == (SpanStatus.ERROR, 1)


def test_the_other_requests_for_batches_have_no_span(api: ModelApi, instrumented: Instrumented) -> None:
    with Anthropic(base_url=api.url, api_key="k", max_retries=0) as client:
        batches = client.messages.batches
        expected = (batches.retrieve("msgbatch_1"), batches.cancel("msgbatch_1"), batches.delete("msgbatch_1"))
        with instrumented() as captured:
            assert batches.retrieve("msgbatch_1") == expected[0]
            assert batches.cancel("msgbatch_1") == expected[1]
            assert batches.delete("msgbatch_1") == expected[2]
    assert captured.spans == []
