"""The tool runner of the `anthropic` client. An error of a tool is a result for the model, and an ERROR of the TOOL alone."""

from typing import Any, Final

from prela_stream.instrumentation.tool_runner import AgentRun, Step, ToolCall, ToolResult, executes, runs

MODULE: Final = "anthropic.lib.tools._beta_runner"
AGENT: Final = "tool_runner"
_OWNERS: Final = ("BaseSyncToolRunner", "BaseAsyncToolRunner")


def _run(runner: Any) -> AgentRun:
    return AgentRun(AGENT, runner._client, runner._params.get("model"))


def _tool(*args: Any) -> ToolCall:
    """Of `_run_tool(runner, tool, tool_use)` or `_run_toolset_member(runner, tool_use)`."""
    asked = args[-1]
    return ToolCall(asked.name, asked.id, asked.input)


def _result(returned: Any) -> ToolResult:
    return ToolResult(returned.get("content"), bool(returned.get("is_error")))


STEPS: Final = tuple(
    step
    for owner in _OWNERS
    for step in (
        Step(owner, "__run__", runs(_run)),
        Step(owner, "_run_tool", executes(_tool, _result)),
        Step(owner, "_run_toolset_member", executes(_tool, _result)),
    )
)
