"""The clients for the platforms of others: the provider of the span is right, and the application sees no difference."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from prela_stream.instrumentation.anthropic.batches import BATCH_ID
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus
from tests.integration.anthropic_client.conftest import Instrumented
from tests.integration.anthropic_client.test_anthropic_batches import BODY, REQUESTS, batch, send_results
from tests.integration.anthropic_client.test_anthropic_bodies import REQUEST, message
from tests.support.model_api import ModelApi, Reply, serving_replies

BEDROCK: dict[str, Any] = {"api_key": "k", "aws_region": "us-east-1"}
PLATFORMS: dict[str, tuple[dict[str, Any], str]] = {
    "AnthropicAWS": ({"api_key": "k", "aws_region": "us-east-1", "workspace_id": "w"}, "anthropic"),
    "AnthropicBedrock": (BEDROCK, "aws.bedrock"),
    "AnthropicBedrockMantle": (BEDROCK, "aws.bedrock"),
    "AnthropicGoogleCloud": (
        {"skip_auth": True, "project": "p", "location": "us-east5", "workspace_id": "w"},
        "anthropic",
    ),
}
VERTEX = {"region": "us-east5", "project_id": "p", "access_token": "t"}
WITHOUT_BATCHES: dict[str, dict[str, Any]] = {"AnthropicBedrock": BEDROCK, "AnthropicVertex": VERTEX}
BATCH_CALLS: dict[str, Callable[[Any], Any]] = {
    "create": lambda batches: batches.create(requests=REQUESTS),
    "retrieve": lambda batches: batches.retrieve("msgbatch_1"),
    "list": lambda batches: batches.list(),
    "cancel": lambda batches: batches.cancel("msgbatch_1"),
    "delete": lambda batches: batches.delete("msgbatch_1"),
    "results": lambda batches: batches.results("msgbatch_1"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


@pytest.fixture
def api(server: ModelApi) -> ModelApi:
    server.reply = Reply(json.dumps(message()).encode())
    server.replies = iter(())
    server.requests.clear()
    return server


def client_of(name: str, api: ModelApi, arguments: dict[str, Any]) -> Any:
    return getattr(anthropic, name)(base_url=api.url, max_retries=0, **arguments)


def check(captured: Any, provider: str) -> None:
    (span,) = captured.spans
    found = span.attributes
    assert (span.name, span.status) == ("chat claude-x", SpanStatus.SUCCESS)
    assert found[semconv.PROVIDER_NAME] == provider
    assert found[semconv.REQUEST_MODEL] == found[semconv.RESPONSE_MODEL] == "claude-x"
    assert (found[semconv.INPUT_TOKENS], found[semconv.OUTPUT_TOKENS]) == (10, 25)


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_call(api: ModelApi, instrumented: Instrumented, name: str) -> None:
    arguments, provider = PLATFORMS[name]
    with client_of(name, api, arguments) as client:
        expected = client.messages.create(**REQUEST)
        with instrumented() as captured:
            found = client.messages.create(**REQUEST)
    assert (found, type(found)) == (expected, type(expected))
    assert api.requests[0] == api.requests[1]
    check(captured, provider)


@pytest.mark.parametrize("name", PLATFORMS)
async def test_a_call_async(api: ModelApi, instrumented: Instrumented, name: str) -> None:
    arguments, provider = PLATFORMS[name]
    async with client_of(f"Async{name}", api, arguments) as client:
        expected = await client.messages.create(**REQUEST)
        with instrumented() as captured:
            found = await client.messages.create(**REQUEST)
    assert (found, type(found)) == (expected, type(expected))
    assert api.requests[0] == api.requests[1]
    check(captured, provider)


@pytest.mark.parametrize("call", BATCH_CALLS)
@pytest.mark.parametrize("name", WITHOUT_BATCHES)
def test_batches_that_the_client_refuses(api: ModelApi, instrumented: Instrumented, name: str, call: str) -> None:
    """The refusal is the client's: the same error, with and without the instrumentation, and no request."""
    with client_of(name, api, WITHOUT_BATCHES[name]) as client:
        with pytest.raises(anthropic.AnthropicError) as expected:
            BATCH_CALLS[call](client.messages.batches)
        with instrumented() as captured, pytest.raises(anthropic.AnthropicError) as found:
            BATCH_CALLS[call](client.messages.batches)
    assert (type(found.value), str(found.value)) == (type(expected.value), str(expected.value))
    assert "not supported" in str(found.value)
    assert api.requests == []
    assert [(span.name, span.status) for span in captured.spans] == REFUSED.get(call, [])


@pytest.mark.parametrize("call", BATCH_CALLS)
@pytest.mark.parametrize("name", WITHOUT_BATCHES)
async def test_batches_that_the_client_refuses_async(
    api: ModelApi, instrumented: Instrumented, name: str, call: str
) -> None:
    async with client_of(f"Async{name}", api, WITHOUT_BATCHES[name]) as client:
        with pytest.raises(anthropic.AnthropicError) as expected:
            await BATCH_CALLS[call](client.messages.batches)
        with instrumented() as captured, pytest.raises(anthropic.AnthropicError) as found:
            await BATCH_CALLS[call](client.messages.batches)
    assert (type(found.value), str(found.value)) == (type(expected.value), str(expected.value))
    assert api.requests == []
    assert [(span.name, span.status) for span in captured.spans] == REFUSED.get(call, [])


# `results()` asks for the batch first, and that request is the one that the client refuses.
REFUSED = {"create": [("create_batch", SpanStatus.ERROR)]}


def test_batches_of_a_platform_that_has_them(api: ModelApi, instrumented: Instrumented) -> None:
    api.reply = Reply(json.dumps(batch(api.url)).encode())
    with client_of("AnthropicAWS", api, PLATFORMS["AnthropicAWS"][0]) as client:
        batches = client.messages.batches
        expected = batches.create(requests=REQUESTS)
        send_results(api, BODY)
        results = list(batches.results("msgbatch_1"))
        with instrumented() as captured:
            assert batches.create(requests=REQUESTS) == expected
            send_results(api, BODY)
            assert list(batches.results("msgbatch_1")) == results
    assert [span.name for span in captured.spans] == ["create_batch", "batch_results"]
    assert [span.attributes[BATCH_ID] for span in captured.spans] == ["msgbatch_1"] * 2
