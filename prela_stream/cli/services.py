"""`prela-stream worker`, `sink`, `otlp` and `dev`: services that run until SIGTERM or Ctrl-C."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli.consoles import messages
from prela_stream.cli.formats import clean
from prela_stream.cli.options import Options, command
from prela_stream.cli.running import log_to_stderr, run_until_stopped
from prela_stream.config import Settings
from prela_stream.validation import absolute

OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Run the sink of this name; repeat it for several. Default: all."),
]
HttpOption = Annotated[
    str | None,
    typer.Option(
        "--http", metavar="HOST:PORT", help="Serve /metrics, /healthz and /readyz here: 127.0.0.1:9464. Default: off."
    ),
]


FromTopicOption = Annotated[
    str | None,
    typer.Option(
        "--from-topic",
        metavar="TOPIC",
        help="Append the spans of this topic, such as otlp_spans, instead of listening.",
    ),
]
ListenOption = Annotated[
    str | None, typer.Option("--listen", metavar="HOST:PORT", help="Receive OTLP/HTTP here. Default: 127.0.0.1:4318.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (
        ("dev", dev_command),
        ("worker", worker_command),
        ("sink", sink_command),
        ("otlp", otlp_command),
    ):
        command(app, name, as_json=None)(function)


def _exposing(settings: Settings, http: str | None) -> Settings:
    """The settings with the address of `--http`, if it was given."""
    if http is None:
        return settings
    return msgspec.structs.replace(settings, http=msgspec.structs.replace(settings.http, listen=http))


def worker_command(options: Options, http: HttpOption = None) -> None:
    """Assemble traces, decide which are kept, and write the kept ones to the log. SIGTERM or Ctrl-C stops it cleanly."""
    settings = _exposing(options.settings(), http)
    log_to_stderr()
    ready = f"worker is ready on the {settings.transport} transport"
    run_until_stopped(lambda: root.run_worker(settings, on_ready=lambda: _report(ready)))
    _report("worker has stopped")


def sink_command(options: Options, only: OnlyOption = None, http: HttpOption = None) -> None:
    """Write kept traces to the sinks of the settings ([[sink]]). SIGTERM or Ctrl-C stops it cleanly."""
    settings = _exposing(options.settings(), http)
    log_to_stderr()
    sinks = root.chosen_sinks(settings, only or ())
    ready = "ready: " + "; ".join(f"sink {sink.name} writes to {sink.destination}" for sink in sinks)
    run_until_stopped(lambda: root.run_sinks(settings, only=only or (), on_ready=lambda: _report(ready)))
    _report("sink has stopped")


def otlp_command(
    options: Options, listen: ListenOption = None, from_topic: FromTopicOption = None, http: HttpOption = None
) -> None:
    """Receive spans of OpenTelemetry and append them to the log. SIGTERM or Ctrl-C stops it cleanly.

    With --from-topic it reads a topic of OTLP requests (otlp_proto or otlp_json), and listens nowhere.
    """
    settings = _exposing(options.settings(), http)
    if listen is not None:
        settings = msgspec.structs.replace(settings, otlp=msgspec.structs.replace(settings.otlp, listen=listen))
    log_to_stderr()
    if from_topic is None:
        ready = f"otlp is ready on the {settings.transport} transport"
        run_until_stopped(lambda: root.run_otlp(settings, on_ready=lambda: _report(ready)))
    else:
        ready = f"otlp is ready and reads the topic {from_topic}"
        run_until_stopped(lambda: root.run_otlp_import(settings, from_topic, on_ready=lambda: _report(ready)))
    _report("otlp has stopped")


def dev_command(options: Options, http: HttpOption = None) -> None:
    """Run a worker, all sinks and the OTLP receiver in one process, for one machine. SIGTERM or Ctrl-C stops it cleanly."""
    settings = _exposing(options.settings(), http)
    log_to_stderr()
    folder = absolute(Path(settings.directory))
    ready = f"ready on the {settings.transport} transport; list traces with: prela-stream traces list --dir {folder}"
    run_until_stopped(lambda: root.run_dev(settings, on_ready=lambda: _report(ready)))
    _report("dev has stopped")


def _report(text: str) -> None:
    with suppress(OSError, ValueError):  # a full disk or an ended reader of standard error ends no service
        messages().print(Text(clean(text)))
