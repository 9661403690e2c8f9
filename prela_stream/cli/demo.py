"""`prela-stream demo`: the whole pipeline at work on this machine, and what came of it."""

import importlib.util
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats, render
from prela_stream.cli.formats import clean
from prela_stream.cli.session import (
    NOT_FOUND,
    ConfigOption,
    DirOption,
    JsonOption,
    TransportOption,
    fail_line,
    messages,
    output,
    print_json,
    run_until_stopped,
    settings_of,
)
from prela_stream.config import Settings
from prela_stream.demo import show
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.base import StoredTrace

DEFAULT_DIRECTORY = ".prela/demo"
_STAGES = {"starting": "starting processes", "agents": "running agents", "storing": "deciding and storing"}


def demo_command(
    ctx: typer.Context,
    *,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of agents, each a trace.")] = 150,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same runs.")] = 0,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run agents on a bundled model server through the whole pipeline, and show what was kept. Needs no key and no network."""
    if importlib.util.find_spec("anthropic") is None:
        msg = "the demo's agents use the Anthropic client, which is not installed: pip install 'prela-stream[demo]'"
        raise ConfigurationError(msg)
    chosen = directory or (ctx.find_root().obj or {}).get("directory") or DEFAULT_DIRECTORY
    settings = settings_of(ctx, config, chosen, transport)
    found: list[show.DemoResult] = []
    best: list[StoredTrace] = []

    async def demo() -> None:
        with _progress(messages()) as progress:
            result = await show.run(settings, runs=runs, seed=seed, on_progress=_follow(progress))
        found.append(result)
        if result.best_trace_id is not None:
            async with root.open_reader(settings) as reader:
                stored = await reader.get(result.best_trace_id)
                best.extend([] if stored is None else [stored])

    run_until_stopped(demo)
    if not found:
        fail_line("stopped before the end")
        raise typer.Exit(NOT_FOUND)
    (result,) = found
    if as_json:
        print_json(formats.to_json(result))
    else:
        _tell(result, best, settings)
    if result.undecided or result.incomplete:
        raise typer.Exit(NOT_FOUND)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _follow(progress: Progress) -> Callable[[show.Progress], None]:
    tasks = {stage: progress.add_task(text, total=None, visible=False) for stage, text in _STAGES.items()}

    def follow(now: show.Progress) -> None:
        if now.stage != "starting":
            progress.update(tasks["starting"], completed=1, total=1)
        progress.update(tasks[now.stage], completed=now.done, total=now.total, visible=True)

    return follow


def _tell(result: show.DemoResult, best: list[StoredTrace], settings: Settings) -> None:
    console = output()
    for stored in best:
        console.print(render.trace_tree(stored))
        console.print(Text(""), render.decision_line(stored.decision), Text(""), sep="\n")
    console.print(_summary(result))
    if result.undecided or result.incomplete:
        fail_line(f"{result.undecided} traces were not decided and stored in time, {result.incomplete} lack spans")
    console.print(Text(f"\nlook on: prela-stream traces list --dir {settings.directory}", "dim"))


def _summary(result: show.DemoResult) -> Table:
    table = Table.grid(padding=(0, 2))
    kept_by, lost = (
        ", ".join(f"{clean(name)} {number}" for name, number in sorted(counts.items()))
        for counts in (result.kept_by_policy, result.dropped_by_policy)
    )
    facts = {
        "traces": f"{result.traces} from {result.runs} runs, {result.spans} spans",
        "kept": f"{result.kept} with {result.kept_spans} spans ({kept_by})",
        "dropped": f"{result.dropped} that lost their draw ({lost})",
        "decided": ", ".join(f"{number} as {name}" for name, number in sorted(result.by_trigger.items())),
        "ledger": str(result.ledger),
        "estimate": f"{result.estimated_traces:.0f} traces by the weights of the kept ones, {result.traces} in truth",
        "tokens": formats.tokens(result.input_tokens, result.output_tokens),
        "time": f"agents {result.agents_s:.1f} s, then {result.settled_s:.1f} s until all was decided and stored",
    }
    for name, value in facts.items():
        table.add_row(Text(name, "dim"), Text(value))
    return table
