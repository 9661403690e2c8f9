"""A start loads what its command uses, and no more: each library below takes as long as everything else together."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from prela_stream.cli.main import COMMANDS, app

HEAVY = (
    "aiokafka",
    "anthropic",
    "pydantic",
    "rich.console",
    "starlette",
    "prela_stream.tracing",
    "prela_stream.worker",
)
TRACES = ("anyio", "sqlite3", "prela_stream.sinks.base")


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The modules that a command has loaded at its end."""
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=open('modules', 'w')));"
        "from prela_stream.__main__ import main; main()"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, check=False)
    return set((folder / "modules").read_text().split())


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["--version"], (*HEAVY, *TRACES, "prela_stream.config")),
        (["--help"], (*HEAVY, *TRACES, "prela_stream.config")),
        (["dance"], (*HEAVY, *TRACES, "prela_stream.config")),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_a_start_loads_only_what_it_uses(arguments: list[str], unused: tuple[str, ...], tmp_path: Path) -> None:
    modules = loaded(tmp_path, *arguments)
    assert "prela_stream.cli.main" in modules
    assert not modules.intersection(unused)


def test_every_command_of_the_list_is_there() -> None:
    root: Any = typer.main.get_command(app)
    context = typer.Context(root)
    assert root.list_commands(context) == list(COMMANDS)
    for name, (_, text) in COMMANDS.items():
        command = root.get_command(context, name)
        assert command is not None, f"prela_stream.cli.{COMMANDS[name][0]} has no command {name}"
        assert command.name == name
        assert command.help, f"{name} has no help"
        assert text.endswith(".")
    assert root.get_command(context, "dance") is None
