"""The normaliser runs only the steps that concern the names of a span, with the same result as all steps."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model import semconv
from prela_stream.otel import content
from prela_stream.otel.answers import ANSWERS
from prela_stream.otel.evidence import EVIDENCE
from prela_stream.otel.names import PARAMETER_MAPS, RENAMED
from prela_stream.otel.normaliser import normalise, normalise_as
from prela_stream.otel.shapes import MILLISECONDS, NUMBERS, STARTED, find_shape
from prela_stream.otel.spans import ForeignEvent, ForeignSpan
from prela_stream.otel.usage import CONSUMED, usage_keys

SOURCES: Final = [
    *(*content.INPUTS, *content.OUTPUTS, *content.PLAIN_INPUTS, *content.PLAIN_OUTPUTS),
    *(*content.INSTRUCTIONS, *content.TOOL_DEFINITIONS, *content.PLAIN_TOOLS),
]
PREFIXED: Final = [f"{one.prefix}.0.content" for one in SOURCES if one.prefix]
NAMES: Final = sorted(
    {
        *RENAMED,
        *RENAMED.values(),
        *CONSUMED,
        *PARAMETER_MAPS,
        *MILLISECONDS,
        STARTED,
        *(key for key, _ in EVIDENCE),
        *(key for one in SOURCES for key in one.keys),
        *PREFIXED,
        *ANSWERS,
        *NUMBERS,
        "llm.system",
        "gen_ai.usage.total_tokens",
        "langfuse.observation.usage_details",
        "langfuse.observation.cost_details",
    }
)
EVERYTHING: Final = find_shape(NAMES, events=True)
MESSAGES: Final = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
VALUES: Final = st.one_of(
    st.none(),
    st.integers(0, 500),
    st.floats(allow_nan=False),
    st.sampled_from(
        ["chat", "LLM", "tool", "execute_tool", "openai", "stop", "ai.toolCall", "", "12", MESSAGES, '{"input": 3}']
    ),
    st.lists(st.sampled_from(["stop", "tool_use"]), max_size=2),
)
EVENTS: Final = st.lists(
    st.builds(
        ForeignEvent,
        name=st.sampled_from(["gen_ai.choice", "gen_ai.user.message", "exception", "other", content.DETAILS_EVENT]),
        time_ns=st.just(1),
        attributes=st.dictionaries(
            st.sampled_from(["content", "message", "gen_ai.input.messages", "exception.type"]), st.just(MESSAGES)
        ),
    ),
    max_size=2,
)


_WORDS: Final = st.sampled_from(
    [
        *("role", "content", "parts", "message", "type", "text", "tool_calls", "function", "name", "arguments", "id"),
        *(
            "function_call",
            "function_response",
            "toolUse",
            "toolResult",
            "reasoningContent",
            "tool_use",
            "image",
            "image_url",
        ),
        *(
            "input",
            "output",
            "messages",
            "contents",
            "tools",
            "config",
            "system_instruction",
            "json_schema",
            "tool",
            "lc",
        ),
        *(
            "kwargs",
            "additional_kwargs",
            "response_metadata",
            "finish_reason",
            "source",
            "data",
            "inline_data",
            "event.name",
        ),
    ]
)
ANY_JSON: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 3), st.floats(allow_nan=False), _WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=3)),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(NAMES), st.one_of(ANY_JSON, ANY_JSON.map(json.dumps)), max_size=5),
    st.sampled_from(["chat", "execute_tool", "retrieval", "invoke_agent", "embeddings", None]),
    st.dictionaries(
        st.sampled_from(["content", "message", "gen_ai.input.messages", "tool_calls"]), ANY_JSON, max_size=2
    ),
)
def test_no_value_makes_the_normaliser_fail(
    attributes: dict[str, Any], operation: str | None, event: dict[str, Any]
) -> None:
    span = ForeignSpan(
        trace_id=bytes(15) + b"1",
        span_id=bytes(7) + b"1",
        end_ns=1,
        attributes={**attributes, "gen_ai.operation.name": operation},
        events=[ForeignEvent(name="gen_ai.choice", time_ns=1, attributes=event)],
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PRELA_STRICT", "1")  # raises what guard() would count
        normalise(span)


def test_the_shape_of_all_names_has_every_step() -> None:
    assert len(EVERYTHING.evidence) == len(EVIDENCE)
    assert len(EVERYTHING.inputs) == len(content.INPUTS)
    assert len(EVERYTHING.outputs) == len(content.OUTPUTS)
    usage = usage_keys(NAMES)
    assert usage is not None
    assert usage.details
    assert usage.cost
    assert semconv.INPUT_TOKENS in dict(usage.counts)


@given(
    st.dictionaries(st.sampled_from([*NAMES, "http.route", "custom"]), VALUES, max_size=12),
    EVENTS,
    st.sampled_from(["unset", "error"]),
)
def test_the_steps_for_the_names_of_a_span_give_what_all_steps_give(
    attributes: dict[str, Any], events: list[ForeignEvent], status: Any
) -> None:
    span = ForeignSpan(
        trace_id=bytes(15) + b"1",
        span_id=bytes(7) + b"1",
        name="call",
        start_ns=10**9,
        end_ns=2 * 10**9,
        attributes=dict(attributes),
        events=events,
        status=status,
    )
    assert normalise(span) == normalise_as(span, EVERYTHING)
    assert span.attributes == attributes  # it is not changed
