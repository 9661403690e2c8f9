"""The recorder of model calls, with responses of httpx and of clients that read them in unusual ways."""

import gzip
import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from prela_stream import telemetry
from prela_stream.instrumentation.anthropic.client import AnthropicProvider
from prela_stream.instrumentation.anthropic.messages import CreateMessage
from prela_stream.instrumentation.llm_call import UNREAD_PARTS, ModelCall, call_in_progress
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.tracer import get_tracer

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "usage": {"input_tokens": 1, "output_tokens": 2},
    "stop_reason": "end_turn",
}
BODY = json.dumps(MESSAGE).encode()
STREAM = (
    b'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1}}}\n\n'
    b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, '
    b'"usage": {"output_tokens": 2}}\n\n'
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
)


class Pieces(httpx2.SyncByteStream):
    """A body in small pieces."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._body), 7):
            yield self._body[at : at + 7]


class PlainDecoder:
    """Decodes as the decoders of httpx do: it returns bytes, and the end only when it is flushed."""

    def __init__(self) -> None:
        self._data: list[bytes] = []

    def decode(self, data: bytes) -> bytes:
        self._data.append(data)
        return b""

    def flush(self) -> bytes:
        return gzip.decompress(b"".join(self._data))


class PlainResponse(httpx2.Response):
    """A response with such a decoder."""

    def _get_content_decoder(self) -> Any:
        return PlainDecoder()


class Returned:
    """What a client returns for a response that is read later."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturedSpans]:
    monkeypatch.setenv("PRELA_STRICT", "1")
    with capture_spans() as spans:
        yield spans


def call(request: object = None, *, streaming: bool = False) -> ModelCall:
    span = get_tracer().start_span("chat", span_type=SpanType.LLM)
    return ModelCall(span, AnthropicProvider(), CreateMessage(), request=request, streaming=streaming, content=True)


def check_read(span: SpanData) -> None:
    found = span.attributes
    assert (span.status, found[semconv.OUTPUT_TOKENS], found[semconv.FINISH_REASONS]) == (
        SpanStatus.SUCCESS,
        2,
        ["stop"],
    )


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", [httpx2.Response, PlainResponse])
def test_a_compressed_body_of_either_http_library(
    captured: CapturedSpans, kind: type[httpx2.Response], streaming: bool
) -> None:
    body = Pieces(gzip.compress(STREAM if streaming else BODY))
    response = kind(200, headers={"content-encoding": "gzip"}, stream=body)
    with call(streaming=streaming) as one:
        one.returned(Returned(response))
    for _ in response.iter_raw():
        assert captured.spans == []
    check_read(captured.find("chat"))


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("body", [b"this is not gzip", gzip.compress(STREAM)[:20] + b"x" * 400])
def test_a_body_that_cannot_be_decompressed_is_an_error(
    captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch, body: bytes, streaming: bool
) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")
    response = httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(body))
    with call(streaming=streaming) as model_call:
        model_call.returned(Returned(response))
    with pytest.raises(httpx2.DecodingError) as raised:
        for _ in response.iter_bytes():
            pass
    response.close()
    (span,) = captured
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "client_error")
    assert span.attributes["error.message"] == span.status_message == str(raised.value)
    assert "prela.stream.closed_early" not in span.attributes


def test_a_compressed_body_whose_decoder_is_missing(captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    """`_get_content_decoder` is a private name: without it the tokens of compressed bodies are lost, and nothing else."""
    monkeypatch.setenv("PRELA_STRICT", "0")
    monkeypatch.delattr(httpx2.Response, "_get_content_decoder")
    body = gzip.compress(BODY)
    response = httpx2.Response(200, headers={"content-encoding": "gzip", "request-id": "req_1"}, stream=Pieces(body))
    with call() as one:
        one.returned(Returned(response))
    assert b"".join(response.iter_raw()) == body
    span = captured.find("chat")
    assert (span.status, span.attributes["anthropic.request.id"]) == (SpanStatus.SUCCESS, "req_1")


def test_a_stream_that_was_read_already_and_has_a_bad_event(captured: CapturedSpans) -> None:
    """What the client makes of it cannot be seen, so it is no success."""
    before = telemetry.UNREAD_PARTS.value("anthropic")
    with call(streaming=True) as one:
        one.returned(Returned(httpx2.Response(200, content=STREAM + b"event: done\ndata: [DONE]\n\n")))
    span = captured.find("chat")
    assert (span.status, span.attributes[semconv.ERROR_TYPE]) == (SpanStatus.ERROR, "unreadable_answer")
    assert (span.attributes[semconv.OUTPUT_TOKENS], span.attributes[UNREAD_PARTS]) == (2, 1)
    assert telemetry.UNREAD_PARTS.value("anthropic") == before + 1


@pytest.mark.parametrize(
    ("value", "status"), [(MESSAGE, SpanStatus.SUCCESS), ("<html>", SpanStatus.ERROR), (object(), SpanStatus.SUCCESS)]
)
def test_an_answer_without_a_response(
    captured: CapturedSpans, value: Mapping[str, Any] | object, status: SpanStatus
) -> None:
    with call() as one:
        one.returned(value)
    assert captured.find("chat").status is status


def test_the_context_of_a_call_is_the_call_alone(captured: CapturedSpans) -> None:
    with call() as outer:
        assert call_in_progress() is outer
        with call() as inner:
            assert call_in_progress() is inner
            inner.returned(MESSAGE)
        assert call_in_progress() is outer
        outer.returned(MESSAGE)
    assert call_in_progress() is None
    assert len(captured.spans) == 2


def test_a_call_covers_its_own_request_and_all_requests_if_it_sends_none(captured: CapturedSpans) -> None:
    request, other = SimpleNamespace(url="/v1/messages"), SimpleNamespace(url="/v1/messages")
    with call(request) as of_a_client, call() as of_a_framework:
        assert (of_a_client.covers(request), of_a_client.covers(other)) == (True, False)
        assert (of_a_framework.covers(request), of_a_framework.covers(other)) == (True, True)
        assert of_a_client.sends(SimpleNamespace(url="/v1/messages"))
        assert not of_a_client.sends(SimpleNamespace(url="/v1/models"))
        of_a_framework.returned(MESSAGE)
        of_a_client.returned(MESSAGE)


def test_only_the_first_end_counts(captured: CapturedSpans) -> None:
    with call() as one:
        one.returned(MESSAGE)
    one.end(ValueError("late"), read=False)
    one.chunk(b"late")
    check_read(captured.find("chat"))
