"""The tree of a trace on a terminal, with bars and offsets, and why the trace was kept."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from rich.cells import cell_len

from prela_stream.cli import formats
from prela_stream.cli.listing import STATUS_STYLES
from prela_stream.cli.screen import Line, Piece, Screen, cells, cut_cells, fold, pad, wrap
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData, SpanStatus
from prela_stream.model.times import self_time_ns
from prela_stream.model.tree import SpanTree
from prela_stream.views.decision_text import terms_of, verdict_of
from prela_stream.views.facts import facts_of
from prela_stream.views.folding import Fold
from prela_stream.views.formats import offset, plural
from prela_stream.views.rows import TraceRows, TreeRow, rows_of
from prela_stream.views.text_form import facts_notes

MAX_ROWS: Final = 1_000
"""Most rows of one tree without `--full`."""
_LEAST_NAME: Final = 22
_NOTE_LINES: Final = 2
_LONGEST_LEFT: Final = 100
"""Bars begin there at the latest if there is no terminal; a longer row is followed by its bar."""
_NOTE_STYLES: Final = (("ERROR", "red"), ("PENDING", "yellow"), ("cancelled", "yellow"), ("outside", "yellow"))


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Cells of the parts of a row."""

    number: int
    left: int
    """Of rails, name and notes."""
    is_cut: bool
    """Whether the left part is cut to its cells; without a terminal it is not."""
    levels: int
    """Levels that are drawn; deeper rows have their depth in front."""
    bar: int
    offset: int
    duration: int


def trace_lines(
    spans: Sequence[SpanData], decision: Decision | None, head: Line, screen: Screen, *, full: bool = False
) -> Iterator[Line]:
    """The tree of a trace below a line about it, and why it was kept.

    Args:
        spans: At least one.
        decision: None if it is not known.
        head: The line about the trace.
        screen: Where it will be written.
        full: Fold nothing, cut nothing, and draw every row.
    """
    tree = SpanTree(spans)
    rows = rows_of(tree, fold=not full)
    width = screen.drawing_width if screen.width is not None else 1 << 30
    yield from wrap(head, width)
    shown = rows.rows if full else rows.rows[:MAX_ROWS]
    layout = _layout(rows, shown, screen)
    for row in shown:
        yield from _row(row, rows, layout, screen, full)
    if len(shown) < len(rows.rows):
        yield [(f"… {plural(len(rows.rows) - len(shown), 'more row')}; --full shows them", "dim")]
    if decision is not None:
        yield []
        style = "green" if decision.kept else "yellow"
        yield from wrap([(screen.fit(verdict_of(decision)), style)], width)
        decided = f"decided {formats.moment(decision.decided_at_ms * 1_000_000)} {terms_of(decision)}"
        yield from wrap([(screen.fit(decided), "dim")], width, "  ")


