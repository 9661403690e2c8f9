"""The command line put together. The module of a command is imported when that command runs: a start costs what it uses."""

import importlib
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from prela_stream._version import __version__
from prela_stream.cli.group import Group
from prela_stream.cli.options import ConfigOption, DebugOption, DirOption, TransportOption

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "traces": ("traces", "List, show, search, compare, export and follow traces."),
    "topics": ("topics", "Create and check the topics."),
    "policies": ("policies", "Check sampling policies."),
    "demo": ("demo", "Run agents against a bundled model server through the whole pipeline."),
    "dev": ("services", "Run a worker, all sinks, the OTLP receiver and the web page in one process, for one machine."),
    "worker": ("services", "Assemble traces, decide which are kept, and write the kept ones to the log."),
    "sink": ("services", "Write kept traces to the sinks of the settings."),
    "otlp": ("services", "Receive spans of OpenTelemetry and append them to the log."),
    "web": ("services", "Serve the web page on the store of the settings."),
    "import": ("importing", "Append spans of other tools, from files, to the log."),
    "doctor": ("doctor", "Check this installation, and print how to fix what is wrong."),
}
"""Each command with its module in `cli`, and what the list of commands shows about it.

A module has `app`, a group of commands, or `add_to(app)`, which adds commands to a group.
"""


class LazyGroup(Group):
    """A group that imports the module of a command when the command is needed."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the interface of click
        """The names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the interface of click
        """The command; None if there is none of this name."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = importlib.import_module(f"prela_stream.cli.{COMMANDS[cmd_name][0]}")
            if hasattr(module, "app"):
                found = typer.main.get_group(module.app)
                found.name = cmd_name
                self.commands[cmd_name] = found
            else:
                alone = typer.Typer(cls=Group, rich_markup_mode=None)
                module.add_to(alone)
                self.commands.update(typer.main.get_group(alone).commands)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the interface of click
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    name="prela-stream",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # cli.faults reports errors
    rich_markup_mode=None,  # plain help: rich takes a third of the time of a start
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"prela-stream {__version__}")
        raise typer.Exit


@app.callback()
def prela_stream(
    ctx: typer.Context,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    debug: DebugOption = False,  # noqa: ARG001 - its callback acts on it
    version: Annotated[  # noqa: ARG001 - its callback acts on it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Streaming telemetry for AI agents, with tail-based sampling that loses no trace."""
    ctx.obj = {"config": config, "directory": directory, "transport": transport}
