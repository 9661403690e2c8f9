"""`prela-stream worker`, `sink`, `otlp`, `web` and `dev`: services that run until SIGTERM or Ctrl-C."""

import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prela_stream import app as root
from prela_stream.cli import listing
from prela_stream.cli.consoles import own_command
from prela_stream.cli.options import Options, command
from prela_stream.cli.reporting import JSON_HELP, Reports
from prela_stream.cli.running import run_until_stopped
from prela_stream.cli.screen import standard_output
from prela_stream.cli.working import exposing, run_worker_until_stopped
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


JsonEventsOption = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (
        ("dev", dev_command),
        ("worker", worker_command),
        ("sink", sink_command),
        ("otlp", otlp_command),
        ("web", web_command),
    ):
        command(app, name, as_json=JsonEventsOption)(function)


def _with_page(settings: Settings, listen: str | None) -> Settings:
    """The settings with this address of the web page, if one was given; raises ConfigurationError."""
    if listen is None:
        return settings
    web = msgspec.structs.replace(settings.web, listen=listen)
    return checked_settings(msgspec.structs.replace(settings, web=web))


def worker_command(options: Options, http: HttpOption = None) -> None:
    """Assemble traces, decide which are kept, and write the kept ones to the log. SIGTERM or Ctrl-C stops it cleanly."""
    run_worker_until_stopped(exposing(options.settings(), http), as_json=options.as_json)


def sink_command(options: Options, only: OnlyOption = None, http: HttpOption = None) -> None:
    """Write kept traces to the sinks of the settings ([[sink]]). SIGTERM or Ctrl-C stops it cleanly."""
    settings = exposing(options.settings(), http)
    reports = Reports("sink", options.as_json)
    reports.begin()
    sinks = root.chosen_sinks(settings, only or ())
    ready = "ready: " + "; ".join(f"sink {sink.name} writes to {sink.destination}" for sink in sinks)
    facts = [{"name": sink.name, "type": sink.type, "destination": sink.destination} for sink in sinks]
    run_until_stopped(
        lambda: root.run_sinks(settings, only=only or (), on_ready=lambda: reports.ready(ready, sinks=facts))
    )
    reports.stopped()


def otlp_command(
    options: Options, listen: ListenOption = None, from_topic: FromTopicOption = None, http: HttpOption = None
) -> None:
    """Receive spans of OpenTelemetry and append them to the log. SIGTERM or Ctrl-C stops it cleanly.

    With --from-topic it reads a topic of OTLP requests (otlp_proto or otlp_json), and listens nowhere.
    """
    settings = exposing(options.settings(), http)
    if listen is not None:
        settings = msgspec.structs.replace(settings, otlp=msgspec.structs.replace(settings.otlp, listen=listen))
    reports = Reports("otlp", options.as_json)
    reports.begin()
    if from_topic is None:
        ready = f"otlp is ready on the {settings.transport} transport"
        run_until_stopped(
            lambda: root.run_otlp(settings, on_ready=lambda: reports.ready(ready, transport=settings.transport))
        )
    else:
        ready = f"otlp is ready and reads the topic {from_topic}"
        run_until_stopped(
            lambda: root.run_otlp_import(settings, from_topic, on_ready=lambda: reports.ready(ready, topic=from_topic))
        )
    reports.stopped()


def web_command(options: Options, listen: PageOption = None) -> None:
    """Serve the web page on the store of the settings, until SIGTERM or Ctrl-C."""
    settings = _with_page(options.settings(), listen)
    reports = Reports("web", options.as_json)
    reports.begin()
    run_until_stopped(lambda: root.run_web(settings, on_ready=lambda url: reports.ready(f"ready: open {url}", url=url)))
    reports.stopped()


def dev_command(options: Options, http: HttpOption = None, web: WebOption = None, no_web: NoWebOption = False) -> None:
    """Run worker, sinks, OTLP receiver and web page in one process; keep every trace unless a policy file is set."""
    settings = _with_page(exposing(options.settings(), http), "off" if no_web else web)
    reports = Reports("dev", options.as_json)
    reports.begin()
    policies = root.dev_policy_set(settings)
    pages: list[str] = []

    def ready() -> None:
        page = pages[0] if pages else None
        reports.ready(
            _dev_line(settings, policies, page),
            folder=absolute(Path(settings.directory)),
            transport=settings.transport,
            stores=[sink.destination for sink in settings.sink],
            policies={"source": policies.source, "version": policies.version},
            url=page,
        )

    on_decision: Callable[[Decision], None] | None = None
    if options.as_json:
        on_decision = partial(_report_decision, reports)
    elif sys.stdout is not None and sys.stdout.isatty():
        on_decision = _print_decision
    run_until_stopped(lambda: root.run_dev(settings, on_page=pages.append, on_ready=ready, on_decision=on_decision))
    reports.stopped()


def _report_decision(reports: Reports, decision: Decision) -> None:
    from prela_stream.sinks.documents import decision_document

    reports.event("decision", {"decision": decision_document(decision)})


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
