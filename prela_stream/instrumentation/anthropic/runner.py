"""Spans of the tool runner of the `anthropic` client: AGENT for a run, and TOOL for each tool that it calls.

The model calls of a run are requests like any others, so the instrumentor of the client makes their LLM spans, below the AGENT.
A run of the library is a generator, which the application resumes from its own context. So the span of the run is current
only while the library's code runs. The library turns an error of a tool into a result for the model; it is an ERROR of the TOOL.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from prela_stream.errors import guard, logger
from prela_stream.instrumentation.patching import Patch
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus
from prela_stream.steps import async_generator_function, generator_function
from prela_stream.tracing.following import ParentCall
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer

RUNNER_MODULE: Final = "anthropic.lib.tools._beta_runner"
AGENT: Final = "tool_runner"
_CLASSES: Final = {"BaseSyncToolRunner": False, "BaseAsyncToolRunner": True}
_TOOLS: Final = ("_run_tool", "_run_toolset_member")
_ERROR: Final = "tool_error"
"""`error.type` of a tool that failed: the library keeps the exception to itself."""
_guard: Final = guard("instrumentation.runner")


class _Run(ParentCall):
    """One run, from the first step of its generator to the last."""

    def __init__(self, span: Span | None) -> None:
        super().__init__(span)
        self._span = span

    def entered(self) -> AbstractContextManager[None]:
        """As `Call.entered`."""
        return nullcontext() if self._span is None else super().entered()

    def fail(self, error: BaseException) -> None:
        """As `Call.fail`."""
        with _guard:
            if self._span is not None and not self._span.is_ended:
                self._span.record_exception(error)

    def end(self) -> None:
        """As `Call.end`."""
        with _guard:
            if self._span is not None and not self._span.is_ended:
                self._span.end()


class RunnerPatches:
    """Patches the runner classes.

    Args:
        current: Returns the tracer, None while nothing is traced, and whether content is recorded.
        client_attributes: As `Provider.client_attributes`.
    """

    def __init__(
        self, current: Callable[[], tuple[Tracer | None, bool]], client_attributes: Callable[[Any], dict[str, Any]]
    ) -> None:
        self._current = current
        self._client_attributes = client_attributes
        self._patches: list[Patch] = []

    def patch(self, module: Any) -> None:
        """Patch what this version of the library has; one log line reports what is missing. Another call changes nothing."""
        if self._patches:
            return
        missing = []
        for class_name, is_async in _CLASSES.items():
            owner: Any = getattr(module, class_name, None)
            methods = vars(owner) if isinstance(owner, type) else {}
            for name in ("__run__", *_TOOLS):
                if name not in methods:
                    missing.append(f"{class_name}.{name}")
                    continue
                make = self._run if name == "__run__" else self._async_tool if is_async else self._sync_tool
                self._patches.append(Patch(owner, name, make(methods[name], is_async)))
        if missing:
            logger.warning(
                "prela_stream traces the tool runner of anthropic in part. Not traced: %s. Install anthropic>=2.12 to trace "
                "all of it.", ", ".join(missing),
            )  # fmt: skip

    def restore(self) -> None:
        """Restore the originals."""
        self._patches = [patch for patch in self._patches if not patch.restore()]

    def _run(self, original: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
        make = async_generator_function if is_async else generator_function
        wrapper = make(lambda args, kwargs: (original(*args, **kwargs), _Run(self._begin_run(args[0]))))
        functools.update_wrapper(wrapper, original)
        return wrapper

    def _begin_run(self, runner: Any) -> Span | None:
        with _guard:
            tracer, _ = self._current()
            if tracer is not None:
                attributes: dict[str, Any] = {semconv.OPERATION_NAME: "invoke_agent"}
                with _guard:
                    attributes |= self._client_attributes(runner._client)
                    attributes[semconv.REQUEST_MODEL] = runner._params["model"]
                return tracer.agent(AGENT, attributes=attributes)
        return None

    def _sync_tool(self, original: Callable[..., Any], _: bool) -> Callable[..., Any]:
        @functools.wraps(original)
        def run_tool(*args: Any) -> Any:
            span = self._begin_tool(args)
            if span is None:
                return original(*args)
            with span:
                result = original(*args)
                self._note(span, result)
            return result

        return run_tool

    def _async_tool(self, original: Callable[..., Any], _: bool) -> Callable[..., Any]:
        @functools.wraps(original)
        async def run_tool(*args: Any) -> Any:
            span = self._begin_tool(args)
            if span is None:
                return await original(*args)
            with span:
                result = await original(*args)
                self._note(span, result)
            return result

        return run_tool

    def _begin_tool(self, args: tuple[Any, ...]) -> Span | None:
        """The span of a call of `_run_tool(runner, tool, tool_use)` or `_run_toolset_member(runner, tool_use)`."""
        with _guard:
            tracer, content = self._current()
            if tracer is not None:
                asked = args[-1]
                arguments = asked.input if content else None
                return tracer.tool(asked.name, arguments=arguments, call_id=asked.id)
        return None

    def _note(self, span: Span, result: Any) -> None:
        with _guard:
            _, content = self._current()
            given = result.get("content")
            if content:
                span.set_tool(result=given)
            if result.get("is_error"):
                message = given if content and isinstance(given, str) else "the tool failed"
                span.set_attribute(semconv.ERROR_TYPE, _ERROR)
                span.set_attribute(semconv.ERROR_MESSAGE, message)
                span.set_status(SpanStatus.ERROR, message)
