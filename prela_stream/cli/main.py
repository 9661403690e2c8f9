"""The command line put together."""

from typing import Annotated

import typer

from prela_stream._version import __version__
from prela_stream.cli import demo, doctor, importing, policies, services, topics, traces
from prela_stream.cli.faults import Group
from prela_stream.cli.options import ConfigOption, DebugOption, DirOption, TransportOption

app = typer.Typer(
    cls=Group,
    name="prela-stream",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # cli.faults reports errors
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(traces.app, name="traces")
app.add_typer(topics.app, name="topics")
app.add_typer(policies.app, name="policies")
for module in (demo, services, importing, doctor):
    module.add_to(app)


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
