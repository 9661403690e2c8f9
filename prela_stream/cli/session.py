"""What every command shares: its settings, its two consoles, one red line for an expected error, and stopping by signal."""

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, Final, TypeVar

import anyio
import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from prela_stream.cli.formats import clean
from prela_stream.config import Settings, load_settings
from prela_stream.errors import ConfigurationError, PrelaError

T = TypeVar("T")

NOT_FOUND: Final = 1
WRONG_USAGE: Final = 2

ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Settings file; default: $PRELA_CONFIG or ./prela.toml.")
]
DirOption = Annotated[
    str | None,
    typer.Option("--dir", metavar="DIR", help="Folder of the local transport and the store; default: .prela."),
]
TransportOption = Annotated[
    str | None,
    typer.Option(
        "--transport",
        metavar="local|kafka",
        help="What carries the Records; default: kafka where PRELA_KAFKA_BOOTSTRAP or kafka.bootstrap is set, else local.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]


class Group(TyperGroup):
    """A command group that shows an expected error as one red line: exit code 2 for wrong settings, 1 for all else."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (PrelaError, BaseExceptionGroup) as error:
            leaves = list(_leaves(error))
            if not all(isinstance(leaf, PrelaError) for leaf in leaves):
                raise
            for text in dict.fromkeys(map(str, leaves)):  # two services of one process may have met the same
                fail_line(text)
            wrong = all(isinstance(leaf, ConfigurationError) for leaf in leaves)
            raise typer.Exit(WRONG_USAGE if wrong else NOT_FOUND) from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def settings_of(
    ctx: typer.Context, config: str | None, directory: str | None, transport: str | None = None
) -> Settings:
    """The settings: options of the command before those before it."""
    root: dict[str, str | None] = ctx.find_root().obj or {}
    given = {"directory": directory or root.get("directory"), "transport": transport or root.get("transport")}
    overrides = {key: value for key, value in given.items() if value is not None}
    return load_settings(config or root.get("config"), overrides=overrides)


def output() -> Console:
    """The console for results. Where that is no terminal, lines are not cut to one's width."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 240
    return console


def messages() -> Console:
    """The console for everything that is not the result: standard error."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def fail_line(text: str) -> None:
    """An expected error on standard error, in red: one line, unless a file has several mistakes."""
    messages().print(Text(clean(text, lines=True), "red"))


def print_json(text: str) -> None:
    """A line of JSON on standard output."""
    typer.echo(text)


def ask(question: Callable[[], Awaitable[T]]) -> T:
    """Run a short coroutine."""
    return anyio.run(question)


def run_until_stopped(service: Callable[[], Awaitable[None]]) -> None:
    """Run a service until it ends, or SIGINT or SIGTERM comes; it then stops cleanly. A second signal ends it at once."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":  # there Ctrl-C arrives as KeyboardInterrupt, which cancels the service as well
                tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
            await service()
            tasks.cancel_scope.cancel()

    anyio.run(main)


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            break
    scope.cancel()


def log_to_stderr() -> None:
    """Let a service's log lines be seen."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)  # else there are several lines for each partition
