"""The tool runners of the client beyond the table of scenarios: decisions, tools that fail, runs that are left early."""

import inspect
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.lib import decisions_tool_runner, responses_tool_runner
from openai.lib._tool_lifecycle import ToolLifecycle
from openai.lib.browser import AsyncBrowserToolset, BrowserToolset
from openai.lib.computer import AsyncComputerToolset, ComputerToolset

from prela_stream.instrumentation.openai.runners import DECISIONS, MODULES, RESPONSES
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.testing import CapturedSpans
from prela_stream.tracing.tracer import get_current_span, get_tracer
from tests.integration.openai_client.conftest import Instrumented
from tests.support import openai_api
from tests.support.model_api import ModelApi, Reply
from tests.support.openai_scenarios import ASK, TOOL

SUCCESS, ERROR = SpanStatus.SUCCESS, SpanStatus.ERROR
PARAMS: Any = {"model": "gpt-6-luna", "input": "Open the door."}


def chosen(choice: str) -> Reply:
    answer = {
        "type": "choice", "name": "next_action", "choice": choice, "confidence": 0.9,
        "probabilities": [{"value": choice, "probability": 0.9}],
    }  # fmt: skip
    usage = openai_api.RESPONSE_USAGE
    body = {"id": "dec_1", "object": "decision", "model": "gpt-6-luna", "usage": usage, "answers": [answer]}
    return Reply(json.dumps(body).encode())


def turns() -> Iterator[Reply]:
    called, answered = openai_api.response("", calls=True), openai_api.response("It rains.")
    return iter([Reply(json.dumps(body).encode()) for body in (called, answered)])


def tree(captured: CapturedSpans) -> list[tuple[str, SpanType, SpanStatus, str | None]]:
    """Name, type, status and name of the parent, in the order of the starts."""
    names = {span.span_id: span.name for span in captured.spans}
    spans = sorted(captured.spans, key=lambda span: span.start_ns)
    return [(one.name, one.span_type, one.status, names.get(one.parent_span_id or "")) for one in spans]


def decide(execute: Any) -> Any:
    candidates: Any = lambda _: [  # noqa: E731 - one use
        {"id": "push", "description": "Push it.", "execute": execute},
        {"id": "done", "description": "It is open.", "done": True},
    ]
    return decisions_tool_runner.DecisionsToolRunner(observe=lambda: "a door", candidates=candidates)


DECIDED = [
    (DECISIONS, SpanType.AGENT, SUCCESS, None),
    ("decide gpt-6-luna", SpanType.LLM, SUCCESS, DECISIONS),
    ("push", SpanType.TOOL, SUCCESS, DECISIONS),
    ("inside", SpanType.CUSTOM, SUCCESS, "push"),
    ("decide gpt-6-luna", SpanType.LLM, SUCCESS, DECISIONS),
]


def test_decisions(api: ModelApi, instrumented: Instrumented) -> None:
    def push() -> None:
        with get_tracer().span("inside"):
            pass

    with OpenAI(base_url=api.url, api_key="k") as client:
        api.replies = iter([chosen("push"), chosen("done")])
        expected = decide(push).run(client, PARAMS)
        with instrumented() as captured:
            api.replies = iter([chosen("push"), chosen("done")])
            assert decide(push).run(client, PARAMS) == expected
    assert tree(captured) == DECIDED


async def test_decisions_async(api: ModelApi, instrumented: Instrumented) -> None:
    async def push() -> None:
        async with get_tracer().span("inside"):
            pass

    async def observe() -> str:
        return "a door"

    async def candidates(_: object) -> list[Any]:
        return [
            {"id": "push", "description": "Push it.", "execute": partial(push)},  # no coroutine function itself
            {"id": "done", "description": "It is open.", "done": True},
        ]

    runner = decisions_tool_runner.AsyncDecisionsToolRunner(observe=observe, candidates=candidates)
    async with AsyncOpenAI(base_url=api.url, api_key="k") as client:
        with instrumented() as captured:
            api.replies = iter([chosen("push"), chosen("done")])
            result = await runner.run(client, PARAMS)
    assert result["completed_candidate_ids"] == ["push"]
    assert tree(captured) == DECIDED


def test_a_candidate_that_fails(api: ModelApi, instrumented: Instrumented) -> None:
    def push() -> None:
        raise LookupError("stuck")

    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        api.replies = iter([chosen("push")])
        with pytest.raises(decisions_tool_runner.DecisionsToolRunnerError):
            decide(push).run(client, PARAMS)
    assert [status for _, _, status, _ in tree(captured)] == [ERROR, SUCCESS, ERROR]
    assert captured.named("push")[0].attributes[semconv.ERROR_MESSAGE] == "stuck"


def runner_of(execute: Any) -> Any:
    function: Any = responses_tool_runner.RegisteredFunction
    return responses_tool_runner.ResponsesToolRunner(functions=[function(TOOL, execute)])


