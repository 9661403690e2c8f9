"""`prela-stream traces …`: what a store has. Lists are here; `trace_show`, `trace_tables` and `trace_export` have the rest."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

import anyio
import typer

from prela_stream import app as root
from prela_stream.cli import filters, formats, listing, trace_export, trace_show, trace_tables
from prela_stream.cli.consoles import print_json
from prela_stream.cli.empty import explain_nothing
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.options import JsonLinesOption, Options, command, command_group
from prela_stream.cli.running import ask, run_until_stopped
from prela_stream.cli.screen import standard_output
from prela_stream.errors import ConfigurationError, PrelaError
from prela_stream.sinks.query import SortKey, TraceQuery, TraceRow
from prela_stream.sinks.reader import TraceReader

_MOST: Final = 1_000_000
_TAIL_ROWS: Final = 100

app = command_group("List, show, search, compare, export and follow traces.")

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=_MOST, help="Most traces to print.")]
TextOption = Annotated[
    str | None, typer.Option("--text", help="Words that all occur in the trace; a word may end in *.")
]
DroppedOption = Annotated[bool, typer.Option("--dropped", help="Dropped traces: what their decisions have.")]
SortOption = Annotated[SortKey, typer.Option("--sort", help="Order.")]
OffsetOption = Annotated[int, typer.Option("--offset", min=0, max=(1 << 63) - 1, help="Skip this many traces.")]
WordsArgument = Annotated[list[str], typer.Argument(help="Words that all occur in a trace; a word may end in *.")]
LastOption = Annotated[int, typer.Option("--last", min=0, max=_MOST, help="Begin with this many stored traces.")]
IntervalOption = Annotated[float, typer.Option("--interval", min=0.05, max=3_600, help="Seconds between two checks.")]


def list_command(
    options: Options,
    chosen: dict[str, Any],
    text: TextOption = None,
    dropped: DroppedOption = False,
    sort: SortOption = "newest",
    limit: LimitOption = 50,
    offset: OffsetOption = 0,
) -> None:
    """List kept traces, the newest first; with --dropped, dropped ones."""
    where = filters.query_of(chosen, text=text, dropped=dropped)
    _list(options, where, sort, limit, offset)


def errors_command(options: Options, chosen: dict[str, Any], limit: LimitOption = 50) -> None:
    """List traces in which a span failed."""
    if chosen.get("errors") is False:
        msg = "`traces errors` lists traces with errors; use `traces list --no-errors` for the others"
        raise ConfigurationError(msg)
    _list(options, filters.query_of({**chosen, "errors": True}), "newest", limit, 0)


def search_command(
    options: Options, chosen: dict[str, Any], words: WordsArgument, sort: SortOption = "newest", limit: LimitOption = 50
) -> None:
    """Find traces by words in their names, messages, attributes and events. Exit code 1 if there is none."""
    where = filters.query_of(chosen, text=" ".join(words))
    if not _list(options, where, sort, limit, 0):
        raise typer.Exit(NOT_FOUND)


def last_command(
    options: Options,
    span: trace_show.SpanOption = None,
    messages: trace_show.MessagesOption = False,
    text: trace_show.TextFormOption = False,
    full: trace_show.FullOption = False,
) -> None:
    """Show the newest trace. Exit code 1 if there is none."""
    settings = options.settings()

    async def question() -> str | None:
        async with root.open_reader(settings) as reader:
            rows = await reader.list_traces(TraceQuery(), limit=1)
        return rows[0].trace_id if rows else None

    trace_id = ask(question)
    if trace_id is None:
        explain_nothing(settings, TraceQuery())
        raise typer.Exit(NOT_FOUND)
    how = trace_show.How(span=span, messages=messages, text=text, full=full)
    trace_show.show(settings, trace_id, how, as_json=options.as_json)


def tail_command(options: Options, last: LastOption = 10, interval: IntervalOption = 0.5) -> None:
    """Print traces as they are stored, until Ctrl-C. A trace is printed again when late spans extend it."""
    if math.isnan(interval):  # every comparison with it is false, so that the range of the option does not exclude it
        msg = "--interval: expected a number of seconds from 0.05 to 3,600, got nan"
        raise ConfigurationError(msg)
    settings = options.settings()

    async def follow() -> None:
        async with root.open_reader(settings) as reader:
            async for row in new_traces(reader, last, interval):
                _print_line(row, options.as_json)

    run_until_stopped(follow)


async def new_traces(reader: TraceReader, last: int, interval: float) -> AsyncIterator[TraceRow]:
    """The last traces of a store, then each trace that is stored or extended. Waits for a store that was deleted.

    Args:
        reader: Of the store, which must exist at the start.
        last: How many traces come first.
        interval: Seconds between two queries.
    """
    mark = max(0, await reader.newest_mark() - last)
    reported = False
    while True:
        try:
            if await reader.newest_mark() < mark:
                mark = 0  # the store was deleted and created again
            rows = await reader.tail(mark, limit=_TAIL_ROWS)
        except PrelaError as error:
            if not reported:
                fail_line(f"{error}. Waiting for it")
            reported, rows = True, []
        else:
            reported = False
        for row in rows:
            yield row
            mark = row.stored
        if len(rows) < _TAIL_ROWS:
            await anyio.sleep(interval)


command(app, "list", filters=filters.OPTIONS)(list_command)
command(app, "show")(trace_show.show_command)
command(app, "last")(last_command)
command(app, "errors", filters=filters.OPTIONS)(errors_command)
command(app, "search", filters=filters.OPTIONS)(search_command)
command(app, "tail", as_json=JsonLinesOption)(tail_command)
command(app, "running")(trace_tables.running_command)
command(app, "sessions", filters=filters.OPTIONS)(trace_tables.sessions_command)
command(app, "stats", filters=filters.OPTIONS)(trace_tables.stats_command)
command(app, "diff")(trace_show.diff_command)
command(app, "export", as_json=None, filters=filters.OPTIONS)(trace_export.export_command)


def _list(options: Options, where: TraceQuery, sort: SortKey, limit: int, offset: int) -> Sequence[TraceRow]:
    """Print the traces that match, or why there is none."""
    settings = options.settings()

    async def question() -> list[TraceRow]:
        async with root.open_reader(settings) as reader:
            return await reader.list_traces(where, sort=sort, limit=limit, offset=offset)

    rows = ask(question)
    if options.as_json:
        print_json(formats.to_json(rows))
    elif rows:
        screen = standard_output()
        shown = [listing.row_of(row) for row in rows]
        screen.show(listing.trace_list(shown, screen, now_ns=time.time_ns()))
    else:
        explain_nothing(settings, where, offset=offset)
    return rows


def _print_line(row: TraceRow, as_json: bool) -> None:
    if as_json:
        print_json(formats.to_json(row))
        return
    screen = standard_output()
    screen.show([listing.one_line(listing.row_of(row), screen)])
