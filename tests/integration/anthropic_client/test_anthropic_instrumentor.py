"""Turning the instrumentation on and off, in a process that it must never disturb."""

import asyncio
import functools
import gc
import gzip
import json
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic._base_client import AsyncAPIClient, SyncAPIClient

from prela_stream import telemetry
from prela_stream.demo.model_script import answer, stream_events
from prela_stream.errors import ConfigurationError
from prela_stream.instrumentation import llm_call
from prela_stream.instrumentation.llm_call import calls_in_progress
from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus
from prela_stream.testing import assert_tree
from prela_stream.tracing.context import new_trace_context
from prela_stream.tracing.tracer import get_current_span, get_tracer
from tests.integration.anthropic_client.conftest import Instrumented

REQUEST: dict[str, Any] = {
    "model": "claude-demo",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "What about lithium?"}],
}
PLACES = [(owner, name) for owner in (SyncAPIClient, AsyncAPIClient) for name in ("request", "_attempt_request")]


def test_it_patches_four_methods_and_restores_the_same_objects(instrumented: Instrumented) -> None:
    originals = [owner.__dict__[name] for owner, name in PLACES]
    with instrumented():
        assert all(owner.__dict__[name] is not before for (owner, name), before in zip(PLACES, originals, strict=True))
        assert [asyncio.iscoroutinefunction(owner.__dict__[name]) for owner, name in PLACES] == [
            False,
            False,
            True,
            True,
        ]
    assert all(owner.__dict__[name] is before for (owner, name), before in zip(PLACES, originals, strict=True))


