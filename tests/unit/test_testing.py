"""capture_spans() and the assertions for users' tests."""

import pytest

from prela_stream.model.span import SpanType
from prela_stream.sdk.tracer import get_current_span, get_tracer
from prela_stream.testing import assert_tree, capture_spans

tracer = get_tracer()


def test_spans_come_in_the_order_of_their_ends_and_roots_in_that_of_their_starts() -> None:
    with capture_spans() as captured:
        with tracer.span("a"), tracer.span("b"):
            pass
        with tracer.span("c"):
            pass
    assert [span.name for span in captured.spans] == ["b", "a", "c"]
    assert [span.name for span in captured.roots] == ["a", "c"]
    assert [span.name for span in captured.children(captured.find("a"))] == ["b"]
    assert captured.tree() == "a\n  b\nc"


async def test_it_starts_outside_of_any_trace_and_puts_everything_back() -> None:
    before = tracer.recorder
    with capture_spans() as outer:
        with tracer.span("around") as around:
            with capture_spans() as inner:
                assert get_current_span() is None
                async with tracer.span("inside"):
                    pass
            assert get_current_span() is around
        assert tracer.recorder is outer
    assert tracer.recorder is before
    assert (outer.tree(), inner.tree()) == ("around", "inside")


def test_find_says_what_there_is() -> None:
    with capture_spans() as captured:
        with pytest.raises(AssertionError, match=r"no span is named 'x'; expected exactly one. Captured:\n\(nothing"):
            captured.find("x")
        for _ in range(2):
            with tracer.span("twice"):
                pass
        with pytest.raises(AssertionError, match=r"2 spans are named .twice.; expected exactly one"):
            captured.find("twice")
        captured.clear()
        assert captured.spans == []


def test_assert_tree_shows_the_difference() -> None:
    with capture_spans() as captured, pytest.raises(ZeroDivisionError):  # noqa: PT012, SIM117 - shows the nesting
        with tracer.span("agent", SpanType.AGENT):
            with tracer.span("chat", SpanType.LLM):
                pass
            with tracer.span("tool", SpanType.TOOL):
                raise ZeroDivisionError
    good = """
        agent [AGENT] ERROR
          chat [LLM]
          tool [TOOL] ERROR
    """
    assert_tree(captured.spans, good)
    with pytest.raises(AssertionError) as raised:
        assert_tree(captured.spans, good.replace("chat [LLM]", "chat"))
    lines = str(raised.value).splitlines()
    assert "-   chat" in lines
    assert "+   chat [LLM]" in lines
