"""Where commands write: results to standard output, everything else to standard error."""

import os

import typer
from rich.console import Console


def output() -> Console:
    """The console for results. Where that is no terminal, lines are not cut to one's width."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 240
    return console


def messages() -> Console:
    """The console for everything that is not the result: standard error."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_json(text: str) -> None:
    """A line of JSON on standard output."""
    typer.echo(text)
