"""The agents of the demo: ordinary code on the real AsyncAnthropic client. Each run has a root span.

Each run is one trace. Most are ordinary; some meet what makes traces worth keeping: retries, a tool with a bug, a rejected
request, a loop, a refusal, a slow model, a user who leaves. As a process it prints its progress and its result as JSON.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import anthropic
import anyio
import msgspec
from anthropic import AsyncAnthropic
from anthropic.types import Message, MessageParam, ToolParam, ToolResultBlockParam, ToolUseBlock

import prela_stream
from prela_stream.codec.spans import decode_head
from prela_stream.delivery.ledger import LedgerSnapshot
from prela_stream.demo.tools import CALCULATOR, LOOKUP_ORDER, SEARCH, WRITE_REPORT, BrokenToolError, call_tool
from prela_stream.model import semconv
from prela_stream.model.span import ItemKind, SpanType
from prela_stream.tracing.recorder import Recorder
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import get_tracer

MAX_TURNS: Final = 12
OUTCOME: Final = "demo.outcome"
"""How a run ended, on its root span: `done`, `turn_limit`, `no_answer`, `left`."""
PATIENCE_S: Final = 0.6
"""A user who leaves does so after this long."""
SLOW_EVENT_MS: Final = 90
"""A slow model takes this long for each event of its stream."""

QUESTIONS: Final = (
    "How fast did the cost of {} fall, and why?", "What is the strongest argument against {}?",
    "Summarise what changed in {} this year.", "Compare two estimates about {}.",
)  # fmt: skip
SUBJECTS: Final = ("grid batteries", "ocean freight", "urban trees", "protein folding", "tidal power", "rare earths")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one agent."""

    number: int
    kind: str
    seed: int

    @property
    def model(self) -> str:
        """The name chooses how the bundled model server behaves."""
        return f"claude-demo-{MODEL_BEHAVIOUR.get(self.kind, 'normal')}"

    def question(self, rng: random.Random) -> str:
        """What the user asks; distinct for each run, so that the scripted model does not repeat itself."""
        return f"{rng.choice(QUESTIONS).format(rng.choice(SUBJECTS))} (request {self.number})"


MODEL_BEHAVIOUR: Final = {
    "support": "overloaded",
    "runaway": "runaway",
    "rejected": "bad_request",
    "refused": "refusal",
    "slow": "slow",
    "impatient": "stall",
}


async def research(client: AsyncAnthropic, run: Run, rng: random.Random, span: Span) -> None:
    """Searches and calculates, with its tools in parallel; the answer is streamed."""
    await _converse(client, run, rng, span, tools=[SEARCH, CALCULATOR], streaming=True)


async def support(client: AsyncAnthropic, run: Run, rng: random.Random, span: Span) -> None:
    """Reads the state of an order while the model is overloaded: every request needs two retries."""
    await _converse(client, run, rng, span, tools=[LOOKUP_ORDER])


async def reporting(client: AsyncAnthropic, run: Run, rng: random.Random, span: Span) -> None:
    """Uses a tool that has a bug: the run fails."""
    await _converse(client, run, rng, span, tools=[WRITE_REPORT])


async def impatient(client: AsyncAnthropic, run: Run, rng: random.Random, span: Span) -> None:
    """The user leaves while the answer is being streamed: the run is cancelled."""
    with anyio.move_on_after(PATIENCE_S):
        await _converse(client, run, rng, span, tools=[], streaming=True)
        return
    span.set_attribute(OUTCOME, "left")


Agent = Callable[[AsyncAnthropic, Run, random.Random, Span], Awaitable[None]]
AGENTS: Final[dict[str, tuple[float, str, Agent]]] = {
    "research": (0.70, "research_agent", research),
    "support": (0.12, "support_agent", support),
    "refused": (0.04, "research_agent", research),
    "slow": (0.04, "research_agent", research),
    "impatient": (0.03, "chat_agent", impatient),
    "reporting": (0.03, "report_agent", reporting),
    "runaway": (0.02, "research_agent", research),
    "rejected": (0.02, "support_agent", support),
}
"""Kind of run → share of all runs, name of the agent, and its code."""


async def _converse(
    client: AsyncAnthropic, run: Run, rng: random.Random, span: Span, *, tools: list[ToolParam], streaming: bool = False
) -> None:
    """The loop of every agent: ask, run the tools that the model wants, ask again; at most MAX_TURNS times."""
    messages: list[MessageParam] = [{"role": "user", "content": run.question(rng)}]
    for _ in range(MAX_TURNS):
        reply = await _ask(client, run, messages, tools, streaming=streaming)
        uses = [block for block in reply.content if isinstance(block, ToolUseBlock)]
        if not uses:
            span.set_attribute(OUTCOME, "done" if reply.stop_reason == "end_turn" else "no_answer")
            return
        messages.append({"role": "assistant", "content": reply.content})
        messages.append({"role": "user", "content": await _call_tools(uses, rng)})
    span.set_attribute(OUTCOME, "turn_limit")


async def _ask(
    client: AsyncAnthropic, run: Run, messages: list[MessageParam], tools: list[ToolParam], *, streaming: bool
) -> Message:
    system = "You are a careful assistant. Use the tools you are given, and say what you do not know."
    headers = {"x-demo-seed": str(run.seed)}
    if run.kind == "slow":
        headers["x-demo-latency-ms"] = str(SLOW_EVENT_MS)
    request: dict[str, Any] = {
        "model": run.model,
        "max_tokens": 1024,
        "system": system,
        "tools": tools,
        "messages": messages,
    }
    if not streaming:
        reply: Message = await client.messages.create(**request, extra_headers=headers)
        return reply
    async with client.messages.stream(**request, extra_headers=headers) as stream:
        async for _ in stream.text_stream:
            pass  # here an application would show the text as it comes
        whole: Message = await stream.get_final_message()
        return whole


