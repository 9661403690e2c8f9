"""Every way to call the OpenAI API that succeeds: one span with the true tokens, and no difference for the application.

Each scenario runs twice over real HTTP, without and with instrumentation, and must give the same. The usual ways are in the
table of scenarios (`tests/support/openai_scenarios.py`).
"""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, Stream
from openai.providers import bedrock

from prela_stream.instrumentation.llm_call import CLOSED_EARLY
from prela_stream.instrumentation.openai.client import REQUEST_ID
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.tracing.tracer import get_tracer
from tests.integration.openai_client.conftest import Instrumented
from tests.support import openai_api
from tests.support.model_api import ModelApi, Reply

TEXT = "The weather is rainy."
CHAT: dict[str, Any] = {
    "model": "gpt-5",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Paris?"}],
    "temperature": 0.5,
    "max_completion_tokens": 99,
    "tools": [{"type": "function", "function": {"name": "weather", "description": "Finds.", "parameters": {}}}],
}
STREAMED: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
ASK: dict[str, Any] = {
    "model": "gpt-5", "input": "Weather in Paris?", "instructions": "Be brief.", "temperature": 0.5,
    "max_output_tokens": 99, "tools": [{"type": "function", "name": "weather", "parameters": {}, "strict": False}],
}  # fmt: skip


def reply_for(scenario: str) -> Reply:
    """What the server sends for a scenario."""
    if "response_stream" in scenario:
        return Reply(pieces=openai_api.response_stream(TEXT), content_type="text/event-stream")
    if "responses" in scenario:
        return Reply(json.dumps(openai_api.response(TEXT)).encode())
    if "stream" in scenario.replace("streaming_response", ""):
        return Reply(pieces=openai_api.chat_stream(TEXT), content_type="text/event-stream")
    return Reply(json.dumps(openai_api.chat_answer(TEXT)).encode())


def create(client: OpenAI) -> Any:
    return client.chat.completions.create(**CHAT)


def create_stream(client: OpenAI) -> Any:
    stream = client.chat.completions.create(**STREAMED)
    assert isinstance(stream, Stream)
    return list(stream)


def create_stream_in_a_block(client: OpenAI) -> Any:
    with client.chat.completions.create(**STREAMED) as stream:
        return [next(stream), *stream]


def parse(client: OpenAI) -> Any:
    return client.chat.completions.parse(**{**CHAT, "tools": openai.omit})


def streaming_response_lines(client: OpenAI) -> Any:
    with client.chat.completions.with_streaming_response.create(**CHAT) as response:
        return list(response.iter_lines())


def responses(client: OpenAI) -> Any:
    return client.responses.create(**ASK)


def responses_parse(client: OpenAI) -> Any:
    return client.responses.parse(**{**ASK, "tools": openai.omit})


def responses_raw(client: OpenAI) -> Any:
    return client.responses.with_raw_response.create(**ASK).parse()


def response_stream(client: OpenAI) -> Any:
    return list(client.responses.create(**ASK, stream=True))


def response_stream_helper(client: OpenAI) -> Any:
    with client.responses.stream(**{**ASK, "tools": openai.omit}) as stream:
        return list(stream), stream.get_final_response()


SYNC = [
    create_stream_in_a_block, parse, streaming_response_lines, responses, responses_parse, responses_raw,
    response_stream, response_stream_helper,
]  # fmt: skip


async def async_responses(client: AsyncOpenAI) -> Any:
    return await client.responses.create(**ASK)


async def async_response_stream(client: AsyncOpenAI) -> Any:
    return [event async for event in await client.responses.create(**ASK, stream=True)]


ASYNC = [
    async_responses, async_response_stream,
]  # fmt: skip


