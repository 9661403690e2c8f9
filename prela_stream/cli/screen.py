"""Lines on a terminal: widths in cells, colours only where they are wanted, and characters that the encoding has.

It writes what `traces …` prints. It is small because a command that lists traces must start fast: rich takes longer to load
than the whole list to print. Widths come from rich's table of cells, which is its own small module.
"""

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

import msgspec
from rich.cells import cell_len, chop_cells

from prela_stream.cli.formats import clean

Piece = tuple[str, str]
"""Text and the name of its style; an empty name is plain text."""
Line = list[Piece]

PLAIN_WIDTH: Final = 120
"""Width of the drawings where there is no terminal. Text is not cut there."""
_STYLES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "error": "1;31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "agent": "1;35",
    "llm": "1;36",
    "tool": "1;33",
    "retrieval": "1;34",
    "embedding": "1;34",
    "custom": "1",
}
_ASCII: Final = str.maketrans(
    {
        "│": "|",
        "├": "|",
        "└": "`",
        "─": "-",
        "█": "#",
        "▏": "|",
        "…": "~",
        "→": ">",
        "·": ".",
        "µ": "u",
        "±": "~",
        "⋯": "~",
    }
)
"""For encodings without the drawing characters. Each is one cell, so that columns stay."""


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """Where lines are written, and what it can show."""

    file: TextIO
    width: int | None
    """Cells of a line; None: lines may be as long as they are."""
    colour: bool = False
    encoding: str = "utf-8"

    @property
    def drawing_width(self) -> int:
        """The width for what is drawn to scale."""
        return PLAIN_WIDTH if self.width is None else self.width

    def show(self, lines: Iterable[Line]) -> None:
        """Write lines, and let the operating system have them: a closed pipe or a full disk is noticed here."""
        write = self.file.write
        for line in lines:
            write(self.text(line) + "\n")
        self.file.flush()

    def text(self, line: Line) -> str:
        """A line as it is written."""
        written = "".join(self._styled(*piece) for piece in line)
        return written if self.colour else written.rstrip(" ")

    def _styled(self, text: str, style: str) -> str:
        shown = encodable(text, self.encoding)
        code = _STYLES.get(style) if self.colour and text.strip() else None
        return f"\x1b[{code}m{shown}\x1b[0m" if code else shown

    def fit(self, text: str) -> str:
        """Text of a span, as this screen shows it: without what moves a cursor, in characters that the encoding has."""
        return encodable(clean(text), self.encoding)


def standard_output() -> Screen:
    """The screen of this process. COLUMNS, NO_COLOR and FORCE_COLOR are read as other programs read them."""
    file = sys.stdout
    if file is None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    terminal = file.isatty()
    given = os.environ.get("COLUMNS", "")
    width = shutil.get_terminal_size().columns if terminal or (given.isascii() and given.isdigit()) else None
    forced = bool(os.environ.get("FORCE_COLOR"))
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Screen(
        file=file,
        width=None if width is None else max(width, 20),
        colour=forced or (terminal and wanted and _understands_colours()),
        encoding=getattr(file, "encoding", None) or "utf-8",
    )


def _understands_colours() -> bool:
    return sys.platform != "win32" or "WT_SESSION" in os.environ or "ANSICON" in os.environ


def encodable(text: str, encoding: str) -> str:
    """Text in characters of an encoding: drawings are replaced by ASCII of the same width, other characters are escaped."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        replaced = text.translate(_ASCII)
        return replaced.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()
    return text


def cells(line: Line) -> int:
    """The width of a line."""
    return sum(cell_len(text) for text, _ in line)


def cut_cells(text: str, width: int) -> str:
    """Text in at most `width` cells; `…` is its last character if something is missing."""
    if cell_len(text) <= width:
        return text
    return "" if width < 1 else "…" if width == 1 else f"{_head(text, width - 1)}…"


def pad(piece: Piece, width: int, *, right: bool = False) -> Piece:
    """A piece of exactly `width` cells, if it is not longer."""
    text, style = piece
    blanks = " " * (width - cell_len(text))
    return (blanks + text, style) if right else (text + blanks, style)


def wrap(pieces: Sequence[Piece], width: int, indent: str = "") -> list[Line]:
    """Pieces separated by two blanks, on as many lines as they need. A piece that is longer than a line is broken at blanks.

    Args:
        pieces: What to write.
        width: Cells of a line.
        indent: Before each line.
    """
    lines: list[Line] = []
    room = max(width - cell_len(indent), 8)
    for text, style in pieces:
        if not text:
            continue
        for part in fold(text, room):
            if lines and cells(lines[-1]) + 2 + cell_len(part) <= width:
                lines[-1] += [("  ", ""), (part, style)]
            else:
                lines.append([(indent, ""), (part, style)])
    return lines


def fold(text: str, width: int) -> list[str]:
    """Text in lines of at most `width` cells, broken at blanks where there are some."""
    lines: list[str] = []
    while cell_len(text) > width:
        head = _head(text, width)
        blank = head.rfind(" ") if text[len(head) : len(head) + 1] != " " else len(head)
        if blank <= width // 3:
            blank = len(head)
        lines.append(text[:blank])
        text = text[blank:].lstrip(" ")
    return [*lines, text] if text or not lines else lines


def _head(text: str, width: int) -> str:
    """The characters that fit into `width` cells, at least one."""
    return (chop_cells(text[: 4 * width + 8], width) or [""])[0] or text[:1]
