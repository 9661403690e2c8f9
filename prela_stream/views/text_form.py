"""A whole trace as plain text: what happened, the conversation, and what went wrong. For people, and for models that read it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.model import semconv
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData, SpanStatus, to_datetime
from prela_stream.model.tree import SpanTree
from prela_stream.views.content import Message, Part, text_of
from prela_stream.views.decision_text import terms_of, verdict_of
from prela_stream.views.facts import SpanFacts, facts_of
from prela_stream.views.folding import Fold
from prela_stream.views.formats import clean, cost, cut, duration, offset, plural
from prela_stream.views.rows import TraceRows, TreeRow, rows_of
from prela_stream.views.transcript import Entry, Transcript, transcript_of

SHORT_VALUE: Final = 120
"""Characters of an attribute that are written, unless everything is."""
MOST_ATTRIBUTES: Final = 6
"""Attributes of a span that are written, unless everything is."""
LONG_VALUE: Final = 2_000
"""Characters of a message, a tool's result or a stack trace that are written, unless everything is."""
_SHOWN_ELSEWHERE: Final = frozenset(
    {
        *semconv.CONTENT_NAMES,
        *(
            spelling
            for name in (
                *(semconv.OPERATION_NAME, semconv.ERROR_TYPE, semconv.ERROR_MESSAGE, semconv.ERROR_STACKTRACE),
                *(semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.COST_USD, semconv.FINISH_REASONS),
                *(semconv.RESEND_COUNT, semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL, semconv.TOOL_NAME),
            )
            for spelling in semconv.read_keys(name)
        ),
    }
)
_NAMESPACES: Final = (
    *("otel.", "telemetry.", "gen_ai.", "llm.", "langfuse.", "langsmith."),
    *("openinference.", "traceloop."),
)
"""Attributes of tracers and frameworks, which are written only if everything is."""
_PREFIXES: Final = tuple(name[:-1] for name in semconv.CONTENT_NAMES if name.endswith(".*"))


def trace_text(spans: list[SpanData], decision: Decision | None, *, full: bool = False) -> str:
    """The trace as plain text without a final line break. Times are UTC.

    Args:
        spans: At least one.
        decision: Why it was kept; None if that is not known.
        full: Fold nothing and cut nothing.
    """
    tree = SpanTree(spans)
    rows = rows_of(tree, fold=not full)
    lines = [*_head(tree, rows, decision), "", "## spans", *_spans(rows, full)]
    transcript = transcript_of(tree)
    if any(entry.kind in ("message", "tool") for entry in transcript.entries):
        lines += ["", "## conversation", *conversation_lines(transcript, full=full)]
    failures = [line for node in tree.walk() for line in _failure(rows, node.span, full)]
    if failures:
        lines += ["", "## errors", *failures]
    return "\n".join(lines)


def _head(tree: SpanTree[SpanData], rows: TraceRows, decision: Decision | None) -> Iterator[str]:
    first = tree.spans[0 if tree.foremost is None else tree.foremost]
    errors = sum(span.status is SpanStatus.ERROR for span in tree.spans)
    yield f"# trace {first.trace_id}: {clean(first.name) or '(no name)'}"
    if rows.services:
        yield f"service: {', '.join(map(clean, rows.services))}"
    if rows.start_ns:
        length = duration(rows.end_ns - rows.start_ns)
        yield f"started: {to_datetime(rows.start_ns).isoformat(timespec='milliseconds')}, duration: {length}"
    totals = tree.totals([span.attributes for span in tree.spans])
    parts = [plural(len(tree), "span"), plural(errors, "error")]
    if totals.input_tokens or totals.output_tokens:
        parts.append(f"{totals.input_tokens:,} tokens in, {totals.output_tokens:,} tokens out")
    if totals.cost_usd is not None:
        parts.append(f"cost {cost(totals.cost_usd)}")
    yield ", ".join(parts)
    if decision is not None:
        yield f"{verdict_of(decision)}; decided {terms_of(decision)}"


def _spans(rows: TraceRows, full: bool) -> Iterator[str]:
    many = len(rows.services) > 1
    for row in rows.rows:
        indent = "  " * row.depth
        if row.missing:
            yield f"{indent}(span {clean(row.missing)} is missing)"
        elif row.fold is not None:
            yield f"{indent}{row.number}… {_fold_text(row, row.fold)}"
        elif row.node is not None:
            span = row.node.span
            facts = facts_of(span)
            notes = [*facts_notes(span, facts), *(["outside its parent's time"] if row.outside else [])]
            service = f" [{clean(facts.service)}]" if many and facts.service else ""
            begin = offset(row.start_ns - rows.start_ns) if row.start_ns else "no start"
            line = f"{indent}{row.number} {span.span_type.lower()} {clean(span.name) or '(no name)'}{service}"
            yield ", ".join([f"{line}: {begin}, {duration(span.duration_ns)}", *notes])
            for name, value in _attributes(span.attributes, full):
                yield f"{indent}    {name}: {value}"
            for event in span.events:
                if event.name in ("exception", "retry"):
                    continue
                after = offset(event.time_ns - span.start_ns)
                given = "".join(f" {name}={value}" for name, value in _attributes(event.attributes, full))
                yield f"{indent}    event {clean(event.name)} {after}{given}"


def _fold_text(row: TreeRow, fold: Fold[SpanData]) -> str:
    names = ", ".join(clean(name) or "(no name)" for name in fold.names)
    length = duration(None if row.end_ns is None else max(row.end_ns - row.start_ns, 0))
    return f"the same again, {fold.repeats:,} times ({names}): {plural(fold.spans, 'span')} in {length}"


