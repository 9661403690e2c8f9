"""`prela-stream doctor`: what is wrong with this set-up, and what to do."""

from collections.abc import Callable
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from prela_stream import app as root
from prela_stream.cli import formats
from prela_stream.cli.formats import clean
from prela_stream.cli.session import (
    NOT_FOUND,
    ConfigOption,
    DirOption,
    JsonOption,
    TransportOption,
    ask,
    output,
    print_json,
    settings_of,
)
from prela_stream.config import Settings
from prela_stream.errors import ConfigurationError
from prela_stream.transport.findings import ROLES, Finding, Role, mistake, ok, skipped

_STYLES: Final = {"ok": "green", "wrong": "bold red", "unknown": "yellow", "skipped": "dim"}


def doctor_command(
    ctx: typer.Context,
    *,
    role: Annotated[
        Role | None,
        typer.Option("--as", help="Whose rights this login should have; default: all three."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write one harmless Record and read it back; this also compares the clocks.")
    ] = False,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what keeps this set-up from working, and say what to do. Writes nothing without --write. Exit code 1 if wrong."""
    found: list[Finding] = []
    console = output()

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            _show(console, finding)

    try:
        settings = settings_of(ctx, config, directory, transport)
    except ConfigurationError as error:
        tell(mistake("settings", str(error)))
        tell(skipped("everything else", "the settings"))
    else:
        tell(ok("settings", f"readable; the transport is {settings.transport}"))
        ask(lambda: _look(settings, ROLES if role is None else (role,), write, tell))
    wrong = sum(finding.state == "wrong" for finding in found)
    if as_json:
        print_json(formats.to_json({"ok": not wrong, "findings": found}))
    elif wrong:
        console.print(Text(f"\n{wrong} thing{'s' * (wrong != 1)} wrong", "bold red"))
    if wrong:
        raise typer.Exit(NOT_FOUND)


async def _look(settings: Settings, roles: tuple[Role, ...], write: bool, tell: Callable[[Finding], None]) -> None:
    async for finding in root.diagnose(settings, roles=roles, write=write):
        tell(finding)


def _show(console: Console, finding: Finding) -> None:
    line = Text()
    line.append(f"{finding.state:<8}", _STYLES[finding.state])
    line.append(f"{finding.check}: ", "bold" if finding.state == "wrong" else "")
    line.append(clean(finding.text), "dim" if finding.state == "skipped" else "")
    console.print(line, soft_wrap=True)
