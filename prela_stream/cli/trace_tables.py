"""`prela-stream traces running`, `sessions` and `stats`."""

import time
from typing import Annotated, Any, Final

import typer

from prela_stream import app as root
from prela_stream.cli import filters, formats, listing
from prela_stream.cli.consoles import note, print_json
from prela_stream.cli.empty import explain_nothing
from prela_stream.cli.listing import Row
from prela_stream.cli.options import Options
from prela_stream.cli.running import ask
from prela_stream.cli.screen import Line, Screen, standard_output
from prela_stream.cli.tables import Column, table
from prela_stream.sinks.query import DecidedTotals, Estimate, SessionRow, StatisticKey, Statistics
from prela_stream.views.formats import plural

_MOST: Final = 100_000
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=_MOST, help="Most rows to print.")]
ByOption = Annotated[StatisticKey | None, typer.Option("--by", help="Only the calls of models, or of tools.")]


def running_command(options: Options, limit: LimitOption = 100) -> None:
    """List traces that are not decided yet: running, suspended, lost, or waiting for a worker. Read from the log."""
    settings = options.settings()
    found = ask(lambda: root.undecided_traces(settings))
    traces = found.traces[:limit]
    if options.as_json:
        print_json(formats.to_json({"complete": found.complete, "traces": traces}))
        return
    if not traces:
        note("no trace in the log is undecided: each one has its decision, or none was written")
        return
    now = time.time_ns()
    rows = [
        Row(
            trace_id=one.trace_id,
            name=one.name or "(no name yet)",
            service=one.service,
            start_ns=one.start_ns,
            duration_ns=max(now - one.start_ns, 0) if one.start_ns else 0,
            status=one.state,
            spans=one.spans,
            errors=one.errors,
            why=f"{_open(one.open_spans)}, last item {formats.age(now - one.last_item_ms * 1_000_000)} ago",
        )
        for one in traces
    ]
    screen = standard_output()
    screen.show(listing.trace_list(rows, screen, now_ns=now))
    if len(found.traces) > limit or not found.complete:
        end = "" if found.complete else "; the log is too long to be read to its end here"
        note(f"{limit:,} of {len(found.traces):,} undecided traces{end}")


def _open(spans: int) -> str:
    return plural(spans, "open span") if spans else "every span that started has ended"


def sessions_command(options: Options, chosen: dict[str, Any], limit: LimitOption = 50) -> None:
    """List sessions (gen_ai.conversation.id) with a kept trace that matches, the most recent first."""
    settings, where = options.settings(), filters.query_of(chosen)

    async def question() -> list[SessionRow]:
        async with root.open_reader(settings) as reader:
            return await reader.sessions(where, limit=limit)

    rows = ask(question)
    if options.as_json:
        print_json(formats.to_json(rows))
    elif rows:
        screen = standard_output()
        screen.show(_sessions(rows, screen))
        note("`prela-stream traces list --session ID --sort oldest` lists the traces of one")
    else:
        explain_nothing(settings, where, what="session")


def _sessions(rows: list[SessionRow], screen: Screen) -> list[Line]:
    now = time.time_ns()
    return table(
        [
            Column(title="session", cells=[(screen.fit(row.session), "") for row in rows], is_name=True),
            Column(title="last", cells=[(formats.age(now - row.last_ns), "") for row in rows], right=True),
            Column(title="traces", cells=[(f"{row.traces:,}", "") for row in rows], right=True),
            Column(
                title="errors", cells=[(f"{row.errors:,}" if row.errors else "", "error") for row in rows], right=True
            ),
            Column(
                title="lasted", cells=[(formats.duration(row.last_ns - row.first_ns), "") for row in rows], right=True
            ),
            Column(
                title="tokens",
                cells=[(formats.tokens(row.input_tokens, row.output_tokens), "") for row in rows],
                right=True,
            ),
            Column(title="cost", cells=[(formats.cost(row.cost_usd), "") for row in rows], right=True),
            Column(title="user", cells=[(screen.fit(row.user or ""), "") for row in rows]),
            Column(title="services", cells=[(screen.fit(", ".join(row.services)), "dim") for row in rows]),
        ],
        screen,
    )


