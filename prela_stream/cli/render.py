"""Traces on a terminal: a list as a table, one trace as a tree, one span with all its content.

All text of a span goes through `clean` and into `Text`, which has no markup: the name of a span cannot style or move anything.
"""

from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from prela_stream.cli import formats
from prela_stream.cli.formats import clean
from prela_stream.model import semconv
from prela_stream.model.decision import Basis, Decision
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.model.times import self_time_ns
from prela_stream.model.tree import SpanNode, SpanTree
from prela_stream.sinks.query import StoredTrace, TraceRow

MAX_SPANS: Final = 1_000
"""Most spans of one tree without `--all`."""

_MAX_INDENT: Final = 24
_MAX_VALUE: Final = 4_000
_TYPE_STYLES: Final = {
    SpanType.AGENT: "bold magenta",
    SpanType.LLM: "bold cyan",
    SpanType.TOOL: "bold yellow",
    SpanType.RETRIEVAL: "bold blue",
    SpanType.EMBEDDING: "bold blue",
    SpanType.CUSTOM: "bold",
}


def trace_table(rows: list[TraceRow], title: str | None = None) -> Table:
    """A trace list."""
    table = Table(title=title, box=None, pad_edge=False, header_style="dim", title_justify="left")
    table.add_column("trace", no_wrap=True)
    table.add_column("time", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("name", overflow="ellipsis", no_wrap=True, min_width=12)
    table.add_column("service", overflow="ellipsis", no_wrap=True)
    for name in ("duration", "spans", "errors", "tokens", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("kept because", overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: TraceRow) -> list[Text]:
    return [
        Text(row.trace_id[:12], "dim"),
        Text(formats.moment(row.start_ns)),
        row_status(row),
        Text(clean(row.root_name) or "(no root)"),
        Text(clean(row.service)),
        Text(formats.duration(row.duration_ns)),
        Text(str(row.spans)),
        Text(str(row.errors), "bold red") if row.errors else Text(""),
        Text(formats.tokens(row.input_tokens, row.output_tokens)),
        Text(formats.cost(row.cost_usd)),
        Text(clean(row.kept_because), "dim"),
    ]


def row_status(row: TraceRow) -> Text:
    """`error` before `incomplete` before `ok`."""
    if row.errors:
        return Text("error", "bold red")
    return Text("ok", "green") if row.complete else Text("incomplete", "yellow")


def row_line(row: TraceRow) -> Text:
    """One line about a trace, for `traces tail`."""
    cells = [cell for cell in _cells(row) if cell.plain]
    return Text("  ").join(cells)


def trace_tree(stored: StoredTrace, *, limit: int | None = MAX_SPANS) -> Tree:
    """The tree of a trace below a line that summarizes it.

    Args:
        stored: The trace.
        limit: Spans to show at most, in order of the tree; None shows all.
    """
    tree = SpanTree(stored.spans)
    outside = frozenset(tree.outside_parent)
    top = Tree(_headline(stored.row), guide_style="dim")
    branches: dict[int, Tree] = {}
    absent: dict[str | bytes, Tree] = {}
    for index, node in enumerate(tree.walk()):
        if limit is not None and index >= limit:
            top.add(Text(f"… {len(tree) - limit} more spans; --all shows them", "dim"))
            break
        parent = top if node.parent is None else branches[id(node.parent)]
        if node.orphan:
            parent_id = node.span.parent_span_id or ""
            if parent_id not in absent:
                absent[parent_id] = top.add(Text(f"(span {clean(parent_id)} is missing)", "dim italic"))
            parent = absent[parent_id]
        label = span_line(node, outside=node.index in outside)
        # Beyond some depth a terminal is too narrow for more guides: deeper spans are in one column, with their depth.
        if node.depth > _MAX_INDENT and node.parent is not None:
            label = Text.assemble((f"{node.depth}· ", "dim"), label)
            branches[id(node)] = parent
            parent.add(label)
        else:
            branches[id(node)] = parent.add(label)
    return top


def _headline(row: TraceRow) -> Text:
    parts = [
        Text(row.trace_id, "bold"),
        row_status(row),
        Text(clean(row.service)),
        Text(formats.moment(row.start_ns)),
        Text(formats.duration(row.duration_ns)),
        Text(f"{row.spans} span{'' if row.spans == 1 else 's'}"),
        Text(formats.tokens(row.input_tokens, row.output_tokens)),
        Text(formats.cost(row.cost_usd)),
    ]
    return Text("  ").join(part for part in parts if part.plain)


def span_line(node: SpanNode[SpanData], *, outside: bool = False) -> Text:
    """One line about a span: type, name, duration, self time, tokens, what went wrong."""
    span = node.span
    failed = span.status == SpanStatus.ERROR
    line = Text.assemble((span.span_type.lower(), _TYPE_STYLES[span.span_type]), " ")
    line.append(clean(span.name) or "(no name)", "bold red" if failed else "")
    line.append(f"  {formats.duration(span.duration_ns)}")
    own = self_time_ns(node)
    if node.children and own is not None:
        line.append(f" (self {formats.duration(own)})", "dim")
    line.append(_usage(span.attributes), "cyan")
    if failed:
        message = span.status_message or semconv.read(span.attributes, semconv.ERROR_MESSAGE) or "failed"
        line.append(f"  ERROR {clean(str(message))[:200]}", "red")
    elif span.status != SpanStatus.SUCCESS:
        line.append(f"  {'PENDING, not ended' if span.status == SpanStatus.PENDING else 'cancelled'}", "yellow")
    if node.cycle:
        line.append("  (its parents form a cycle)", "yellow")
    if outside:
        line.append("  (outside its parent's time)", "yellow")
    return line


def _usage(attributes: dict[str, Any]) -> str:
    parts = []
    into, out = (semconv.read(attributes, key) for key in (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS))
    if isinstance(into, int) or isinstance(out, int):
        shown = formats.tokens(into if isinstance(into, int) else 0, out if isinstance(out, int) else 0)
        parts.append(f"{shown} tokens" if shown else "")
    price = semconv.read(attributes, semconv.COST_USD)
    if isinstance(price, int | float):
        parts.append(formats.cost(float(price)))
    return "".join(f"  {part}" for part in parts if part)


def decision_line(decision: Decision) -> Text:
    """Why a trace was kept or dropped."""
    verdict = ("kept", "bold green") if decision.kept else ("dropped", "bold yellow")
    line = Text.assemble(
        verdict, " by policy ", (clean(decision.policy), "bold"), f": {clean(decision.reason)}", "\n  decided "
    )
    line.append(
        f"{formats.moment(decision.decided_at_ms * 1_000_000)} by trigger {decision.trigger} ({_evidence(decision)}); kept with "
        f"probability {decision.probability:g}"
    )
    if decision.kept:
        line.append(f", represents {decision.weight:g} trace{'' if decision.weight == 1 else 's'}")
    if decision.weight_biased:
        line.append(" (biased: the head-sampling thresholds of its spans differ)")
    if decision.repeated:
        line.append("; it was decided before, longer ago than decisions are remembered")
    return line


def _evidence(decision: Decision) -> str:
    """Whether spans are missing, and how that is known."""
    if decision.basis == Basis.QUIET_TIME:
        return "some spans have no child count, so it was decided by quiet time"
    whole = "every span received" if decision.complete else "spans missing"
    return f"{whole}, by the counting processor" if decision.basis == Basis.COUNTING_PROCESSOR else whole


def decision_only(decision: Decision) -> Group:
    """A trace of which the store has only the decision."""
    summary = decision.summary
    parts = [
        clean(summary.root_name) or "(no root)",
        clean(summary.service),
        formats.moment(summary.start_ns) if summary.start_ns else "",
        formats.duration(summary.duration_ns),
        f"{summary.spans} spans",
        f"{summary.errors} errors" if summary.errors else "",
        f"{summary.outside_parent} outside their parent's time" if summary.outside_parent else "",
        formats.tokens(summary.input_tokens, summary.output_tokens),
        formats.cost(summary.cost_usd),
    ]
    return Group(
        Text(decision.trace_id_hex, "bold"),
        Text("  " + "  ".join(part for part in parts if part)),
        decision_line(decision),
        Text("  its spans are not stored" + (" yet" if decision.kept else ""), "dim"),
    )


def span_detail(span: SpanData) -> Group:
    """All content of a span."""
    head = Table.grid(padding=(0, 2))
    parent = span.parent_span_id or "(root)"
    facts = {
        "span": span.span_id,
        "parent": parent,
        "type": span.span_type.value,
        "status": span.status.value + (f": {span.status_message}" if span.status_message else ""),
        "start": span.started_at.isoformat(),
        "duration": formats.duration(span.duration_ns),
        "service": span.resource.service_name,
    }
    for name, value in facts.items():
        head.add_row(Text(name, "dim"), Text(clean(value)))
    parts: list[RenderableType] = [Text(clean(span.name) or "(no name)", "bold"), head]
    if span.attributes:
        parts += [Text("\nattributes", "bold"), _values(span.attributes)]
    for event in span.events:
        after = formats.duration(max(event.time_ns - span.start_ns, 0))
        parts += [Text(f"\nevent {clean(event.name)}  +{after}", "bold"), _values(event.attributes)]
    return Group(*parts)


def _values(attributes: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, max_width=48, overflow="ellipsis")
    table.add_column(overflow="fold")
    for key, value in attributes.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        shown = clean(text[:_MAX_VALUE], lines=True)
        if len(text) > _MAX_VALUE:
            shown += f" … ({len(text):,} characters; --json has them all)"
        table.add_row(Text(clean(key), "cyan"), Text(shown))
    return table