def test_a_function_that_fails(api: ModelApi, instrumented: Instrumented) -> None:
    def fail(_: object) -> str:
        raise LookupError("no weather")

    api.replies = turns()
    client, stopped = OpenAI(base_url=api.url, api_key="k"), pytest.raises(responses_tool_runner.ToolRunnerError)
    with client, instrumented() as captured, stopped:
        runner_of(fail).run(client, ASK)
    spans = tree(captured)
    assert spans[0] == (RESPONSES, SpanType.AGENT, ERROR, None)
    assert spans[2] == ("weather", SpanType.TOOL, ERROR, RESPONSES)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_run_that_is_left_early(api: ModelApi, instrumented: Instrumented, how: str) -> None:
    api.replies = turns()
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented() as captured:
        run = runner_of(lambda _: "rainy").iterate(client, ASK)
        next(run)
        assert get_current_span() is None, "the span of the run is current in the loop of the application"
        if how == "close":
            run.close()
        del run
        assert [status for _, _, status, _ in tree(captured)] == [SUCCESS, SUCCESS]


def test_wrong_arguments_are_refused_when_the_run_is_made(instrumented: Instrumented) -> None:
    with instrumented(), pytest.raises(TypeError, match="unexpected keyword"):
        runner_of(lambda _: "rainy").iterate(None, ASK, no_such_argument=1)


def test_without_content_names_and_ids_stay(api: ModelApi, instrumented: Instrumented) -> None:
    api.replies = turns()
    with OpenAI(base_url=api.url, api_key="k") as client, instrumented(capture_content=False) as captured:
        runner_of(lambda _: "a secret").run(client, ASK)
    (tool,) = captured.named("weather")
    assert tool.attributes[semconv.TOOL_CALL_ID] == "call_1"
    assert not {semconv.TOOL_CALL_ARGUMENTS, semconv.TOOL_CALL_RESULT} & set(tool.attributes)
    assert not any("secret" in repr(span) for span in captured.spans)


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_call_of_the_browser(instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch, succeeds: bool) -> None:
    """The toolset's own dispatch is replaced: it needs a browser."""
    from openai.types.responses import ResponseFunctionToolCall

    item = ResponseFunctionToolCall(
        type="function_call", call_id="c1", name="navigate", arguments='{"url": "http://a"}'
    )
    returned = ({"type": "function_call_output", "call_id": "c1", "output": "refused"}, succeeds)
    monkeypatch.setattr(BrowserToolset, "_dispatch", lambda *_, **__: returned)
    toolset = object.__new__(BrowserToolset)
    vars(toolset)["_lifecycle"] = ToolLifecycle("x")
    with instrumented() as captured:
        assert toolset._execute(item) is returned
    (span,) = captured.spans
    assert (span.name, span.span_type, span.status) == ("navigate", SpanType.TOOL, SUCCESS if succeeds else ERROR)
    assert span.attributes[semconv.TOOL_CALL_ARGUMENTS] == {"url": "http://a"}


async def test_a_call_of_the_computer(instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, async."""
    from openai.types.responses import ResponseComputerToolCall

    action = {"type": "click", "x": 1, "y": 2, "button": "left"}
    fields: Any = {
        "id": "i",
        "call_id": "c2",
        "type": "computer_call",
        "status": "completed",
        "pending_safety_checks": [],
    }
    item = ResponseComputerToolCall.model_validate({**fields, "action": action, "actions": [action]})
    returned = {"type": "computer_call_output", "call_id": "c2", "output": {"image_url": "https://a.test/1"}}

    async def dispatch(*_: object, **__: object) -> Any:
        return returned

    monkeypatch.setattr(AsyncComputerToolset, "_dispatch", dispatch)
    toolset = object.__new__(AsyncComputerToolset)
    vars(toolset)["_lifecycle"] = ToolLifecycle("x")
    with instrumented() as captured:
        assert await toolset.execute(item) is returned
    (span,) = captured.spans
    assert (span.name, span.status, span.attributes[semconv.TOOL_CALL_ID]) == ("computer", SUCCESS, "c2")
    assert span.attributes[semconv.TOOL_CALL_ARGUMENTS]["action"]["type"] == "click"
    assert span.attributes[semconv.TOOL_CALL_RESULT] == {"image_url": "https://a.test/1"}


def test_uninstrument_restores_the_runner_classes(instrumented: Instrumented) -> None:
    classes: list[Any] = [
        *vars(responses_tool_runner).values(), *vars(decisions_tool_runner).values(),
        BrowserToolset, AsyncBrowserToolset, ComputerToolset, AsyncComputerToolset,
    ]  # fmt: skip
    by_name = {(one.__module__, one.__name__): one for one in classes if isinstance(one, type)}
    places = [(by_name[module, step.owner], step.name) for module, steps in MODULES.items() for step in steps]
    originals = [vars(owner)[name] for owner, name in places]
    with instrumented():
        patched = [vars(owner)[name] for owner, name in places]
    assert all(new is not old for new, old in zip(patched, originals, strict=True))
    assert [inspect.iscoroutinefunction(new) for new in patched] == [
        inspect.iscoroutinefunction(old) for old in originals
    ]
    assert [vars(owner)[name] for owner, name in places] == originals
