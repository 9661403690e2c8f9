"""`prela-stream traces export`: traces of a store as JSONL, as OTLP JSON, or as one HTML file."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TextIO

import typer

from prela_stream import app as root
from prela_stream.cli import completion, filters, formats
from prela_stream.cli.consoles import note
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.options import Options
from prela_stream.cli.running import ask
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.query import StoredTrace, TraceQuery
from prela_stream.validation import absolute
from prela_stream.views.formats import plural

if TYPE_CHECKING:
    from prela_stream.sinks.reader import TraceReader

Format = Literal["jsonl", "otlp", "html"]
_PAGE: Final = 200
_MOST: Final = 1_000_000

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Trace ids, or their first digits. Without one: all traces that match.",
        autocompletion=completion.trace_ids,
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        help="jsonl: a trace per line, as `show --json`. otlp: OTLP JSON, a request per line. html: one page.",
    ),
]
OutputOption = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE", help="File to write; - is standard output.")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=_MOST, help="Most traces, the newest first.")]


def export_command(
    options: Options,
    chosen: dict[str, Any],
    trace_ids: IdsArgument = None,
    how: FormatOption = "jsonl",
    output: OutputOption = "-",
    limit: LimitOption = 1_000,
) -> None:
    """Write kept traces with all their spans to a file. Exit code 1 if there is none, or if an id is not in the store."""
    settings, where = options.settings(), filters.query_of(chosen)
    if trace_ids and filters.is_narrow(where):
        msg = "name traces by their ids, or choose them by options, not both"
        raise ConfigurationError(msg)

    async def export() -> int:
        async with root.open_reader(settings) as reader:
            traces = _named(reader, trace_ids) if trace_ids else _matching(reader, where, limit)
            with _file(output) as write:
                return await _WRITERS[how](traces, write)

    written = ask(export)
    if output != "-":
        note(f"{plural(written, 'trace')} in {absolute(Path(output))}")
    if not written:
        from prela_stream.cli.empty import explain_nothing

        explain_nothing(settings, where)
        raise typer.Exit(NOT_FOUND)


async def _named(reader: TraceReader, trace_ids: list[str]) -> AsyncIterator[StoredTrace]:
    missing = []
    for trace_id in trace_ids:
        stored = await reader.get(trace_id)
        if stored is None:
            missing.append(trace_id)
        else:
            yield stored
    if missing:
        fail_line(f"the store has no trace {', '.join(missing)}")
        raise typer.Exit(NOT_FOUND)


async def _matching(reader: TraceReader, where: TraceQuery, limit: int) -> AsyncIterator[StoredTrace]:
    after: str | None = None
    left = limit
    while left > 0:
        rows = await reader.list_traces(where, limit=min(_PAGE, left), after=after)
        for row in rows:
            stored = await reader.get(row.trace_id)
            if stored is not None:
                yield stored
        if len(rows) < _PAGE:
            return
        left, after = left - len(rows), rows[-1].cursor


@contextmanager
def _file(name: str) -> Iterator[Callable[[str], object]]:
    """What writes to the file. It appears under its name when it is whole: a full disk leaves no half of it."""
    if name == "-":
        if sys.stdout is None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        yield sys.stdout.write
        sys.stdout.flush()
        return
    path = Path(name)
    unfinished = path.with_name(f"{path.name}.unfinished")
    file: TextIO
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            os.chmod(unfinished, 0o600)  # noqa: PTH101 - prompts are in it
            yield file.write
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


async def _jsonl(traces: AsyncIterator[StoredTrace], write: Callable[[str], object]) -> int:
    written = 0
    async for stored in traces:
        write(formats.to_json(formats.trace_document(stored, stored.decision)) + "\n")
        written += 1
    return written


async def _otlp(traces: AsyncIterator[StoredTrace], write: Callable[[str], object]) -> int:
    from prela_stream.views.otlp_json import otlp_document

    written = 0
    async for stored in traces:
        write(formats.to_json(otlp_document(stored.spans)) + "\n")
        written += 1
    return written


async def _html(traces: AsyncIterator[StoredTrace], write: Callable[[str], object]) -> int:
    from prela_stream.views.html_form import ExportedTrace, html_document

    found = [ExportedTrace(spans=stored.spans, decision=stored.decision) async for stored in traces]
    for part in html_document(found):
        write(part)
    return len(found)


_WRITERS: Final = {"jsonl": _jsonl, "otlp": _otlp, "html": _html}
