"""Where commands write: results to standard output, everything else to standard error."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress


class _Console(Console):
    """A console that raises if its reader has ended; that of rich ends the process without a word."""

    def on_broken_pipe(self) -> None:
        """Called in the handler of the error."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def output() -> Console:
    """The console for results. Where that is no terminal, lines are not cut to one's width."""
    console = _Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 240
    return console


def messages() -> Console:
    """The console for everything that is not the result: standard error."""
    return _Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_json(text: str) -> None:
    """A line of JSON on standard output."""
    typer.echo(text)


def progress_bar(*, transient: bool = False) -> Progress:
    """A progress bar on standard error: what is done, how much of how much, for how long. Loaded when a command needs it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=messages(), transient=transient)