async def _call_tools(uses: Iterable[ToolUseBlock], rng: random.Random) -> list[ToolResultBlockParam]:
    """Run the tools in parallel; the results have the order of the requests."""
    results: dict[str, ToolResultBlockParam] = {}

    async def call(use: ToolUseBlock, own: random.Random) -> None:
        results[use.id] = await call_tool(use, own)

    wanted = list(uses)
    try:
        async with anyio.create_task_group() as tasks:
            for use in wanted:
                tasks.start_soon(call, use, random.Random(rng.random()))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # without a group around one broken tool
    return [results[use.id] for use in wanted]


async def run_one(client: AsyncAnthropic, run: Run) -> None:
    """Run an agent as one trace. Its failure is recorded on the trace and not raised, because it is part of the demo."""
    _, name, agent = AGENTS[run.kind]
    rng = random.Random(f"{run.seed}/{run.number}")
    attributes = {
        semconv.OPERATION_NAME: "invoke_agent",
        semconv.AGENT_NAME: name,
        semconv.CONVERSATION_ID: f"demo-{run.seed}-{run.number}",
    }
    try:
        async with get_tracer().span(name, span_type=SpanType.AGENT, attributes=attributes) as span:
            await agent(client, run, rng, span)
    except (anthropic.APIError, BrokenToolError):
        return


def plan(runs: int, seed: int) -> list[Run]:
    """Which agents run, in which order: the same for the same seed, and every kind at least once if `runs` allows it."""
    rng = random.Random(seed)
    kinds = list(AGENTS)
    shares = [share for share, _, _ in AGENTS.values()]
    chosen = kinds[:runs] + rng.choices(kinds, shares, k=max(0, runs - len(kinds)))
    rng.shuffle(chosen)
    return [Run(number=number, kind=kind, seed=seed) for number, kind in enumerate(chosen)]


async def run_all(
    url: str, *, runs: int, seed: int, concurrency: int, on_done: Callable[[int], None] = lambda _done: None
) -> None:
    """Run the agents of a plan, at most `concurrency` at a time.

    Args:
        url: Base URL of the model server.
        runs: How many.
        seed: Of the plan and of everything that the agents and the model choose.
        concurrency: Runs at a time.
        on_done: Called after each run with the number of runs that are over.
    """
    waiting = iter(plan(runs, seed))
    done = 0

    async def work(client: AsyncAnthropic) -> None:
        nonlocal done
        for run in waiting:  # shared: each run is taken by one of the workers
            await run_one(client, run)
            done += 1
            on_done(done)

    async with AsyncAnthropic(base_url=url, api_key="demo") as client, anyio.create_task_group() as tasks:
        for _ in range(concurrency):
            tasks.start_soon(work, client)


class CountingRecorder:
    """Counts the ended spans of each trace before the pipeline gets them; the store is compared with these counts."""

    def __init__(self, inner: Recorder) -> None:
        self.spans: Counter[str] = Counter()
        self._inner = inner

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
        """As `Recorder.record`."""
        if decode_head(item).kind == ItemKind.SPAN:
            self.spans[trace_id.hex()] += 1
        self._inner.record(trace_id, item, reserved)

    def refuse(self, trace_id: bytes) -> None:
        """As `Recorder.refuse`."""
        self.spans[trace_id.hex()] += 1
        self._inner.refuse(trace_id)


class AgentsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The last line that the process prints."""

    spans: dict[str, int]
    """Ended spans by trace id."""
    ledger: LedgerSnapshot
    """After the flush at the end."""
    complete: bool
    """Whether everything was acknowledged."""


class AgentsProgress(msgspec.Struct, frozen=True):
    """Every other line."""

    done: int
    total: int


def main(arguments: list[str] | None = None) -> None:
    """Run the agents as a process: print an AgentsProgress per line as JSON, and an AgentsReport at the end."""
    parser = argparse.ArgumentParser(prog="python -m prela_stream.demo.agents", description=main.__doc__)
    parser.add_argument("--url", required=True, help="base URL of the model server")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--dir", default=None, help="folder of the local transport; default: that of the settings")
    chosen = parser.parse_args(arguments)
    tracer = prela_stream.init(service_name="demo-agents", directory=chosen.dir)
    assert tracer.recorder is not None
    counting = CountingRecorder(tracer.recorder)
    tracer.configure(recorder=counting)

    def report(line: msgspec.Struct) -> None:
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()

    report(AgentsProgress(0, chosen.runs))
    on_done = lambda done: report(AgentsProgress(done, chosen.runs))  # noqa: E731 - the shortest form
    anyio.run(
        lambda: run_all(chosen.url, runs=chosen.runs, seed=chosen.seed, concurrency=chosen.concurrency, on_done=on_done)
    )
    flushed = prela_stream.flush(timeout=10.0)
    ledger = prela_stream.shutdown()
    assert ledger is not None
    report(AgentsReport(spans=dict(counting.spans), ledger=ledger, complete=flushed.complete))


if __name__ == "__main__":
    main()
