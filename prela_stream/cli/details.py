"""What was written in a trace, on a terminal: its conversation, and one span with all its content."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from rich.cells import cell_len

from prela_stream.cli import formats
from prela_stream.cli.screen import Line, Screen, cells, fold, pad
from prela_stream.model.span import SpanData
from prela_stream.model.tree import SpanTree
from prela_stream.views.formats import cut, offset
from prela_stream.views.text_form import conversation_lines
from prela_stream.views.transcript import transcript_of

_LONGEST_VALUE: Final = 4_000
_ROLE_STYLES: Final = {"user": "green", "assistant": "llm", "tool": "tool", "failed": "red", "agent": "agent"}


def message_lines(spans: Sequence[SpanData], screen: Screen, *, full: bool = False) -> Iterator[Line]:
    """The conversation of a trace."""
    transcript = transcript_of(SpanTree(spans))
    for text in conversation_lines(transcript, full=full):
        if not text.startswith(" "):
            number, _, rest = text.partition("] ")
            parts: Line = [(f"{number}] ", "dim"), (rest, _role_style(rest))] if rest else [(text, "dim")]
            yield from _folded(parts, screen, "")
        else:
            indent = text[: len(text) - len(text.lstrip(" "))]
            yield from _folded([(text.lstrip(" "), "")], screen, indent[: screen.drawing_width // 2])


def _role_style(text: str) -> str:
    for start, style in (
        ("user", "green"),
        ("assistant", "llm"),
        ("tool", "tool"),
        ("failed", "red"),
        ("agent", "agent"),
    ):
        if text.startswith(start):
            return style
    return "bold"


def _folded(parts: Line, screen: Screen, indent: str) -> Iterator[Line]:
    """A line in as many lines as the screen needs; only its last piece is folded."""
    if screen.width is None:
        yield [(indent, ""), *parts]
        return
    text, style = parts[-1]
    first = cells(parts[:-1]) + len(indent)
    texts = fold(screen.fit(text), max(screen.width - first, 8))
    yield [(indent, ""), *parts[:-1], (texts[0], style)]
    for more in texts[1:]:
        yield [(" " * first, ""), (more, style)]


def span_lines(span: SpanData, number: int, screen: Screen, *, full: bool = False) -> Iterator[Line]:
    """All content of a span."""
    status = span.status.value + (f": {span.status_message}" if span.status_message else "")
    facts = {
        "span": f"{span.span_id} ({number} in `traces show`)",
        "parent": span.parent_span_id or "(root)",
        "type": span.span_type.value,
        "status": status,
        "start": span.started_at.isoformat(),
        "duration": formats.duration(span.duration_ns),
        "service": span.resource.service_name,
    }
    yield [(screen.fit(span.name) or "(no name)", "bold")]
    yield from _table([(name, value) for name, value in facts.items() if value], screen, "dim", full)
    if span.attributes:
        yield from ([], [("attributes", "bold")])
        yield from _table(list(span.attributes.items()), screen, "cyan", full)
    for event in span.events:
        yield from ([], [(f"event {screen.fit(event.name)}  {offset(event.time_ns - span.start_ns)}", "bold")])
        yield from _table(list(event.attributes.items()), screen, "cyan", full)
    for link in span.links:
        yield from ([], [(f"link to span {link.span_id.hex()} of trace {link.trace_id.hex()}", "bold")])
        yield from _table(list(link.attributes.items()), screen, "cyan", full)


def _table(values: Sequence[tuple[str, Any]], screen: Screen, style: str, full: bool) -> Iterator[Line]:
    names = [screen.fit(str(name)) for name, _ in values]
    widest = max((cell_len(name) for name in names), default=0)
    column = min(widest, max(screen.drawing_width // 3, 12))
    for name, value in zip(names, (value for _, value in values), strict=True):
        text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
        lines = formats.clean(cut(text, None if full else _LONGEST_VALUE), lines=True).split("\n")
        texts = [
            part
            for line in lines
            for part in (
                [line] if screen.width is None else fold(line.expandtabs(4), max(screen.width - column - 2, 16))
            )
        ]
        beside = name if cell_len(name) <= column else ""
        if not beside:
            yield [(name, style)]
        for at, line in enumerate(texts):
            yield [pad((beside if at == 0 else "", style), column), ("  ", ""), (line, "")]
