"""The client's native OpenTelemetry spans through the bridge: one span for a call, with our instrumentor or without it."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from opentelemetry.sdk.trace import TracerProvider

from prela_stream.instrumentation.otel_bridge import bridge_opentelemetry, unbridge_opentelemetry
from prela_stream.model import semconv
from prela_stream.model.span import COUNTED, SpanData, SpanType
from prela_stream.testing import capture_spans
from prela_stream.tracing.tracer import get_tracer
from tests.integration.anthropic_client.conftest import Instrumented

REQUEST: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Which reefs are open to divers in May?"}],
}


@pytest.fixture
def traced(model_server_url: str) -> Iterator[anthropic.Anthropic]:
    """A client that makes native spans, with a bridged provider."""
    provider = TracerProvider(shutdown_on_exit=False)
    bridge_opentelemetry(provider)
    options: Any = {"tracer_provider": provider, "traces": {"content_mode": "content"}}
    with anthropic.Anthropic(base_url=model_server_url, api_key="demo", open_telemetry=options) as client:
        yield client
    unbridge_opentelemetry()


def call(client: anthropic.Anthropic) -> anthropic.types.Message:
    with get_tracer().span("agent", SpanType.AGENT):
        message: anthropic.types.Message = client.messages.create(**REQUEST)
    return message


def check(spans: list[SpanData], message: anthropic.types.Message) -> SpanData:
    """One model call below the agent, with the tokens of the answer, in a tree with exact counts."""
    (llm,) = [span for span in spans if span.span_type is SpanType.LLM]
    (agent,) = [span for span in spans if span.name == "agent"]
    assert (llm.parent_span_id, llm.flags, agent.child_count) == (agent.span_id, COUNTED, 1)
    assert llm.attributes[semconv.INPUT_TOKENS] == message.usage.input_tokens
    assert llm.attributes[semconv.OUTPUT_TOKENS] == message.usage.output_tokens
    assert len(spans) == 2
    return llm


def test_the_native_span_is_recorded_without_our_instrumentor(traced: anthropic.Anthropic) -> None:
    with capture_spans() as captured:
        message = call(traced)
    llm = check(captured.spans, message)
    assert llm.attributes["otel.scope.name"] == "com.anthropic.sdk.python"
    assert llm.attributes[semconv.INPUT_MESSAGES]


def test_with_our_instrumentor_a_call_gives_one_span_and_it_is_ours(
    traced: anthropic.Anthropic, instrumented: Instrumented
) -> None:
    with instrumented() as captured:
        message = call(traced)
    llm = check(captured.spans, message)
    assert "otel.scope.name" not in llm.attributes
