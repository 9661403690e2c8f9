"""A start loads what its command uses, and no more: each library below takes as long as everything else together."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer

from prela_stream.cli.main import COMMANDS, app
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import batch, whole

HEAVY = (
    "aiokafka",
    "anthropic",
    "pydantic",
    "rich.console",
    "starlette",
    "prela_stream.tracing",
    "prela_stream.worker.service",
)
TRACES = ("anyio", "sqlite3", "prela_stream.sinks.base")


def write_store(folder: Path) -> None:
    """A store with a trace, in the default folder."""

    async def write() -> None:
        sink = SqliteSink(SqliteOptions(path=str(folder / "traces.db")))
        await sink.write(batch(whole(1)))
        await sink.aclose()

    anyio.run(write)


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The modules that a command has loaded at its end."""
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=open('modules', 'w')));"
        "from prela_stream.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return set((folder / "modules").read_text().split())


READING = (
    "prela_stream.cli.details",
    "prela_stream.views.text_form",
    "prela_stream.otel.content",
    "prela_stream.app.undecided",
)


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["traces", "list"], (*HEAVY, *READING)),
        (["--version"], (*HEAVY, *TRACES, "prela_stream.config")),
        (["--help"], (*HEAVY, *TRACES, "prela_stream.config")),
        (["dance"], (*HEAVY, *TRACES, "prela_stream.config")),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_a_start_loads_only_what_it_uses(arguments: list[str], unused: tuple[str, ...], tmp_path: Path) -> None:
    write_store(tmp_path / ".prela")
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
