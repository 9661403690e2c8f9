"""`prela-stream topics …`: make the topics of a prefix, and check those that are there."""

import typer

from prela_stream import app as root
from prela_stream.cli import formats
from prela_stream.cli.session import (
    NOT_FOUND,
    ConfigOption,
    DirOption,
    Group,
    JsonOption,
    TransportOption,
    ask,
    fail_line,
    messages,
    print_json,
    settings_of,
)
from prela_stream.transport.topics import merge_mistakes

app = typer.Typer(cls=Group, no_args_is_help=True, help="Make and check the topics.")


@app.command("create")
def create_command(
    ctx: typer.Context,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the topics that are missing; those that exist stay as they are. Exit code 1 if these are not as they must be."""
    settings = settings_of(ctx, config, directory, transport)
    created, mistakes = ask(lambda: root.ensure_topics(settings))
    if as_json:
        print_json(formats.to_json({"created": created, "mistakes": mistakes}))
    else:
        messages().print(f"created {', '.join(created)}" if created else "every topic exists already")
        _tell(mistakes)
    if mistakes:
        raise typer.Exit(NOT_FOUND)


@app.command("check")
def check_command(
    ctx: typer.Context,
    config: ConfigOption = None,
    directory: DirOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the topics are there and as they must be. Exit code 1 if not."""
    settings = settings_of(ctx, config, directory, transport)
    mistakes = ask(lambda: root.check_topics(settings))
    if as_json:
        print_json(formats.to_json({"ok": not mistakes, "mistakes": mistakes}))
    else:
        _tell(mistakes)
        if not mistakes:
            messages().print(f"the topics of prefix {settings.topics.prefix} are as they must be")
    if mistakes:
        raise typer.Exit(NOT_FOUND)


def _tell(mistakes: list[str]) -> None:
    for line in merge_mistakes(mistakes):
        fail_line(line)