def test_a_second_call_patches_nothing(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured:
        replaced = SyncAPIClient.request
        auto_instrument()
        assert SyncAPIClient.request is replaced
        client.messages.create(**REQUEST)
        assert len(captured.spans) == 1


def test_nothing_is_recorded_between_uninstrument_and_the_next_call(
    client: Anthropic, instrumented: Instrumented
) -> None:
    with instrumented() as captured:
        uninstrument()
        client.messages.create(**REQUEST)
        assert captured.spans == []
        auto_instrument(names=["anthropic"])
        client.messages.create(**REQUEST)
        assert len(captured.spans) == 1


def test_a_later_patch_of_other_code_is_left_in_place(
    client: Anthropic, instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    with instrumented() as captured:
        replaced: Any = SyncAPIClient.request

        @functools.wraps(replaced)
        def other_patch(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return replaced(*args, **kwargs)

        monkeypatch.setattr(SyncAPIClient, "request", other_patch)
        uninstrument()
        assert SyncAPIClient.request is other_patch
        client.messages.create(**REQUEST)
        assert calls == [1]
        assert captured.spans == []
        monkeypatch.undo()  # the other patch is removed: the next uninstrument() restores the original
    assert SyncAPIClient.request is not replaced


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no instrumentor openia; there are anthropic"):
        auto_instrument(names=["openia"])


def test_it_imports_nothing_and_acts_when_the_program_does(model_server_url: str) -> None:
    program = f"""
import json, sys
from prela_stream.instrumentation.registry import auto_instrument
from prela_stream.testing import capture_spans
assert auto_instrument(names=["anthropic"]) == ["anthropic"]
before = [name for name in sys.modules if name.partition(".")[0] in ("anthropic", "httpx2", "pydantic")]
import anthropic
with capture_spans() as captured:
    anthropic.Anthropic(base_url={model_server_url!r}, api_key="demo").messages.create(**{REQUEST!r})
print(json.dumps([before, [span.name for span in captured.spans]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [[], ["chat claude-demo"]]


def test_it_waits_for_an_import_that_another_thread_has_begun() -> None:
    """The import of the program must not fail because of it, and the client is patched when it returns."""
    program = """
import json, sys, threading
from prela_stream.instrumentation.registry import auto_instrument
seen = []
def user():
    try:
        import anthropic
        seen.append(anthropic.__name__)
    except ImportError as error:
        seen.append(str(error))
thread = threading.Thread(target=user)
thread.start()
while "anthropic" not in sys.modules:
    pass
names = auto_instrument(names=["anthropic"])
import anthropic._base_client
patched = hasattr(anthropic._base_client.SyncAPIClient.request, "__wrapped__")
thread.join()
print(json.dumps([names, patched, seen]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == [["anthropic"], True, ["anthropic"]]
    assert "failed and was skipped" not in done.stderr


def test_other_requests_are_not_traced(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured:
        with pytest.raises(anthropic.NotFoundError):
            client.models.list()
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.retrieve("msgbatch_1")
    assert captured.spans == []


async def test_concurrent_calls_have_their_own_parents(
    async_client: AsyncAnthropic, instrumented: Instrumented
) -> None:
    async def agent(name: str) -> None:
        async with get_tracer().span(name):
            await asyncio.gather(*(async_client.messages.create(**REQUEST) for _ in range(2)))
            async with async_client.messages.stream(**REQUEST) as stream:
                assert get_current_span() is not None
                await stream.get_final_message()

    with instrumented() as captured:
        async with get_tracer().span("all"):
            await asyncio.gather(agent("first"), agent("second"))
    call = "chat claude-demo [LLM]"
    for name in ("first", "second"):
        below = captured.children(captured.find(name))
        assert [f"{span.name} [{span.span_type}]" for span in below] == [call] * 3


async def test_a_generator_around_a_stream_leaks_no_span_to_its_consumer(
    async_client: AsyncAnthropic, instrumented: Instrumented
) -> None:
    async def texts() -> AsyncIterator[str]:
        async with async_client.messages.stream(**REQUEST) as stream:
            async for text in stream.text_stream:
                yield text

    with instrumented() as captured:
        async with get_tracer().span("consumer") as consumer:
            source = texts()
            async for _ in source:
                assert get_current_span() is consumer
                assert not calls_in_progress.get()
                break
            await source.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert_tree(captured.spans, "consumer\n  chat claude-demo [LLM]")


async def test_a_connection_that_stays_open_keeps_no_call_alive(
    async_client: AsyncAnthropic, instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[weakref.ref[Any]] = []
    enter = llm_call.ModelCall.__enter__

    def remember(call: llm_call.ModelCall) -> llm_call.ModelCall:
        calls.append(weakref.ref(call))
        return enter(call)

    monkeypatch.setattr(llm_call.ModelCall, "__enter__", remember)
    with instrumented() as captured:
        await async_client.messages.create(**REQUEST)
        async with async_client.messages.stream(**REQUEST) as stream:
            await stream.get_final_message()
        del stream
        gc.collect()
    assert len(captured.spans) == len(calls) == 2
    assert [call() for call in calls] == [None, None]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_compressed_body(instrumented: Instrumented, streaming: bool) -> None:
    reply = answer(REQUEST, seed=0)
    events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in stream_events(reply))
    plain = events if streaming else json.dumps(reply.message())
    kind = "text/event-stream" if streaming else "application/json"

    class Body(httpx2.SyncByteStream):
        def __iter__(self) -> Any:
            data = gzip.compress(plain.encode())
            yield from (data[at : at + 50] for at in range(0, len(data), 50))

    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": kind, "content-encoding": "gzip"}, stream=Body())

    with httpx2.Client(transport=httpx2.MockTransport(handle)) as http:
        client = Anthropic(base_url="http://model.test", api_key="demo", http_client=http)
        with instrumented() as captured:
            result = client.messages.create(**REQUEST, stream=streaming)
            assert list(result)
    (span,) = captured.spans
    assert span.status is SpanStatus.SUCCESS
    assert span.attributes[semconv.OUTPUT_TOKENS] == reply.usage["output_tokens"]
    assert span.attributes[semconv.OUTPUT_MESSAGES][0]["parts"][0]["content"] == reply.content[0]["text"]


def test_middleware_that_answers_from_a_cache(client: Anthropic, instrumented: Instrumented) -> None:
    cached = client.messages.create(**REQUEST)
    with instrumented() as captured:
        answering: Any = client.with_options(middleware=[lambda request, call_next: cached])
        assert answering.messages.create(**REQUEST) is cached
    (span,) = captured.spans
    assert span.status is SpanStatus.SUCCESS
    assert span.attributes[semconv.OUTPUT_TOKENS] == cached.usage.output_tokens


def test_the_clients_own_opentelemetry_tracing_goes_on(model_server_url: str, instrumented: Instrumented) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the peer's SDK comes with the bench group")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exported = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exported))
    native: Any = {"tracer_provider": provider}
    with (
        Anthropic(base_url=model_server_url, api_key="demo", open_telemetry=native) as client,
        instrumented() as captured,
    ):
        client.messages.create(**REQUEST)
        with client.messages.stream(**REQUEST) as stream:
            message = stream.get_final_message()
    native_spans = [dict(span.attributes or {}) for span in exported.get_finished_spans()]
    recorded = [span.attributes for span in captured.spans]
    assert len(native_spans) == len(recorded) == 2
    for key in (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.RESPONSE_ID, semconv.CACHE_WRITE_TOKENS):
        assert [one[key] for one in native_spans] == [one[key] for one in recorded]
    assert recorded[1][semconv.OUTPUT_TOKENS] == message.usage.output_tokens


@pytest.mark.parametrize("broken", ["start_span", "attempt", "returned", "chunk", "end"])
def test_an_error_of_the_sdk_never_reaches_the_application(
    client: Anthropic, instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def read() -> list[Any]:
        with client.messages.stream(**REQUEST) as stream:
            return list(stream.text_stream)

    def fail(*args: object, **kwargs: object) -> None:
        msg = "a bug of the SDK"
        raise LookupError(msg)

    expected = read()
    monkeypatch.setenv("PRELA_STRICT", "0")
    before = telemetry.SWALLOWED.value("instrumentation.llm_call", "LookupError")
    with instrumented() as captured, monkeypatch.context() as patch:
        match broken:
            case "start_span":
                patch.setattr("prela_stream.instrumentation.anthropic.messages.request_attributes", fail)
            case "attempt":
                patch.setattr("prela_stream.instrumentation.anthropic.messages.content_attributes", fail)
            case "returned":
                patch.setattr("prela_stream.instrumentation.llm_call.observe_body", fail)
            case "chunk":
                patch.setattr("prela_stream.instrumentation.http.sse.SseDecoder.feed", fail)
            case _:
                patch.setattr("prela_stream.instrumentation.anthropic.messages.response_attributes", fail)
        assert read() == expected
    assert telemetry.SWALLOWED.value("instrumentation.llm_call", "LookupError") > before
    assert [span.status for span in captured.spans] == ([] if broken == "start_span" else [SpanStatus.SUCCESS])


def test_a_trace_that_is_not_sampled_leaves_the_call_as_it_is(client: Anthropic, instrumented: Instrumented) -> None:
    with instrumented() as captured, new_trace_context(sampled=False), get_tracer().span("agent"):
        assert client.messages.create(**REQUEST).stop_reason == "end_turn"
        with client.messages.stream(**REQUEST) as stream:
            assert stream.get_final_text()
            assert "Observed" not in type(stream.response.stream).__name__
    assert captured.spans == []


def test_a_client_of_another_platform_is_covered_and_named(model_server_url: str, instrumented: Instrumented) -> None:
    with anthropic.AnthropicFoundry(base_url=model_server_url, api_key="demo") as client, instrumented() as captured:
        client.messages.create(**REQUEST)
    (span,) = captured.spans
    assert span.attributes[semconv.PROVIDER_NAME] == "azure.ai.inference"
    assert span.attributes[semconv.OUTPUT_TOKENS] > 1
