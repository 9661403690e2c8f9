"""A kept span that is sent by OTLP and received again by OTLP is the same span."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prela_stream.model import semconv
from prela_stream.model.span import Resource, SpanData, SpanEvent, SpanLink, SpanStatus, SpanType
from prela_stream.otel.items import span_data_of
from prela_stream.otel.otlp import protobuf
from prela_stream.otel.otlp.encode import Form, Marks, encode_request
from prela_stream.otel.spans import ForeignSpan

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
KEYS = st.text("abcxyz.", min_size=1, max_size=6).map(lambda key: f"app.{key}")
SCALARS = st.one_of(
    TEXT, st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), st.binary(max_size=9)
)
ATTRIBUTES = st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=3), max_size=5)
NS = st.integers(1, 1 << 60)
CONVERSATION: dict[str, Any] = {
    semconv.OPERATION_NAME: "chat",
    semconv.PROVIDER_NAME: "anthropic",
    semconv.REQUEST_MODEL: "model-1",
    semconv.REQUEST_MAX_TOKENS: 100,
    semconv.REQUEST_TEMPERATURE: 0.5,
    semconv.INPUT_TOKENS: 20,
    semconv.OUTPUT_TOKENS: 7,
    semconv.CACHE_READ_TOKENS: 5,
    semconv.REASONING_TOKENS: 3,
    semconv.FINISH_REASONS: ["tool_call"],
    semconv.CONVERSATION_ID: "session-1",
    semconv.USER_ID: "user-1",
    semconv.INPUT_MESSAGES: [{"role": "user", "parts": [{"type": "text", "content": "What is 2 + 2?"}]}],
    semconv.OUTPUT_MESSAGES: [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "I add."},
                {"type": "tool_call", "id": "call-1", "name": "add", "arguments": {"a": 2, "b": 2}},
            ],
            "finish_reason": "tool_call",
        }
    ],
}


def received(span: SpanData, form: Form = "genai") -> SpanData:
    """The span as another pipeline stores it."""
    sent = encode_request([(span, Marks(attributes={}, threshold=None))], form)
    (found,) = protobuf.read(sent)
    assert isinstance(found, ForeignSpan)
    return span_data_of(found)


@settings(max_examples=200)
@given(
    attributes=ATTRIBUTES,
    status=st.sampled_from([SpanStatus.SUCCESS, SpanStatus.ERROR]),
    kind=st.sampled_from(SpanType),
    start=NS,
    duration=NS,
    name=TEXT,
    events=st.lists(st.builds(SpanEvent, TEXT, NS, ATTRIBUTES), max_size=2),
    links=st.lists(
        st.builds(SpanLink, st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), ATTRIBUTES),
        max_size=2,
    ),
)
def test_a_span_is_the_same(
    attributes: dict[str, Any],
    status: SpanStatus,
    kind: SpanType,
    start: int,
    duration: int,
    name: str,
    events: list[SpanEvent],
    links: list[SpanLink],
) -> None:
    span = SpanData(
        trace_id="ab" * 16,
        span_id="cd" * 8,
        parent_span_id="ef" * 8,
        name=name,
        span_type=kind,
        status=status,
        start_ns=start,
        duration_ns=duration,
        attributes=attributes,
        events=events,
        links=links,
        resource=Resource(service_name="agent", pid=7, attributes={"cloud.region": "eu"}),
    )
    found = received(span)
    assert msgspec.structs.replace(found, attributes={}, flags=0) == msgspec.structs.replace(span, attributes={})
    assert {key: found.attributes[key] for key in attributes} == attributes


@pytest.mark.parametrize("form", ["genai", "openinference"])
def test_a_model_call_is_the_same_in_both_conventions(form: Form) -> None:
    span = SpanData(
        trace_id="ab" * 16,
        span_id="cd" * 8,
        name="chat model-1",
        span_type=SpanType.LLM,
        status=SpanStatus.SUCCESS,
        start_ns=1,
        duration_ns=2,
        attributes=CONVERSATION,
    )
    found = received(span, form)
    assert (found.span_type, found.status) == (SpanType.LLM, SpanStatus.SUCCESS)
    expected = dict(CONVERSATION)
    if form == "openinference":  # it has no place for these
        del expected[semconv.OPERATION_NAME]
        expected[semconv.OUTPUT_MESSAGES] = [
            {key: value for key, value in message.items() if key != "finish_reason"}
            for message in CONVERSATION[semconv.OUTPUT_MESSAGES]
        ]
    assert {key: found.attributes.get(key) for key in expected} == expected