def facts_notes(span: SpanData, facts: SpanFacts) -> list[str]:
    """What a line about a span has beside its name and times: status, model, tokens, retries, HTTP status, finish reason."""
    notes: list[str] = []
    if facts.model and facts.model not in span.name:
        notes.append(clean(facts.model))
    if facts.input_tokens is not None or facts.output_tokens is not None:
        notes.append(f"{facts.input_tokens or 0:,} → {facts.output_tokens or 0:,} tokens")
    if facts.cost_usd is not None:
        notes.append(cost(facts.cost_usd))
    if facts.retries:
        notes.append("1 retry" if facts.retries == 1 else f"{facts.retries:,} retries")
    if facts.http_status is not None and (span.status is not SpanStatus.SUCCESS or facts.http_status >= 400):
        notes.append(f"HTTP {facts.http_status}")
    if facts.finish_reasons and (facts.cut_short or span.status is not SpanStatus.SUCCESS):
        notes.append(f"finish {clean('/'.join(facts.finish_reasons))}")
    if span.status is SpanStatus.ERROR:
        what = ": ".join(clean(part) for part in (facts.error_type, facts.error_message) if part)
        notes.append(f"ERROR {cut(what, SHORT_VALUE)}".rstrip())
    elif span.status is SpanStatus.PENDING:
        notes.append("PENDING, not ended")
    elif span.status is SpanStatus.CANCELLED:
        notes.append("cancelled")
    return notes


def _attributes(own: Mapping[str, Any], full: bool) -> Iterator[tuple[str, str]]:
    names = [name for name in own if name not in _SHOWN_ELSEWHERE and not name.startswith(_PREFIXES)]
    shown = names if full else [name for name in names if not name.startswith(_NAMESPACES)][:MOST_ATTRIBUTES]
    for name in shown:
        yield clean(name), clean(cut(text_of(own[name])[0], None if full else SHORT_VALUE))
    if len(names) > len(shown):
        yield "…", plural(len(names) - len(shown), "more attribute")


def conversation_lines(transcript: Transcript, *, full: bool = False) -> Iterator[str]:
    """The conversation, one message after the other; `[3]` is the number of a span."""
    limit = None if full else LONG_VALUE
    agents = sum(entry.kind == "agent" for entry in transcript.entries)
    for entry in transcript.entries:
        if entry.kind != "agent" or agents > 1:
            yield from _entry(entry, limit)
    if transcript.unreadable_calls:
        calls = plural(transcript.unreadable_calls, "model call")
        yield f"({calls} of {transcript.model_calls:,} without recorded messages)"


def _entry(entry: Entry, limit: int | None) -> Iterator[str]:
    span, head = entry.span, f"[{entry.number}] "
    if entry.kind == "agent":
        yield f"{head}agent {clean(entry.facts.agent or span.name)}"
    elif entry.kind == "failure":
        yield f"{head}failed: {', '.join(facts_notes(span, entry.facts))}"
    elif entry.message is not None:
        who = entry.message.role
        if entry.is_answer and entry.facts.model:
            who += f" ({clean(entry.facts.model)})"
        yield from _message(f"{head}{who}", entry.message, limit)
    else:
        name = clean(entry.facts.tool or span.name)
        failed = span.status is SpanStatus.ERROR
        given = "" if entry.arguments is None else clean(cut(entry.arguments.text, limit))
        yield f"{head}tool {name}({given})"
        if failed:
            yield f"    failed: {', '.join(facts_notes(span, entry.facts))}"
        if entry.result is not None:
            yield from _indented(f"    → {cut(entry.result.text, limit)}")


def _message(head: str, message: Message, limit: int | None) -> Iterator[str]:
    yield f"{head}:"
    for part in message.parts:
        yield from _indented(f"    {part_text(part, limit)}")


def part_text(part: Part, limit: int | None) -> str:
    """A part of a message as text."""
    text = cut(part.text, limit)
    match part.kind:
        case "reasoning":
            return f"(thinking) {text}"
        case "tool_call":
            return f"calls {part.name or '(no name)'}({text})"
        case "tool_result":
            return f"result{f' of {part.name}' if part.name else ''}{' (failed)' if part.failed else ''}: {text}"
        case "media":
            return f"<{text}>"
    return text


def _indented(text: str) -> Iterator[str]:
    first, *rest = clean(text, lines=True).split("\n")
    yield first
    yield from (f"    {line}" for line in rest)


def _failure(rows: TraceRows, span: SpanData, full: bool) -> Iterator[str]:
    if span.status is not SpanStatus.ERROR:
        return
    facts = facts_of(span)
    what = ": ".join(part for part in (facts.error_type, facts.error_message) if part) or "failed"
    yield f"[{rows.numbers[span.span_id]}] {clean(span.name)}: {clean(cut(what, None if full else LONG_VALUE))}"
    stack = semconv.read(span.attributes, semconv.ERROR_STACKTRACE)
    events = (one.attributes.get("exception.stacktrace") for one in span.events if one.name == "exception")
    stack = stack or next((found for found in events if found), None)
    if isinstance(stack, str):
        yield from _indented(f"    {_end_of(stack.strip(), None if full else LONG_VALUE)}")


def _end_of(stack: str, limit: int | None) -> str:
    """A stack trace names what failed at its end."""
    if limit is None or len(stack) <= limit:
        return stack
    return f"({len(stack) - limit:,} more characters) … {stack[-limit:]}"
