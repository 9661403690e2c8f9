"""The conversation of a trace, and the content of single spans."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.model.tree import SpanTree
from prela_stream.text import INVISIBLE
from prela_stream.views.content import content_of
from prela_stream.views.facts import facts_of
from prela_stream.views.text_form import conversation_lines, part_text, trace_text
from prela_stream.views.transcript import transcript_of
from tests.support.agent_traces import (
    ANSWER,
    QUESTION,
    conversation,
    made,
    message,
    model_call,
    part,
    with_failures,
)  # fmt: skip
from tests.support.examples import examples


def lines_of(spans: list[SpanData]) -> list[str]:
    return list(conversation_lines(transcript_of(SpanTree(spans))))


def test_each_message_is_there_once() -> None:
    assert lines_of(conversation()) == [
        "[2] system:", "    You plan trips.",
        "[2] user:", "    How far is Lisbon?",
        "[2] assistant (sonnet):", "    I will check.", '    calls distance({"to":"Lisbon"})',
        '[3] tool distance({"to":"Lisbon"})', "    → 2,300 km",
        "[4] assistant (sonnet):", "    It is 2,300 km away.",
    ]  # fmt: skip
    found = transcript_of(SpanTree(conversation()))
    assert (found.model_calls, found.unreadable_calls, found.repeated_messages) == (2, 0, 4)


def test_without_a_span_of_the_tool_its_result_is_a_message() -> None:
    spans = [span for span in conversation() if span.span_type is not SpanType.TOOL]
    assert "    result: 2,300 km" in lines_of(spans)


def test_what_a_person_repeats_is_a_message_again() -> None:
    yes = message("user", part("yes"))
    spans = [
        made(1, None, "plan trip", SpanType.AGENT, at=0, ms=100),
        model_call(2, 1, 1, [yes], ANSWER),
        model_call(3, 1, 50, [yes, ANSWER, yes], ANSWER),
    ]
    assert lines_of(spans).count("    yes") == 2
    assert lines_of(spans).count("    It is 2,300 km away.") == 2


def test_two_agents_have_two_conversations() -> None:
    spans = [
        made(1, None, "first", SpanType.AGENT, at=0, ms=100),
        model_call(2, 1, 1, [QUESTION], ANSWER),
        made(3, 1, "second", SpanType.AGENT, at=50, ms=40),
        model_call(4, 3, 51, [QUESTION], ANSWER),
    ]
    lines = lines_of(spans)
    assert lines.count("    How far is Lisbon?") == 2
    assert [line for line in lines if "agent" in line] == ["[1] agent first", "[3] agent second"]


def test_calls_without_content_are_counted() -> None:
    spans = [made(1, None, "chat", SpanType.LLM, at=0, ms=1)]
    assert lines_of(spans) == ["(1 model call of 1 without recorded messages)"]


def test_a_failed_call_ends_the_conversation_with_its_error() -> None:
    assert lines_of(with_failures())[0] == "[2] failed: 2 retries, HTTP 529, ERROR overloaded_error: overloaded"


def test_facts_of_a_failed_call() -> None:
    facts = facts_of(with_failures()[1])
    assert (facts.error_type, facts.error_message, facts.retries, facts.http_status) == (
        "overloaded_error", "overloaded", 2, 529,
    )  # fmt: skip
    stopped = facts_of(model_call(2, 1, 0, [], ANSWER, **{"gen_ai.response.finish_reasons": ["max_tokens", "stop"]}))
    assert stopped.cut_short == ("max_tokens",)
    assert facts_of(conversation()[1]).cut_short == ()


@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        ({"input.value": '{"q": 1}', "output.value": "found"}, ['calls f({"q":1})', "result of f: found"]),
        ({"prela.function.arguments": {"q": "x"}, "prela.function.result": [1]}, ['calls f({"q":"x"})', "result of f: [1]"]),
        ({"gen_ai.tool.call.result": [{"type": "text", "text": "a"}]}, ["result of f: a"]),
        ({"gen_ai.retrieval.query.text": "reefs"}, ["calls f(reefs)"]),
        ({}, []),
    ],
)  # fmt: skip
def test_what_a_tool_was_given_and_returned(attributes: dict[str, Any], shown: list[str]) -> None:
    content = content_of(made(1, None, "f", SpanType.TOOL, at=0, ms=1, attributes={"tool.name": "f", **attributes}))
    parts = [one for one in (content.arguments, content.result) if one is not None]
    assert [part_text(one, None) for one in parts] == shown
    assert bool(content) is bool(shown)


def test_messages_of_other_conventions_are_read() -> None:
    flat = {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "hello",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "hi",
    }
    content = content_of(made(1, None, "chat", SpanType.LLM, at=0, ms=1, attributes=flat))
    assert [(one.role, one.parts[0].text) for one in (*content.input, *content.output)] == [
        ("user", "hello"), ("assistant", "hi"),
    ]  # fmt: skip


def test_media_is_named_and_not_shown() -> None:
    image = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "A" * 400}
    inline = {"type": "uri", "modality": "image", "uri": "data:image/gif;base64," + "A" * 40}
    away = {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"}
    spans = [
        made(1, None, "a", SpanType.AGENT, at=0, ms=9),
        model_call(2, 1, 1, [message("user", image, inline, away)], ANSWER),
    ]
    assert [line.strip() for line in lines_of(spans) if "<" in line] == [
        "<image/png 300 bytes>", "<image/gif 30 bytes>", "<image https://example.com/a.png>",
    ]  # fmt: skip


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(
        ["role", "parts", "content", "type", "text", "message", "id", "name", "arguments", "response", "uri", "tool_calls"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
keys = st.sampled_from(
    [
        "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result", "input.value", "output.value", "gen_ai.response.finish_reasons", "error.stacktrace",
        "http.response.status_code", "gen_ai.usage.input_tokens", "prela.cost.usd", "gen_ai.response.time_to_first_chunk",
        "llm.system", "gen_ai.tool.name", "gen_ai.tool.call.id", "mine", "llm.input_messages.0.message.content",
    ]
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(SpanType), st.sampled_from(SpanStatus), st.dictionaries(keys, values, max_size=5)),
        min_size=1, max_size=4,
    )
)  # fmt: skip
@examples(150)
def test_any_attributes_give_text_that_a_terminal_may_show(given_spans: list[Any]) -> None:
    spans = [
        made(
            number,
            None if number == 1 else 1,
            "\x1b[2Jname\u202e",
            kind,
            at=number,
            ms=5,
            status=status,
            attributes=own,
        )
        for number, (kind, status, own) in enumerate(given_spans, 1)
    ]
    for full in (False, True):
        text = trace_text(spans, None, full=full)
        text.encode()
        assert INVISIBLE.search(text) is None
