"""Spans of the tool runners of client libraries: AGENT for a run, and TOOL for each tool that it calls.

The model calls of a run are requests like any others, so the instrumentor of the client makes their LLM spans, below the AGENT.
A library lists the methods of its runners as steps. What a method is (a function, a coroutine, a generator) is found out here.
A run that is a generator is resumed by the application from its own context, so its span is current only while the library's
code runs.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple

from prela_stream.errors import guard, logger
from prela_stream.instrumentation.patching import Patch
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus
from prela_stream.privacy.media import without_media
from prela_stream.steps import async_generator_function, generator_function
from prela_stream.tracing.following import ParentCall, follow, lasts
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer

ERROR: Final = "tool_error"
"""`error.type` of a tool that failed and whose exception the library keeps to itself."""
_guard: Final = guard("instrumentation.runner")


class AgentRun(NamedTuple):
    """What a run is."""

    name: str
    client: Any
    model: Any


class ToolCall(NamedTuple):
    """What a tool is called with."""

    name: str
    call_id: str | None
    arguments: Any = None


class ToolResult(NamedTuple):
    """What a tool returned, as the model gets it."""

    content: Any = None
    is_error: bool = False


class _Run(ParentCall):
    """A call from its first step to its last."""

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


class Step(NamedTuple):
    """A method of a runner."""

    owner: str
    """Its class."""
    name: str
    wrap: "Callable[[RunnerPatches, Callable[..., Any]], Callable[..., Any]]"
    """Makes the replacement."""


class RunnerPatches:
    """Patches the runners of one module of a library.

    Args:
        module: Its name.
        steps: What to patch in it.
        newest: What to install for all of them, such as `anthropic>=2.12`.
        current: Returns the tracer, None while nothing is traced, and whether content is recorded.
        client_attributes: As `Provider.client_attributes`.
    """

    def __init__(
        self,
        module: str,
        steps: Sequence[Step],
        *,
        newest: str,
        current: Callable[[], tuple[Tracer | None, bool]],
        client_attributes: Callable[[Any], dict[str, Any]],
    ) -> None:
        self.module = module
        self._steps = steps
        self._newest = newest
        self._current = current
        self._client_attributes = client_attributes
        self._patches: list[Patch] = []

    def patch(self, module: Any) -> None:
        """Patch what this version of the library has; one log line reports what is missing. Another call changes nothing."""
        if self._patches:
            return
        missing = []
        for step in self._steps:
            owner: Any = getattr(module, step.owner, None)
            methods = vars(owner) if isinstance(owner, type) else {}
            if step.name in methods:
                self._patches.append(Patch(owner, step.name, step.wrap(self, methods[step.name])))
            else:
                missing.append(f"{step.owner}.{step.name}")
        if missing:
            logger.warning(
                "prela_stream traces %s in part. Not traced: %s. Install %s to trace all of it.",
                self.module, ", ".join(missing), self._newest,
            )  # fmt: skip

    def restore(self) -> None:
        """Restore the originals."""
        self._patches = [patch for patch in self._patches if not patch.restore()]

    def begin_run(
        self, describe: Callable[..., AgentRun], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Span | None:
        """The span of a run; None if nothing is traced."""
        with _guard:
            tracer, _ = self._current()
            if tracer is not None:
                run = describe(*args, **kwargs)
                attributes: dict[str, Any] = {semconv.OPERATION_NAME: "invoke_agent"}
                with _guard:
                    attributes |= self._client_attributes(run.client)
                    if isinstance(run.model, str):
                        attributes[semconv.REQUEST_MODEL] = run.model
                return tracer.agent(run.name, attributes=attributes)
        return None

    def begin_tool(self, describe: Callable[..., ToolCall], args: tuple[Any, ...]) -> Span | None:
        """The span of a call of a tool; None if nothing is traced."""
        with _guard:
            tracer, content = self._current()
            if tracer is not None:
                call = describe(*args)
                return tracer.tool(call.name, arguments=call.arguments if content else None, call_id=call.call_id)
        return None

    def note(self, span: Span, read: Callable[[Any], ToolResult], returned: Any) -> None:
        """Record what a tool returned."""
        with _guard:
            _, content = self._current()
            result = read(returned)
            if content:
                span.set_tool(result=without_media(result.content))
            if result.is_error:
                message = result.content if content and isinstance(result.content, str) else "the tool failed"
                span.set_attribute(semconv.ERROR_TYPE, ERROR)
                span.set_attribute(semconv.ERROR_MESSAGE, message)
                span.set_status(SpanStatus.ERROR, message)


def runs(describe: Callable[..., AgentRun]) -> Callable[[RunnerPatches, Callable[..., Any]], Callable[..., Any]]:
    """`Step.wrap` of a method that runs a model and its tools; `describe` takes the arguments of the method."""

    def wrap(patches: RunnerPatches, original: Callable[..., Any]) -> Callable[..., Any]:
        is_async_generator = inspect.isasyncgenfunction(original)
        if is_async_generator or inspect.isgeneratorfunction(original):
            make: Any = async_generator_function if is_async_generator else generator_function

            @functools.wraps(original)
            def begin(*args: Any, **kwargs: Any) -> Any:
                inner = original(*args, **kwargs)  # which refuses wrong arguments now, before the first step
                steps = make(lambda _, __: (inner, _Run(patches.begin_run(describe, args, kwargs))))()
                steps.__name__, steps.__qualname__ = inner.__name__, inner.__qualname__
                return steps

            return begin
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with patches.begin_run(describe, args, kwargs) or nullcontext():
                    return await original(*args, **kwargs)

            return run_async

        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            with patches.begin_run(describe, args, kwargs) or nullcontext():
                return original(*args, **kwargs)

        return run

    return wrap


def executes(
    describe: Callable[..., ToolCall], read: Callable[[Any], ToolResult]
) -> Callable[[RunnerPatches, Callable[..., Any]], Callable[..., Any]]:
    """`Step.wrap` of a method that calls a tool.

    Args:
        describe: Takes the positional arguments of the method.
        read: Takes what the method returned.
    """

    def wrap(patches: RunnerPatches, original: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def execute_async(*args: Any, **kwargs: Any) -> Any:
                span = patches.begin_tool(describe, args)
                if span is None:
                    return await original(*args, **kwargs)
                with span:
                    returned = await original(*args, **kwargs)
                    patches.note(span, read, returned)
                return returned

            return execute_async

        @functools.wraps(original)
        def execute(*args: Any, **kwargs: Any) -> Any:
            span = patches.begin_tool(describe, args)
            if span is None:
                return original(*args, **kwargs)
            with span:
                returned = original(*args, **kwargs)
                patches.note(span, read, returned)
            return returned

        return execute

    return wrap


def traced_tool(patches: RunnerPatches, function: Callable[..., Any], call: ToolCall) -> Callable[..., Any]:
    """A function of the application as a tool, which lasts as long as the awaitable that it may return."""

    @functools.wraps(function)
    def execute(*args: Any, **kwargs: Any) -> Any:
        run = _Run(patches.begin_tool(lambda: call, ()))
        try:
            with run.entered():
                returned = function(*args, **kwargs)
        except BaseException as error:
            run.fail(error)
            run.end()
            raise
        if lasts(returned):
            return follow(returned, run)
        run.end()
        return returned

    return execute
