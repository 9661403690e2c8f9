"""A list of traces as columns. Id, age, status, duration and name are always there in full; other columns use the rest."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from rich.cells import cell_len

from prela_stream.cli import formats
from prela_stream.cli.screen import Line, Piece, Screen, cells, cut_cells, fold, pad
from prela_stream.sinks.query import TraceRow
from prela_stream.views.short_ids import short_id, short_ids

_GAP: Final = 2
_NAME_CELLS: Final = 32
"""A longer name continues on the next line where other columns need the room."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list, of a kept or a dropped trace."""

    trace_id: str
    name: str
    service: str
    start_ns: int
    duration_ns: int
    status: str
    """ok, error, incomplete, dropped, running, …"""
    spans: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    why: str = ""
    """Policy and reason."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the list."""

    title: str
    cell: Callable[[Row], Piece]
    right: bool = False
    least: int | None = None
    """The fewest cells to which it may be cut; None: it is shown in full or not at all."""


STATUS_STYLES: Final[Mapping[str, str]] = {
    "error": "error",
    "ok": "green",
    "incomplete": "yellow",
    "running": "cyan",
    "dropped": "dim",
    "lost": "error",
}
_OPTIONAL: Final = (
    Column(title="service", cell=lambda row: (row.service, ""), least=8),
    Column(title="tokens", cell=lambda row: (formats.tokens(row.input_tokens, row.output_tokens), ""), right=True),
    Column(title="cost", cell=lambda row: (formats.cost(row.cost_usd), ""), right=True),
    Column(title="spans", cell=lambda row: (str(row.spans) if row.spans else "", ""), right=True),
    Column(title="errors", cell=lambda row: (str(row.errors) if row.errors else "", "error"), right=True),
    Column(title="why", cell=lambda row: (row.why, "dim"), least=12),
)
"""In order of importance."""


def trace_list(rows: Sequence[Row], screen: Screen, *, now_ns: int) -> list[Line]:
    """The lines of a list, with a line of titles.

    Args:
        rows: At least one.
        screen: Where it will be written.
        now_ns: Now, for the age.
    """
    shown = [_safe(row, screen) for row in rows]
    ids = short_ids(row.trace_id for row in rows)
    fixed = (
        Column(title="trace", cell=lambda row: (ids[row.trace_id], "dim")),
        Column(
            title="age", cell=lambda row: (formats.age(now_ns - row.start_ns) if row.start_ns else "", ""), right=True
        ),
        Column(title="status", cell=lambda row: (row.status, STATUS_STYLES.get(row.status, ""))),
        Column(title="duration", cell=lambda row: (formats.duration(row.duration_ns), ""), right=True),
    )
    widths = [_natural(column, shown) for column in fixed]
    longest = max(*(cell_len(row.name) for row in shown), len("name"))
    used = sum(widths) + _GAP * len(fixed)
    if screen.width is None:
        name_cells, others = longest, [(one, _natural(one, shown)) for one in _OPTIONAL if _is_used(one, shown)]
    else:
        name_cells = min(longest, max(screen.width - used, 8))
        others = _chosen(shown, screen.width - used - min(name_cells, _NAME_CELLS))
        rest = screen.width - used - sum(width + _GAP for _, width in others)
        name_cells, others = _shared(shown, min(name_cells, _NAME_CELLS), longest, others, rest)
    columns = [*zip(fixed, widths, strict=True)]
    head = [*((column, width) for column, width in columns), (_NAME, name_cells), *others]
    lines = [_joined([pad((column.title, "dim"), width, right=column.right) for column, width in head])]
    for row in shown:
        lines += _row_lines(row, columns, name_cells, others)
    return lines


_NAME: Final = Column(title="name", cell=lambda row: (row.name, ""))


def _safe(row: Row, screen: Screen) -> Row:
    name = screen.fit(row.name) or "(no name)"
    return msgspec.structs.replace(row, name=name, service=screen.fit(row.service), why=screen.fit(row.why))


def _natural(column: Column, rows: Sequence[Row]) -> int:
    return max(len(column.title), *(cell_len(column.cell(row)[0]) for row in rows))


