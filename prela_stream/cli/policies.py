"""`prela-stream policies …`: check sampling policies before a worker runs on them."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats
from prela_stream.cli.formats import clean
from prela_stream.cli.session import (
    NOT_FOUND,
    ConfigOption,
    DirOption,
    Group,
    JsonOption,
    fail_line,
    output,
    print_json,
    settings_of,
)
from prela_stream.errors import ConfigurationError

app = typer.Typer(cls=Group, no_args_is_help=True, help="Check sampling policies.")


@app.callback()
def policies() -> None:
    """Check sampling policies."""


@app.command("check")
def check_command(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Policy file; default: that of the settings.", exists=True, dir_okay=False)
    ] = None,
    config: ConfigOption = None,
    directory: DirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a policy file and say what it holds. Exit code 1, and every mistake with its place, if it is wrong."""
    settings = settings_of(ctx, config, directory)
    if file is not None:
        settings = msgspec.structs.replace(settings, policies_file=str(file))
    try:
        found = root.load_policy_set(settings)
    except ConfigurationError as error:
        if as_json:
            print_json(formats.to_json({"ok": False, "error": str(error)}))
        else:
            fail_line(str(error))
        raise typer.Exit(NOT_FOUND) from None
    names = [policy.name for policy in found.policies]
    if as_json:
        document = {"ok": True, "version": found.version, "mode": found.mode, "policies": names, "source": found.source}
        print_json(formats.to_json(document))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("policy")
    table.add_column("kind")
    table.add_column("reads")
    for policy in found.policies:
        table.add_row(
            Text(clean(policy.name)), Text(type(policy).__name__), Text(clean(", ".join(sorted(policy.reads))), "dim")
        )
    console = output()
    console.print(Text(f"{clean(found.source)}: mode {found.mode}, version {found.version}"))
    console.print(table)
