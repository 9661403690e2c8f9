"""capture_spans() and the assertions for users' tests."""

import asyncio

import pytest

from prela_stream.model.span import SpanType
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.tracer import get_current_span, get_tracer

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


def test_what_was_captured_is_a_sequence_of_spans() -> None:
    with capture_spans() as captured:
        assert (len(captured), list(captured), bool(captured)) == (0, [], False)
        with tracer.span("a"), tracer.span("b"):
            pass
    assert [span.name for span in captured] == ["b", "a"]
    assert (len(captured), captured[0].name, captured[-1].name) == (2, "b", "a")
    assert [span.name for span in captured[:1]] == ["b"]
    assert repr(captured) == "<CapturedSpans: b, a>"
    assert_tree(captured, "a\n  b")


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


def test_find_reports_what_was_captured() -> None:
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


def test_the_fixture_catches_the_spans_of_a_test(captured_spans: CapturedSpans) -> None:
    assert get_current_span() is None
    assert tracer.recorder is captured_spans
    with tracer.span("outer"), tracer.span("inner"):
        pass
    assert_tree(captured_spans.spans, "outer\n  inner")


async def test_the_fixture_works_for_async_tests(captured_spans: CapturedSpans) -> None:
    async with tracer.span("outer"):
        await asyncio.gather(*(step(number) for number in range(3)))
    assert_tree(captured_spans.spans, "outer\n  step 0\n  step 1\n  step 2")


async def step(number: int) -> None:
    async with tracer.span(f"step {number}"):
        await asyncio.sleep(0)


def test_the_fixture_in_another_project(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["prela_stream.pytest_plugin"]')
    pytester.makepyfile(
        """
        import prela_stream as prela
        from prela_stream.testing import assert_tree

        def test_right(captured_spans):
            with prela.get_tracer().span("agent"):
                pass
            assert_tree(captured_spans.spans, "agent")

        def test_wrong(captured_spans):
            with prela.get_tracer().span("agent"):
                pass
            assert_tree(captured_spans.spans, "agent [LLM]")
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- agent [[]LLM]*", "*+ agent*"])
