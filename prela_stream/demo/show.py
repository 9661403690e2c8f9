"""Runs the whole pipeline as it is used: model server, agents, worker and sink, each as a process.

The result is checked from outside: what the agents counted is compared, trace by trace, with what was decided and stored.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from prela_stream import app
from prela_stream.config import ENV_PREFIX, Settings
from prela_stream.delivery.ledger import LedgerSnapshot
from prela_stream.demo.children import Child, DemoError, child
from prela_stream.errors import PrelaError, ungrouped
from prela_stream.model.decision import Decision
from prela_stream.sinks.reader import TraceReader

POLICIES_FILE: Final = Path(__file__).with_name("policies.toml")
LATENCY_MS: Final = 15
_POLL_S: Final = 0.1


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the demo is: `done` of `total` of a stage."""

    stage: str
    """`starting` (processes), `agents` (runs), `storing` (traces that are decided and, if kept, stored)."""
    done: int
    total: int


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, from the agents' own count to the store."""

    runs: int
    traces: int
    """Traces that the agents recorded."""
    spans: int
    """Spans that the agents recorded."""
    ledger: LedgerSnapshot
    """Delivery, in items: spans and control items."""
    kept: int
    dropped: int
    undecided: int
    """Traces without a decision, or kept and not stored, when the time was over. 0 if all is well."""
    kept_spans: int
    incomplete: int
    """Decided traces in which spans were missing. 0 if all is well."""
    estimated_traces: float
    """Sum of the weights of the kept traces: an unbiased estimate of `traces`."""
    kept_by_policy: dict[str, int]
    dropped_by_policy: dict[str, int]
    """By the policy that decided."""
    by_trigger: dict[str, int]
    best_trace_id: str | None
    """The kept trace to show first: one that failed, if possible; None if none was kept."""
    input_tokens: int
    output_tokens: int
    agents_s: float
    """From the first run to the last, seconds."""
    stored_s: float
    """From the last run until everything was decided and stored, seconds."""
    total_s: float
    """With starting and stopping of the processes, seconds."""
    directory: str


