"""`prela-stream traces …`: reads the store."""

import math
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final

import anyio
import typer
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats, render
from prela_stream.cli.consoles import messages, output, print_json
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.options import JsonLinesOption, Options, command, command_group
from prela_stream.cli.running import ask, run_until_stopped
from prela_stream.config import Settings
from prela_stream.errors import ConfigurationError, PrelaError
from prela_stream.model.decision import Decision
from prela_stream.sinks.documents import span_document
from prela_stream.sinks.query import SortKey, StoredTrace, TraceQuery, TraceRow
from prela_stream.sinks.reader import TraceReader

_MOST: Final = 1_000_000
_TAIL_ROWS: Final = 100

app = command_group("List, show, search and follow kept traces.")

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=_MOST, help="Most traces to print.")]
ServiceOption = Annotated[str | None, typer.Option("--service", help="Only traces of this service.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Started since: a duration ago (15m, 2h, 7d) or an ISO date or time.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Started before: written as --since.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Only traces whose root span has this name.")]
ErrorsOption = Annotated[
    bool | None, typer.Option("--errors/--no-errors", help="Only traces with, or without, errors.")
]
MinDurationOption = Annotated[str | None, typer.Option("--min-duration", help="At least this long: 250ms, 1.5s, 2m.")]
PolicyOption = Annotated[str | None, typer.Option("--policy", help="Only traces that this policy kept.")]
TextOption = Annotated[str | None, typer.Option("--text", help="Words that all occur in the trace.")]
SortOption = Annotated[SortKey, typer.Option("--sort", help="Order.")]
OffsetOption = Annotated[int, typer.Option("--offset", min=0, max=(1 << 63) - 1, help="Skip this many traces.")]
WordsArgument = Annotated[list[str], typer.Argument(help="Words that all occur in a trace; a word may end in *.")]
TraceArgument = Annotated[str, typer.Argument(help="Trace id, or its first digits (at least 4).")]
SpanOption = Annotated[str | None, typer.Option("--span", help="Show this span in full: its id, or its first digits.")]
AllOption = Annotated[bool, typer.Option("--all", help=f"Show more than {render.MAX_SPANS:,} spans.")]
LastOption = Annotated[int, typer.Option("--last", min=0, max=_MOST, help="Begin with this many stored traces.")]
IntervalOption = Annotated[float, typer.Option("--interval", min=0.05, max=3_600, help="Seconds between two checks.")]


def list_command(  # noqa: PLR0917 - typer makes each an option
    options: Options,
    service: ServiceOption = None,
    name: NameOption = None,
    errors: ErrorsOption = None,
    min_duration: MinDurationOption = None,
    policy: PolicyOption = None,
    text: TextOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sort: SortOption = "newest",
    limit: LimitOption = 50,
    offset: OffsetOption = 0,
) -> None:
    """List kept traces, the newest first."""
    now = time.time_ns()
    where = TraceQuery(
        since_ns=None if since is None else formats.since(since, now),
        until_ns=None if until is None else formats.since(until, now),
        service=service,
        name=name,
        errors=errors,
        min_duration_ms=None if min_duration is None else formats.milliseconds(min_duration),
        policy=policy,
        text=text,
    )
    settings = options.settings()
    rows = _rows(settings, where, sort, limit, offset)
    _print_rows(rows, options.as_json)
    if not rows and not options.as_json and not offset and where == TraceQuery():
        _explain_nothing(settings)


def errors_command(
    options: Options, service: ServiceOption = None, since: SinceOption = None, limit: LimitOption = 50
) -> None:
    """List traces in which a span failed."""
    since_ns = None if since is None else formats.since(since, time.time_ns())
    where = TraceQuery(errors=True, service=service, since_ns=since_ns)
    _print_rows(_rows(options.settings(), where, "newest", limit, 0), options.as_json)


def search_command(options: Options, words: WordsArgument, limit: LimitOption = 50) -> None:
    """Find traces by words in their names, messages, attributes and events. Exit code 1 if there is none."""
    rows = _rows(options.settings(), TraceQuery(text=" ".join(words)), "newest", limit, 0)
    _print_rows(rows, options.as_json)
    if not rows:
        raise typer.Exit(NOT_FOUND)


