"""A table of text: columns as wide as their cells, the last ones left out where the screen is too narrow."""

from collections.abc import Sequence

import msgspec
from rich.cells import cell_len

from prela_stream.cli.screen import Line, Piece, Screen, cut_cells, pad

_GAP = 2
_LEAST = 12


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column and its cells, one for each row."""

    title: str
    cells: Sequence[Piece]
    right: bool = False
    is_name: bool = False
    """The column that is cut if the others need the room; it is never left out."""


def table(columns: Sequence[Column], screen: Screen) -> list[Line]:
    """The lines of a table with its titles. Empty columns are left out; those further right are left out if there is no room."""
    used = [one for one in columns if one.is_name or any(text for text, _ in one.cells)]
    widths = {one.title: max(cell_len(one.title), *(cell_len(text) for text, _ in one.cells)) for one in used}
    if screen.width is not None:
        fixed = sum(_LEAST if one.is_name else 0 for one in used)
        room = screen.width - fixed
        kept = []
        for one in used:
            need = _GAP if one.is_name else widths[one.title] + _GAP
            if one.is_name or need <= room:
                kept.append(one)
                room -= need
        used = kept
        others = sum(widths[one.title] + _GAP for one in used if not one.is_name)
        for one in used:
            if one.is_name:
                widths[one.title] = min(widths[one.title], max(screen.width - others, _LEAST))
    rows = len(used[0].cells) if used else 0
    lines = [_joined([pad((one.title, "dim"), widths[one.title], right=one.right) for one in used])]
    for at in range(rows):
        pieces = []
        for one in used:
            text, style = one.cells[at]
            pieces.append(pad((cut_cells(text, widths[one.title]), style), widths[one.title], right=one.right))
        lines.append(_joined(pieces))
    return lines


def _joined(pieces: Sequence[Piece]) -> Line:
    line: Line = []
    for piece in pieces:
        line += [piece, ("  ", "")]
    return line[:-1]
