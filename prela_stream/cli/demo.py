"""`prela-stream demo`: runs the whole pipeline on this machine and shows the result."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats
from prela_stream.cli.consoles import output, own_command, print_json, progress_bar
from prela_stream.cli.drawing import trace_lines
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.formats import clean
from prela_stream.cli.options import Options, command
from prela_stream.cli.running import run_until_stopped
from prela_stream.cli.screen import standard_output
from prela_stream.cli.trace_show import trace_head
from prela_stream.config import Settings
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.query import StoredTrace
from prela_stream.validation import absolute

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from prela_stream.demo.show import DemoResult
    from prela_stream.demo.show import Progress as DemoProgress

DEFAULT_DIRECTORY = ".prela/demo"
_STAGES = {"starting": "starting processes", "agents": "running agents", "storing": "deciding and storing"}


RunsOption = Annotated[int, typer.Option("--runs", min=1, max=1_000_000, help="Runs of agents; each is one trace.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=-(1 << 63), max=(1 << 63) - 1, help="The same seed gives the same runs.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    command(app, "demo")(demo_command)


def demo_command(options: Options, runs: RunsOption = 150, seed: SeedOption = 0) -> None:
    """Run agents against a bundled model server through the whole pipeline, and show what was kept. Needs no network."""
    if importlib.util.find_spec("anthropic") is None:
        msg = (
            "the agents of the demo need the Anthropic client, which is not installed: pip install 'prela-stream[demo]'"
        )
        raise ConfigurationError(msg)
    from prela_stream.demo import show

    settings = options.settings(DEFAULT_DIRECTORY)
    found: list[DemoResult] = []
    best: list[StoredTrace] = []

    async def demo() -> None:
        with progress_bar() as progress:
            result = await show.run(settings, runs=runs, seed=seed, on_progress=_follow(progress))
        found.append(result)
        if result.best_trace_id is not None:
            async with root.open_reader(settings) as reader:
                stored = await reader.get(result.best_trace_id)
                best.extend([] if stored is None else [stored])

    run_until_stopped(demo)
    if not found:
        fail_line("the demo was stopped before its end")
        raise typer.Exit(NOT_FOUND)
    (result,) = found
    if options.as_json:
        print_json(formats.to_json(result))
    else:
        _show(result, best, settings)
    if result.undecided or result.incomplete:
        raise typer.Exit(NOT_FOUND)


def _follow(progress: Progress) -> Callable[[DemoProgress], None]:
    tasks = {stage: progress.add_task(text, total=None, visible=False) for stage, text in _STAGES.items()}

    def follow(now: DemoProgress) -> None:
        if now.stage != "starting":
            progress.update(tasks["starting"], completed=1, total=1)
        progress.update(tasks[now.stage], completed=now.done, total=now.total, visible=True)

    return follow


def _show(result: DemoResult, best: list[StoredTrace], settings: Settings) -> None:
    console, screen = output(), standard_output()
    for stored in best:
        screen.show([*trace_lines(stored.spans, stored.decision, trace_head(stored, screen), screen), []])
    console.print(_summary(result))
    if result.undecided or result.incomplete:
        logs = f"the logs of its processes are in {absolute(Path(settings.directory))}/demo"
        fail_line(
            f"{result.undecided} traces were not decided and stored in time, {result.incomplete} lack spans; {logs}"
        )
    folder = shlex.quote(absolute(Path(settings.directory)))
    console.print(Text("\nlook at its traces:", "dim"))
    for words in ("list", "errors", "last --messages", "stats"):
        console.print(Text(f"  {own_command()} traces {words} --dir {folder}"), soft_wrap=True)


def _summary(result: DemoResult) -> Table:
    table = Table.grid(padding=(0, 2))
    kept_by, lost = (
        ", ".join(f"{clean(name)} {number}" for name, number in sorted(counts.items()))
        for counts in (result.kept_by_policy, result.dropped_by_policy)
    )
    facts = {
        "traces": f"{result.traces} from {result.runs} runs, {result.spans} spans",
        "kept": f"{result.kept} with {result.kept_spans} spans ({kept_by})",
        "dropped": f"{result.dropped} at random, by the probability of their policy ({lost})",
        "decided": ", ".join(f"{number} as {name}" for name, number in sorted(result.by_trigger.items())),
        "ledger": str(result.ledger),
        "estimate": f"{result.estimated_traces:.0f} traces by the weights of the kept ones; the agents made {result.traces}",
        "tokens": formats.tokens(result.input_tokens, result.output_tokens),
        "time": f"agents {result.agents_s:.1f} s, then {result.stored_s:.1f} s until all was decided and stored",
    }
    for name, value in facts.items():
        table.add_row(Text(name, "dim"), Text(value))
    return table
