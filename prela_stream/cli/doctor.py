"""`prela-stream doctor`: what is wrong with this installation, and what to do."""

from collections.abc import Callable
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats
from prela_stream.cli.consoles import output, print_json
from prela_stream.cli.faults import NOT_FOUND
from prela_stream.cli.formats import clean
from prela_stream.cli.options import Options, command
from prela_stream.cli.running import ask
from prela_stream.config import Settings
from prela_stream.errors import ConfigurationError
from prela_stream.transport.findings import ROLES, Finding, Role, mistake, ok, skipped_after

_STYLES: Final = {"ok": "green", "wrong": "bold red", "unknown": "yellow", "skipped": "dim"}


RoleOption = Annotated[
    Role | None, typer.Option("--as", help="Check the permissions that this role needs. Default: all roles.")
]
WriteOption = Annotated[
    bool,
    typer.Option("--write", help="Also write one tick, which workers ignore, read it back and compare the clocks."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    command(app, "doctor")(doctor_command)


def doctor_command(options: Options, role: RoleOption = None, write: WriteOption = False) -> None:
    """Check this installation, and print how to fix what is wrong. Writes nothing without --write. Exit code 1 if wrong."""
    found: list[Finding] = []
    console = output()

    def report(finding: Finding) -> None:
        found.append(finding)
        if not options.as_json:
            _show(console, finding)

    try:
        settings = options.settings()
    except ConfigurationError as error:
        report(mistake("settings", str(error)))
        report(skipped_after("everything else", "settings check"))
    else:
        report(ok("settings", f"readable; the transport is {settings.transport}"))
        ask(lambda: _diagnose(settings, ROLES if role is None else (role,), write, report))
    wrong = sum(finding.state == "wrong" for finding in found)
    if options.as_json:
        print_json(formats.to_json({"ok": not wrong, "findings": found}))
    elif wrong:
        console.print(Text(f"\n{wrong} check{'s' * (wrong != 1)} failed", "bold red"))
    if wrong:
        raise typer.Exit(NOT_FOUND)


async def _diagnose(
    settings: Settings, roles: tuple[Role, ...], write: bool, report: Callable[[Finding], None]
) -> None:
    async for finding in root.diagnose(settings, roles=roles, write=write):
        report(finding)


def _show(console: Console, finding: Finding) -> None:
    line = Text()
    line.append(f"{finding.state:<8}", _STYLES[finding.state])
    line.append(f"{finding.check}: ", "bold" if finding.state == "wrong" else "")
    line.append(clean(finding.text), "dim" if finding.state == "skipped" else "")
    console.print(line, soft_wrap=True)