def check(span: SpanData, parent: str, scenario: str) -> None:
    """The span has everything that the request and the answer have, to the token."""
    found = span.attributes
    assert (span.name, span.span_type, span.status) == ("chat gpt-5", SpanType.LLM, SpanStatus.SUCCESS)
    assert span.parent_span_id == parent
    assert found[semconv.PROVIDER_NAME] == "openai"
    assert (found[semconv.REQUEST_MODEL], found[semconv.RESPONSE_MODEL]) == ("gpt-5", "gpt-5")
    assert (found[semconv.REQUEST_TEMPERATURE], found[semconv.REQUEST_MAX_TOKENS]) == (0.5, 99)
    assert (found[semconv.INPUT_TOKENS], found[semconv.OUTPUT_TOKENS]) == (97, 25)
    assert (found[semconv.CACHE_READ_TOKENS], found[semconv.CACHE_WRITE_TOKENS]) == (64, 8)
    assert found[semconv.REASONING_TOKENS] == 5
    assert found[semconv.FINISH_REASONS] == ["stop"]
    assert found["http.response.status_code"] == 200
    assert found[REQUEST_ID] == "req_1"
    answer = {"role": "assistant", "parts": [{"type": "text", "content": TEXT}], "finish_reason": "stop"}
    assert found[semconv.OUTPUT_MESSAGES] == [answer]
    question = {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]}
    brief = {"type": "text", "content": "Be brief."}
    if "responses" in scenario or "response_stream" in scenario:
        assert (found[semconv.SYSTEM_INSTRUCTIONS], found[semconv.INPUT_MESSAGES]) == ([brief], [question])
        assert (found[semconv.RESPONSE_ID], found["openai.api.type"]) == ("resp_1", "responses")
    else:
        assert found[semconv.INPUT_MESSAGES] == [{"role": "system", "parts": [brief]}, question]
        assert (found[semconv.RESPONSE_ID], found["openai.api.type"]) == ("chatcmpl-1", "chat_completions")
    if "parse" not in scenario and "response_stream_helper" not in scenario:
        assert [tool["name"] for tool in found[semconv.TOOL_DEFINITIONS]] == ["weather"]
    request, response = span.events
    assert (request.name, request.attributes) == ("llm.request", {semconv.REQUEST_MODEL: found[semconv.REQUEST_MODEL]})
    assert response.name == "llm.response"
    assert response.attributes == {name: found[name] for name in (semconv.RESPONSE_MODEL, semconv.FINISH_REASONS)}
    is_stream = "stream" in scenario.replace("streaming_response", "")
    assert (found.get(semconv.REQUEST_STREAM) is True, semconv.TIME_TO_FIRST_CHUNK in found) == (is_stream, is_stream)
    assert not {CLOSED_EARLY, semconv.ERROR_TYPE} & set(found)
    # what the page of the ancestor SDK promises
    names = ("llm.vendor", "llm.model", "llm.input_tokens", "llm.total_tokens", "llm.finish_reason", "llm.latency_ms")
    values = [span.attribute(name) for name in names]
    assert values == ["openai", "gpt-5", 97, 122, span.attribute("llm.stop_reason"), span.duration_ms]


def prepare(api: ModelApi, scenario: str) -> None:
    api.reply = reply_for(scenario)
    busy = Reply(b'{"error": {"message": "busy"}}', status=503, headers={"retry-after-ms": "1"})
    api.replies = iter([busy, busy] if "retries" in scenario else [])


