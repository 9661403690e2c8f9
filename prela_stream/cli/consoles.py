"""Where commands write: results to standard output, everything else to standard error. Loads rich when it is used."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def _console(**options: Any) -> Console:
    """A console that raises if its reader has ended; that of rich ends the process without a word."""
    from rich.console import Console

    class RaisingConsole(Console):
        def on_broken_pipe(self) -> None:
            """Called in the handler of the error."""
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return RaisingConsole(highlight=False, markup=False, emoji=False, **options)


def output() -> Console:
    """The console for results. Where that is no terminal, lines are not cut to one's width."""
    console = _console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 240
    return console


def messages() -> Console:
    """The console for everything that is not the result: standard error."""
    return _console(stderr=True, soft_wrap=True)


def note(text: str, style: str = "") -> None:
    """Write a line to standard error; `style` is the parameters of an ANSI colour sequence, used on a terminal only."""
    if sys.stderr is None:
        return
    coloured = style and sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stderr.write(f"\x1b[{style}m{text}\x1b[0m\n" if coloured else f"{text}\n")
    sys.stderr.flush()


def own_command() -> str:
    """The words that start this command line in the shell of the user: a line that is printed for pasting works."""
    started = Path(sys.argv[0] if sys.argv else "")
    found = shutil.which("prela-stream")
    if found is not None and (started.name != "prela-stream" or _is_same(Path(found), started)):
        return "prela-stream"
    if started.name == "prela-stream" and started.exists():
        return shlex.quote(str(started))
    return f"{shlex.quote(sys.executable)} -m prela_stream"


def _is_same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def print_json(text: str) -> None:
    """A line of JSON on standard output."""
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def progress_bar(*, transient: bool = False) -> Progress:
    """A progress bar on standard error: what is done, how much of how much, for how long. Loaded when a command needs it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=messages(), transient=transient)
