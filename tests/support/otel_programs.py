"""Random programs with spans of OpenTelemetry and of this SDK, and an interpreter that runs them.

A program is plain data. The place of a span in it gives the truth: whose child the span is, and whether its parent was open when
it started. Both are independent of what the bridge counts.
"""

import asyncio
import contextvars
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final, Literal

import msgspec
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from prela_stream.propagation.w3c import extract
from prela_stream.tracing.context import attach
from prela_stream.tracing.tracer import get_tracer

Library = Literal["otel", "ours"]
How = Literal["inline", "task", "gather", "thread", "by hand", "late"]
OFF: Final = "off"
"""In the name of a span that the sampler of OpenTelemetry drops."""


class Node(msgspec.Struct, kw_only=True):
    """A span of a program."""

    name: str
    library: Library
    how: How
    fails: bool
    children: list["Node"]


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a span that has to be recorded."""

    parent: str | None
    """The parent, which is recorded too; None if none is."""
    counted: bool
    """The parent was open when the span started, so its count includes the span."""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One trace."""

    roots: list[Node]
    remote: bool
    """Its roots have a parent in another process. Otherwise it has one root."""
    truth: dict[str, Truth]


class OffByName(Sampler):
    """Drops the spans whose name asks for it, and not those below them."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any) -> SamplingResult:
        """Decide by the name."""
        return SamplingResult(Decision.DROP if OFF in name else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        """For the log."""
        return "OffByName"


def generate(seed: int) -> Program:
    """The program of a seed."""
    rng = random.Random(seed)
    remote = rng.random() < 0.3
    budget = [rng.randrange(1, 16)]
    names = iter(range(1_000))
    roots = [_node(rng, budget, names, depth=0) for _ in range(rng.randrange(1, 4) if remote else 1)]
    truth: dict[str, Truth] = {}
    for root in roots:
        _note(root, None, truth, unsampled=False, late=False)
    return Program(roots=roots, remote=remote, truth=truth)


def _node(rng: random.Random, budget: list[int], names: Iterator[int], depth: int) -> Node:
    library: Library = rng.choice(["otel", "otel", "ours"])
    name = f"{library} {next(names)}"
    if library == "otel" and rng.random() < 0.08:
        name = f"{OFF} {name}"
    children = []
    while budget[0] > 0 and depth < 5 and rng.random() < 0.6:
        budget[0] -= 1
        children.append(_node(rng, budget, names, depth + 1))
    how: How = rng.choice(["inline", "inline", "task", "gather", "thread", "by hand", "late"]) if depth else "inline"
    return Node(name=name, library=library, how=how, fails=rng.random() < 0.1, children=children)


def _note(node: Node, parent: str | None, truth: dict[str, Truth], *, unsampled: bool, late: bool) -> None:
    """Note the truth of a node and of those below it. `unsampled`: the nearest span of this SDK found its parent sampled out."""
    dropped = OFF in node.name
    if parent == OFF:
        unsampled = node.library == "ours"  # the sampler above decides by the name alone
    if not dropped and not unsampled:
        truth[node.name] = Truth(
            parent=None if parent == OFF else parent, counted=parent not in (None, OFF) and not late
        )
    for child in node.children:
        below = OFF if dropped else node.name
        _note(child, below, truth, unsampled=unsampled, late=child.how == "late")


class Interpreter:
    """Runs programs.

    Args:
        tracer: A tracer of a provider with the sampler `OffByName`.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer

    def run(self, program: Program) -> None:
        """Run a program on an event loop of its own."""
        with self._surroundings(program):
            asyncio.run(self._run_all(program.roots))

    @contextmanager
    def _surroundings(self, program: Program) -> Iterator[None]:
        if not program.remote:
            yield
            return
        headers = {"traceparent": f"00-{random.getrandbits(128) or 1:032x}-00f067aa0ba902b7-01"}
        with attach(extract(headers)):
            yield

    async def _run_all(self, nodes: list[Node]) -> None:
        for node in nodes:
            await self._run(node)

    def _span(self, node: Node) -> AbstractContextManager[Any]:
        if node.library == "ours":
            return get_tracer().span(node.name)
        return self.tracer.start_as_current_span(node.name)

    async def _run(self, node: Node) -> None:
        with suppress(OwnError), self._span(node):
            late = await self._run_children(node)
            if node.fails:
                raise OwnError
        for context, child in late:
            context.run(self._run_now, child)

    async def _run_children(self, node: Node) -> list[tuple[contextvars.Context, Node]]:
        late = []
        async with asyncio.TaskGroup() as tasks:
            for child in node.children:
                if child.how == "task":
                    tasks.create_task(self._run(child))
                elif child.how == "gather":
                    await asyncio.gather(self._run(child))
                elif child.how == "thread":
                    await asyncio.to_thread(self._run_now, child)
                elif child.how == "by hand":
                    self._run_by_hand(child)
                elif child.how == "late":
                    late.append((contextvars.copy_context(), child))
                else:
                    await self._run(child)
        return late

    def _run_now(self, node: Node) -> None:
        """The same without an event loop: children run one after the other."""
        late = []
        with suppress(OwnError), self._span(node):
            for child in node.children:
                if child.how == "late":
                    late.append((contextvars.copy_context(), child))
                elif child.how == "by hand":
                    self._run_by_hand(child)
                else:
                    self._run_now(child)
            if node.fails:
                raise OwnError
        for context, child in late:
            context.run(self._run_now, child)

    def _run_by_hand(self, node: Node) -> None:
        """A span that is never current: its children name it as their parent."""
        if node.library == "ours":
            with attach(span := get_tracer().start_span(node.name)):
                late = self._children_now(node)
        else:
            started = self.tracer.start_span(node.name)
            with trace.use_span(started, end_on_exit=False):
                late = self._children_now(node)
            span = started  # type: ignore[assignment]  # both have end()
        span.end()
        for context, child in late:
            context.run(self._run_now, child)

    def _children_now(self, node: Node) -> list[tuple[contextvars.Context, Node]]:
        for child in node.children:
            if child.how != "late":
                self._run_now(child)
        return [(contextvars.copy_context(), child) for child in node.children if child.how == "late"]


class OwnError(Exception):
    """Raised in a span that fails."""