async def run(
    settings: Settings,
    *,
    runs: int = 150,
    seed: int = 0,
    concurrency: int = 8,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    deadline_s: float = 45.0,
) -> DemoResult:
    """Run the demo. Its processes have ended when this returns, raises or is cancelled.

    Args:
        settings: Of worker, sink and agents; without a policy file, the policies of the demo are used.
        runs: Runs of agents, each a trace.
        seed: The same seed gives the same runs.
        concurrency: Runs at a time.
        on_progress: Called with each step.
        deadline_s: Seconds after the last run until everything must be stored.

    Raises:
        DemoError: A process failed; the text has its name and its last lines.
    """
    began = time.monotonic()
    on_progress(Progress(stage="starting", done=0, total=1))
    logs = Path(settings.directory) / "demo"
    logs.mkdir(parents=True, exist_ok=True)
    if settings.policies_file is None:
        settings = msgspec.structs.replace(settings, policies_file=str(POLICIES_FILE))
    if settings.transport == "kafka":  # the cluster may be in use: traces of the demo get topics with another prefix
        settings = msgspec.structs.replace(
            settings, topics=msgspec.structs.replace(settings.topics, prefix=f"{settings.topics.prefix}-demo")
        )
        await app.create_topics(settings)
    env = environment_of(settings)
    sink_env = {**env, f"{ENV_PREFIX}HTTP_LISTEN": _next_port(settings.http.listen)}
    with ungrouped(DemoError):
        async with (
            child(
                "model server", "prela_stream.demo.model_server", f"--latency-ms={LATENCY_MS}", env=env, logs=logs
            ) as server,
            child("worker", "prela_stream", "worker", env=env, logs=logs) as worker,
            child("sink", "prela_stream", "sink", env=sink_env, logs=logs) as sink,
            anyio.create_task_group() as watching,
        ):
            for service in (server, worker, sink):
                watching.start_soon(service.watch)
            url = msgspec.json.decode(await server.first_line())["url"]
            arguments = [f"--url={url}", f"--runs={runs}", f"--seed={seed}", f"--concurrency={concurrency}"]
            async with child("agents", "prela_stream.demo.agents", *arguments, env=env, logs=logs) as agents:
                result = await _observe(settings, agents, runs, on_progress, deadline_s)
            watching.cancel_scope.cancel()
    return msgspec.structs.replace(result, total_s=time.monotonic() - began)


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as the variables that give them to another process."""
    found = {"sink": msgspec.json.encode([sink.table() for sink in settings.sink]).decode()}
    for name, value in msgspec.to_builtins(msgspec.structs.replace(settings, sink=())).items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{key}": _text(one) for key, one in value.items() if one is not None}
        elif value is not None and name != "sink":
            found[name] = _text(value)
    return {f"{ENV_PREFIX}{name.upper()}": text for name, text in found.items()}


def _next_port(listen: str) -> str:
    """The address with the port after this one: two processes cannot listen on the same."""
    host, colon, port = listen.rpartition(":")
    return f"{host}{colon}{int(port) + 1}" if port.isdecimal() else listen


def _text(value: Any) -> str:
    """A setting as the text of a variable."""
    if isinstance(value, Mapping):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list | tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _observe(
    settings: Settings, agents: Child, runs: int, on_progress: Callable[[Progress], None], deadline_s: float
) -> DemoResult:
    from prela_stream.demo.agents import AgentsProgress, AgentsReport

    first_run = time.monotonic()
    report: AgentsReport | None = None
    async for line in agents.lines():
        if b'"done"' in line:
            progress = msgspec.json.decode(line, type=AgentsProgress)
            first_run = time.monotonic() if progress.done == 0 else first_run
            on_progress(Progress(stage="agents", done=progress.done, total=progress.total))
        else:
            report = msgspec.json.decode(line, type=AgentsReport)
    if report is None or await agents.process.wait() != 0:
        raise await agents.failure()
    last_run = time.monotonic()
    async with app.open_reader(settings) as reader:
        stored = _Stored(reader, report.spans)
        with anyio.move_on_after(deadline_s):
            while await stored.missing():
                on_progress(Progress(stage="storing", done=stored.done, total=len(report.spans)))
                await anyio.sleep(_POLL_S)
        on_progress(Progress(stage="storing", done=stored.done, total=len(report.spans)))
    now = time.monotonic()
    return _result(
        stored,
        runs=runs,
        ledger=report.ledger,
        directory=settings.directory,
        agents_s=last_run - first_run,
        stored_s=now - last_run,
        total_s=0.0,  # known when the processes are gone
    )


class _Stored:
    """Which of the recorded traces are decided and, if kept, stored with every span."""

    def __init__(self, reader: TraceReader, spans: Mapping[str, int]) -> None:
        self.recorded = spans
        self.decisions: dict[str, Decision] = {}
        self.stored_spans: dict[str, int] = {}
        self._reader = reader
        self._open = set(spans)

    @property
    def done(self) -> int:
        """How many traces are decided and, if kept, stored."""
        return len(self.recorded) - len(self._open)

    async def missing(self) -> int:
        """Ask the store; returns how many traces are missing."""
        for trace_id in sorted(self._open):
            try:
                if await self._is_stored(trace_id):
                    self._open.discard(trace_id)
            except PrelaError:  # the sink has not made the store yet
                break
        return len(self._open)

    async def _is_stored(self, trace_id: str) -> bool:
        decision = await self._reader.decision(trace_id)
        if decision is None:
            return False
        self.decisions[trace_id] = decision
        if not decision.kept:
            return True
        stored = await self._reader.get(trace_id)
        self.stored_spans[trace_id] = 0 if stored is None else len(stored.spans)
        return self.stored_spans[trace_id] >= self.recorded[trace_id]


def _result(stored: _Stored, **more: Any) -> DemoResult:
    decisions = stored.decisions
    kept = [decision for decision in decisions.values() if decision.kept]
    best = max(kept, key=_interest, default=None)
    return DemoResult(
        traces=len(stored.recorded),
        spans=sum(stored.recorded.values()),
        kept=len(kept),
        dropped=len(decisions) - len(kept),
        undecided=len(stored.recorded) - stored.done,
        kept_spans=sum(stored.stored_spans.values()),
        incomplete=sum(1 for trace_id, one in decisions.items() if one.summary.spans != stored.recorded[trace_id]),
        estimated_traces=sum(decision.weight for decision in kept),
        kept_by_policy=dict(Counter(decision.policy for decision in kept).most_common()),
        dropped_by_policy=dict(Counter(one.policy for one in decisions.values() if not one.kept).most_common()),
        by_trigger=dict(Counter(str(decision.trigger) for decision in decisions.values()).most_common()),
        best_trace_id=None if best is None else best.trace_id_hex,
        input_tokens=sum(decision.summary.input_tokens for decision in decisions.values()),
        output_tokens=sum(decision.summary.output_tokens for decision in decisions.values()),
        **more,
    )


def _interest(decision: Decision) -> tuple[bool, int, str]:
    """Prefer a trace with an error, with many spans that fit on a screen."""
    summary = decision.summary
    return summary.errors > 0, summary.spans if summary.spans <= 20 else 0, decision.trace_id_hex