@pytest.mark.parametrize("scenario", SYNC, ids=lambda scenario: scenario.__name__)
def test_sync(scenario: Callable[[OpenAI], Any], api: ModelApi, instrumented: Instrumented) -> None:
    name = scenario.__name__
    with OpenAI(base_url=api.url, api_key="k", max_retries=0) as client:
        prepare(api, name)
        expected = scenario(client)
        prepare(api, name)
        with instrumented() as captured, get_tracer().span("agent") as agent:
            assert scenario(client) == expected
        assert api.requests[: len(api.requests) // 2] == api.requests[len(api.requests) // 2 :]
    (span,) = [span for span in captured.spans if span.name != "agent"]
    check(span, agent.span_id, name)


@pytest.mark.parametrize("scenario", ASYNC, ids=lambda scenario: scenario.__name__)
async def test_async(scenario: Callable[[AsyncOpenAI], Any], api: ModelApi, instrumented: Instrumented) -> None:
    name = scenario.__name__
    async with AsyncOpenAI(base_url=api.url, api_key="k", max_retries=0) as client:
        prepare(api, name)
        expected = await scenario(client)
        prepare(api, name)
        with instrumented() as captured:
            async with get_tracer().span("agent") as agent:
                assert await scenario(client) == expected
    (span,) = [span for span in captured.spans if span.name != "agent"]
    check(span, agent.span_id, name)


CALL = {"type": "tool_call", "name": "weather", "arguments": {"location": "Paris"}, "id": "call_1"}
TOOL_CALLS: dict[str, tuple[Reply, Callable[[OpenAI], Any]]] = {
    "chat": (Reply(json.dumps(openai_api.chat_answer(None, calls=True)).encode()), create),
    "chat stream": (
        Reply(pieces=openai_api.chat_stream("", calls=True), content_type="text/event-stream"),
        create_stream,
    ),
    "responses": (Reply(json.dumps(openai_api.response("", calls=True)).encode()), responses),
}


@pytest.mark.parametrize("name", TOOL_CALLS)
def test_a_tool_call(name: str, api: ModelApi, instrumented: Instrumented) -> None:
    api.reply, scenario = TOOL_CALLS[name]
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        scenario(client)
    (span,) = captured.spans
    assert span.attributes[semconv.FINISH_REASONS] == ["tool_call"]
    expected = {"role": "assistant", "parts": [CALL], "finish_reason": "tool_call"}
    assert span.attributes[semconv.OUTPUT_MESSAGES] == [expected]


def test_the_results_of_tools_in_a_request(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = reply_for("create")
    called = {"role": "assistant", "content": None, "tool_calls": [openai_api.CALL]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "rainy"}
    item = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"location": "Paris"}'}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "rainy"}
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        client.chat.completions.create(**{**CHAT, "messages": [called, result]})
        api.reply = reply_for("responses")
        client.responses.create(**{**ASK, "input": [item, output]})
    response = {"type": "tool_call_response", "response": "rainy", "id": "call_1"}
    expected = [{"role": "assistant", "parts": [CALL]}, {"role": "tool", "parts": [response]}]
    assert [span.attributes[semconv.INPUT_MESSAGES] for span in captured.spans] == [expected, expected]


def test_embeddings_and_completions(api: ModelApi, instrumented: Instrumented) -> None:
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        api.reply = Reply(json.dumps(openai_api.embeddings()).encode())
        client.embeddings.create(model="embed-1", input=["a"], dimensions=2)
        api.reply = Reply(json.dumps(openai_api.completion(TEXT)).encode())
        client.completions.create(model="davinci", prompt="Weather?")
    embedded, completed = captured.spans
    assert (embedded.name, embedded.span_type) == ("embeddings embed-1", SpanType.EMBEDDING)
    assert embedded.attributes[semconv.INPUT_TOKENS] == 7
    assert embedded.attributes[semconv.EMBEDDING_DIMENSIONS] == 2
    assert (completed.name, completed.attributes[semconv.FINISH_REASONS]) == ("text_completion davinci", ["length"])
    assert completed.attributes[semconv.INPUT_MESSAGES][0]["parts"][0]["content"] == "Weather?"
    assert completed.attributes[semconv.OUTPUT_MESSAGES][0]["parts"][0]["content"] == TEXT


def test_compacting_and_decisions_are_model_calls(api: ModelApi, instrumented: Instrumented) -> None:
    compacted = {**openai_api.response(TEXT), "object": "response.compaction"}
    decision = {"id": "dec_1", "object": "decision", "model": "gpt-6-luna", "usage": openai_api.RESPONSE_USAGE}
    answers = [{"type": "predicate", "probability": 0.9}]
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        api.reply = Reply(json.dumps(compacted).encode())
        client.responses.compact(model="gpt-5", input="A long talk.")
        api.reply = Reply(json.dumps({**decision, "answers": answers}).encode())
        client.decisions.create(model="gpt-6-luna", input="It rains.", questions=[])
    assert [span.name for span in captured.spans] == ["compact gpt-5", "decide gpt-6-luna"]
    assert [span.attributes[semconv.OUTPUT_TOKENS] for span in captured.spans] == [25, 25]
    assert captured.spans[1].attributes[semconv.OUTPUT_MESSAGES][0]["parts"] == [
        {"type": "json", "content": answers[0]}
    ]


PIXELS = base64.b64encode(b"\x89PNG" * 25).decode()
IMAGE_USAGE = {
    "input_tokens": 50, "output_tokens": 200, "total_tokens": 250,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
}  # fmt: skip
IMAGE = {"created": 1, "data": [{"b64_json": PIXELS}], "quality": "low", "size": "1024x1024", "usage": IMAGE_USAGE}


def image_events(kind: str) -> bytes:
    head = {"b64_json": PIXELS, "quality": "low", "size": "1024x1024", "created_at": 1, "output_format": "png"}
    events = [
        {**head, "type": f"{kind}.partial_image", "partial_image_index": 0},
        {**head, "type": f"{kind}.completed", "usage": IMAGE_USAGE},
    ]
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
def test_images(api: ModelApi, instrumented: Instrumented, kind: str, streaming: bool) -> None:
    def call(client: OpenAI) -> Any:
        request: dict[str, Any] = {"model": "gpt-image-9", "prompt": "A reef.", "stream": streaming}
        if kind == "image_edit":
            found: Any = client.images.edit(**request, image=b"\x89PNG")
        else:
            found = client.images.generate(**request)
        return list(found) if streaming else found

    body = image_events(kind) if streaming else json.dumps(IMAGE).encode()
    api.reply = Reply(body, content_type="text/event-stream" if streaming else "application/json")
    with OpenAI(base_url=api.url, api_key="k") as client:
        expected = call(client)
        with instrumented() as captured:
            assert call(client) == expected
    (span,) = captured.spans
    found = span.attributes
    assert (span.name, span.span_type, span.status) == (
        "generate_content gpt-image-9",
        SpanType.LLM,
        SpanStatus.SUCCESS,
    )
    assert (found[semconv.INPUT_TOKENS], found[semconv.OUTPUT_TOKENS]) == (50, 200)
    assert (found["gen_ai.usage.image.input_tokens"], found["gen_ai.usage.text.input_tokens"]) == (40, 10)
    assert (found[semconv.OUTPUT_TYPE], found["openai.images.count"], found["openai.images.quality"]) == (
        "image",
        1,
        "low",
    )
    assert found[semconv.INPUT_MESSAGES][0]["parts"] == [{"type": "text", "content": "A reef."}]
    assert found[semconv.OUTPUT_MESSAGES][0]["parts"] == [{"type": "blob", "modality": "image", "size": 100}]
    assert (semconv.TIME_TO_FIRST_CHUNK in found) is streaming
    assert PIXELS not in repr(span)


def test_images_of_a_model_without_tokens(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = Reply(json.dumps({"created": 1, "data": [{"url": "https://images.test/1"}] * 2}).encode())
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        client.images.generate(prompt="A reef.", n=2)
    (span,) = captured.spans
    assert (span.name, span.status) == ("generate_content", SpanStatus.SUCCESS)
    assert (span.attributes["openai.images.count"], semconv.OUTPUT_TOKENS in span.attributes) == (2, False)


def test_a_stream_of_an_image_that_fails_or_is_cut(api: ModelApi, instrumented: Instrumented) -> None:
    partial, _ = image_events("image_generation").split(b"event: image_generation.completed")
    error = b'event: error\ndata: {"type": "error", "error": {"type": "server_error", "message": "it broke"}}\n\n'
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        for body in (partial, partial + error):
            api.reply = Reply(body, content_type="text/event-stream")
            with suppress(openai.APIError):
                list(client.images.generate(model="gpt-image-9", prompt="A reef.", stream=True))
    assert [span.attributes[semconv.ERROR_TYPE] for span in captured.spans] == ["truncated_stream", "server_error"]


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_has_usage_only_if_the_application_asks_for_it(
    api: ModelApi, instrumented: Instrumented, usage: bool
) -> None:
    api.reply = Reply(pieces=openai_api.chat_stream(TEXT, usage=usage), content_type="text/event-stream")
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        chunks = list(client.chat.completions.create(**CHAT, stream=True))
    assert len(chunks) == (5 if usage else 4)
    assert "stream_options" not in api.requests[0][1]
    (span,) = captured.spans
    assert (span.status, semconv.OUTPUT_TOKENS in span.attributes) == (SpanStatus.SUCCESS, usage)


def test_azure_is_named_and_its_retries_are_counted(api: ModelApi, instrumented: Instrumented) -> None:
    prepare(api, "create_after_retries")
    azure = openai.AzureOpenAI(azure_endpoint=api.url, api_key="k", api_version="2026-01-01", max_retries=2)
    with azure as client, instrumented() as captured:
        client.chat.completions.create(**CHAT)
    assert api.requests[0][0].startswith("/openai/deployments/gpt-5/chat/completions")
    (span,) = captured.spans
    assert span.attributes[semconv.PROVIDER_NAME] == "azure.ai.openai"
    assert (span.attributes[semconv.RESEND_COUNT], span.attributes[semconv.OUTPUT_TOKENS]) == (2, 25)
    assert span.attributes[semconv.INPUT_MESSAGES]


@pytest.mark.parametrize(
    ("make", "provider"),
    [
        (lambda url: openai.BedrockOpenAI(base_url=url, api_key="k", aws_region="us-east-1"), "aws.bedrock"),
        (lambda url: openai.OpenAI(provider=bedrock(base_url=url, api_key="k", region="us-east-1")), "aws.bedrock"),
    ],
)
def test_the_provider_is_what_the_client_reports(
    api: ModelApi, instrumented: Instrumented, make: Callable[[str], OpenAI], provider: str
) -> None:
    prepare(api, "create")
    with make(api.url) as client, instrumented() as captured:
        client.chat.completions.create(**CHAT)
    assert [span.attributes[semconv.PROVIDER_NAME] for span in captured.spans] == [provider]


@pytest.mark.parametrize(
    ("host", "provider"), [("api.deepseek.com", "deepseek"), ("x.openai.azure.com", "azure.ai.openai"), ("h", "openai")]
)
def test_the_provider_of_a_server_with_the_same_api(host: str, provider: str) -> None:
    from prela_stream.instrumentation.openai.client import OpenAIProvider

    with OpenAI(base_url=f"https://{host}/v1", api_key="k") as client:
        assert OpenAIProvider().client_attributes(client) == {semconv.PROVIDER_NAME: provider}


def test_without_content_the_numbers_stay(api: ModelApi, instrumented: Instrumented) -> None:
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented(capture_content=False) as captured:
        for scenario in (create, create_stream, responses, response_stream):
            api.reply = reply_for(scenario.__name__)
            scenario(client)
    assert not any(text in repr(captured.spans) for text in ("rainy", "Paris", "Be brief", "Finds."))
    assert [span.attributes[semconv.OUTPUT_TOKENS] for span in captured.spans] == [25] * 4


def test_images_are_replaced_by_a_note(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = reply_for("create")
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 400}"}}
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": [image]}])  # type: ignore[list-item, misc]
    (span,) = captured.spans
    (part,) = span.attributes[semconv.INPUT_MESSAGES][0]["parts"]
    assert part == {"type": "uri", "modality": "image", "uri": "[image/png, 300 bytes]"}