def _is_used(column: Column, rows: Sequence[Row]) -> bool:
    return any(column.cell(row)[0] for row in rows)


def _chosen(rows: Sequence[Row], room: int) -> list[tuple[Column, int]]:
    """The optional columns that fit, the most important first, each as narrow as it may be; in the order of the list."""
    found: list[tuple[Column, int]] = []
    for column in _OPTIONAL:
        if not _is_used(column, rows):
            continue
        natural = _natural(column, rows)
        width = natural if column.least is None else min(natural, max(column.least, len(column.title)))
        if room >= width + _GAP:
            found.append((column, width))
            room -= width + _GAP
    return found


def _shared(
    rows: Sequence[Row], name_cells: int, longest: int, columns: list[tuple[Column, int]], room: int
) -> tuple[int, list[tuple[Column, int]]]:
    """The widths with the cells that are left: columns of facts first, then the name, and the reason last."""
    room -= name_cells
    found = []
    for column, width in columns:
        is_reason = column.title == "why"
        if is_reason:
            more = min(max(room, 0), longest - name_cells)
            name_cells, room = name_cells + more, room - more
        more = min(max(room, 0), _natural(column, rows) - width)
        found.append((column, width + more))
        room -= more
    return min(longest, name_cells + max(room, 0)), found


def _row_lines(
    row: Row, fixed: Sequence[tuple[Column, int]], name_cells: int, others: Sequence[tuple[Column, int]]
) -> list[Line]:
    first, *more = fold(row.name, name_cells)
    pieces = [pad(column.cell(row), width, right=column.right) for column, width in fixed]
    pieces.append(pad((first, "bold" if row.status == "error" else ""), name_cells))
    for column, width in others:
        text, style = column.cell(row)
        pieces.append(pad((cut_cells(text, width), style), width, right=column.right))
    indent = " " * sum(width + _GAP for _, width in fixed)
    return [_joined(pieces), *([(indent + part, "bold" if row.status == "error" else "")] for part in more)]


def _joined(pieces: Sequence[Piece]) -> Line:
    line: Line = []
    for text, style in pieces:
        line += [(text, style), ("  ", "")]
    while line and not line[-1][0].strip():
        line.pop()
    if line:
        line[-1] = (line[-1][0].rstrip(" "), line[-1][1])
    return line


def row_of(row: TraceRow) -> Row:
    """A row of a store as a line of a list."""
    if not row.kept:
        status = "dropped"
    elif row.errors:
        status = "error"
    elif not row.complete:
        status = "incomplete"
    else:
        status = "ok" if row.status == "success" else row.status
    return Row(
        trace_id=row.trace_id,
        name=row.root_name or "(no root)",
        service=row.service or ", ".join(row.services),
        start_ns=row.start_ns,
        duration_ns=row.duration_ns,
        status=status,
        spans=row.spans,
        errors=row.errors,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost_usd=row.cost_usd,
        why=row.kept_because,
    )


def one_line(row: Row, screen: Screen) -> Line:
    """A trace in one line, for `traces tail` and `dev`: the time instead of the age, and no columns."""
    row = _safe(row, screen)
    fixed: Line = [
        (formats.moment(row.start_ns) if row.start_ns else "", "dim"),
        (short_id(row.trace_id), "dim"),
        pad((row.status, STATUS_STYLES.get(row.status, "")), len("error")),
        pad((formats.duration(row.duration_ns), ""), len("1 m 23 s"), right=True),
        (row.name, "bold" if row.status == "error" else ""),
    ]
    optional = [column.cell(row) for column in _OPTIONAL if column.title not in ("spans", "errors")]
    line: Line = []
    for text, style in (*fixed, *optional):
        if not text:
            continue
        room = None if screen.width is None else screen.width - cells(line) - 2 * bool(line)
        if room is not None and room < cell_len(text):
            if len(line) < 2 * len(fixed) - 1:
                text = cut_cells(text, max(room, 1))  # noqa: PLW2901 - as much of it as fits
            else:
                continue
        line += [("  ", ""), (text, style)] if line else [(text, style)]
    return line
