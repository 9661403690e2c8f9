"""The tool runners of the `openai` client: for Responses, with functions, a browser and a computer, and for Decisions."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.instrumentation.provider import read_json
from prela_stream.instrumentation.tool_runner import (
    AgentRun,
    RunnerPatches,
    Step,
    ToolCall,
    ToolResult,
    executes,
    runs,
    traced_tool,
)

RESPONSES: Final = "responses_tool_runner"
"""Name of its AGENT spans."""
DECISIONS: Final = "decisions_tool_runner"
"""Name of its AGENT spans."""
_guard: Final = guard("instrumentation.runner")


def _of_responses(_: Any, client: Any, params: Any, **__: Any) -> AgentRun:
    return AgentRun(RESPONSES, client, params.get("model"))


def _of_decisions(_: Any, client: Any, params: Any, **__: Any) -> AgentRun:
    return AgentRun(DECISIONS, client, params.get("model"))


def _function(*args: Any) -> ToolCall:
    """Of `_execute_function(runner, run, item)` or `_execute(browser, item)`."""
    item = args[-1]
    arguments = read_json(item.arguments.encode())
    return ToolCall(item.name, item.call_id, item.arguments if arguments is None else arguments)


def _computer(_: Any, item: Any) -> ToolCall:
    asked = item.model_dump(mode="json", exclude_none=True)
    return ToolCall("computer", item.call_id, {key: asked[key] for key in ("action", "actions") if key in asked})


def _output(returned: Any) -> ToolResult:
    return ToolResult(returned.get("output"))


def _output_of_browser(returned: Any) -> ToolResult:
    output, succeeded = returned
    return ToolResult(output.get("output"), is_error=not succeeded)


def _candidates(patches: RunnerPatches, original: Callable[..., Any]) -> Callable[..., Any]:
    """The candidates of a decision, each of which is a tool that the runner calls if the model chooses it."""

    @functools.wraps(original)
    def candidates(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        with _guard:
            return [_traced(patches, one) for one in found]
        return found

    return candidates


def _traced(patches: RunnerPatches, candidate: Any) -> Any:
    if candidate.execute is None:
        return candidate
    tool = traced_tool(patches, candidate.execute, ToolCall(candidate.id, None))
    return dataclasses.replace(candidate, execute=tool)


MODULES: Final[dict[str, tuple[Step, ...]]] = {
    "openai.lib.responses_tool_runner": tuple(
        step
        for owner in ("ResponsesToolRunner", "AsyncResponsesToolRunner")
        for step in (
            Step(owner, "iterate", runs(_of_responses)),
            Step(owner, "_execute_function", executes(_function, _output)),
        )
    ),
    "openai.lib.browser": tuple(
        Step(owner, "_execute", executes(_function, _output_of_browser))
        for owner in ("BrowserToolset", "AsyncBrowserToolset")
    ),
    "openai.lib.computer": tuple(
        Step(owner, "execute", executes(_computer, _output)) for owner in ("ComputerToolset", "AsyncComputerToolset")
    ),
    "openai.lib.decisions_tool_runner": (
        Step("DecisionsToolRunner", "run", runs(_of_decisions)),
        Step("AsyncDecisionsToolRunner", "run", runs(_of_decisions)),
        Step("_Run", "candidates", _candidates),
    ),
}
"""What to patch in which module."""