def last_command(options: Options) -> None:
    """Show the newest trace. Exit code 1 if there is none."""
    settings = options.settings()
    rows = _rows(settings, TraceQuery(), "newest", 1, 0)
    if not rows:
        fail_line("no trace is stored yet")
        raise typer.Exit(NOT_FOUND)
    _show(settings, rows[0].trace_id, None, options.as_json, all_spans=False)


def show_command(
    options: Options, trace_id: TraceArgument, span: SpanOption = None, all_spans: AllOption = False
) -> None:
    """Show one trace as a tree with the reason for its decision. Exit code 1 if the store has no decision on it."""
    _show(options.settings(), trace_id, span, options.as_json, all_spans=all_spans)


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


command(app, "list")(list_command)
command(app, "errors")(errors_command)
command(app, "search")(search_command)
command(app, "last")(last_command)
command(app, "show")(show_command)
command(app, "tail", as_json=JsonLinesOption)(tail_command)


def _rows(settings: Settings, where: TraceQuery, sort: SortKey, limit: int, offset: int) -> list[TraceRow]:
    async def question() -> list[TraceRow]:
        async with root.open_reader(settings) as reader:
            return await reader.list_traces(where, sort=sort, limit=limit, offset=offset)

    return ask(question)


def _print_rows(rows: list[TraceRow], as_json: bool) -> None:
    if as_json:
        print_json(formats.to_json(rows))
    elif rows:
        output().print(render.trace_table(rows))
    else:
        messages().print("no trace matches")


def _explain_nothing(settings: Settings) -> None:
    """Print why a list without a filter is empty: dropping most traces of a new set-up is no fault."""

    async def question() -> dict[str, int]:
        async with root.open_reader(settings) as reader:
            return await reader.totals()

    totals = ask(question)
    if totals["decisions"]:
        text = (
            f"decided so far: {totals['kept']} kept, {totals['dropped']} dropped. The policies decide which are kept; "
            "`prela-stream policies check` lists them"
        )
    else:
        text = (
            "no traces have been decided yet. A trace is decided once it is complete or idle, while `prela-stream dev` or "
            "`prela-stream worker` is running"
        )
    messages().print(Text(text))


def _print_line(row: TraceRow, as_json: bool) -> None:
    if as_json:
        print_json(formats.to_json(row))
        return
    output().print(render.row_line(row), soft_wrap=True)


def _show(settings: Settings, trace_id: str, span: str | None, as_json: bool, *, all_spans: bool) -> None:
    async def question() -> tuple[StoredTrace | None, Decision | None]:
        async with root.open_reader(settings) as reader:
            stored = await reader.get(trace_id)
            return stored, None if stored is not None else await reader.decision(trace_id)

    stored, decision = ask(question)
    if stored is not None:
        _show_stored(stored, span, as_json, all_spans=all_spans)
    elif decision is not None and span is None:
        if as_json:
            print_json(formats.to_json(formats.trace_document(None, decision)))
        else:
            output().print(render.decision_only(decision))
    else:
        what = f"span {span} of trace {trace_id}" if span is not None else f"trace {trace_id}"
        fail_line(f"the store has no {what}: it was not decided yet, was dropped, or its id is another one")
        raise typer.Exit(NOT_FOUND)


def _show_stored(stored: StoredTrace, span: str | None, as_json: bool, *, all_spans: bool) -> None:
    if span is not None:
        found = [one for one in stored.spans if one.span_id.startswith(span.lower())]
        if len(found) > 1 and span:
            msg = (
                f"several spans begin with {span!r}, for instance {found[0].span_id} and {found[1].span_id}; add digits"
            )
            raise ConfigurationError(msg)
        if not found or not span:
            fail_line(f"trace {stored.row.trace_id} has no span {span!r}")
            raise typer.Exit(NOT_FOUND)
        if as_json:
            print_json(formats.to_json(span_document(found[0])))
        else:
            output().print(render.span_detail(found[0]))
    elif as_json:
        print_json(formats.to_json(formats.trace_document(stored, stored.decision)))
    else:
        console = output()
        console.print(render.trace_tree(stored, limit=None if all_spans else render.MAX_SPANS))
        console.print(Text(""), render.decision_line(stored.decision))
