"""`prela-stream worker`, `sink` and `dev`: services that run until they are told to stop."""

import gc
from typing import Annotated

import typer
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli.session import (
    ConfigOption,
    DirOption,
    TransportOption,
    log_to_stderr,
    messages,
    run_until_stopped,
    settings_of,
)

GC_THRESHOLDS = (50_000, 20, 50)
"""Undecided traces are many small objects that live for a while: with Python's own thresholds a sixth of a worker's time goes
into looking through them again and again (bench/worker.py)."""


def worker_command(
    ctx: typer.Context, config: ConfigOption = None, directory: DirOption = None, transport: TransportOption = None
) -> None:
    """Sample: put traces together, decide about them, pass the kept ones on. SIGTERM or Ctrl-C stops it cleanly."""
    settings = settings_of(ctx, config, directory, transport)
    log_to_stderr()
    gc.set_threshold(*GC_THRESHOLDS)
    run_until_stopped(
        lambda: root.run_worker(
            settings, on_ready=lambda: _say(f"worker is ready on the {settings.transport} transport")
        )
    )
    _say("worker has stopped")


def sink_command(
    ctx: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Run the sink of this name; repeat it for several. Default: all."),
    ] = None,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
) -> None:
    """Write kept traces to the sinks of the settings ([[sink]]). SIGTERM or Ctrl-C stops it cleanly."""
    settings = settings_of(ctx, config, directory, transport)
    log_to_stderr()
    sinks = root.chosen_sinks(settings, only or ())
    ready = "ready: " + "; ".join(f"sink {sink.name} writes to {sink.destination}" for sink in sinks)
    run_until_stopped(lambda: root.run_sinks(settings, only=only or (), on_ready=lambda: _say(ready)))
    _say("sink has stopped")


def dev_command(
    ctx: typer.Context, config: ConfigOption = None, directory: DirOption = None, transport: TransportOption = None
) -> None:
    """Run worker and store in one process, for one machine. SIGTERM or Ctrl-C stops it cleanly."""
    settings = settings_of(ctx, config, directory, transport)
    log_to_stderr()

    gc.set_threshold(*GC_THRESHOLDS)

    def ready() -> None:
        _say(
            f"ready on the {settings.transport} transport; look with: prela-stream traces list --dir {settings.directory}"
        )

    run_until_stopped(lambda: root.run_dev(settings, on_ready=ready))
    _say("stopped")


def _say(text: str) -> None:
    messages().print(Text(text))
