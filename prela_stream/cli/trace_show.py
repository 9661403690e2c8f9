"""`prela-stream traces show` and `diff`: one trace, one span, a conversation, or two traces side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from prela_stream import app as root
from prela_stream.cli import completion, formats
from prela_stream.cli.consoles import print_json
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.listing import row_of
from prela_stream.cli.options import Options
from prela_stream.cli.running import ask
from prela_stream.cli.screen import Line, Screen, standard_output, wrap
from prela_stream.config import Settings
from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.sinks.query import StoredTrace
from prela_stream.text import show as shown
from prela_stream.views.formats import plural

if TYPE_CHECKING:
    from prela_stream.views.comparison import Difference

_LEAST_PREFIX = 4

TraceArgument = Annotated[
    str, typer.Argument(help="Trace id, or its first digits (at least 4).", autocompletion=completion.trace_ids)
]
OtherArgument = Annotated[
    str, typer.Argument(help="The trace to compare it with.", autocompletion=completion.trace_ids)
]
SpanOption = Annotated[
    str | None, typer.Option("--span", help="Show one span with all its content: its number in the tree, or its id.")
]
MessagesOption = Annotated[bool, typer.Option("--messages", help="Print the conversation, each message once.")]
TextFormOption = Annotated[
    bool, typer.Option("--text", help="Print the whole trace as plain text, for people and for models.")
]
FullOption = Annotated[bool, typer.Option("--full", "--all", help="Fold nothing and cut nothing.")]


class How(msgspec.Struct, frozen=True, kw_only=True):
    """What to show of a trace."""

    span: str | None = None
    messages: bool = False
    text: bool = False
    full: bool = False


def show_command(
    options: Options,
    trace_id: TraceArgument,
    span: SpanOption = None,
    messages: MessagesOption = False,
    text: TextFormOption = False,
    full: FullOption = False,
) -> None:
    """Show one trace as a tree, and why it was kept or dropped. Exit code 1 if the store has no decision on it."""
    how = How(span=span, messages=messages, text=text, full=full)
    if sum((span is not None, messages, text)) > 1:
        msg = "--span, --messages and --text each show something else: give one of them"
        raise ConfigurationError(msg)
    show(options.settings(), trace_id, how, as_json=options.as_json)


def show(settings: Settings, trace_id: str, how: How, *, as_json: bool) -> None:
    """Print a trace."""
    stored, decision = _stored(settings, trace_id)
    if stored is not None:
        _show_stored(stored, how, as_json=as_json)
    elif decision is not None and how.span is None:
        if as_json:
            print_json(formats.to_json(formats.trace_document(None, decision)))
        else:
            screen = standard_output()
            screen.show(_decision_lines(decision, screen))
    else:
        _report_missing(trace_id, how.span)


def _stored(settings: Settings, trace_id: str) -> tuple[StoredTrace | None, Decision | None]:
    async def question() -> tuple[StoredTrace | None, Decision | None]:
        async with root.open_reader(settings) as reader:
            stored = await reader.get(trace_id)
            return stored, None if stored is not None else await reader.decision(trace_id)

    return ask(question)


def _report_missing(trace_id: str, span: str | None = None) -> None:
    what = f"span {span} of trace {trace_id}" if span is not None else f"trace {trace_id}"
    fail_line(
        f"the store has no {what}: it was not decided yet (`prela-stream traces running` lists those), was dropped, or its id "
        "is another one"
    )
    raise typer.Exit(NOT_FOUND)


def _show_stored(stored: StoredTrace, how: How, *, as_json: bool) -> None:
    from prela_stream.cli.details import span_lines
    from prela_stream.sinks.documents import span_document

    if how.span is not None:
        number, span = _span_of(stored, how.span)
        if as_json:
            print_json(formats.to_json(span_document(span)))
        else:
            screen = standard_output()
            screen.show(span_lines(span, number, screen, full=how.full))
    elif as_json:
        print_json(formats.to_json(formats.trace_document(stored, stored.decision)))
    else:
        screen = standard_output()
        screen.show(_lines(stored, how, screen))


def _lines(stored: StoredTrace, how: How, screen: Screen) -> Iterator[Line]:
    from prela_stream.cli.details import message_lines
    from prela_stream.cli.drawing import trace_lines
    from prela_stream.views.text_form import trace_text

    if how.text:
        for text in trace_text(stored.spans, stored.decision, full=how.full).split("\n"):
            yield [(text, "")]
    elif how.messages:
        found = list(message_lines(stored.spans, screen, full=how.full))
        yield from found or [[("no message is recorded in this trace", "dim")]]
    else:
        yield from trace_lines(stored.spans, stored.decision, trace_head(stored, screen), screen, full=how.full)


def trace_head(stored: StoredTrace, screen: Screen) -> Line:
    """The line about a stored trace."""
    from prela_stream.cli.drawing import head_line

    row = row_of(stored.row)
    facts = [
        plural(row.spans, "span"),
        formats.tokens(row.input_tokens, row.output_tokens),
        formats.cost(row.cost_usd),
        *(f"session {screen.fit(stored.row.session)}" for _ in [0] if stored.row.session),
        *(f"user {screen.fit(stored.row.user)}" for _ in [0] if stored.row.user),
    ]
    return head_line(row.trace_id, row.status, row.service, row.start_ns, row.duration_ns, facts, screen)


def _span_of(stored: StoredTrace, wanted: str) -> tuple[int, SpanData]:
    """The span with this number in the tree, or with an id that begins so."""
    from prela_stream.model.tree import SpanTree

    order = [node.span for node in SpanTree(stored.spans).walk()]
    if (
        wanted.isascii()
        and wanted.isdigit()
        and not wanted.startswith("0")
        and len(wanted) < 10
        and int(wanted) <= len(order)
    ):
        return int(wanted), order[int(wanted) - 1]
    found = [(number, span) for number, span in enumerate(order, 1) if span.span_id.startswith(wanted.lower())]
    if len(found) > 1 and len(wanted) >= _LEAST_PREFIX:
        ids = f"{found[0][1].span_id} and {found[1][1].span_id}"
        msg = f"several spans begin with {shown(wanted)}, for instance {ids}; add digits"
        raise ConfigurationError(msg)
    if not found or len(wanted) < _LEAST_PREFIX:
        fail_line(
            f"trace {stored.row.trace_id} has no span {shown(wanted)}: expected a number from 1 to {len(order)}, as in the tree, "
            "or a span id, or its first digits (at least 4)"
        )
        raise typer.Exit(NOT_FOUND)
    return found[0]


def _decision_lines(decision: Decision, screen: Screen) -> Iterator[Line]:
    """A trace of which the store has only the decision."""
    from prela_stream.cli.drawing import head_line
    from prela_stream.views.decision_text import terms_of, verdict_of

    summary = decision.summary
    width = screen.width or 1 << 30
    facts = [
        plural(summary.spans, "span"),
        plural(summary.errors, "error") if summary.errors else "",
        f"{summary.outside_parent} outside their parent's time" if summary.outside_parent else "",
        formats.tokens(summary.input_tokens, summary.output_tokens),
        formats.cost(summary.cost_usd),
    ]
    status = "kept" if decision.kept else "dropped"
    head = head_line(
        decision.trace_id_hex, status, summary.service, summary.start_ns, summary.duration_ns, facts, screen
    )
    yield from wrap([*head[:1], (screen.fit(summary.root_name) or "(no root)", ""), *head[1:]], width)
    yield from wrap([(screen.fit(verdict_of(decision)), "green" if decision.kept else "yellow")], width)
    decided = f"decided {formats.moment(decision.decided_at_ms * 1_000_000)} {terms_of(decision)}"
    yield from wrap([(screen.fit(decided), "dim")], width, "  ")
    yield [("  its spans are not stored" + (" yet" if decision.kept else ""), "dim")]


def diff_command(options: Options, first: TraceArgument, second: OtherArgument) -> None:
    """Compare two traces: figures, and spans that only one of them has or that differ. Exit code 1 if a trace is missing."""
    from prela_stream.views.comparison import compare

    settings = options.settings()
    found = []
    for trace_id in (first, second):
        stored, _ = _stored(settings, trace_id)
        if stored is None:
            _report_missing(trace_id)
            return
        found.append(stored)
    before, after = found
    difference = compare(before.spans, after.spans)
    if options.as_json:
        print_json(formats.to_json({"first": before.row, "second": after.row, "difference": difference}))
        return
    screen = standard_output()
    screen.show(_difference_lines(before, after, difference, screen))


def _difference_lines(
    before: StoredTrace, after: StoredTrace, difference: Difference, screen: Screen
) -> Iterator[Line]:
    width = screen.width or 1 << 30
    for mark, stored, style in (("-", before, "red"), ("+", after, "green")):
        head = trace_head(stored, screen)
        yield from wrap([(f"{mark} {head[0][0]}", style), *head[1:]], width)
    yield []
    for figure in difference.figures:
        line = f"{figure.name:<10} {figure.before} → {figure.after}"
        yield [(screen.fit(line), "" if figure.before == figure.after else "bold")]
    yield []
    styles = {"removed": ("-", "red"), "added": ("+", "green"), "changed": ("~", "yellow"), "same": (" ", "dim")}
    for entry in difference.spans:
        mark, style = styles[entry.change]
        numbers = "/".join(str(number) for number in (entry.before, entry.after) if number)
        indent = "  " * min(entry.depth, max((width - 40) // 2, 2))
        text = f"{mark} {indent}{entry.span_type.lower()} {screen.fit(entry.name) or '(no name)'} [{numbers}]"
        yield from wrap([(text, style), *((screen.fit(note), "") for note in entry.notes)], width, "")
    if not any(entry.change != "same" for entry in difference.spans):
        yield [("the traces have the same spans", "dim")]