def _layout(rows: TraceRows, shown: Sequence[TreeRow], screen: Screen) -> _Layout:
    width = screen.drawing_width
    number = max((len(_number(row)) for row in shown), default=1)
    offsets = max((cell_len(_offset(row, rows)) for row in shown), default=0)
    durations = max((cell_len(_duration(row)) for row in shown), default=0)
    bar = min(max((width - 40) // 4, 8), 40)
    left = width - number - 1 - (bar + offsets + durations + 6)
    levels = max((max(left, _LEAST_NAME) - _LEAST_NAME) // 2, 2)
    if screen.width is None:
        natural = [cells(_whole_left(row, rows, screen)) for row in shown]
        left, levels = max((one for one in natural if one <= _LONGEST_LEFT), default=0), 1 << 30
    return _Layout(
        number=number,
        left=max(left, 16),
        is_cut=screen.width is not None,
        levels=levels,
        bar=bar,
        offset=offsets,
        duration=durations,
    )


def _whole_left(row: TreeRow, rows: TraceRows, screen: Screen) -> Line:
    """Rails, name and notes without any cut."""
    notes = [piece for note in _notes(row, rows, screen) for piece in (("  ", ""), note)]
    return [("  " * len(row.rails), ""), *_title(row, screen), *notes]


def _row(row: TreeRow, rows: TraceRows, layout: _Layout, screen: Screen, full: bool) -> Iterator[Line]:
    rails, below = _rails(row, layout)
    left: Line = [(rails, "dim"), *_title(row, screen)]
    notes = _notes(row, rows, screen)
    room = layout.left - cell_len(rails)
    rest: list[Piece] = []
    if not layout.is_cut:
        left += [piece for note in notes for piece in (("  ", ""), note)]
    else:
        if cells(left[1:]) > room:
            text, style = left[-1]
            kept = cells(left[1:-1])
            cut_names = fold(text, max(room - kept, 4)) if full else [cut_cells(text, max(room - kept, 4))]
            left[-1] = (cut_names[0], style)
            rest += [(part, style) for part in cut_names[1:]]
        needed = sum(cell_len(text) + 2 for text, _ in notes)
        if notes and needed <= room - cells(left[1:]):
            left += [piece for note in notes for piece in (("  ", ""), note)]
        else:
            rest += notes
        own = _self_time(row)
        if own and not rest and cell_len(own) + 2 <= layout.left - cells(left):
            left += [("  ", ""), (own, "dim")]
    yield [*_numbered(row, layout), *left, *_timing(row, rows, layout, cells(left))]
    if rest:
        prefix = " " * (layout.number + 1) + below
        lines = wrap(rest, screen.drawing_width, prefix)
        if not full and len(lines) > _NOTE_LINES:
            text, style = lines[_NOTE_LINES - 1][-1]
            lines = [*lines[: _NOTE_LINES - 1], [*lines[_NOTE_LINES - 1][:-1], (text[:-1] + "…", style)]]
        for line in lines:
            yield [(line[0][0], "dim"), *line[1:]]


def _number(row: TreeRow) -> str:
    return "" if row.missing else str(row.number)


def _numbered(row: TreeRow, layout: _Layout) -> Line:
    return [pad((_number(row), "dim"), layout.number, right=True), (" ", "")]


def _rails(row: TreeRow, layout: _Layout) -> tuple[str, str]:
    """What is drawn before a row, and before its further lines."""
    if not row.rails:
        inner = "│ " if row.missing or (row.node is not None and row.node.children) else "  "
        return "", inner
    depth = len(row.rails)
    mark, rails = "", row.rails
    if depth > layout.levels:
        mark = f"⋯{depth} "
        rails = row.rails[-max(layout.levels - len(mark) // 2, 1) :]
    above = mark + "".join("│ " if rail else "  " for rail in rails[:-1])
    below = " " * len(mark) + "".join("│ " if rail else "  " for rail in rails)
    inner = "│ " if row.node is not None and row.node.children else "  "
    return above + ("├ " if rails[-1] else "└ "), below + inner


def _title(row: TreeRow, screen: Screen) -> Line:
    if row.missing:
        return [(f"(span {screen.fit(row.missing)} is missing)", "dim")]
    if row.fold is not None:
        return [(_fold_title(row.fold, screen), "dim")]
    assert row.node is not None
    span = row.node.span
    kind = span.span_type.lower()
    style = "error" if span.status is SpanStatus.ERROR else ""
    return [(kind, kind), (" ", ""), (screen.fit(span.name) or "(no name)", style)]


def _fold_title(fold_: Fold[SpanData], screen: Screen) -> str:
    names = ", ".join(screen.fit(name) or "(no name)" for name in fold_.names)
    return f"… {fold_.repeats:,} x the same: {names}"


def _notes(row: TreeRow, rows: TraceRows, screen: Screen) -> list[Piece]:
    if row.fold is not None:
        return [(plural(row.fold.spans, "span"), "dim")]
    if row.node is None:
        return []
    span, parent = row.node.span, row.node.parent
    found: list[Piece] = []
    service = span.resource.service_name
    if len(rows.services) > 1 and service and (parent is None or parent.span.resource.service_name != service):
        found.append((f"[{screen.fit(service)}]", "cyan"))
    for note in facts_notes(span, facts_of(span)):
        style = next((style for start, style in _NOTE_STYLES if note.startswith(start)), "dim")
        found.append((screen.fit(note), style))
    if row.node.cycle:
        found.append(("its parents form a cycle", "yellow"))
    if row.outside:
        found.append(("outside its parent's time", "yellow"))
    return found


def _self_time(row: TreeRow) -> str:
    if row.node is None or not row.node.children:
        return ""
    own = self_time_ns(row.node)
    return "" if own is None else f"self {formats.duration(own)}"


def _offset(row: TreeRow, rows: TraceRows) -> str:
    return offset(row.start_ns - rows.start_ns) if row.start_ns and not row.missing else ""


def _duration(row: TreeRow) -> str:
    if row.missing:
        return ""
    return formats.duration(None if row.end_ns is None else max(row.end_ns - row.start_ns, 0))


def _timing(row: TreeRow, rows: TraceRows, layout: _Layout, used: int) -> Line:
    """Bar, offset and duration, at the right end of a row."""
    if row.missing:
        return []
    gap = " " * max(layout.left - used + 2, 2)
    style = "dim"
    if row.node is not None:
        span = row.node.span
        style = "error" if span.status is SpanStatus.ERROR else span.span_type.lower()
    return [
        (gap, ""),
        (_bar(row, rows, layout.bar), style),
        ("  ", ""),
        pad((_offset(row, rows), "dim"), layout.offset, right=True),
        ("  ", ""),
        pad((_duration(row), ""), layout.duration, right=True),
    ]


def _bar(row: TreeRow, rows: TraceRows, width: int) -> str:
    whole = rows.end_ns - rows.start_ns
    if not row.start_ns:
        return " " * width
    end = rows.end_ns if row.end_ns is None else row.end_ns
    first = min((row.start_ns - rows.start_ns) * width // whole, width - 1) if whole > 0 else 0
    last = min(-(-(end - rows.start_ns) * width // whole), width) if whole > 0 else width
    length = max(last - first, 1)
    drawn = "▏" if whole > 0 and (end - row.start_ns) * width < whole // 2 else "█" * length
    if row.end_ns is None:
        drawn = drawn[:-1] + "…"
    return (" " * first + drawn).ljust(width)


def head_line(
    trace_id: str,
    status: str,
    service: str,
    start_ns: int,
    duration_ns: int | None,
    facts: Sequence[str],
    screen: Screen,
) -> Line:
    """The line about a trace."""
    return [
        (trace_id, "bold"),
        (status, STATUS_STYLES.get(status, "")),
        (screen.fit(service), ""),
        (formats.moment(start_ns) if start_ns else "", ""),
        (formats.duration(duration_ns), ""),
        *((fact, "") for fact in facts),
    ]
