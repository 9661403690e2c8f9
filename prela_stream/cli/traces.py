"""`prela-stream traces …`: look at what the store holds."""

import time
from typing import Annotated

import anyio
import typer
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats, render
from prela_stream.cli.session import (
    NOT_FOUND,
    ConfigOption,
    DirOption,
    Group,
    JsonOption,
    TransportOption,
    ask,
    fail_line,
    messages,
    output,
    print_json,
    run_until_stopped,
    settings_of,
)
from prela_stream.config import Settings
from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import Decision
from prela_stream.sinks.base import SortKey, StoredTrace, TraceFilter, TraceReader, TraceRow

app = typer.Typer(cls=Group, no_args_is_help=True, help="Look at kept traces: list, show, search, follow.")

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="Traces at most.")]
ServiceOption = Annotated[str | None, typer.Option("--service", help="Only of this service.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Started since: a duration ago (15m, 2h, 7d) or an ISO date or time.")
]


@app.command("list")
def list_command(
    ctx: typer.Context,
    *,
    service: ServiceOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Only with this root name.")] = None,
    errors: Annotated[bool | None, typer.Option("--errors/--no-errors", help="Only with, or without, errors.")] = None,
    min_duration: Annotated[
        str | None, typer.Option("--min-duration", help="At least so long: 250ms, 1.5s, 2m.")
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Only what this policy kept.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Words that all occur in the trace.")] = None,
    since: SinceOption = None,
    until: Annotated[str | None, typer.Option("--until", help="Started before, written like --since.")] = None,
    sort: Annotated[SortKey, typer.Option("--sort", help="Order.")] = "newest",
    limit: LimitOption = 50,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Skip so many.")] = 0,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """List kept traces, the newest first."""
    now = time.time_ns()
    where = TraceFilter(
        since_ns=None if since is None else formats.since(since, now),
        until_ns=None if until is None else formats.since(until, now),
        service=service,
        name=name,
        errors=errors,
        min_duration_ms=None if min_duration is None else formats.milliseconds(min_duration),
        policy=policy,
        text=text,
    )
    settings = settings_of(ctx, config, directory, transport)
    rows = _rows(settings, where, sort, limit, offset)
    _print_rows(rows, as_json)
    if not rows and not as_json and not offset and where == TraceFilter():
        _explain_nothing(settings)


@app.command("errors")
def errors_command(
    ctx: typer.Context,
    service: ServiceOption = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """List traces in which something failed."""
    since_ns = None if since is None else formats.since(since, time.time_ns())
    where = TraceFilter(errors=True, service=service, since_ns=since_ns)
    _print_rows(_rows(settings_of(ctx, config, directory, transport), where, "newest", limit, 0), as_json)


@app.command("search")
def search_command(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="Words that all occur in a trace; a word may end in *.")],
    limit: LimitOption = 50,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find traces by words in their names, messages, attributes and events. Exit code 1 if there is none."""
    where = TraceFilter(text=" ".join(words))
    rows = _rows(settings_of(ctx, config, directory, transport), where, "newest", limit, 0)
    _print_rows(rows, as_json)
    if not rows:
        raise typer.Exit(NOT_FOUND)


@app.command("last")
def last_command(
    ctx: typer.Context,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest trace. Exit code 1 if there is none."""
    settings = settings_of(ctx, config, directory, transport)
    rows = _rows(settings, TraceFilter(), "newest", 1, 0)
    if not rows:
        fail_line("no trace is stored yet")
        raise typer.Exit(NOT_FOUND)
    _show(settings, rows[0].trace_id, None, as_json, all_spans=False)


@app.command("show")
def show_command(
    ctx: typer.Context,
    trace_id: Annotated[str, typer.Argument(help="Trace id, or its first 4 or more digits.")],
    span: Annotated[
        str | None, typer.Option("--span", help="Show this span in full: its id, or its first digits.")
    ] = None,
    all_spans: Annotated[bool, typer.Option("--all", help=f"More than {render.MAX_SPANS} spans.")] = False,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one trace as a tree and why it was kept, or why it was dropped. Exit code 1 if nobody knows it."""
    _show(settings_of(ctx, config, directory, transport), trace_id, span, as_json, all_spans=all_spans)


@app.command("tail")
def tail_command(
    ctx: typer.Context,
    last: Annotated[int, typer.Option("--last", min=0, help="Begin with so many stored before.")] = 10,
    interval: Annotated[float, typer.Option("--interval", min=0.05, help="Seconds between looks.")] = 0.5,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Follow traces as they are stored, until Ctrl-C. A trace comes again when late spans extend it."""
    settings = settings_of(ctx, config, directory, transport)

    async def follow() -> None:
        async with root.open_reader(settings) as reader:
            mark = max(0, await newest_mark(reader) - last)
            while True:
                rows = await reader.tail(mark, limit=100)
                for row in rows:
                    _print_line(row, as_json)
                    mark = row.stored
                if len(rows) < 100:
                    await anyio.sleep(interval)

    run_until_stopped(follow)


async def newest_mark(reader: TraceReader) -> int:
    """The `stored` mark of the trace that was stored or extended last; 0 if there is none."""
    high = 1
    while await reader.tail(high - 1, limit=1):
        high *= 2
    low = high // 2  # a change after low - 1 exists, none after high - 1
    while low < high - 1:
        middle = (low + high) // 2
        if await reader.tail(middle - 1, limit=1):
            low = middle
        else:
            high = middle
    return low


def _rows(settings: Settings, where: TraceFilter, sort: SortKey, limit: int, offset: int) -> list[TraceRow]:
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
    """Why a list of everything is empty: most traces of a new set-up are dropped, and that is no fault."""

    async def question() -> dict[str, int]:
        async with root.open_reader(settings) as reader:
            return await reader.totals()

    totals = ask(question)
    if totals["decisions"]:
        text = (
            f"decided so far: {totals['kept']} kept, {totals['dropped']} dropped. The policies say which are kept; "
            "`prela-stream policies check` names them"
        )
    else:
        text = "nothing is decided yet: a trace is when it is whole, or nothing came for a while, and `dev` or `worker` runs"
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
        fail_line(f"no trace {trace_id} was stored or decided here, or its spans were dropped with it")
        raise typer.Exit(NOT_FOUND)


def _show_stored(stored: StoredTrace, span: str | None, as_json: bool, *, all_spans: bool) -> None:
    if span is not None:
        found = [one for one in stored.spans if one.span_id.startswith(span.lower())]
        if len(found) > 1 and span:
            msg = f"several spans begin with {span!r}, for instance {found[0].span_id} and {found[1].span_id}"
            raise ConfigurationError(msg)
        if not found or not span:
            fail_line(f"trace {stored.row.trace_id} has no span {span!r}")
            raise typer.Exit(NOT_FOUND)
        if as_json:
            print_json(formats.to_json(formats.span_document(found[0])))
        else:
            output().print(render.span_detail(found[0]))
    elif as_json:
        print_json(formats.to_json(formats.trace_document(stored, stored.decision)))
    else:
        console = output()
        console.print(render.trace_tree(stored, limit=None if all_spans else render.MAX_SPANS))
        console.print(Text(""), render.decision_line(stored.decision))