def stats_command(options: Options, chosen: dict[str, Any], by: ByOption = None, limit: LimitOption = 20) -> None:
    """Traffic by service and policy (exact), and calls by model and tool (estimated by the weights of the kept traces)."""
    settings, where = options.settings(), filters.query_of(chosen)
    kinds: tuple[StatisticKey, ...] = (by,) if by is not None else ("model", "tool")

    async def question() -> tuple[dict[str, list[DecidedTotals]], dict[str, Statistics]]:
        async with root.open_reader(settings) as reader:
            totals = {}
            if by is None:
                for key in ("service", "policy"):
                    totals[key] = await reader.decided_totals(key, since_ns=where.since_ns, until_ns=where.until_ns)
            return totals, {kind: await reader.statistics(where, kind, limit=limit) for kind in kinds}

    totals, calls = ask(question)
    if options.as_json:
        print_json(formats.to_json({"decided": totals, "calls": calls}))
        return
    if not any(totals.values()) and not any(one.rows for one in calls.values()):
        explain_nothing(settings, where)
        return
    screen = standard_output()
    parts: list[list[Line]] = [_totals(key, rows[:limit], screen) for key, rows in totals.items() if rows]
    parts += [_calls(kind, one, screen) for kind, one in calls.items() if one.rows]
    for at, part in enumerate(parts):
        screen.show([*([[]] if at else []), *part])
    if any(one.rows and not one.exact for one in calls.values()):
        note("calls are estimates: each kept trace counts by its weight; ± is the standard error")


def _totals(key: str, rows: list[DecidedTotals], screen: Screen) -> list[Line]:
    both = [(row, row.kept, row.dropped) for row in rows]
    return table(
        [
            Column(title=key, cells=[(screen.fit(row.name) or "(none)", "") for row in rows], is_name=True),
            Column(
                title="traces", cells=[(f"{kept.traces + lost.traces:,}", "") for _, kept, lost in both], right=True
            ),
            Column(title="kept", cells=[(f"{kept.traces:,}", "") for _, kept, _ in both], right=True),
            Column(
                title="errors", cells=[(f"{kept.errors + lost.errors:,}", "") for _, kept, lost in both], right=True
            ),
            Column(title="spans", cells=[(f"{kept.spans + lost.spans:,}", "") for _, kept, lost in both], right=True),
            Column(
                title="tokens",
                cells=[
                    (formats.tokens(kept.input_tokens + lost.input_tokens, kept.output_tokens + lost.output_tokens), "")
                    for _, kept, lost in both
                ],
                right=True,
            ),
            Column(
                title="cost", cells=[(_sum(kept.cost_usd, lost.cost_usd), "") for _, kept, lost in both], right=True
            ),
        ],
        screen,
    )


def _sum(*costs: float | None) -> str:
    known = [one for one in costs if one is not None]
    return formats.cost(sum(known)) if known else ""


def _calls(kind: str, found: Statistics, screen: Screen) -> list[Line]:
    rows = found.rows
    return table(
        [
            Column(title=kind, cells=[(screen.fit(row.name), "") for row in rows], is_name=True),
            Column(title="calls", cells=[(_estimate(row.calls), "") for row in rows], right=True),
            Column(
                title="errors",
                cells=[(_estimate(row.errors) if row.errors.value else "", "error") for row in rows],
                right=True,
            ),
            Column(title="p50", cells=[(_milliseconds(row.p50_ms), "") for row in rows], right=True),
            Column(title="p95", cells=[(_milliseconds(row.p95_ms), "") for row in rows], right=True),
            Column(title="p99", cells=[(_milliseconds(row.p99_ms), "") for row in rows], right=True),
            Column(
                title="tokens",
                cells=[
                    (formats.tokens(round(row.input_tokens.value), round(row.output_tokens.value)), "") for row in rows
                ],
                right=True,
            ),
            Column(
                title="cost",
                cells=[("" if row.cost_usd is None else formats.cost(row.cost_usd.value), "") for row in rows],
                right=True,
            ),
            Column(title="stored", cells=[(f"{row.stored:,}", "dim") for row in rows], right=True),
        ],
        screen,
    )


def _estimate(found: Estimate) -> str:
    return f"{found.value:,.0f}" + (f" ± {found.error:,.0f}" if found.error >= 0.5 else "")


def _milliseconds(found: Estimate) -> str:
    return formats.duration(round(found.value * 1e6))
