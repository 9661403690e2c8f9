"""`prela-stream import`: spans of other tools, from files, into the log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from prela_stream.cli import formats
from prela_stream.cli.consoles import messages, output, print_json, progress_bar
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.formats import clean
from prela_stream.cli.options import JsonLinesOption, Options, command
from prela_stream.cli.running import ask
from prela_stream.config import Settings
from prela_stream.errors import ConfigurationError
from prela_stream.validation import absolute

if TYPE_CHECKING:
    from prela_stream.app import importing

_SHOWN = 10
"""Rejected parts of a file that are listed on a terminal; `--json` lists all."""

FilesArgument = Annotated[list[str], typer.Argument(metavar="FILE…", help="Files to read; - is standard input.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only read and count; append nothing to the log.")]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    command(app, "import", as_json=JsonLinesOption)(import_command)


def import_command(options: Options, files: FilesArgument, dry_run: DryRunOption = False) -> None:
    """Read spans of OTLP JSON, Jaeger, Zipkin v2, Langfuse, ATOF, SWE-agent or OpenTelemetry SDKs, and append them to the log.

    A part that is no span is reported with its place and costs no other part. Exit code 1 if anything was rejected.
    """
    from prela_stream.app import importing

    settings = options.settings()
    rejected = False
    rows: list[importing.ImportSummary] = []
    for name in files:
        file = _read(name)
        summary = importing.summarize_import(file)
        rejected = rejected or bool(summary.rejected)
        if not dry_run and file.spans:
            _send(settings, file)
        if options.as_json:
            print_json(formats.to_json(summary))
        else:
            rows.append(summary)
    if not options.as_json:
        _show(rows, dry_run=dry_run)
    if rejected:
        raise typer.Exit(NOT_FOUND)


def _read(name: str) -> importing.ImportedFile:
    from prela_stream.app import importing

    if name == "-":
        return importing.read_import("-", sys.stdin.buffer.read())
    path = Path(name)
    if not path.exists():
        msg = f"there is no file {absolute(path)}; name one that exists, or - for standard input"
        raise ConfigurationError(msg)
    return importing.read_path(path)


def _send(settings: Settings, file: importing.ImportedFile) -> None:
    from prela_stream.app import importing

    with progress_bar(transient=not messages().is_terminal) as progress:
        task = progress.add_task(f"importing {clean(file.name)}", total=len(file.spans))
        ask(lambda: importing.import_spans(settings, file.spans, on_sent=lambda count: progress.advance(task, count)))


def _show(rows: Iterable[importing.ImportSummary], *, dry_run: bool) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("file", "spans", "traces", "roots", "calls", "tokens in", "tokens out", "readable", "rejected"):
        table.add_column(title, justify="left" if title == "file" else "right")
    for row in rows:
        numbers = (
            row.spans,
            row.traces,
            row.roots,
            row.model_calls,
            row.input_tokens,
            row.output_tokens,
            row.readable_calls,
        )
        table.add_row(Text(clean(row.file)), *(f"{number:,}" for number in numbers), f"{len(row.rejected):,}")
        for one in row.rejected[:_SHOWN]:
            fail_line(f"{clean(row.file)}: {clean(one.place)}: {clean(one.reason)}")
        if len(row.rejected) > _SHOWN:
            fail_line(
                f"{clean(row.file)}: {len(row.rejected) - _SHOWN:,} more parts were rejected; --json lists all of them"
            )
    output().print(table)
    if not dry_run:
        messages().print("The spans are in the log. A worker decides their traces after a quiet time.")
