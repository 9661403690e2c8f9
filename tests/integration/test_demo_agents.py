"""The demo's agents in this process: each kind of run gives the trace that it demonstrates."""

import itertools
from collections.abc import Iterator

import pytest
from anthropic import AsyncAnthropic

from prela_stream.demo.agents import AGENTS, MAX_TURNS, OUTCOME, Run, run_all, run_one
from prela_stream.demo.model_server import serving
from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.testing import CapturedSpans, capture_spans


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturedSpans]:
    monkeypatch.setenv("PRELA_STRICT", "1")
    with capture_spans() as captured:
        auto_instrument(names=["anthropic"])
        yield captured
        uninstrument()


async def trace_of(kind: str, url: str, captured: CapturedSpans, *, seed: int = 1) -> tuple[SpanData, list[SpanData]]:
    async with AsyncAnthropic(base_url=url, api_key="demo") as client:
        await run_one(client, Run(number=1, kind=kind, seed=seed))
    (root,) = captured.roots
    assert root.span_type is SpanType.AGENT
    assert root.attributes[semconv.AGENT_NAME] == root.name == AGENTS[kind][1]
    assert {span.trace_id for span in captured.spans} == {root.trace_id}
    assert root.child_count == len(captured.children(root))
    return root, captured.children(root)


def of_type(spans: list[SpanData], kind: SpanType) -> list[SpanData]:
    return [span for span in spans if span.span_type is kind]


@pytest.mark.parametrize("seed", range(4))
async def test_research_streams_and_its_tools_are_its_children(url: str, captured: CapturedSpans, seed: int) -> None:
    root, children = await trace_of("research", url, captured, seed=seed)
    assert root.status is SpanStatus.SUCCESS
    assert root.attributes[OUTCOME] == "done"
    calls, tools = of_type(children, SpanType.LLM), of_type(children, SpanType.TOOL)
    assert 2 <= len(calls) <= 4
    assert tools
    assert len(calls) + len(tools) == len(children)
    assert all(call.attributes[semconv.TIME_TO_FIRST_CHUNK] > 0 for call in calls)
    asked = [
        part for call in calls for part in call.attributes[semconv.OUTPUT_MESSAGES][0]["parts"] if "arguments" in part
    ]
    assert sorted(part["id"] for part in asked) == sorted(tool.attributes[semconv.TOOL_CALL_ID] for tool in tools)


async def test_tools_of_one_turn_run_at_the_same_time(url: str, captured: CapturedSpans) -> None:
    for seed in range(12):
        captured.clear()
        _, children = await trace_of("research", url, captured, seed=seed)
        tools = of_type(children, SpanType.TOOL)
        for first, second in itertools.pairwise(tools):
            assert first.end_ns is not None
            if second.start_ns < first.end_ns:
                return
    pytest.fail("no two tools of twelve runs overlapped")


async def test_support_needs_two_retries_a_call(url: str, captured: CapturedSpans) -> None:
    root, children = await trace_of("support", url, captured)
    assert root.status is SpanStatus.SUCCESS
    assert {call.attributes[semconv.RESEND_COUNT] for call in of_type(children, SpanType.LLM)} == {2}


async def test_a_tool_with_a_bug_fails_the_run(url: str, captured: CapturedSpans) -> None:
    root, children = await trace_of("reporting", url, captured)
    assert root.status is SpanStatus.ERROR
    assert [tool.status for tool in of_type(children, SpanType.TOOL)] == [SpanStatus.ERROR]
    assert root.attributes[semconv.ERROR_TYPE].endswith("BrokenToolError")


async def test_a_rejected_request_fails_the_run(url: str, captured: CapturedSpans) -> None:
    root, (call,) = await trace_of("rejected", url, captured)
    assert (root.status, call.status) == (SpanStatus.ERROR, SpanStatus.ERROR)
    assert call.attributes[semconv.ERROR_TYPE] == "invalid_request_error"


async def test_a_runaway_is_stopped_by_its_agent(url: str, captured: CapturedSpans) -> None:
    root, children = await trace_of("runaway", url, captured)
    assert root.attributes[OUTCOME] == "turn_limit"
    tools = of_type(children, SpanType.TOOL)
    assert len(of_type(children, SpanType.LLM)) == len(tools) == MAX_TURNS
    assert len({str(tool.attributes[semconv.TOOL_CALL_ARGUMENTS]) for tool in tools}) == 1


async def test_a_refusal_is_no_answer(url: str, captured: CapturedSpans) -> None:
    root, (call,) = await trace_of("refused", url, captured)
    assert root.attributes[OUTCOME] == "no_answer"
    assert call.attributes[semconv.FINISH_REASONS] == ["content_filter"]


async def test_a_user_who_leaves_cancels_the_call(url: str, captured: CapturedSpans) -> None:
    root, (call,) = await trace_of("impatient", url, captured)
    assert root.attributes[OUTCOME] == "left"
    assert (root.status, call.status) == (SpanStatus.SUCCESS, SpanStatus.CANCELLED)


async def test_many_at_once_are_as_many_traces(url: str, captured: CapturedSpans) -> None:
    done: list[int] = []
    await run_all(url, runs=12, seed=2, concurrency=6, on_done=done.append)
    assert done == list(range(1, 13))
    roots = captured.roots
    assert len({root.trace_id for root in roots}) == len(roots) == 12
