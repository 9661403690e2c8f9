"""`prela-stream worker`, `sink`, `otlp`, `web` and `dev`: services that run until SIGTERM or Ctrl-C."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prela_stream import app as root
from prela_stream.cli import listing
from prela_stream.cli.consoles import note, own_command
from prela_stream.cli.formats import clean
from prela_stream.cli.options import Options, command
from prela_stream.cli.running import log_to_stderr, run_until_stopped
from prela_stream.cli.screen import standard_output
from prela_stream.config import Settings, checked_settings
from prela_stream.model.decision import Decision
from prela_stream.sampling.policyset import PolicySet
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
WebOption = Annotated[
    str | None,
    typer.Option(
        "--web", metavar="HOST:PORT", help="Serve the web page here. Default: 127.0.0.1:8787 or a port after it."
    ),
]
NoWebOption = Annotated[bool, typer.Option("--no-web", help="Serve no web page.")]
PageOption = Annotated[
    str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to serve the page. Default: 127.0.0.1:8787.")
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
        ("web", web_command),
    ):
        command(app, name, as_json=None)(function)


def _exposing(settings: Settings, http: str | None) -> Settings:
    """The settings with the address of `--http`, if it was given."""
    if http is None:
        return settings
    return msgspec.structs.replace(settings, http=msgspec.structs.replace(settings.http, listen=http))


def _with_page(settings: Settings, listen: str | None) -> Settings:
    """The settings with this address of the web page, if one was given; raises ConfigurationError."""
    if listen is None:
        return settings
    web = msgspec.structs.replace(settings.web, listen=listen)
    return checked_settings(msgspec.structs.replace(settings, web=web))


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


def web_command(options: Options, listen: PageOption = None) -> None:
    """Serve the web page on the store of the settings, until SIGTERM or Ctrl-C."""
    settings = _with_page(options.settings(), listen)
    log_to_stderr()
    run_until_stopped(lambda: root.run_web(settings, on_ready=lambda url: _report(f"ready: open {url}")))
    _report("web has stopped")


def dev_command(options: Options, http: HttpOption = None, web: WebOption = None, no_web: NoWebOption = False) -> None:
    """Run worker, sinks, OTLP receiver and web page in one process; keep every trace unless a policy file is set."""
    settings = _with_page(_exposing(options.settings(), http), "off" if no_web else web)
    log_to_stderr()
    policies = root.dev_policy_set(settings)
    pages: list[str] = []
    run_until_stopped(
        lambda: root.run_dev(
            settings,
            on_page=pages.append,
            on_ready=lambda: _report(_dev_line(settings, policies, pages[0] if pages else None)),
            on_decision=_print_decision if sys.stdout is not None and sys.stdout.isatty() else None,
        )
    )
    _report("dev has stopped")


def _dev_line(settings: Settings, policies: PolicySet, page: str | None = None) -> str:
    """What `dev` runs on. `page` is the address of its web page, if it serves one."""
    folder = absolute(Path(settings.directory))
    stores = ", ".join(sink.destination for sink in settings.sink) or "none"
    log = "" if settings.transport == "local" else f", log on the {settings.transport} transport"
    parts = [
        f"dev is ready: folder {folder}{log}",
        f"store {stores}",
        f"policies: {policies.source} (version {policies.version})",
        f"page {page}" if page else f"list traces with: {own_command()} traces list --dir {shlex.quote(folder)}",
    ]
    return "; ".join(parts)


def _print_decision(decision: Decision) -> None:
    """One line about a decided trace."""
    summary = decision.summary
    status = (
        "dropped" if not decision.kept else "error" if summary.errors else "ok" if decision.complete else "incomplete"
    )
    row = listing.Row(
        trace_id=decision.trace_id_hex,
        name=summary.root_name,
        service=summary.service,
        start_ns=summary.start_ns,
        duration_ns=summary.duration_ns,
        status=status,
        input_tokens=summary.input_tokens,
        output_tokens=summary.output_tokens,
        cost_usd=summary.cost_usd,
        why=f"{decision.policy}: {decision.reason}",
    )
    with suppress(OSError, ValueError):  # a closed terminal ends no service
        screen = standard_output()
        screen.show([listing.one_line(row, screen)])


def _report(text: str) -> None:
    with suppress(OSError, ValueError):  # a full disk or an ended reader of standard error ends no service
        note(clean(text))
