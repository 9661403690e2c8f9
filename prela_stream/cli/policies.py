"""`prela-stream policies …`: check sampling policies before a worker runs on them."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats
from prela_stream.cli.consoles import output, print_json
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.formats import clean
from prela_stream.cli.options import Options, command, command_group
from prela_stream.errors import ConfigurationError
from prela_stream.validation import absolute

app = command_group("Check sampling policies.")


@app.callback()
def policies() -> None:
    """Check sampling policies."""


FileArgument = Annotated[Path | None, typer.Argument(metavar="FILE", help="Policy file. Default: policies_file.")]


def check_command(options: Options, file: FileArgument = None) -> None:
    """Check a policy file and list its policies. If it is wrong: exit code 1, and every mistake with its path."""
    settings = options.settings()
    if file is not None:
        settings = msgspec.structs.replace(settings, policies_file=str(file))
    if file is not None and not file.exists():
        msg = f"there is no policy file {absolute(file)}; name one that exists"
        raise ConfigurationError(msg)
    try:
        found = root.load_policy_set(settings)
    except ConfigurationError as error:
        if options.as_json:
            print_json(formats.to_json({"ok": False, "error": str(error)}))
        else:
            fail_line(str(error))
        raise typer.Exit(NOT_FOUND) from None
    names = [policy.name for policy in found.policies]
    if options.as_json:
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


command(app, "check")(check_command)
